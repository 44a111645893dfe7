"""Vision-language models on disk, and language models that come from elsewhere."""

import json
import struct

import numpy as np
import pytest
import torch

from understudy import models
from understudy.core.errors import ConfigError, DataError, ModelError
from understudy.models.families import FAMILIES, PLAIN
from understudy.models.language.coder import JsonCoder, read_coder
from understudy.models.language.decoder import Decoder, DecoderConfig
from understudy.models.language.generate import GenerateConfig
from understudy.models.language.hosted import Hosted, load_hosted
from understudy.models.language.llama2c import (
    load_llama2c,
    load_llama2c_pair,
    load_llama2c_tokenizer,
    model_bytes,
)
from understudy.models.multimodal import vlm_io
from understudy.models.multimodal.splice import IMAGE
from understudy.models.multimodal.vlm_io import (
    config_of_keys,
    load_folder,
    save_folder,
    tower_of,
)
from understudy.models.multimodal.vlm_released import load_released
from vlm_toys import hosted, toy, words

GREEDY = GenerateConfig(method="greedy", max_tokens=5)


def test_a_folder_holds_llavas_keys_and_the_same_model(tmp_path):
    model = toy()
    folder = save_folder(model, tmp_path / "vlm")
    settings = json.loads((folder / "config.json").read_text())
    assert settings["mm_hidden_size"] == 32
    assert settings["mm_projector_type"] == "mlp2x_gelu"
    assert settings["image_aspect_ratio"] == "pad"
    assert settings["tokenizer_model_max_length"] == 96
    assert settings["mm_vision_tower"].endswith("_128")
    image = np.full((40, 60, 3), 90, np.uint8)
    again = load_folder(folder)
    assert again.generate(image, "which digit", GREEDY) == model.generate(
        image, "which digit", GREEDY
    )
    assert load_folder(folder, folded=True).is_folded


def test_llavas_keys_describe_a_model():
    settings = {
        **json.loads(hosted().settings), "model_type": "llava_qwen2",
        "mm_vision_tower": "mobileclip_l_1024", "mm_hidden_size": 3072,
        "mm_projector_type": "mlp2x_gelu", "image_aspect_ratio": "anyres",
        "image_grid_pinpoints": "[(2048, 2048)]", "tokenizer_model_max_length": 8192,
        "unfreeze_mm_vision_tower": True, "tune_mm_mlp_adapter": False,
    }  # fmt: skip
    config = config_of_keys(settings)
    assert config.preprocess.size == 1024
    assert config.tokens_per_view == 256
    assert config.most_tokens == 1280
    assert config.context == 8192
    assert config.weights == "fastvithd"
    assert config.language.values["model_type"] == "qwen2"
    assert "mm_hidden_size" not in config.language.values
    assert tower_of("mobileclip_l_384")[2] == 384


def test_bad_input_folders(tmp_path):
    with pytest.raises(ConfigError, match="mm_vision_tower: 'clip_336' is not known"):
        tower_of("clip_336")
    with pytest.raises(ConfigError, match="missing key 'mm_vision_tower'"):
        config_of_keys({"model_type": "qwen2"})
    keys = {"model_type": "llava_qwen2", "mm_projector_type": "linear"}
    with pytest.raises(ConfigError, match="mm_hidden_size is 1024.* gives 3072"):
        config_of_keys({**keys, "mm_vision_tower": "mobileclip_l_512", "mm_hidden_size": 1024})
    with pytest.raises(ConfigError, match="nearest legal sizes are 960 and 1024"):
        config_of_keys({**keys, "mm_vision_tower": "mobileclip_l_1000"})
    folder = save_folder(toy(), tmp_path / "vlm")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "mm_hidden_size": 77}))
    with pytest.raises(ConfigError, match="mm_hidden_size 77.*own configuration 32"):
        load_folder(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(DataError, match="only pickled weights .pytorch_model.bin., which are not"):
        load_folder(folder)


def test_a_released_folder(tmp_path, monkeypatch):
    """The names of a released checkpoint, around a small tower."""
    from safetensors.torch import save_file

    monkeypatch.setattr(
        vlm_io, "TOWERS", {"mobileclip_l": ("mci-nano5", models.config("mci-nano5").image)}
    )
    monkeypatch.setitem(FAMILIES, "mci-nano5", PLAIN)
    tower = models.create("mci-nano5", seed=0).eval().fold("branches")
    language = Hosted(hosted()).eval()
    state = {f"model.vision_tower.timm_model.{k}": v for k, v in _timm_names(tower).items()}
    width = models.config("mci-nano5").image.width
    shapes = {"0.weight": (32, width), "0.bias": (32,), "2.weight": (32, 32), "2.bias": (32,)}
    state |= {f"model.mm_projector.{k}": torch.randn(s) for k, s in shapes.items()}
    state |= {
        k.removeprefix("model."): v for k, v in language.state_dict().items() if "inv_freq" not in k
    }
    settings = {
        **json.loads(hosted().settings), "model_type": "llava_qwen2", "mm_hidden_size": width,
        "mm_vision_tower": "mobileclip_l_128", "mm_projector_type": "mlp2x_gelu",
        "tokenizer_model_max_length": 128,
    }  # fmt: skip
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(settings))
    model = load_released(tmp_path)
    assert model.is_folded
    pixels = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        grid = tower.image.expanded_map(pixels).flatten(2).transpose(1, 2)
        assert torch.allclose(model.image.tokens(pixels), grid, atol=1e-6)
        assert torch.equal(model.projector.layers[0].weight, state["model.mm_projector.0.weight"])
        ids = [torch.tensor([1, IMAGE, 2])]
        assert torch.isfinite(model(ids, pixels)["logits"]).all()


