"""One file holds a model; wrong files and wrong switches are told apart."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from shaking import shake

from understudy import models
from understudy.core.errors import ConfigError, DataError, ModelError
from understudy.models.io import assign, load_weights, weights_hash
from understudy.models.text.train_tokenizer import train_words

CAPTIONS = ["a large 3", "a small 7", "left of the 3"]


@pytest.fixture
def clip():
    tokenizer = train_words(CAPTIONS)
    return shake(models.create("mobileclip-nano", seed=1, tokenizer=tokenizer), 2)


def outputs(model):
    images = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(images=images, texts=model.tokenize(CAPTIONS))


@pytest.mark.parametrize("mode", ["no", "branches", "all"])
def test_round_trip(tmp_path, clip, mode):
    model = clip if mode == "no" else clip.fold(mode)
    path = models.save(model, tmp_path / "a" / "model.safetensors", {"step": 7})
    again = models.load(path)
    assert (again.fold_state, again.config, again.training) == (mode, model.config, False)
    expected, got = outputs(model), outputs(again)
    assert all(torch.equal(expected[k], got[k]) for k in expected)
    assert weights_hash(again) == weights_hash(model)
    header = models.config_of(path)
    assert (header["folded"], header["extra"]) == (mode, {"step": 7})
    assert header["config"]["name"] == "mobileclip-nano"
    assert again.tokenizer.fingerprint() == model.tokenizer.fingerprint()
    assert [p.requires_grad for p in again.parameters()] == [
        p.requires_grad for p in model.parameters()
    ]
    assert os.listdir(path.parent) == ["model.safetensors"]


def test_folding_on_loading(tmp_path, clip):
    path = models.save(clip, tmp_path / "m.safetensors")
    folded = models.load(path, folded=True)
    assert folded.fold_state == "all"
    expected, got = outputs(clip), outputs(folded)
    assert torch.allclose(expected["image_features"], got["image_features"], atol=1e-5)
    again = models.load(models.save(folded, tmp_path / "f.safetensors"), folded=True)
    assert torch.equal(outputs(again)["image_features"], got["image_features"])
    assert not models.load(path, folded=False).is_folded


def test_loaded_model_trains(tmp_path, clip):
    model = models.load(models.save(clip, tmp_path / "m.safetensors")).train()
    out = model(images=torch.rand(2, 3, 48, 48), texts=model.tokenize(CAPTIONS[:2]))
    (out["image_features"] * out["text_features"]).sum().backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if n != "logit_scale")


def test_folded_weights_and_unfolded_model(tmp_path, clip):
    folded = models.save(clip.fold(), tmp_path / "f.safetensors")
    whole = models.save(clip, tmp_path / "m.safetensors")
    with pytest.raises(ModelError, match=r"a folded model \('all'\).*folded=None or folded=True"):
        models.load(folded, folded=False)
    with pytest.raises(ModelError, match=r"weights are folded, the model is not; .*folded=True"):
        load_weights(clip, folded)
    with pytest.raises(ModelError, match=r"weights are not .*call fold\(\)"):
        load_weights(clip.fold(), whole)
    with pytest.raises(ModelError, match=r"these weights are folded.*folded=True"):
        assign(clip, load_file(folded), "here")
    with pytest.raises(ModelError, match=r"these weights are not folded.*call fold\(\)"):
        assign(clip.fold(), load_file(whole), "here")
    load_weights(clip, whole)


def test_wrong_files(tmp_path, clip):
    with pytest.raises(DataError, match=r"none.safetensors: no such weights file"):
        models.load(tmp_path / "none.safetensors")
    text = tmp_path / "text.safetensors"
    text.write_text("hello")
    with pytest.raises(DataError, match="not a safetensors file"):
        models.load(text)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(1)}, foreign)
    with pytest.raises(ModelError, match=r"bring released weights in with"):
        models.config_of(foreign)
    header = {"format": "understudy-model", "version": 9}
    save_file({"a": torch.zeros(1)}, foreign, metadata={"understudy": json.dumps(header)})
    with pytest.raises(ModelError, match="version 9; this version reads"):
        models.load(foreign)


def test_wrong_tensors(tmp_path, clip):
    whole = models.save(clip, tmp_path / "m.safetensors")
    state = load_file(whole)
    bad = {**state, "x": torch.zeros(1)}
    del bad["image.head.weight"], bad["text.head.weight"]
    with pytest.raises(ModelError, match=r"2 tensors missing and 1 unknown \(missing image.head"):
        assign(clip, bad, "here")
    with pytest.raises(ModelError, match=r"logit_scale has shape \[2\], the model expects \[\]"):
        assign(clip, {**state, "logit_scale": torch.zeros(2)}, "here")
    layer = models.create("mobileclip-nano", **{"image.attention_norm": "layer"})
    target = models.create("mobileclip-nano", **{"image.attention_norm": "batch"})
    norm = {k: v for k, v in layer.state_dict().items() if not k.startswith("text.")}
    with pytest.raises(ModelError, match=r"with image.attention_norm='layer'"):
        assign(target.image, {k[6:]: v for k, v in norm.items() if k != "logit_scale"}, "here")


def test_configurations_round_trip():
    from understudy.models.build import config_from_dict, config_to_dict

    for name in models.MODELS:
        config = models.config(name)
        data = json.loads(json.dumps(config_to_dict(config)))
        assert config_from_dict(data) == config


def test_bad_configurations():
    from understudy.models.build import config_from_dict, config_to_dict

    data = config_to_dict(models.config("cnn-tiny"))
    with pytest.raises(ConfigError, match="missing key 'kind'"):
        config_from_dict({k: v for k, v in data.items() if k != "kind"})
    with pytest.raises(ConfigError, match="'cilp' is not one of clip, coca, classifier"):
        config_from_dict({**data, "kind": "cilp"})
    with pytest.raises(ConfigError, match=r"image.kind: 'vitt' is not one of mci, vit, conv"):
        config_from_dict({**data, "image": {"kind": "vitt"}})
    with pytest.raises(ConfigError, match=r"image: unknown key 'chanels'. Did you mean 'channels'"):
        config_from_dict({**data, "image": {"kind": "conv", "chanels": [1]}})
