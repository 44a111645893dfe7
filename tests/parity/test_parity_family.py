"""The larger towers against timm's and OpenCLIP's: five stages, ViT-L/14, the wide text tower.

Most comparisons run the peers' own classes at small sizes; one runs MobileCLIP2-S3 in full, and the
full sizes of the others are compared name by name without memory.
"""

from dataclasses import replace
from functools import partial

import open_clip
import pytest
import timm
import torch
from open_clip.transformer import TextTransformer
from test_parity_models import error, shake
from timm.layers import LayerNorm2d
from timm.models.fastvit import FastVit, RepConditionalPosEnc
from timm.utils.model import reparameterize_model

from understudy import models
from understudy.models.convert import load_openclip_state_dict, load_timm
from understudy.models.convert_vlm import load_vision_tower
from understudy.models.io import skeleton

TOLERANCE = 1e-5
BLOCKS, CHANNELS = (1, 2, 3, 2, 1), (16, 32, 64, 128, 256)
OPENCLIP = {
    "MobileCLIP2-S0": "mobileclip2-s0",
    "MobileCLIP2-S2": "mobileclip2-s2",
    "MobileCLIP2-B": "mobileclip2-b",
    "MobileCLIP2-S3": "mobileclip2-s3",
    "MobileCLIP2-S4": "mobileclip2-s4",
    "MobileCLIP2-L-14": "mobileclip2-l",
}


def stand_in(monkeypatch, name, config):
    """Let a small configuration stand for a named one."""
    real = models.config
    monkeypatch.setattr(
        models, "config", lambda n, **c: config if n == name and not c else real(n, **c)
    )


def small_mci3(num_classes=24):
    """timm's class with the settings of `fastvit_mci3`, fewer channels and blocks."""
    position = partial(RepConditionalPosEnc, spatial_shape=(7, 7))
    model = FastVit(
        layers=BLOCKS,
        embed_dims=CHANNELS,
        mlp_ratios=(4,) * 5,
        se_downsamples=(False,) * 5,
        downsamples=(False, True, True, True, True),
        pos_embs=(None, None, None, position, position),
        token_mixers=("repmixer", "repmixer", "repmixer", "attention", "attention"),
        lkc_use_act=True,
        norm_layer=partial(LayerNorm2d, eps=1e-5),
        stem_use_scale_branch=False,
        num_classes=num_classes,
    )
    return shake(model, 7)


def small_config(name):
    found = models.config(name)
    return replace(found, image=replace(found.image, channels=CHANNELS, blocks=BLOCKS))


def images(*shape, seed=1):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ["mci3", "fastvithd"])
def test_five_stages_equal_timm_folded_and_not(name, monkeypatch):
    theirs = small_mci3()
    stand_in(monkeypatch, name, small_config(name))
    ours = load_timm(theirs.state_dict(), name)
    assert ours.config.num_classes == 24
    for size in ((128, 128), (192, 64)):
        x = images(2, 3, *size)
        with torch.no_grad():
            expected = theirs(x)
            assert expected.std() > 1e-2
            assert error(ours(x)["logits"], expected) < TOLERANCE
            for mode in ("branches", "all"):
                assert error(ours.fold(mode)(x)["logits"], expected) < TOLERANCE
    folded = reparameterize_model(theirs)
    again = load_timm(folded.state_dict(), name)
    assert again.fold_state == "branches"
    with torch.no_grad():
        assert error(again(x)["logits"], expected) < TOLERANCE


def test_maps_equal_timm(monkeypatch):
    theirs = small_mci3()
    stand_in(monkeypatch, "fastvithd", small_config("fastvithd"))
    x = images(1, 3, 128, 192)
    state = {f"model.vision_tower.timm_model.{k}": v for k, v in theirs.state_dict().items()}
    ours = load_vision_tower(state)
    with torch.no_grad():
        expected = theirs.forward_intermediates(x, intermediates_only=True)
        whole = theirs.forward_features(x)
        for form in (ours, ours.fold("branches"), ours.fold()):
            levels = form.pyramid(x)
            assert [s for s, _ in levels] == [4, 8, 16, 32, 64]
            for (_, level), theirs_level in zip(levels, expected, strict=True):
                assert error(level, theirs_level) < TOLERANCE
            assert error(form.image.expanded_map(x), whole) < TOLERANCE


def small_vit(config):
    return timm.create_model(
        "vit_large_patch14_clip_224",
        img_size=config.image_size,
        embed_dim=config.width,
        depth=config.depth,
        num_heads=config.num_heads,
        num_classes=24,
    )


