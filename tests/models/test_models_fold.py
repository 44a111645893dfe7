"""Folding is exact, leaves nothing behind and refuses what it cannot do."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shaking import relative_error, shake
from torch import nn

from understudy import models
from understudy.core.errors import ConfigError, ModelError
from understudy.models.fold import (
    depthwise,
    fold_module,
    fuse_conv_bn,
    identity_kernel,
    pad_kernel,
)
from understudy.models.image.mci import MciConfig, MciTower
from understudy.models.image.mci_blocks import AttentionMixer, LargeKernelConv
from understudy.models.image.mobileone import ConvBN, MobileOneBlock
from understudy.models.image.repmixer import RepCPE, RepMixer, ResidualFFN
from understudy.models.text.repmixer import TextRepMixer
from understudy.models.text.transformer import MCT, TextTower

NORMS = nn.modules.batchnorm._BatchNorm


def pixels(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def check_exact(module, x, tolerance=1e-5):
    with torch.no_grad():
        expected = module(x)
        for mode in ("branches", "all"):
            assert relative_error(fold_module(module, mode)(x), expected) < tolerance


@settings(max_examples=25, deadline=None)
@given(
    channels=st.sampled_from([4, 8]),
    grow=st.sampled_from([1, 2]),
    kernel=st.sampled_from([1, 3, 5, (1, 5)]),
    stride=st.sampled_from([1, 2]),
    depthwise_groups=st.booleans(),
    scale=st.booleans(),
    se=st.sampled_from([0, 2]),
    seed=st.integers(0, 1000),
)
def test_mobileone_block(channels, grow, kernel, stride, depthwise_groups, scale, se, seed):
    block = MobileOneBlock(
        channels,
        channels * grow,
        kernel,
        stride=stride,
        groups=channels if depthwise_groups else 1,
        se_hidden=se,
        scale_branch=scale,
    )
    check_exact(shake(block, seed), pixels(2, channels, 7, 9, seed=seed))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), size=st.integers(5, 12))
def test_blocks(seed, size):
    x = pixels(2, 8, size, size + 1, seed=seed)
    for block in (
        RepMixer(8, 3),
        RepMixer(8, (1, 11), scale_branch=False),
        ResidualFFN(8, 24),
        RepCPE(8),
        LargeKernelConv(8, 16, se=True),
        LargeKernelConv(8, 8, se=False),
        AttentionMixer(8, 4, norm="batch", layer_scale=0.1, drop_path=0.0),
        AttentionMixer(8, 4, norm="layer", layer_scale=0.1, drop_path=0.0),
        ConvBN(8, 16, 3, stride=2),
    ):
        check_exact(shake(block, seed), x)


def test_pure_pieces_against_convolution():
    x = pixels(1, 6, 8, 8).double()
    conv = nn.Conv2d(6, 4, 3, padding=1).double()
    norm = shake(nn.BatchNorm2d(4).double(), 1)
    kernel, bias = fuse_conv_bn(conv, norm)
    got = nn.functional.conv2d(x, kernel, bias, padding=1)
    assert torch.allclose(got, norm(conv(x)), atol=1e-12)
    for groups in (1, 2, 3, 6):
        same = identity_kernel(6, groups, (3, 5), x)
        out = nn.functional.conv2d(x, same, padding=(1, 2), groups=groups)
        assert torch.equal(out, x)
    small = pixels(6, 1, 3, 3).double()
    large = nn.functional.conv2d(x, pad_kernel(small, (7, 5)), padding=(3, 2), groups=6)
    assert torch.allclose(large, nn.functional.conv2d(x, small, padding=1, groups=6), atol=1e-12)
    layer = depthwise(small, torch.zeros(6), x)
    assert torch.allclose(layer(x), large, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("mci0", (96, 160)), ("mci1", (64,)), ("mci2", (64,)), ("mci-nano", (32, 48, 80))],
)
def test_mci_towers(name, sizes):
    model = shake(models.create(name, seed=0, num_classes=16), 3)
    for size in sizes:
        x = pixels(2, 3, size, size)
        with torch.no_grad():
            expected = model(x)["logits"]
            assert expected.std() > 1e-3
            for mode in ("branches", "all"):
                assert relative_error(model.fold(mode)(x)["logits"], expected) < 1e-5


def test_five_stage_tower_with_layer_norm():
    config = MciConfig(
        channels=(8, 16, 32, 64, 128),
        blocks=(1, 1, 1, 1, 1),
        mixers=("repmixer",) * 3 + ("attention",) * 2,
        ffn_ratio=4.0,
        se_downsample=(False,) * 5,
        positions=(False, False, False, True, True),
        attention_norm="layer",
        stem_scale_branch=False,
    )
    tower = shake(MciTower(config, 16), 5)
    assert [m.shape[-1] for m in tower.stage_maps(pixels(1, 3, 128, 128))] == [32, 16, 8, 4, 2]
    check_exact(tower, pixels(2, 3, 64, 64))


def test_mct_and_its_repmixer():
    check_exact(shake(TextRepMixer(16), 2), pixels(2, 20, 16))
    tower = shake(TextTower(MCT, 32), 4)
    tokens = torch.randint(1, 49407, (2, 77), generator=torch.Generator().manual_seed(0))
    check_exact(tower, tokens)
    assert not any(isinstance(m, NORMS) for m in fold_module(tower).modules())


def test_vit_and_plain_towers():
    changes = {"image.depth": 2, "image.width": 64, "image.num_heads": 4, "image.image_size": 64}
    text = {"text.depth": 1, "text.width": 32, "text.num_heads": 2, "text.vocab_size": 100}
    model = shake(models.create("mobileclip-b", seed=0, **changes, **text), 1)
    check_exact(model.image, pixels(2, 3, 64, 64))
    check_exact(model.image, pixels(1, 3, 96, 80))
    for name in ("cnn-teacher", "cnn-small", "cnn-tiny"):
        check_exact(shake(models.create(name, seed=0), 1).image, pixels(2, 3, 32, 32))


@pytest.mark.parametrize("name", list(models.MODELS))
def test_no_batch_normalisation_is_left(name):
    with torch.device("meta"):
        folded = models.create(name).eval().fold()
    assert not any(isinstance(m, NORMS) for m in folded.modules())
    assert not any(p.requires_grad for p in folded.parameters())
    assert folded.is_folded


def test_folding_makes_a_new_model_and_leaves_the_old_one():
    model = shake(models.create("mobileclip-nano", seed=0), 1)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    folded = model.fold()
    assert not model.is_folded
    assert all(p.requires_grad for p in model.parameters())
    with torch.no_grad():
        for p in folded.parameters():
            p.zero_()
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[k], after[k]) for k in before)
    model.train()


def test_folding_keeps_half_precision_and_double():
    x = pixels(2, 3, 48, 48)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.bfloat16, 0.05)):
        model = shake(models.create("mobileclip-nano", seed=0), 1).to(dtype)
        folded = model.fold()
        assert {p.dtype for p in folded.parameters()} == {dtype}
        with torch.no_grad():
            expected = model.encode_image(x.to(dtype))
            assert relative_error(folded.encode_image(x.to(dtype)), expected) < tolerance


def test_bad_input():
    model = models.create("mobileclip-nano", seed=0)
    with pytest.raises(ModelError, match=r"is in training mode.*model.eval\(\)"):
        model.fold()
    model.eval()
    model.image.stem[0].train()
    with pytest.raises(ModelError, match=r"image.stem.0 is in training mode"):
        model.fold()
    model.eval()
    with pytest.raises(ConfigError, match="'everything' is not one of branches, all"):
        model.fold("everything")
    folded = model.fold()
    with pytest.raises(ModelError, match="folded already"):
        folded.fold()
    with pytest.raises(ModelError, match="folded and cannot be trained"):
        folded.train()
