"""Backward-compatible training and hot refresh against their written formulas."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError, DataError
from understudy.objectives.backward import (
    backward_compatible,
    old_head_loss,
    regression_alleviating_loss,
)

LABELS = torch.tensor([0, 3, 1, 2, 1])


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_old_head_sees_old_classes_only():
    logits = draw(0, 5, 2).requires_grad_()
    expected = F.cross_entropy(logits[[0, 2, 4]], LABELS[[0, 2, 4]])
    found = old_head_loss(logits, LABELS)
    torch.testing.assert_close(found, expected)
    (grad,) = torch.autograd.grad(found, logits)
    assert bool((grad[[1, 3]] == 0).all())
    assert bool((grad[[0, 2, 4]] != 0).any())


def test_no_old_class_in_the_batch_costs_nothing():
    logits = draw(1, 2, 2).requires_grad_()
    found = old_head_loss(logits, torch.tensor([5, 7]))
    assert float(found.detach()) == 0
    assert bool((torch.autograd.grad(found, logits)[0] == 0).all())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 500), t=st.floats(0.1, 2))
def test_hot_refresh_is_the_written_formula(seed, t):
    new, old = draw(seed, 5, 4).double(), draw(seed + 1, 5, 4).double()
    a, b, total = F.normalize(new, dim=1), F.normalize(old, dim=1), 0.0
    for i in range(5):
        own = math.exp(float(a[i] @ b[i]) / t)
        below = own
        for k in range(5):
            if LABELS[k] != LABELS[i]:
                below += math.exp(float(a[i] @ b[k]) / t) + math.exp(float(a[i] @ a[k]) / t)
        total -= math.log(own / below)
    found = regression_alleviating_loss(new, old, LABELS, t)
    assert float(found) == pytest.approx(total / 5, rel=1e-5)


def test_the_old_model_gets_no_gradient():
    new, old = draw(2, 5, 4).requires_grad_(), draw(3, 5, 4).requires_grad_()
    grads = torch.autograd.grad(
        regression_alleviating_loss(new, old, LABELS), (new, old), allow_unused=True
    )
    assert grads[0] is not None
    assert grads[1] is None


def test_sum_of_terms():
    outputs = {
        "logits": draw(4, 5, 4), "old_logits": draw(5, 5, 2),
        "features": draw(6, 5, 4), "old_features": draw(7, 5, 4),
    }  # fmt: skip
    batch = {"labels": LABELS}
    found = backward_compatible(outputs, batch, weight=0.5, refresh=2.0, smoothing=0.1)
    expected = F.cross_entropy(outputs["logits"], LABELS, label_smoothing=0.1)
    expected = expected + 0.5 * old_head_loss(outputs["old_logits"], LABELS, 0.1)
    expected = expected + 2 * regression_alleviating_loss(
        outputs["features"], outputs["old_features"], LABELS
    )
    torch.testing.assert_close(found["loss"], expected)
    plain = backward_compatible(outputs, batch, weight=0.0)
    torch.testing.assert_close(plain["loss"], F.cross_entropy(outputs["logits"], LABELS))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda: regression_alleviating_loss(draw(0, 5, 4), draw(1, 5, 3), LABELS),
            DataError, "needs the old width",
        ),
        (
            lambda: regression_alleviating_loss(draw(0, 5, 4), draw(1, 5, 4), LABELS, 0),
            ConfigError, "must be positive",
        ),
        (lambda: backward_compatible({}, {}, weight=-1), ConfigError, "at least 0"),
        (lambda: backward_compatible({"logits": draw(0, 5, 4)}, {}), DataError, "'old_logits'"),
    ],
)  # fmt: skip
def test_bad_input(call, error, text):
    with pytest.raises(error, match=text):
        call()
