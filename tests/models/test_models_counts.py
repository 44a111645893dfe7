"""Published parameter counts, to the unit, and multiply-accumulates."""

from dataclasses import replace

import pytest
import torch

from understudy import models
from understudy.models.count import count_towers, macs, parameter_bytes, parameters
from understudy.models.fold import fold_module
from understudy.models.image.mci import MciTower
from understudy.models.image.mci_sizes import MCI0, MCI1, MCI2, MCI3, MCI4
from understudy.models.io import skeleton
from understudy.models.text.transformer import BASE_TEXT, MCT, WIDE_TEXT, TextTower


@pytest.mark.parametrize(
    ("config", "dim", "train", "folded"),
    [
        (MCI0, 512, 11_406_464, 11_356_992),
        (MCI1, 512, 21_541_120, 21_460_544),
        (MCI2, 512, 35_814_720, 35_702_480),
        (MCI3, 768, 125_234_880, 125_073_504),
        (MCI4, 768, 321_784_064, 321_568_896),
    ],
)
def test_image_towers_have_the_published_counts(config, dim, train, folded):
    with torch.device("meta"):
        tower = MciTower(config, dim).eval()
        assert parameters(tower) == train
        assert parameters(fold_module(tower, "branches")) == folded


@pytest.mark.parametrize(
    ("config", "dim", "train", "folded"),
    [
        (BASE_TEXT, 512, 63_428_096, 63_428_096),
        (MCT, 512, 42_441_216, 42_435_072),
        (WIDE_TEXT, 768, 123_650_304, 123_650_304),
    ],
)
def test_text_towers_have_the_published_counts(config, dim, train, folded):
    with torch.device("meta"):
        tower = TextTower(config, dim).eval()
        assert parameters(tower) == train
        assert parameters(fold_module(tower, "branches")) == folded


def test_named_models_have_those_towers():
    towers = {
        "mobileclip-s0": (MCI0, MCT),
        "mobileclip-s1": (MCI1, BASE_TEXT),
        "mobileclip-s2": (MCI2, BASE_TEXT),
        "mobileclip2-s0": (MCI0, BASE_TEXT),
        "mobileclip2-s2": (MCI2, BASE_TEXT),
    }
    for name, expected in towers.items():
        config = models.config(name)
        assert (config.image, config.text) == expected
        assert (config.embed_dim, config.preprocess.size) == (512, 256)
    for name in ("mobileclip-b", "mobileclip2-b"):
        assert models.config(name).text == replace(BASE_TEXT, causal=True)
    for name, tower in (("mobileclip2-s3", MCI3), ("mobileclip2-s4", MCI4)):
        config = models.config(name)
        assert (config.image, config.text) == (tower, WIDE_TEXT)
        assert (config.embed_dim, config.preprocess.size) == (768, 256)
    large = models.config("mobileclip2-l")
    assert (large.text, large.embed_dim, large.preprocess.size) == (WIDE_TEXT, 768, 224)
    assert large.image.drop_path == 0.1
    assert not any(models.config(f"mobileclip2-{n}").text.causal for n in ("s0", "s2", "s3", "l"))
    # the same network, at the size of a vision-language model
    encoder = models.config("fastvithd")
    assert (encoder.image, encoder.num_classes) == (replace(MCI3, image_size=1024), 0)


def test_total_is_the_sum_of_towers_and_the_logit_scale():
    counts = count_towers(models.config("mobileclip-s0"), "branches")
    assert counts["total"].parameters == 11_356_992 + 42_435_072 + 1
    assert counts["total"].macs == counts["image"].macs + counts["text"].macs


def test_vit_has_86_3_million_parameters():
    count = parameters(skeleton(models.config("mobileclip-b")).image)
    assert count == 86_348_544
    assert round(count / 1e6, 1) == 86.3


def test_vit_l14_and_where_the_304_3_million_come_from():
    assert parameters(skeleton(models.config("mobileclip2-l")).image) == 303_966_208
    # the table of arXiv 2508.20691 counts the positions of a 336-pixel input: 320 more rows
    wide = models.config("mobileclip2-l", **{"image.image_size": 336})
    assert parameters(skeleton(wide).image) == 303_966_208 + 320 * 1024 == 304_293_888


