"""The OpenLM decoder: counts, initial weights, options; models that write and are saved."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch

from understudy import models
from understudy.core.config import from_dict, to_dict
from understudy.core.errors import ConfigError, DataError, ModelError
from understudy.models.count import parameters
from understudy.models.language.decoder import Decoder, DecoderConfig
from understudy.models.language.generate import GenerateConfig
from understudy.models.language.stops import full_stop
from understudy.models.text.train_tokenizer import train_words

PUBLISHED = {
    # DataComp-LM's configurations count no gains of normed queries and keys: 2 L d more
    "openlm-160m": 162_435_840,
    "openlm-410m": 411_665_408,
    "dclm-400m": 411_616_256 + 2 * 24 * 1024,
    "openlm-1b": 1_439_893_504,
    "openlm-3b": 2_795_932_160 + 2 * 32 * 2560,
    "openlm-7b": 6_889_410_560 + 2 * 32 * 4096,
}
GREEDY = GenerateConfig(method="greedy", max_tokens=12)


def words():
    return train_words(["a dog and a cat ran to the red house . it was big"])


def written(seed=0, **changes):
    """Return a small model whose fresh weights prefer something."""
    model = models.create("openlm-micro", tokenizer=words(), seed=seed, **changes).eval()
    with torch.no_grad():
        model.decoder.head.weight.mul_(3)
    return model


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_published_counts_to_the_unit(name):
    with torch.device("meta"):
        assert parameters(models.create(name)) == PUBLISHED[name]


def test_small_sizes():
    for name in ("openlm-nano", "llama-nano"):
        config = models.config(name).decoder
        assert (config.width, config.depth, config.num_heads, config.context) == (128, 4, 4, 1024)
    assert parameters(models.create("openlm-micro")) < 50_000


def test_feed_forward_widths():
    for width, wanted in ((768, 2048), (1024, 2816), (2048, 5632), (2560, 6912), (4096, 11008)):
        config = DecoderConfig(width=width, num_heads=8, ffn_multiple=256)
        assert config.ffn_width == wanted == 256 * -(-(8 * width) // (3 * 256))
    assert DecoderConfig(width=192).ffn_width == 512
    assert DecoderConfig(width=128, num_heads=4).ffn_width == 352


def test_configurations_of_older_files_mean_what_they_did():
    old = {
        "kind": "decoder", "vocab_size": 64, "context": 96, "width": 32, "depth": 2,
        "num_heads": 4, "num_kv_heads": 2, "hidden": 0, "norm_eps": 1e-5, "rope_base": 1e4,
        "tied": True,
    }  # fmt: skip
    config = from_dict(DecoderConfig, old)
    assert to_dict(config) == old
    assert asdict(config)["norm"] == "rms"
    names = set(Decoder(config).state_dict())
    assert "layers.0.attention_norm.weight" in names
    assert not any("query_norm" in name or name.startswith("head") for name in names)


def test_initial_weights_by_fan_in():
    torch.manual_seed(0)
    config = models.config("openlm-nano").decoder
    decoder = Decoder(config)
    cut = 0.98658  # deviation of a normal that is cut at three deviations
    for name, parameter in decoder.named_parameters():
        if parameter.ndim == 1:
            assert bool((parameter == 1).all())
            continue
        fan_in = config.ffn_width if "down" in name else config.width
        std = fan_in**-0.5
        if "out." in name or "down." in name:
            std /= (2 * (int(name.split(".")[1]) + 1)) ** 0.5
        assert float(parameter.detach().std()) == pytest.approx(cut * std, rel=0.03), name
        assert float(parameter.detach().abs().max()) <= 3 * std * 1.0001


def reference(decoder, ids):
    """Compute an OpenLM decoder's logits in float64, head by head."""
    config = decoder.config
    state = {k: v.detach().double().numpy() for k, v in decoder.state_dict().items()}

    def norm(x, gain):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + config.norm_eps) * gain

    heads, size, count = config.num_heads, config.head_width, len(ids)
    x = state["tokens.weight"][ids]
    for i in range(config.depth):
        part = {k.split(".", 2)[2][:-7]: v for k, v in state.items() if k.startswith(f"layers.{i}")}
        seen = norm(x, part["attention_norm"])
        q = norm(seen @ part["query"].T, part["query_norm"])
        k = norm(seen @ part["key"].T, part["key_norm"])
        v = seen @ part["value"].T
        out = np.zeros_like(x)
        for h in range(heads):
            own = slice(h * size, (h + 1) * size)
            turned = []
            for z in (q[:, own], k[:, own]):
                half = size // 2
                angle = np.arange(count)[:, None] * config.rope_base ** (
                    -2 * np.arange(half) / size
                )
                turn = np.exp(1j * angle) * (z[:, :half] + 1j * z[:, half:])
                turned.append(np.concatenate([turn.real, turn.imag], 1))
            scores = turned[0] @ turned[1].T / np.sqrt(size)
            scores[np.triu_indices(count, 1)] = -np.inf
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            out[:, own] = weights / weights.sum(-1, keepdims=True) @ v[:, own]
        x = x + out @ part["out"].T
        seen = norm(x, part["ffn_norm"])
        gate = seen @ part["gate"].T
        x = x + (gate / (1 + np.exp(-gate)) * (seen @ part["up"].T)) @ part["down"].T
    return norm(x, state["norm.weight"]) @ state["head.weight"].T


