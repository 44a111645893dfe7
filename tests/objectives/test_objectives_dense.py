"""Pixel cross-entropy and the scale-invariant depth loss, against what they are by definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError, DataError
from understudy.objectives import OBJECTIVES
from understudy.objectives.dense import depth, pixel_ce, segmentation, si_log

quick = settings(max_examples=30, deadline=None)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scene(seed: int, classes: int = 4):
    draw = generator(seed)
    logits = torch.randn(2, classes, 3, 5, generator=draw)
    masks = torch.randint(0, classes, (2, 3, 5), generator=draw)
    masks[torch.rand(2, 3, 5, generator=draw) < 0.3] = 255
    return logits, masks


def test_pixel_ce_is_the_mean_over_pixels_that_count():
    logits, masks = scene(0)
    expected = F.cross_entropy(logits, masks, ignore_index=255)
    torch.testing.assert_close(pixel_ce(logits, masks), expected)
    kept = masks != 255
    by_hand = -logits.log_softmax(1).permute(0, 2, 3, 1)[kept].gather(1, masks[kept][:, None])
    torch.testing.assert_close(pixel_ce(logits, masks), by_hand.mean())


def test_a_batch_that_is_all_ignored_costs_nothing_and_has_gradients():
    logits = scene(1)[0].requires_grad_()
    loss = pixel_ce(logits, torch.full((2, 3, 5), 255))
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_an_auxiliary_head_adds_its_share():
    logits, masks = scene(2)
    aux = logits.flip(1)
    found = segmentation({"logits": logits, "aux": aux}, {"masks": masks}, aux_weight=0.4)
    torch.testing.assert_close(found["loss"], pixel_ce(logits, masks) + 0.4 * pixel_ce(aux, masks))
    assert set(segmentation({"logits": logits}, {"masks": masks})) == {"loss"}


@quick
@given(seed=st.integers(0, 1000), factor=st.floats(0.05, 20), alpha=st.sampled_from([0.5, 0.85]))
def test_si_log_forgives_a_global_factor_only_with_alpha_one(seed, factor, alpha):
    draw = generator(seed)
    guess, truth = (torch.rand(2, 4, 4, generator=draw) * 3 + 0.2 for _ in range(2))
    valid = torch.rand(2, 4, 4, generator=draw) < 0.7
    valid[0, 0, :2] = True
    g = (guess / truth).log()[valid].double()
    expected = math.sqrt(max(float((g**2).mean() - alpha * g.mean() ** 2), 1e-8))
    assert float(si_log(guess, truth, valid, alpha)) == pytest.approx(expected, rel=1e-4, abs=1e-4)
    one, scaled = (float(si_log(p, truth, valid, 1.0)) for p in (guess, guess * factor))
    assert scaled == pytest.approx(one, rel=1e-3, abs=3e-4)


def test_si_log_never_looks_at_invalid_pixels():
    guess = (torch.rand(1, 3, 3, generator=generator(3)) + 0.5).requires_grad_()
    truth = torch.full((1, 3, 3), float("nan"))
    valid = torch.zeros(1, 3, 3, dtype=torch.bool)
    valid[0, 0] = True
    truth[0, 0] = torch.tensor([1.0, 2.0, 3.0])
    loss = depth({"depth": guess}, {"depth": truth, "valid": valid}, alpha=0.85)["loss"]
    loss.backward()
    assert torch.isfinite(guess.grad).all()
    assert torch.equal(guess.grad[0, 1:], torch.zeros(2, 3))
    nothing = si_log(guess, truth, torch.zeros_like(valid))
    assert float(nothing.detach()) == 0


def test_a_perfect_depth_has_finite_gradients():
    guess = torch.full((1, 2, 2), 2.0, requires_grad=True)
    si_log(guess, torch.full((1, 2, 2), 2.0), torch.ones(1, 2, 2, dtype=torch.bool)).backward()
    assert torch.isfinite(guess.grad).all()


def test_bad_input():
    logits, masks = scene(4)
    with pytest.raises(DataError, match="image and mask must have the same size"):
        pixel_ce(logits, masks[:, :2])
    with pytest.raises(DataError, match="no 'masks'"):
        segmentation({"logits": logits}, {"images": logits})
    with pytest.raises(DataError, match="image and depth must have the same size"):
        depth({"depth": torch.ones(1, 2, 2)}, {"depth": torch.ones(1, 2, 3), "valid": np.ones(1)})
    with pytest.raises(ConfigError, match="alpha: expected a number in"):
        si_log(torch.ones(1), torch.ones(1), torch.ones(1, dtype=torch.bool), 1.5)


def test_both_are_objectives_by_name():
    assert OBJECTIVES.load("segmentation") is segmentation
    assert OBJECTIVES.load("depth") is depth
