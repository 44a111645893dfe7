"""The five-stage members of the family under other packages' names; mixed-up normalisations."""

import pytest
import torch
from original_names import mci, original_state
from safetensors.torch import save_file
from shaking import relative_error, shake

from understudy import models
from understudy.core.errors import DataError, ModelError
from understudy.models import convert
from understudy.models.convert_names import original_mci_rules, rename
from understudy.models.convert_vlm import load_vision_tower, read_vision_tower
from understudy.models.io import skeleton
from understudy.models.preprocess import CLIP_MEAN, CLIP_STD, Preprocess

SMALL = {"image.channels": (8, 16, 32, 64, 128), "image.blocks": (1, 1, 2, 1, 1)}
TEXT = {"text.vocab_size": 64, "text.width": 24, "text.num_heads": 4, "text.depth": 1}
ORIGINAL = "model.vision_tower.vision_tower.model."
TRANSFORMERS = "model.vision_tower.timm_model."


def stand_in(monkeypatch, name, model):
    """Let a small model stand for a released one."""
    real = models.config
    monkeypatch.setattr(models, "config", lambda n: model.config if n == name else real(n))


@pytest.fixture
def s3(monkeypatch):
    model = shake(models.create("mobileclip2-s3", seed=0, **SMALL, **TEXT), 4)
    stand_in(monkeypatch, "mobileclip2-s3", model)
    return model


@pytest.fixture
def tower(monkeypatch):
    small = {**SMALL, "image.image_size": 128}
    model = shake(models.create("fastvithd", seed=0, **small), 4)
    stand_in(monkeypatch, "fastvithd", model)
    return model


def images(size=128):
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_five_stages_under_original_names(s3):
    for form in (s3, s3.fold("branches")):
        again = convert.load_original(original_state(form), "mobileclip2-s3")
        assert again.fold_state == form.fold_state
        assert (again.preprocess.mean, again.preprocess.std) == (CLIP_MEAN, CLIP_STD)
        with torch.no_grad():
            expected = s3.encode_image(images())
            assert relative_error(again.encode_image(images()), expected) < 1e-5
    plain = Preprocess(size=256)
    with pytest.raises(ModelError, match=r"mobileclip2-s3 was trained with \[0.48"):
        convert.load_original(original_state(s3), "mobileclip2-s3", preprocess=plain)


@pytest.mark.parametrize("name", ["mobileclip2-s3", "mobileclip2-s4"])
def test_full_size_names_fit(name):
    for state in ("no", "branches"):
        model = skeleton(models.config(name), state)
        again = convert.load_original(original_state(model), name)
        assert (again.fold_state, again.config.image) == (state, model.config.image)


def vlm_state(model, prefix):
    """Return a tower's tensors as a FastVLM checkpoint holds them, language model included."""
    config, own = model.config.image, model.state_dict()
    rules = original_mci_rules(config)
    out = {
        "model.layers.0.mlp.up_proj.weight": torch.zeros(2, 2),
        "model.mm_projector.0.weight": torch.zeros(2, 2),
    }
    for theirs, ours in mci(config, folded=model.is_folded):
        if theirs != "head.proj":
            key = rename(theirs, rules) if "timm_model" in prefix else theirs
            out[prefix + key] = own[f"image.{ours}"].clone()
    return out | {prefix + "head.proj": torch.zeros(256, 8)}