def test_logits_by_hand():
    model = models.create("openlm-micro", seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        ids = [5, 250, 3, 3, 99, 1, 17]
        found = model(torch.tensor([ids]))["logits"][0]
    assert found.numpy() == pytest.approx(reference(model.decoder, ids), abs=1e-4)


def test_half_precision_stays_close():
    model = models.create("openlm-micro", seed=0).eval()
    ids = torch.randint(0, 256, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = model(ids)["logits"]
        with torch.autocast("cpu", torch.bfloat16):
            assert (model(ids)["logits"].float() - exact).abs().max() < 0.1
        half = model.to(torch.bfloat16)(ids)["logits"]
    assert half.dtype == torch.bfloat16
    assert (half.float() - exact).abs().max() < 0.1


# -- writing


def test_a_cache_changes_nothing():
    model = written()
    rows = [[3, 4, 5, 6], [7], [1, 2, 8, 9, 10, 11]]
    found = model.continue_ids(rows, GREEDY)
    for row, ids in zip(rows, found.ids.tolist(), strict=True):
        ids_so_far = list(row)
        for token in ids:
            with torch.no_grad():
                best = int(model(torch.tensor([ids_so_far]))["logits"][0, -1].argmax())
            assert token == best
            ids_so_far.append(best)


def test_a_cache_without_padding_counts_places():
    model = written()
    ids = torch.tensor([[3, 4, 5, 6, 7]])
    decoder, cache = model.decoder, model.decoder.new_cache()
    with torch.no_grad():
        whole = model(ids)["logits"]
        parts = [
            decoder(decoder.embed(ids[:, a:b]), cache=cache) for a, b in ((0, 2), (2, 3), (3, 5))
        ]
    assert torch.allclose(torch.cat(parts, 1), whole, atol=1e-5)


def test_texts_alone_and_together():
    model = written()
    prompts = ["a dog", "the red house", ""]
    together = model.generate(prompts, GREEDY)
    assert together == [model.generate(prompt, GREEDY) for prompt in prompts]
    assert len(set(together)) > 1
    sample = GenerateConfig(max_tokens=12)
    seeds = [4, 5, 6]
    drawn = model.generate(prompts, sample, seeds=seeds)
    for prompt, seed, text in zip(prompts, seeds, drawn, strict=True):
        assert model.generate(prompt, sample, seeds=[seed]) == text
    beams = model.continue_ids([[3, 4]], GenerateConfig(method="beam", max_tokens=5), num_returns=2)
    assert beams.ids.shape == (2, 5)


def test_a_text_ends_where_it_is_told():
    model = written()
    ids = model.continue_ids([[3]], GREEDY).ids[0].tolist()
    end = ids[4]
    options = GenerateConfig(method="greedy", max_tokens=12, end_ids=(end,))
    found = model.continue_ids([[3]], options)
    assert found.rows()[0] == ids[: ids.index(end)]
    stopped = model.continue_ids([[3]], GREEDY, stop=lambda row: len(row) == 3)
    assert int(stopped.lengths) == 3
    model.generate("a dog", GREEDY, stop=full_stop(model.coder.decode))


# -- files and names


def test_one_file_holds_model_and_tokenizer(tmp_path):
    scaling = {"kind": "yarn", "factor": 2.0, "original_context": 64}
    model = written(**{"decoder.rope_scaling": scaling})
    path = models.save(model, tmp_path / "m.safetensors")
    again = models.load(path)
    assert again.config == model.config
    assert again.config.decoder.rope_scaling.factor == 2.0
    assert again.tokenizer.fingerprint() == model.tokenizer.fingerprint()
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        assert torch.equal(again(ids)["logits"], model(ids)["logits"])
    assert not again.training
    assert models.config_of(path)["config"]["kind"] == "language"


def test_the_tokenizer_decides_the_vocabulary_of_small_models_only():
    own = words()
    assert models.create("openlm-nano", tokenizer=own).vocab_size == own.vocab_size
    with torch.device("meta"):
        assert models.create("openlm-160m", tokenizer=own).vocab_size == 50_432
    one, two = (models.create("openlm-micro", seed=7) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_configurations_round_trip():
    from understudy.models.build import config_from_dict, config_to_dict

    scaling = {"kind": "llama3", "factor": 8.0, "original_context": 8192}
    config = models.config("openlm-1b", **{"decoder.rope_scaling": scaling})
    data = json.loads(json.dumps(config_to_dict(config)))
    assert config_from_dict(data) == config
    with pytest.raises(ConfigError, match="unknown key 'widht'. Did you mean 'width'"):
        config_from_dict({**data, "decoder": {"widht": 3}})


def test_bad_input():
    for change, message in (
        ({"norm": "batch"}, "DecoderConfig.norm: 'batch' is not one of rms, layer"),
        ({"init": "zeros"}, "DecoderConfig.init: 'zeros' is not one of fixed, fan-in"),
        ({"ffn_multiple": 0}, "DecoderConfig.ffn_multiple: expected at least 1, got 0"),
        ({"head_dim": 7}, "DecoderConfig.head_dim: expected even, got 7"),
        ({"rope_base": 0.0}, "DecoderConfig.rope_base: expected more than 0"),
        ({"hidden": -1}, "DecoderConfig.hidden: expected at least 0, got -1"),
    ):
        with pytest.raises(ConfigError, match=message):
            DecoderConfig(**change)
    model = written()
    with pytest.raises(ModelError, match="rows of 129 tokens, but its context is 128"):
        model(torch.zeros(1, 129, dtype=torch.long))
    with pytest.raises(ConfigError, match="a prompt of 120 and 12 new tokens do not fit"):
        model.continue_ids([[1] * 120], GREEDY)
    with pytest.raises(DataError, match="prompt 1: no tokens"):
        model.continue_ids([[1], []], GREEDY)
    with pytest.raises(DataError, match=r"prompt 0: ids from 3 to 999; the model has 0 to"):
        model.continue_ids([[3, 999]], GREEDY)
    with pytest.raises(ModelError, match="in training mode"):
        models.create("openlm-micro").continue_ids([[1]], GREEDY)
    with pytest.raises(ModelError, match="has no tokenizer"):
        models.create("openlm-micro").eval().generate("a")
    with pytest.raises(ModelError, match="openlm-micro is a language model: it reads no images"):
        _ = model.preprocess
    with pytest.raises(ModelError, match="ids, but openlm-micro has 3"):
        models.create("openlm-micro", **{"decoder.vocab_size": 3}).set_tokenizer(words())