def _timm_names(tower):
    from understudy.models.convert_names import FASTVIT, rename

    # names that the reader leaves alone are as good as timm's own here
    state = tower.image.state_dict()
    assert all(rename(k, FASTVIT) == k for k in state)
    return state


# -- language models from elsewhere


def tiny_llama2c(path, vocab=300):
    """Write a random model and its tokenizer in llama2.c's format; return (config, arrays)."""
    config = DecoderConfig(
        vocab_size=vocab, context=16, width=8, depth=2, num_heads=2, hidden=12, num_kv_heads=2
    )
    draw = np.random.default_rng(0)
    arrays = {}
    order = (
        ("att", (8,)), ("wq", (8, 8)), ("wk", (8, 8)), ("wv", (8, 8)), ("wo", (8, 8)),
        ("ffn", (8,)), ("w1", (12, 8)), ("w2", (8, 12)), ("w3", (12, 8)),
    )  # fmt: skip
    with open(path, "wb") as file:
        file.write(struct.pack("<7i", 8, 12, 2, 2, 2, vocab, 16))
        arrays["table"] = draw.normal(size=(vocab, 8)).astype("<f4")
        file.write(arrays["table"].tobytes())
        for name, shape in order:
            arrays[name] = draw.normal(size=(2, *shape)).astype("<f4")
            file.write(arrays[name].tobytes())
        arrays["norm"] = draw.normal(size=8).astype("<f4")
        file.write(arrays["norm"].tobytes() + np.zeros((16, 4), "<f4").tobytes())
        assert file.tell() == model_bytes(config)
        pieces = ["<unk>", "\n<s>\n", "\n</s>\n", *(f"<0x{i:02X}>" for i in range(256))]
        pieces += [" ", "a", "b", " a", "ab", " ab", *(chr(0x100 + i) for i in range(vocab))]
        file.write(struct.pack("<i", 8))
        for i, piece in enumerate(pieces[:vocab]):
            data = piece.encode()
            file.write(struct.pack("<fi", -float(i), len(data)) + data)
    return config, arrays


def reference(arrays, ids):
    """Run llama2.c's arithmetic: neighbouring channels turn together."""

    def norm(x, weight):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * weight

    def turn(x):
        out = x.copy()
        for place in range(len(x)):
            for head in range(2):
                for i in range(0, 4, 2):
                    angle = place * 10000.0 ** (-i / 4)
                    a, b = x[place, head, i], x[place, head, i + 1]
                    out[place, head, i] = a * np.cos(angle) - b * np.sin(angle)
                    out[place, head, i + 1] = a * np.sin(angle) + b * np.cos(angle)
        return out

    x, count = arrays["table"][ids].astype(np.float64), len(ids)
    for layer in range(2):
        seen = norm(x, arrays["att"][layer])
        q, k = (turn((seen @ arrays[w][layer].T).reshape(count, 2, 4)) for w in ("wq", "wk"))
        v = (seen @ arrays["wv"][layer].T).reshape(count, 2, 4)
        out = np.zeros((count, 2, 4))
        for head in range(2):
            for place in range(count):
                scores = k[: place + 1, head] @ q[place, head] / 2.0
                weights = np.exp(scores - scores.max())
                out[place, head] = weights / weights.sum() @ v[: place + 1, head]
        x = x + out.reshape(count, 8) @ arrays["wo"][layer].T
        seen = norm(x, arrays["ffn"][layer])
        gate = seen @ arrays["w1"][layer].T
        hidden = gate / (1 + np.exp(-gate)) * (seen @ arrays["w3"][layer].T)
        x = x + hidden @ arrays["w2"][layer].T
    return norm(x, arrays["norm"]) @ arrays["table"].T