@pytest.mark.parametrize("prefix", [ORIGINAL, TRANSFORMERS, TRANSFORMERS.removeprefix("model.")])
def test_vision_tower_of_a_language_model(tower, prefix, tmp_path):
    folded = tower.fold("branches")
    state = vlm_state(folded, prefix)
    again = load_vision_tower(state)
    assert again.fold_state == "branches"
    assert (again.config.num_classes, again.config.weights) == (0, "fastvithd")
    assert again.preprocess == models.config("fastvithd").preprocess
    with torch.no_grad():
        expected = folded.image.expanded_map(images())
        assert relative_error(again.image.expanded_map(images()), expected) == 0.0
    with pytest.raises(ModelError, match="folded and cannot be trained"):
        again.train()
    # as released: 16 bits wide, in several files, the language model beside the tower
    halves = {k: v.bfloat16() for k, v in state.items()}
    keys = sorted(halves)
    save_file({k: halves[k] for k in keys[:20]}, tmp_path / "model-1.safetensors")
    save_file({k: halves[k] for k in keys[20:]}, tmp_path / "model-2.safetensors")
    assert not any("mlp.up_proj" in k or "mm_projector" in k for k in read_vision_tower(tmp_path))
    again = load_vision_tower(tmp_path)
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    with torch.no_grad():
        assert relative_error(again.image.expanded_map(images()), expected) < 5e-2
    torch.save(state, tmp_path / "all.pt")
    assert convert.load_released(tmp_path / "all.pt", "fastvithd").fold_state == "branches"


def test_unfolded_vision_tower(tower):
    again = load_vision_tower(vlm_state(tower, ORIGINAL))
    assert not again.is_folded
    with torch.no_grad():
        expected = tower(images())["features"]
        assert relative_error(again(images())["features"], expected) == 0.0


def test_bad_vision_towers(tower, tmp_path):
    with pytest.raises(DataError, match="no tensors of a vision tower"):
        load_vision_tower(tmp_path)
    with pytest.raises(DataError, match=r"none.safetensors: no such checkpoint"):
        load_vision_tower(tmp_path / "none.safetensors")
    with pytest.raises(ModelError, match="expected tensors under"):
        load_vision_tower({"a": torch.zeros(1)})
    with pytest.raises(ModelError, match="not an MCi tower"):
        load_vision_tower({}, "cnn-tiny")
    state = vlm_state(tower.fold("branches"), ORIGINAL)
    clip = Preprocess(size=128, mean=CLIP_MEAN, std=CLIP_STD)
    with pytest.raises(ModelError, match=r"fastvithd was trained with \[0.0, 0.0, 0.0\]"):
        load_vision_tower(state, preprocess=clip)
    del state[ORIGINAL + "conv_exp.reparam_conv.bias"]
    with pytest.raises(ModelError, match=r"1 tensors missing and 0 unknown \(missing image.expand"):
        load_vision_tower(state)


@pytest.mark.parametrize("fold", ["no", "branches", "all"])
@pytest.mark.parametrize("theirs", ["batch", "layer"])
def test_normalisations_are_not_mixed_up(fold, theirs, tmp_path):
    from understudy.models.io import assign, load_weights

    def make(norm):
        model = models.create("mci-nano5", seed=0, **SMALL, **{"image.attention_norm": norm})
        return model.eval() if fold == "no" else model.eval().fold(fold)

    ours = "layer" if theirs == "batch" else "batch"
    weights, model = make(theirs), make(ours)
    key = r"image.stages.3.blocks.0.mixer.\S+"
    message = (
        rf"{key}: the weights' attention blocks have {theirs} normalisation, the model's {ours} "
        rf"normalisation; create the model with image.attention_norm='{theirs}'"
    )
    with pytest.raises(ModelError, match=message):
        assign(model, weights.state_dict(), "here")
    path = models.save(weights, tmp_path / "m.safetensors")
    with pytest.raises(ModelError, match=message):
        load_weights(model, path)
    assert models.load(path).config.image.attention_norm == theirs


def test_mixed_up_normalisation_of_a_released_name(s3):
    batch = models.create(
        "mobileclip2-s3", **{**SMALL, **TEXT, "image.attention_norm": "batch"}
    ).eval()
    with pytest.raises(ModelError, match=r"original weights for mobileclip2-s3: image.stages.3"):
        convert.load_original(original_state(batch), "mobileclip2-s3")
