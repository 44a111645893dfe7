"""Maps at several strides from every tower, in both forms, at other resolutions than its own."""

import pytest
import torch
import torch.nn.functional as F
from shaking import relative_error, shake

from understudy import models
from understudy.core.errors import ConfigError, ModelError
from understudy.models.base import Model
from understudy.models.fold import fold_module
from understudy.models.image.conv import ConvConfig, ConvTower
from understudy.models.image.mci import MciConfig, MciTower
from understudy.models.image.mci_sizes import FIVE_STAGES
from understudy.models.image.pyramid import HasPyramid
from understudy.models.image.vit import VitTower
from understudy.models.image.vit_config import VitConfig, default_taps
from understudy.models.towers import image_tower

FIVE = MciConfig(channels=(8, 16, 32, 64, 128), blocks=(1, 1, 1, 1, 1), **FIVE_STAGES)
SMALL = {"width": 32, "depth": 6, "num_heads": 4, "image_size": 64}
TOWERS = {
    "five stages": FIVE,
    "four stages": MciConfig(channels=(8, 16, 32, 64), blocks=(1, 1, 1, 1), head_dim=16),
    "conv stem": VitConfig(**SMALL),
    "patches": VitConfig(**SMALL, stem="patch"),
    "clip": VitConfig(
        **{**SMALL, "image_size": 70},
        stem="patch",
        patch_size=14,
        pre_norm=True,
        class_position=True,
        position_interpolation="bicubic",
    ),
    "plain": ConvConfig(channels=(8, 8, 16, 16, 24), strides=(2, 1, 2, 1, 2), grid=2),
}