def test_llama2c_files_are_read_without_unpickling(tmp_path):
    path = tmp_path / "pair.bin"
    config, arrays = tiny_llama2c(path)
    model, coder = load_llama2c_pair(path)
    assert model.config == config
    ids = [5, 7, 9, 11]
    with torch.no_grad():
        found = model(model.embed(torch.tensor([ids])))[0].numpy()
    assert np.allclose(found, reference(arrays, ids), atol=1e-3)
    assert coder.start_id == 1
    assert coder.end_id == 2
    assert coder.decode(coder.encode("ab a")) == "ab a"
    assert coder.encode("ab") == [264]  # the whole piece " ab"
    assert coder.decode(coder.encode("é")) == "é"  # by its bytes


def test_bad_input_llama2c(tmp_path):
    path = tmp_path / "pair.bin"
    config, _ = tiny_llama2c(path)
    data = path.read_bytes()
    path.write_bytes(data[:1000])
    with pytest.raises(DataError, match="cut off inside the weights"):
        load_llama2c(path)
    path.write_bytes(data[:-2000])
    with pytest.raises(DataError, match="cut off at piece"):
        load_llama2c_tokenizer(path, 300, model_bytes(config))
    path.write_bytes(b"\x01\x02" * 40)
    with pytest.raises(DataError, match="not a llama2.c model of version 0"):
        load_llama2c(path)
    with pytest.raises(DataError, match="no such file"):
        load_llama2c(tmp_path / "none")


def test_a_transformers_folder(tmp_path):
    from safetensors.torch import save_file

    model = Hosted(hosted()).eval()
    state = {k.removeprefix("model."): v for k, v in model.state_dict().items()}
    state = {f"{k}": v for k, v in state.items()}
    (tmp_path / "config.json").write_text(hosted().settings)
    with pytest.raises(DataError, match="no safetensors; pickled weights"):
        load_hosted(tmp_path)
    named = {k: v for k, v in model.model.state_dict().items() if k != "lm_head.weight"}
    save_file({k: v.contiguous() for k, v in named.items()}, tmp_path / "model.safetensors")
    again = load_hosted(tmp_path)
    x = torch.randn(1, 3, 32)
    with torch.no_grad():
        assert torch.equal(again(x), model(x))
    (tmp_path / "config.json").write_text(
        json.dumps({**hosted().values, "auto_map": {"AutoModel": "evil.Model"}})
    )
    with pytest.raises(ModelError, match="code of its own .auto_map., which is not run"):
        load_hosted(tmp_path)


def test_coders_travel_as_json():
    backend = {
        "version": "1.0", "added_tokens": [],
        "model": {"type": "WordLevel", "vocab": {"a": 0, "</s>": 1}, "unk_token": "a"},
    }  # fmt: skip
    coder = JsonCoder(json.dumps(backend), "</s>")
    again = read_coder(coder.to_json())
    assert again.fingerprint() == coder.fingerprint()
    assert again.end_id == 1
    assert read_coder(words().to_json()).fingerprint() == words().fingerprint()
    with pytest.raises(ConfigError, match="there is no token '<eos>'"):
        JsonCoder(json.dumps(backend), "<eos>")
    with pytest.raises(DataError, match="not a tokenizer.json"):
        JsonCoder("{}", "</s>")
    with pytest.raises(DataError, match="not a tokenizer's JSON"):
        read_coder("[")


@pytest.mark.asset("stories15m")
def test_stories15m_tells_a_story():
    from understudy.data.fetch import fetch

    model, coder = load_llama2c_pair(fetch("stories15m"))
    assert sum(p.numel() for p in model.parameters()) == 15_191_712
    assert isinstance(model, Decoder)
    ids = torch.tensor([[coder.start_id, *coder.encode("Once upon a time")]])
    with torch.no_grad():
        nexts = model(model.embed(ids))[0].argmax(-1).tolist()
    assert coder.decode(nexts[-1:]) == ","