def test_fastvithd_by_part():
    tower = skeleton(models.config("fastvithd"), "branches").image
    assert parameters(tower) == 122_714_208
    assert parameters(tower.stem) == 12_960
    assert parameters(tower.expand) == 1_213_632
    parts = {
        "downsample": (0, 46_656, 167_040, 628_992, 2_437_632),
        "positions": (0, 0, 0, 38_400, 76_800),
        "blocks": (160_320, 3_693_312, 28_929_024, 28_498_944, 56_810_496),
    }
    for part, expected in parts.items():
        found = tuple(parameters(getattr(stage, part)) for stage in tower.stages)
        assert found == expected


def test_naive_scaling_is_not_the_size_that_its_figure_claims():
    count = count_towers(models.config("naive-4-stage"), "branches", image_size=256)["image"]
    assert count.parameters == 96_868_992


@pytest.mark.parametrize(
    ("name", "giga"),
    [
        ("mci0", (2.385, 9.638, 40.16)),
        ("mci2", (7.834, 31.585, 130.36)),
        ("fastvithd", (14.810, 59.556, 243.354)),
        ("naive-4-stage", (16.898, 68.194, 282.437)),
    ],
)
def test_multiply_accumulates_by_resolution(name, giga):
    tower = skeleton(replace(models.config(name), num_classes=0), "branches").image
    for size, expected in zip((256, 512, 1024), giga, strict=True):
        found = macs(tower, torch.empty(1, 3, size, size, device="meta")) / 1e9
        assert found == pytest.approx(
            expected, abs=0.0005 if expected != round(expected, 2) else 0.005
        )


def test_nano_towers_of_equal_size():
    names = ("mci-nano5", "mci-nano4", "naive-nano", "vit-nano16")
    towers = {n: skeleton(models.config(n)).image for n in names}
    folded = {n: fold_module(tower, "branches") for n, tower in towers.items()}
    for form, expected in ((towers, 1_104_600), (folded, 1_091_016)):
        assert parameters(form["mci-nano5"]) == expected
        for tower in form.values():
            assert abs(parameters(tower) / expected - 1) < 0.02
    # their cost is another matter: the five stages compute least, and the ViT's positions attend
    for size, shares in ((128, (0.6, 0.8, 0.5)), (512, (0.6, 0.8, 0.25))):
        x = torch.empty(1, 3, size, size, device="meta")
        cost = [macs(folded[n], x) for n in names]
        for other, share in zip(cost[1:], shares, strict=True):
            assert cost[0] < share * other


@pytest.mark.parametrize(
    ("name", "millions", "giga"), [("mci0", 11.9, 2.4), ("mci1", 22.0, 4.7), ("mci2", 36.4, 7.8)]
)
def test_imagenet_towers_have_the_published_cost(name, millions, giga):
    count = count_towers(models.config(name), "branches")["image"]
    assert round(count.macs / 1e9, 1) == giga
    assert count.parameters / 1e6 == pytest.approx(millions, abs=0.15)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("clip-teacher-a", 150_000, 250_000),
        ("clip-teacher-b", 150_000, 250_000),
        ("cnn-teacher", 190_000, 210_000),
        ("cnn-small", 14_000, 16_000),
        ("cnn-tiny", 900, 1_100),
    ],
)
def test_small_models_stay_small(name, low, high):
    assert low <= parameters(skeleton(models.config(name))) <= high


def test_macs_agree_with_a_count_by_hand():
    config = models.config("clip-teacher-a")
    tower = skeleton(config).image
    side, channels, expected = 48, 3, 0
    for out, stride in zip(config.image.channels, config.image.strides, strict=True):
        side //= stride
        expected += side * side * out * channels * 9
        channels = out
    expected += config.image.width * config.embed_dim
    assert macs(tower, torch.empty(1, 3, 48, 48, device="meta")) == expected
    text = config.text
    width, length = text.width, text.context_length
    block = length * width * width * (3 + 1 + 8) + 2 * length * length * width
    count = count_towers(config)["text"].macs
    assert count == text.depth * block + width * config.embed_dim


def test_macs_grow_with_the_area_of_the_image():
    config = models.config("cnn-teacher")
    small, large = (count_towers(config, image_size=s)["image"].macs for s in (32, 64))
    head = config.image.width * config.num_classes
    assert large - head == 4 * (small - head)


def test_parameter_bytes_by_dtype():
    model = models.create("cnn-tiny", seed=0).eval().fold()
    assert parameter_bytes(model) == 4 * parameters(model)
    assert parameter_bytes(model.half()) == 2 * parameters(model)
