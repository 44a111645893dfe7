"""Released weights under other names; what a checkpoint expects of its input."""

import pytest
import torch
from original_names import original_state
from safetensors.torch import save_file
from shaking import relative_error, shake

from understudy import models
from understudy.core.errors import DataError, ModelError
from understudy.models import convert
from understudy.models.families import FAMILIES, check_family
from understudy.models.preprocess import CLIP_MEAN, CLIP_STD, Preprocess

SMALL_TEXT = {
    "text.vocab_size": 64,
    "text.width": 32,
    "text.num_heads": 4,
    "text.context_length": 16,
    "embed_dim": 24,
}
SMALL = {
    "mobileclip-s0": {
        "image.channels": (8, 16, 32, 64),
        "image.blocks": (1, 2, 1, 2),
        "text.depth": 1,
    },
    "mobileclip-s2": {
        "image.channels": (8, 16, 32, 64),
        "image.blocks": (2, 1, 1, 1),
        "text.depth": 2,
    },
    "mobileclip-b": {
        "image.width": 64,
        "image.depth": 2,
        "image.num_heads": 4,
        "image.image_size": 64,
        "text.depth": 2,
    },
}


@pytest.fixture(params=list(SMALL))
def small(request, monkeypatch):
    """A small member of a released family, which then stands for the family."""
    name = request.param
    model = shake(models.create(name, seed=0, **SMALL[name], **SMALL_TEXT), 4)
    real = models.config
    monkeypatch.setattr(models, "config", lambda n: model.config if n == name else real(n))
    return name, model


def check_equal(model, again, tolerance=0.0):
    size = model.preprocess.size
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    tokens = torch.randint(1, 63, (3, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for call in (lambda m: m.encode_image(images), lambda m: m.encode_text(tokens)):
            assert relative_error(call(again), call(model)) <= tolerance


def test_original_checkpoint(small, tmp_path):
    name, model = small
    path = tmp_path / "original.pt"
    torch.save(original_state(model), path)
    again = convert.load_released(path, name)
    assert again.config.weights == name
    assert not again.is_folded
    check_equal(model, again)


def test_folded_original_checkpoint(small):
    name, model = small
    if name == "mobileclip-b":
        pytest.skip("nothing is re-parameterised in the ViT")
    folded = model.fold("branches")
    again = convert.load_original(original_state(folded), name)
    assert again.fold_state == "branches"
    check_equal(model, again, 1e-5)


def test_full_size_names_fit():
    from understudy.models.io import skeleton

    for name in ("mobileclip-s0", "mobileclip-s2", "mobileclip-b"):
        for state in ("no", "branches") if name != "mobileclip-b" else ("no",):
            model = skeleton(models.config(name), state)
            again = convert.load_original(original_state(model), name)
            assert again.fold_state == state
            assert again.config.image == model.config.image


def test_wrong_normalisation_is_noticed(small, tmp_path):
    name, model = small
    state = original_state(model)
    size = model.preprocess.size
    wrong = Preprocess(size=size, mean=CLIP_MEAN, std=CLIP_STD)
    with pytest.raises(ModelError, match=rf"preprocess.mean: {name} was trained with \[0.0, 0.0"):
        convert.load_original(state, name, preprocess=wrong)
    right = Preprocess(size=size, interpolation="bicubic")
    model = convert.load_original(state, name, preprocess=right)
    assert model.preprocess == right
    # the file remembers, so a later edit of the configuration is noticed as well
    header = models.config_of(models.save(model, tmp_path / "m.safetensors"))
    from understudy.models.build import config_from_dict, override

    config = config_from_dict(header["config"])
    with pytest.raises(ModelError, match=r"preprocess.std"):
        override(config, {"preprocess.std": [0.5, 0.5, 0.5]})


def test_family_table():
    for name, (mean, std) in FAMILIES.items():
        check_family(name, Preprocess(size=8, mean=mean, std=std))
    check_family("my-own", Preprocess(size=8, mean=(0.5, 0.5, 0.5)))
    with pytest.raises(ModelError, match=r"mobileclip2-s3 was trained with \[0.48"):
        check_family("mobileclip2-s3", Preprocess(size=8))


def test_original_names_by_way_of_timms():
    from original_names import mci

    from understudy.models.convert_names import FASTVIT, original_mci_rules, rename

    config = models.config("mobileclip-nano").image
    rules = original_mci_rules(config)
    for theirs, ours in mci(config):
        if theirs != "head.proj":
            assert rename(rename(theirs, rules), FASTVIT) == ours


def test_a_zero_head_bias_is_dropped():
    state = {"head.bias": torch.zeros(4)}
    assert convert._drop_zero_bias(state) is False
    assert state == {}
    assert convert._drop_zero_bias({"head.bias": torch.ones(4)}) is True
    assert convert._drop_zero_bias({}) is False


def test_bad_checkpoints(small, tmp_path):
    name, model = small
    state = original_state(model)
    with pytest.raises(DataError, match=r"none.pt: no such checkpoint"):
        convert.load_released(tmp_path / "none.pt", name)
    with pytest.raises(ModelError, match=r"no released weights for 'mobileclip-nano'; known: mob"):
        convert.load_original(state, "mobileclip-nano")
    with pytest.raises(ModelError, match=r"use load_openclip_state_dict"):
        convert.load_original({"visual.trunk.a": torch.zeros(1)}, name)
    with pytest.raises(ModelError, match=r"use load_original"):
        convert.load_openclip_state_dict(state, name)
    with pytest.raises(ModelError, match=r"not an MCi tower"):
        convert.load_timm(state, "cnn-tiny")
    del state["text_encoder.final_layer_norm.weight"]
    with pytest.raises(ModelError, match=r"1 tensors missing and 0 unknown \(missing text.norm"):
        convert.load_original(state, name)
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match=r"neither an original, an OpenCLIP nor a timm"):
        convert.load_released(tmp_path / "x.safetensors", name)
    (tmp_path / "y.safetensors").write_text("no")
    with pytest.raises(DataError, match="not a safetensors file"):
        convert.read_state(tmp_path / "y.safetensors")


class Evil:
    def __reduce__(self):
        return print, ("a checkpoint ran code",)


def test_no_code_is_run(tmp_path, capsys):
    torch.save({"a": torch.zeros(1), "b": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(DataError, match="not a checkpoint of plain tensors"):
        convert.read_state(tmp_path / "evil.pt")
    assert "ran code" not in capsys.readouterr().out
    torch.save({"state_dict": {"module.a": torch.ones(2)}}, tmp_path / "good.pt")
    assert torch.equal(convert.read_state(tmp_path / "good.pt")["a"], torch.ones(2))
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(DataError, match="expected a mapping of names to tensors"):
        convert.read_state(tmp_path / "list.pt")
