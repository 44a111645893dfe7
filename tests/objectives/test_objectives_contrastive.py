from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import DataError
from understudy.objectives import OBJECTIVES
from understudy.objectives.contrastive import clip, clip_loss, logit_scale, siglip, sigmoid_loss


def unit(seed: int, rows: int = 5, dim: int = 7) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, dim, generator=generator, dtype=torch.float64), dim=-1)


def brute_clip(u, v, s):
    total = 0.0
    for a, b in ((u, v), (v, u)):
        for i in range(len(u)):
            logits = [s * float(a[i] @ b[j]) for j in range(len(u))]
            total -= logits[i] - math.log(sum(math.exp(x) for x in logits))
    return total / (2 * len(u))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), rows=st.integers(1, 6), scale=st.floats(0.5, 30))
def test_clip_loss_is_the_written_formula(seed, rows, scale):
    u, v = unit(seed, rows), unit(seed + 1, rows)
    expected = brute_clip(u, v, scale)
    assert float(clip_loss(u, v, scale)) == pytest.approx(expected, rel=1e-5, abs=1e-6)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), rows=st.integers(1, 6))
def test_sigmoid_loss_is_the_written_formula(seed, rows):
    u, v = unit(seed, rows), unit(seed + 1, rows)
    scale, bias = 7.0, -3.0
    total = 0.0
    for i in range(rows):
        for j in range(rows):
            y = 1 if i == j else -1
            total += math.log(1 + math.exp(-y * (scale * float(u[i] @ v[j]) + bias)))
    assert float(sigmoid_loss(u, v, scale, bias)) == pytest.approx(total / rows, rel=1e-5, abs=1e-6)


def test_permuting_the_batch_permutes_rows_only():
    u, v = unit(0).requires_grad_(), unit(1).requires_grad_()
    order = torch.tensor([3, 1, 4, 0, 2])
    plain = torch.autograd.grad(clip_loss(u, v, 10.0), u)[0]
    loss = clip_loss(u[order], v[order], 10.0)
    assert float(loss.detach()) == pytest.approx(float(clip_loss(u, v, 10.0).detach()), abs=1e-6)
    again = torch.autograd.grad(loss, u)[0]
    torch.testing.assert_close(again, plain)


def test_symmetric_in_the_two_modalities():
    u, v = unit(0), unit(1)
    torch.testing.assert_close(clip_loss(u, v, 10.0), clip_loss(v, u, 10.0))
    torch.testing.assert_close(sigmoid_loss(u, v, 10.0, -5.0), sigmoid_loss(v, u, 10.0, -5.0))


def test_scale_is_clamped_at_100():
    assert float(logit_scale(torch.tensor(math.log(1 / 0.07)))) == pytest.approx(1 / 0.07, rel=1e-5)
    assert float(logit_scale(torch.tensor(9.0))) == 100.0
    assert float(logit_scale(torch.tensor(9.0), maximum=50.0)) == 50.0


def test_objectives_take_outputs_and_name_what_is_missing():
    out = {"image_features": unit(0), "text_features": unit(1), "logit_scale": torch.tensor(10.0)}
    torch.testing.assert_close(clip(out, {})["loss"], clip_loss(unit(0), unit(1), 10.0))
    with pytest.raises(DataError, match="siglip: the batch has no 'logit_bias'"):
        siglip(out, {})
    out["logit_bias"] = torch.tensor(-10.0)
    torch.testing.assert_close(siglip(out, {})["loss"], sigmoid_loss(unit(0), unit(1), 10.0, -10.0))


def test_every_named_objective_loads():
    for name in OBJECTIVES:
        assert callable(OBJECTIVES.load(name))
