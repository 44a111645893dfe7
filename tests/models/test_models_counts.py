"""Published parameter counts, to the unit, and multiply-accumulates."""

from dataclasses import replace

import pytest
import torch

from understudy import models
from understudy.models.count import count_towers, macs, parameter_bytes, parameters
from understudy.models.fold import fold_module
from understudy.models.image.mci import MCI0, MCI1, MCI2, MciTower
from understudy.models.io import skeleton
from understudy.models.text.transformer import BASE_TEXT, MCT, TextTower


@pytest.mark.parametrize(
    ("config", "train", "folded"),
    [
        (MCI0, 11_406_464, 11_356_992),
        (MCI1, 21_541_120, 21_460_544),
        (MCI2, 35_814_720, 35_702_480),
    ],
)
def test_image_towers_have_the_published_counts(config, train, folded):
    with torch.device("meta"):
        tower = MciTower(config, 512).eval()
        assert parameters(tower) == train
        assert parameters(fold_module(tower, "branches")) == folded


@pytest.mark.parametrize(
    ("config", "train", "folded"),
    [(BASE_TEXT, 63_428_096, 63_428_096), (MCT, 42_441_216, 42_435_072)],
)
def test_text_towers_have_the_published_counts(config, train, folded):
    with torch.device("meta"):
        tower = TextTower(config, 512).eval()
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


def test_total_is_the_sum_of_towers_and_the_logit_scale():
    counts = count_towers(models.config("mobileclip-s0"), "branches")
    assert counts["total"].parameters == 11_356_992 + 42_435_072 + 1
    assert counts["total"].macs == counts["image"].macs + counts["text"].macs


def test_vit_has_86_3_million_parameters():
    count = parameters(skeleton(models.config("mobileclip-b")).image)
    assert count == 86_348_544
    assert round(count / 1e6, 1) == 86.3


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