def test_patch_vit_and_wide_text_equal_openclips(monkeypatch):
    changes = {
        "image.width": 64, "image.depth": 6, "image.num_heads": 4, "image.image_size": 70,
        "text.width": 48, "text.depth": 2, "text.num_heads": 4, "text.vocab_size": 99,
        "embed_dim": 24,
    }  # fmt: skip
    config = models.config("mobileclip2-l", **changes)
    stand_in(monkeypatch, "mobileclip2-l", config)
    trunk = shake(small_vit(config.image), 3)
    torch.nn.init.zeros_(trunk.head.bias)
    text = shake(
        TextTransformer(
            context_length=77, vocab_size=99, width=48, heads=4, layers=2, output_dim=24,
            no_causal_mask=True,
        ),
        5,
    )  # fmt: skip
    state = {f"visual.trunk.{k}": v for k, v in trunk.state_dict().items()}
    state |= {f"text.{k}": v for k, v in text.state_dict().items()}
    state["logit_scale"] = torch.tensor(3.0)
    model = load_openclip_state_dict(state, "mobileclip2-l")
    assert not model.config.image.head_bias
    assert model.config.image.norm_eps == 1e-5
    x = images(2, 3, 70, 70)
    tokens = torch.randint(1, 98, (3, 77), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for form in (model, model.fold()):
            assert error(form.encode_image(x, normalize=False), trunk(x)) < TOLERANCE
            assert error(form.encode_text(tokens, normalize=False), text(tokens)) < TOLERANCE
        taps = list(config.image.pyramid_taps)
        expected = trunk.forward_intermediates(x, indices=taps, intermediates_only=True)
        for (stride, level), theirs in zip(model.pyramid(x), expected, strict=True):
            assert stride == 14
            assert error(level, theirs) < TOLERANCE


def test_maps_of_the_vit_with_a_convolutional_stem_equal_timm():
    trunk = shake(timm.create_model("vit_base_mci_224", num_classes=8, depth=6), 3)
    changes = {"image.depth": 6, "image.stem_padding": 0, "image.norm_eps": 1e-6}
    text = {"text.depth": 1, "text.vocab_size": 8}
    config = models.config("mobileclip2-b", embed_dim=8, **changes, **text)
    from understudy.models.convert_names import TIMM_VIT, rename
    from understudy.models.towers import image_tower

    tower = image_tower(replace(config.image, head_bias=True), 8).eval()
    state = {rename(k, TIMM_VIT): v for k, v in trunk.state_dict().items()}
    tower.load_state_dict(state)
    x = images(1, 3, 224, 224)
    with torch.no_grad():
        expected = trunk.forward_intermediates(x, indices=[1, 2, 3, 5], intermediates_only=True)
        for (_, level), theirs in zip(tower.pyramid(x), expected, strict=True):
            assert error(level, theirs) < TOLERANCE


@pytest.mark.parametrize("theirs", OPENCLIP)
def test_configurations_say_what_openclips_do(theirs):
    peer = open_clip.get_model_config(theirs)
    ours = models.config(OPENCLIP[theirs])
    text = peer["text_cfg"]
    assert ours.embed_dim == peer["embed_dim"]
    assert ours.preprocess.size == ours.image.image_size == peer["vision_cfg"]["image_size"]
    assert ours.image.drop_path == peer["vision_cfg"]["timm_drop_path"]
    assert ours.text.causal == (not text["no_causal_mask"])
    for mine, other in (
        ("width", "width"),
        ("num_heads", "heads"),
        ("depth", "layers"),
        ("context_length", "context_length"),
        ("vocab_size", "vocab_size"),
    ):
        assert getattr(ours.text, mine) == text[other]
    card = open_clip.get_pretrained_cfg(theirs, "dfndr2b")
    assert (tuple(card["mean"]), tuple(card["std"])) == (ours.preprocess.mean, ours.preprocess.std)
    assert card["interpolation"] == ours.preprocess.interpolation


@pytest.mark.parametrize("theirs", ["MobileCLIP2-S4", "MobileCLIP2-L-14"])
def test_full_size_names_fit(theirs):
    with torch.device("meta"):
        peer = open_clip.create_model(theirs, pretrained=None, device="meta")
    state = peer.state_dict()
    bias = next(k for k in state if k.startswith("visual.trunk.head") and k.endswith("bias"))
    state[bias] = torch.zeros(768)
    model = load_openclip_state_dict(state, OPENCLIP[theirs])
    own = skeleton(models.config(OPENCLIP[theirs])).state_dict()
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        k: v.shape for k, v in own.items()
    }


def test_mobileclip2_s3_in_full_equals_openclip():
    peer = shake(open_clip.create_model("MobileCLIP2-S3", pretrained=None), 3)
    trunk = peer.visual.trunk
    torch.nn.init.zeros_(trunk.head.fc.bias)
    model = load_openclip_state_dict(peer.state_dict(), "mobileclip2-s3")
    x = images(1, 3, 256, 256, seed=2)
    tokens = torch.randint(1, 49407, (2, 77), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = peer.encode_image(x, normalize=True)
        assert error(model.encode_image(x), expected) < TOLERANCE
        assert error(model.fold().encode_image(x), expected) < TOLERANCE
        expected = peer.encode_text(tokens, normalize=True)
        assert error(model.encode_text(tokens), expected) < TOLERANCE
        small = images(1, 3, 128, 128)
        tower = load_timm(trunk.state_dict(), "mci3")
        assert error(tower(small)["logits"], trunk(small)) < TOLERANCE