def pixels(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", TOWERS)
def test_shapes_and_folding_at_other_sizes(name):
    config = TOWERS[name]
    tower = shake(image_tower(config, 8), 3)
    assert isinstance(tower, HasPyramid)
    strides, channels = config.pyramid_strides, config.pyramid_channels
    assert (tower.pyramid_strides, tower.pyramid_channels) == (strides, channels)
    for high, wide in ((2, 3), (4, 1)):
        x = pixels(2, 3, high * strides[-1], wide * strides[-1])
        with torch.no_grad():
            found = tower.pyramid(x)
            assert [s for s, _ in found] == list(strides)
            for (stride, level), width in zip(found, channels, strict=True):
                assert level.shape == (2, width, x.shape[2] // stride, x.shape[3] // stride)
            for mode in ("branches", "all"):
                folded = fold_module(tower, mode)
                assert (folded.pyramid_strides, folded.pyramid_channels) == (strides, channels)
                for (_, level), (_, again) in zip(found, folded.pyramid(x), strict=True):
                    assert relative_error(again, level) < 1e-5


@pytest.mark.parametrize("name", TOWERS)
def test_sides_must_be_multiples_of_the_last_stride(name):
    tower = image_tower(TOWERS[name], 0).eval()
    stride = tower.pyramid_strides[-1]
    message = (
        f"pyramid: {stride + 1} x {2 * stride} pixels are not multiples of {stride}, the stride of "
        f"the last map; pad to {2 * stride} x {2 * stride} or crop to {stride} x {2 * stride}."
    )
    with pytest.raises(ModelError, match=message):
        tower.pyramid(pixels(1, 3, stride + 1, 2 * stride))


def test_levels_are_what_the_tower_computes_on_the_way():
    tower = shake(MciTower(FIVE, 4), 1)
    x = pixels(1, 3, 128, 64)
    with torch.no_grad():
        levels = dict(tower.pyramid(x))
        assert torch.equal(levels[64], tower.stage_maps(x)[-1])
        expanded = tower.expanded_map(x)
        assert expanded.shape == (1, 256, 2, 1)
        assert torch.equal(expanded, tower.expand(levels[64]))
        assert torch.equal(tower.features(x), expanded.mean((2, 3)))
        assert relative_error(fold_module(tower).expanded_map(x), expanded) < 1e-5
    with pytest.raises(ModelError, match="expanded_map: 96 x 64 pixels are not multiples of 64"):
        tower.expanded_map(pixels(1, 3, 96, 64))


def test_plain_convolutions_give_the_last_map_of_every_stride():
    tower = shake(ConvTower(TOWERS["plain"], 4), 1)
    x = pixels(1, 3, 16, 24)
    with torch.no_grad():
        maps, levels = tower.stage_maps(x), tower.pyramid(x)
    assert [s for s, _ in levels] == [2, 4, 8]
    for (_, level), index in zip(levels, (1, 3, 4), strict=True):
        assert torch.equal(level, maps[index])


def test_vit_taps_are_raw_blocks_without_the_class_token():
    tower = shake(VitTower(TOWERS["clip"], 4), 1)
    x = pixels(2, 3, 70, 70)
    with torch.no_grad():
        tokens, after = tower.embed(x), []
        for block in tower.blocks:
            tokens = block(tokens)
            after.append(tokens)
        levels = tower.pyramid(x)
        assert len(levels) == 4
        for (stride, level), tap in zip(levels, (1, 2, 3, 5), strict=True):
            assert stride == 14
            assert torch.equal(level.flatten(2).transpose(1, 2), after[tap][:, 1:])
        assert torch.equal(tower.norm(tokens)[:, 0], tower.features(x))
        with_position = tower.embed(x)[:, 0]
        tower.positions[:, 1:].add_(1.0)
        assert torch.equal(with_position, tower.embed(x)[:, 0])
        tower.positions[:, :1].add_(torch.arange(32.0))
        assert not torch.allclose(with_position, tower.embed(x)[:, 0])


def test_evenly_spaced_taps():
    assert default_taps(12) == (3, 5, 7, 11)
    assert default_taps(24) == (7, 11, 15, 23)
    assert default_taps(6) == (1, 2, 3, 5)
    assert default_taps(1) == (0, 0, 0, 0)
    assert default_taps(0) == ()
    config = VitConfig(**SMALL, taps=(0, 5))
    assert config.pyramid_channels == (32, 32)
    assert len(image_tower(config, 0).pyramid(pixels(1, 3, 32, 32))) == 2
    with pytest.raises(ConfigError, match="there is no block 6; blocks are 0 to 5"):
        VitConfig(**SMALL, taps=(0, 6))


@pytest.mark.parametrize("name", ["conv stem", "clip"])
@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_position_table(name, method):
    from dataclasses import replace

    config = replace(TOWERS[name], position_interpolation=method)
    tower = VitTower(config, 0).eval()
    side = config.grid
    own = tower.positions[:, 1:] if config.class_position else tower.positions
    assert torch.equal(tower.position_table(side, side), own)
    square = own.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    wanted = F.interpolate(square, (7, 9), mode=method, align_corners=False)
    with torch.no_grad():
        found = tower.position_table(7, 9)
        assert torch.equal(found, wanted.flatten(2).transpose(1, 2))
        # resized to its own grid by the same arithmetic, a table is itself
        again = F.interpolate(square, (side, side), mode=method, align_corners=False)
        assert torch.allclose(again, square, atol=1e-6)
        exact = tower.double().position_table(7, 9)
        assert exact.dtype == torch.float64
        halves = tower.bfloat16().position_table(7, 9)
        assert halves.dtype == torch.bfloat16
        assert relative_error(halves.double(), exact) < 2e-2


def test_interpolations_differ_and_bilinear_stays_the_released_default():
    assert models.config("mobileclip-b").image.position_interpolation == "bilinear"
    one = VitTower(VitConfig(**SMALL), 0)
    two = VitTower(VitConfig(**SMALL, position_interpolation="bicubic"), 0)
    two.load_state_dict(one.state_dict())
    assert not torch.allclose(one.position_table(6, 6), two.position_table(6, 6))


def test_models_hand_it_through():
    model = shake(models.create("mobileclip-nano", seed=0), 1)
    assert model.pyramid_strides == (4, 8, 16, 32)
    assert model.pyramid_channels == (8, 16, 32, 64)
    x = pixels(1, 3, 64, 96)
    with torch.no_grad():
        for (_, a), (_, b) in zip(model.pyramid(x), model.fold().pyramid(x), strict=True):
            assert relative_error(b, a) < 1e-5
    with pytest.raises(ModelError, match="Model has no image tower with maps"):
        _ = Model().pyramid_strides


def test_gradients_reach_every_stage_in_training_form():
    model = models.create("mci-nano5", seed=0).train()
    sum(level.square().mean() for _, level in model.pyramid(pixels(2, 3, 64, 128))).backward()
    without = {n.split(".")[1] for n, p in model.named_parameters() if p.grad is None}
    assert without == {"expand"}


@pytest.mark.parametrize(
    ("name", "strides", "channels"),
    [
        ("mci0", (4, 8, 16, 32), (64, 128, 256, 512)),
        ("mci2", (4, 8, 16, 32), (80, 160, 320, 640)),
        ("fastvithd", (4, 8, 16, 32, 64), (96, 192, 384, 768, 1536)),
        ("mobileclip2-s4", (4, 8, 16, 32, 64), (128, 256, 512, 1024, 2048)),
        ("mobileclip-b", (16,) * 4, (768,) * 4),
        ("mobileclip2-l", (14,) * 4, (1024,) * 4),
    ],
)
def test_released_towers_describe_themselves_without_running(name, strides, channels):
    image = models.config(name).image
    assert (image.pyramid_strides, image.pyramid_channels) == (strides, channels)


def test_tokens_of_the_vision_encoder():
    with torch.device("meta"):
        tower = image_tower(models.config("fastvithd").image, 0).eval()
        for size, count in ((256, 16), (512, 64), (768, 144), (1024, 256), (1536, 576)):
            found = tower.expanded_map(torch.empty(1, 3, size, size))
            assert found.shape[:2] == (1, 3072)
            assert found.flatten(2).shape[-1] == count
