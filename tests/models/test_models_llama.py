"""Llama checkpoints: equal to Transformers in both directions, and what is refused."""

import json

import pytest
import torch

from understudy import models
from understudy.core.errors import DataError, ModelError
from understudy.models.language.coder import JsonCoder
from understudy.models.language.llama_checkpoint import load_llama, save_llama
from understudy.models.language.llama_config import decoder_from_llama, llama_from_decoder
from understudy.models.text.train_tokenizer import train_words

SIZES = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
}  # fmt: skip
SCALINGS = {
    "none": None,
    "linear": {"rope_type": "linear", "factor": 2.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    "yarn-given": {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16,
        "beta_fast": 8.0, "beta_slow": 2.0, "mscale": 0.7, "mscale_all_dim": 0.3,
        "truncate": False,
    },
    "llama3": {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
}  # fmt: skip
IDS = torch.randint(0, 97, (2, 50), generator=torch.Generator().manual_seed(0))


def theirs(**changes):
    """Return a random Transformers model, with gains that are not one."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**{**SIZES, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def coder():
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE

    backend = Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    backend.train_from_iterator(["the cat sat on the mat and the dog ran"] * 3, trainer)
    return JsonCoder(backend.to_str(), "<|endoftext|>")


@pytest.mark.parametrize("scaling", list(SCALINGS))
def test_a_transformers_folder_gives_the_same_logits(tmp_path, scaling):
    model = theirs(rope_parameters={"rope_theta": 5e4, **(SCALINGS[scaling] or {})})
    model.save_pretrained(tmp_path)
    ours = load_llama(tmp_path)
    with torch.no_grad():
        assert torch.allclose(ours(IDS)["logits"], model(IDS).logits, atol=1e-5)
    assert ours.config.decoder.kv_heads == 2
    assert not ours.training


@pytest.mark.parametrize(
    "changes",
    [{"tie_word_embeddings": True}, {"head_dim": 12}, {"num_key_value_heads": 1}],
)
def test_tied_tables_grouped_heads_and_other_head_widths(tmp_path, changes):
    model = theirs(**changes)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    ours = load_llama(tmp_path)
    with torch.no_grad():
        assert torch.allclose(ours(IDS)["logits"], model(IDS).logits, atol=1e-5)


def test_the_way_transformers_4_wrote_rotary_options():
    old = {**SIZES, "model_type": "llama", "rope_theta": 5e4, "rope_scaling": SCALINGS["llama3"]}
    new = {**SIZES, "model_type": "llama"}
    new["rope_parameters"] = {"rope_theta": 5e4, **SCALINGS["llama3"]}
    assert decoder_from_llama(old, "x") == decoder_from_llama(new, "x")
    oldest = {**old, "rope_scaling": {"type": "linear", "factor": 2.0}}
    assert decoder_from_llama(oldest, "x").rope_scaling.kind == "linear"


@pytest.mark.parametrize(
    "scaling",
    [
        None,
        {"kind": "linear", "factor": 2.0},
        {"kind": "ntk", "factor": 4.0},
        {"kind": "yarn", "factor": 4.0, "original_context": 16},
        {"kind": "llama3", "factor": 8.0, "original_context": 32},
    ],
)
@pytest.mark.parametrize("tied", [True, False])
def test_transformers_reads_what_is_written(tmp_path, scaling, tied):
    from transformers import AutoModelForCausalLM

    changes = {"width": 32, "depth": 2, "num_heads": 4, "num_kv_heads": 2, "vocab_size": 97}
    decoder = {**changes, "tied": tied, "rope_scaling": scaling, "context": 64}
    ours = models.create("llama-nano", seed=0, decoder=decoder).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    save_llama(ours, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(model).__name__ == "LlamaForCausalLM"
    with torch.no_grad():
        assert torch.allclose(model(IDS).logits, ours(IDS)["logits"], atol=1e-5)
    again = load_llama(tmp_path, name="again")
    with torch.no_grad():
        assert torch.allclose(again(IDS)["logits"], ours(IDS)["logits"], atol=1e-5)
    assert again.config.name == "again"


def test_the_tokenizer_goes_along(tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    own = coder()
    ours = models.create("llama-nano", tokenizer=own, seed=0, **{"decoder.depth": 1}).eval()
    save_llama(ours, tmp_path, dtype="bfloat16")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    text = "the dog sat, on 3 mats\n"
    assert tokenizer(text)["input_ids"] == own.encode(text)
    assert tokenizer.eos_token_id == own.end_id
    assert tokenizer.decode(own.encode(text)) == text
    again = load_llama(tmp_path)
    assert again.coder.encode(text) == own.encode(text)
    assert again.coder.end_id == own.end_id
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    ids = torch.tensor([own.encode("the cat")])
    written = model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    assert again.generate("the cat").startswith(own.decode(written))


def test_a_llama2c_model_becomes_a_transformers_one(tmp_path):
    from test_models_vlm_files import reference, tiny_llama2c
    from transformers import AutoModelForCausalLM

    from understudy.models.language.language_config import LanguageConfig
    from understudy.models.language.language_model import LanguageModel
    from understudy.models.language.llama2c import load_llama2c

    _, arrays = tiny_llama2c(tmp_path / "m.bin")
    decoder = load_llama2c(tmp_path / "m.bin")
    model = LanguageModel(LanguageConfig(name="tiny", decoder=decoder.config)).eval()
    model.decoder.load_state_dict(decoder.state_dict())
    save_llama(model, tmp_path / "llama")
    ids = [5, 270, 3, 3, 99, 1]
    with torch.no_grad():
        found = AutoModelForCausalLM.from_pretrained(tmp_path / "llama")(torch.tensor([ids]))
    assert found.logits[0].numpy() == pytest.approx(reference(arrays, ids), rel=1e-3, abs=1e-3)


def test_openlm_models_are_refused_on_export(tmp_path):
    with pytest.raises(ModelError, match="class exists for norm='layer' and qk_norm=True"):
        save_llama(models.create("openlm-micro"), tmp_path)
    rms = models.create("openlm-micro", **{"decoder.norm": "rms"})
    with pytest.raises(ModelError, match="class exists for qk_norm=True;"):
        save_llama(rms, tmp_path)
    assert not list(tmp_path.iterdir())
    own = train_words(["a b c"])
    small = models.create("llama-nano", tokenizer=own, **{"decoder.depth": 1})
    with pytest.raises(ModelError, match=r"tokenizer \(Tokenizer\) has no tokenizer.json form"):
        save_llama(small, tmp_path)
    assert (save_llama(small, tmp_path, tokenizer=False) / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2'; expected 'llama'"),
        ({"attention_bias": True}, "attention_bias=True has no place"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu' has no place"),
        ({"auto_map": {"AutoModel": "x.y"}}, "auto_map=.* has no place"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 2.0}}, "of type 'longrope' are not"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "of type 'dynamic' are not"),
    ],
)
def test_bad_configurations(changes, message):
    settings = {"model_type": "llama", **SIZES, **changes}
    with pytest.raises(ModelError, match=message):
        decoder_from_llama(settings, "folder")
    del settings["hidden_size"]
    with pytest.raises(ModelError):
        decoder_from_llama(settings, "folder")


def test_bad_folders(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        load_llama(tmp_path / "nowhere")
    model = models.create("llama-nano", **{"decoder.depth": 1, "decoder.vocab_size": 50})
    folder = save_llama(model, tmp_path / "m")
    settings = json.loads((folder / "config.json").read_text())
    for change, message in (
        ({"num_hidden_layers": 2}, r"9 tensors missing and 0 unknown \(first: model.layers.1"),
        ({"vocab_size": 51}, r"embed_tokens.weight has shape \[50, 128\], its config.json makes"),
    ):
        (folder / "config.json").write_text(json.dumps({**settings, **change}))
        with pytest.raises(ModelError, match=message):
            load_llama(folder)
    (folder / "model.safetensors").unlink()
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(DataError, match="no safetensors; pickled weights"):
        load_llama(folder)


def test_settings_round_trip():
    config = models.config("llama-nano").decoder
    found = decoder_from_llama(llama_from_decoder(config), "x")
    assert found.ffn_width == config.ffn_width
    assert (found.width, found.depth, found.context) == (128, 4, 1024)
