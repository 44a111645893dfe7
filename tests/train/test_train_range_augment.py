"""RangeAugment: targets, learned ranges, what is saved, resuming."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy import models
from understudy.core.errors import ConfigError
from understudy.models.preprocess import CLIP_MEAN, CLIP_STD, Preprocess
from understudy.train.config import TrainConfig
from understudy.train.loop import fit
from understudy.train.range_augment import (
    LIMITS,
    LearnedRange,
    RangeAugment,
    RangeAugmentConfig,
    Trainee,
    brightness,
    contrast,
    psnr,
)
from understudy.train.steps import ClipStep

PLAIN = Preprocess(size=16)


def _pixels(count=64, seed=0):
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"psnr": (40.0, 5.0)}, r"psnr: expected two targets in dB between 10 and 60"),
        ({"operations": ("hue",)}, r"operations: 'hue' is not one of brightness, contrast, noise"),
        ({"operations": ()}, r"operations: expected at least one"),
        ({"share": 0.0}, r"share: expected a number in \(0, 1\]"),
        ({"curriculum": "cosin"}, r"Did you mean 'cosine'"),
        ({"weight": -1.0}, r"weight: expected more than 0"),
        ({"steps": 0}, r"steps: expected at least 1"),
    ],
)
def test_bad_input_range_augment_config(change, message):
    with pytest.raises(ConfigError, match=message):
        RangeAugmentConfig(**{"steps": 10, **change})


def test_the_target_moves_from_40_to_20_db_along_a_cosine_of_the_error():
    config = RangeAugmentConfig(steps=100)
    assert config.target_mse(0) == pytest.approx(1e-4)
    assert config.target_mse(100) == pytest.approx(1e-2)
    assert config.target_mse(10_000) == pytest.approx(1e-2)
    assert config.target_mse(50) == pytest.approx((1e-4 + 1e-2) / 2)
    quarter = 1e-2 + 0.5 * (1e-4 - 1e-2) * (1 + math.cos(math.pi / 4))
    assert config.target_mse(25) == pytest.approx(quarter)
    assert replace(config, curriculum="linear").target_mse(25) == pytest.approx(
        1e-4 + 0.25 * (1e-2 - 1e-4)
    )
    assert replace(config, curriculum="constant").target_mse(0) == pytest.approx(1e-2)


@given(value=st.floats(10, 60))
@settings(max_examples=20, deadline=None)
def test_psnr_and_squared_error_are_inverse(value):
    mse = RangeAugmentConfig(steps=1, psnr=(value, value)).target_mse(0)
    assert float(psnr(torch.tensor([mse]))) == pytest.approx(value, abs=1e-3)


@given(raw=st.tuples(st.floats(-50, 50), st.floats(-50, 50)), name=st.sampled_from(list(LIMITS)))
@settings(max_examples=30, deadline=None)
def test_magnitudes_stay_inside_the_limits_whatever_is_learned(raw, name):
    learned = LearnedRange(LIMITS[name], (LIMITS[name][0][1] * 0.5, LIMITS[name][1][1] * 0.5))
    with torch.no_grad():
        learned.low_raw.fill_(raw[0])
        learned.high_raw.fill_(raw[1])
    drawn = learned(1000).detach()
    assert float(drawn.min()) >= LIMITS[name][0][0] - 1e-6
    assert float(drawn.max()) <= LIMITS[name][1][1] + 1e-6
    low, high = (end.detach() for end in learned.ends())
    assert float(low) < float(high)


def test_brightness_and_contrast_against_loops():
    pixels = _pixels(4)
    magnitude = torch.tensor([0.5, 1.0, 1.5, 2.0]).reshape(4, 1, 1, 1)
    for b in range(4):
        m = float(magnitude[b])
        assert torch.allclose(brightness(pixels, magnitude)[b], pixels[b] * m)
        for c in range(3):
            mean = pixels[b, c].mean()
            expected = mean + (pixels[b, c] - mean) * m
            assert torch.allclose(contrast(pixels, magnitude)[b, c], expected, atol=1e-6)


def test_pixels_stay_in_range_under_the_models_normalisation():
    preprocess = Preprocess(size=16, mean=CLIP_MEAN, std=CLIP_STD)
    augment = RangeAugment(RangeAugmentConfig(steps=10), preprocess)
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    torch.manual_seed(0)
    out, facts = augment((_pixels() - mean) / std, {"step": 0})
    pixels = out * std + mean
    assert float(pixels.detach().min()) >= -1e-5
    assert float(pixels.detach().max()) <= 1 + 1e-5
    assert float(facts["psnr"]) > 20
    assert facts["loss"].requires_grad


def test_each_operation_touches_its_share_of_the_images():
    augment = RangeAugment(RangeAugmentConfig(steps=10, operations=("noise",), share=0.25), PLAIN)
    torch.manual_seed(0)
    pixels = _pixels()
    changed = (augment.augment(pixels) != pixels).flatten(1).any(1)
    assert int(changed.sum()) == 16


@pytest.mark.parametrize("target", [30.0, 20.0])
def test_the_learned_range_of_noise_is_the_one_that_calculus_gives(target):
    """E|s^2 - T| over s uniform in [0, h] is smallest at h = 2^(1/3) sqrt(T)."""
    config = RangeAugmentConfig(
        steps=400, psnr=(target, target), curriculum="constant", share=1.0, lr_multiplier=10.0,
        operations=("noise",),
    )  # fmt: skip
    augment = RangeAugment(config, PLAIN)
    optimizer = torch.optim.Adam(augment.parameters(), lr=0.003)
    torch.manual_seed(1)
    middle = 0.4 + 0.2 * _pixels(64)
    for step in range(400):
        _, facts = augment(middle, {"step": step})
        optimizer.zero_grad()
        facts["loss"].backward()
        optimizer.step()
    expected = 2 ** (1 / 3) * config.target_mse(0) ** 0.5
    assert float(augment.ranges["noise"].ends()[1].detach()) == pytest.approx(expected, rel=0.15)


class _Pairs:
    """Batch i is a function of i."""

    def describe(self):
        return {"kind": "pairs"}

    def __call__(self, start, count):
        for number in range(start, start + count):
            generator = torch.Generator().manual_seed(number)
            images = torch.randn(8, 3, 48, 48, generator=generator)
            texts = torch.zeros(8, 24, dtype=torch.int64)
            texts[:, 0] = torch.randint(1, 500, (8,), generator=generator)
            texts[:, 1] = 511
            yield {"images": images, "texts": texts, "rows": torch.arange(8)}


def _run(out, steps, resume=True, limit=0.0):
    student = models.create("clip-conv-nano", seed=3)
    augment = RangeAugment(RangeAugmentConfig(steps=steps), student.preprocess)
    step = ClipStep(lam=0.0, captions="real", augment=augment)
    config = TrainConfig(
        steps=steps, lr=1e-3, ema_decay=0.9, checkpoint_every=2, log_every=1, device="cpu",
        seconds_limit_s=limit,
    )  # fmt: skip
    trainee = Trainee(student, augment)
    return fit(trainee, step, _Pairs(), config, out, resume=resume), trainee


def test_a_run_learns_the_ranges_and_saves_the_model_alone(tmp_path):
    result, trainee = _run(tmp_path, 6)
    names = {name for name, _ in trainee.named_parameters() if name.startswith("augment")}
    assert len(names) == 6
    fresh = RangeAugment(RangeAugmentConfig(steps=6), PLAIN)
    now = dict(trainee.augment.named_parameters())
    assert all(not torch.equal(p, now[name]) for name, p in fresh.named_parameters())
    assert {"train/psnr", "train/noise_high", "train/brightness_low"} <= set(result.metrics)
    for name in ("model.safetensors", "model-ema.safetensors"):
        loaded = models.load(tmp_path / name)
        assert loaded.config.name == "clip-conv-nano"


def test_a_stopped_run_resumes_to_the_same_bytes_with_its_ranges(tmp_path):
    _run(tmp_path / "whole", 6)
    stopped, _ = _run(tmp_path / "parts", 6, limit=1e-6)
    assert not stopped.finished
    _run(tmp_path / "parts", 6)
    for name in ("model.safetensors", "model-ema.safetensors"):
        whole = (tmp_path / "whole" / name).read_bytes()
        assert (tmp_path / "parts" / name).read_bytes() == whole
