"""The losses of maps between spaces, against formulas written out and finite differences."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError, DataError
from understudy.objectives import OBJECTIVES
from understudy.objectives.compatible import (
    LOSSES,
    best_uncertainty,
    cluster_loss,
    compatible,
    map_mse,
    point_loss,
    weigh_by_uncertainty,
)

B, D, C = 6, 4, 3


def made(seed=0, **more):
    torch.manual_seed(seed)
    z, new = torch.randn(2, B, D, dtype=torch.float64)
    u = torch.randn(B, dtype=torch.float64)
    weight = torch.randn(C, D, dtype=torch.float64)
    labels = torch.randint(0, C, (B,))
    return z, new, u, weight, labels


def by_hand(z, new, u, weight, labels, loss, sim=1.0, disc=1.0, unc=0.5, eps=0.1):
    total = 0.0
    for i in range(B):
        each = sim * ((z[i] - new[i]) ** 2).sum() / D
        if "disc" in loss:
            logits = weight @ z[i]
            logs = logits - np.log(np.exp(logits).sum())
            each += disc * ((1 - eps) * -logs[labels[i]] + eps * np.mean(-logs))
        total += 0.5 * np.exp(-u[i]) * each + unc * u[i] if "unc" in loss else each
    return total / B


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("weights", [(1.0, 1.0, 0.5), (0.3, 2.0, 1.5), (1e-9, 1.0, 0.5)])
def test_every_loss_by_hand(loss, weights):
    z, new, u, weight, labels = made()
    found = compatible(
        {"z": z, "u": u, "logits": z @ weight.T},
        {"new": new, "labels": labels},
        loss=loss,
        mu_sim=weights[0],
        mu_disc=weights[1],
        mu_unc=weights[2],
    )
    numbers = [t.numpy() for t in (z, new, u, weight, labels)]
    expected = by_hand(*numbers, loss, *weights)
    assert float(found["loss"]) == pytest.approx(expected, rel=1e-12)
    assert float(found["mse"]) == pytest.approx(float(((z - new) ** 2).mean()))


def test_without_disc_and_unc_it_is_the_plain_mean_square():
    z, new, *_ = made()
    assert torch.equal(compatible({"z": z}, {"new": new})["loss"], map_mse(z, new))
    assert float(map_mse(z, new)) == pytest.approx(float(((z - new) ** 2).mean()), rel=1e-12)
    zero = compatible(
        {"z": z, "logits": z @ torch.randn(C, D, dtype=torch.float64).T},
        {"new": new, "labels": torch.zeros(B, dtype=torch.long)},
        loss="l2+disc",
        mu_disc=0.0,
    )
    assert torch.equal(zero["loss"], map_mse(z, new))


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-4, 1e3), st.floats(0.05, 3))
def test_the_best_uncertainty_is_the_log_of_the_loss(value, mu):
    losses = torch.tensor([value], dtype=torch.float64)
    best = best_uncertainty(losses, mu).requires_grad_()
    weigh_by_uncertainty(losses, best, mu).backward()
    assert abs(float(best.grad)) < 1e-10
    for step in (-1e-3, 1e-3):  # a minimum, not just a flat place
        moved = weigh_by_uncertainty(losses, best.detach() + step, mu)
        assert moved > weigh_by_uncertainty(losses, best.detach(), mu)
    if mu == 0.5:
        assert float(best.detach()) == pytest.approx(math.log(value))


def test_at_one_half_the_exponent_of_the_best_is_the_loss():
    losses = torch.tensor([0.2, 3.0], dtype=torch.float64)
    torch.testing.assert_close(best_uncertainty(losses).exp(), losses)


def test_no_uncertainty_yet_is_half_the_mean():
    losses = torch.rand(5, dtype=torch.float64)
    found = weigh_by_uncertainty(losses, torch.zeros(5, dtype=torch.float64))
    assert float(found) == pytest.approx(0.5 * float(losses.mean()))


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_by_finite_differences(loss):
    z, new, u, weight, labels = made(1)

    def value(z, u):
        outputs = {"z": z, "u": u, "logits": z @ weight.T}
        return compatible(outputs, {"new": new, "labels": labels}, loss=loss)["loss"]

    z.requires_grad_()
    u.requires_grad_()
    assert torch.autograd.gradcheck(value, (z, u), eps=1e-6, atol=1e-8)
    value(z, u).backward()
    assert (u.grad is not None) == ("unc" in loss)
    h = 1e-6
    for i, j in ((0, 0), (3, 2)):
        high, low = z.detach().clone(), z.detach().clone()
        high[i, j] += h
        low[i, j] -= h
        with torch.no_grad():
            slope = (value(high, u) - value(low, u)) / (2 * h)
        assert float(slope) == pytest.approx(float(z.grad[i, j]), abs=1e-8)


def test_only_the_map_gets_gradients():
    """New vectors and the frozen classifier get none; u's reach z through its head."""
    z, new, _, weight, labels = made(2)
    head = torch.randn(D, dtype=torch.float64)
    for tensor in (z, new):
        tensor.requires_grad_()
    outputs = {"z": z, "u": z @ head, "logits": z @ weight.T}
    compatible(outputs, {"new": new, "labels": labels}, loss="l2+disc+unc")["loss"].backward()
    assert new.grad is None
    assert weight.grad is None
    through = z.grad.clone()
    z.grad = None
    outputs = {"z": z, "u": (z @ head).detach(), "logits": z @ weight.T}
    compatible(outputs, {"new": new, "labels": labels}, loss="l2+disc+unc")["loss"].backward()
    assert not torch.allclose(through, z.grad)


def test_half_precision_is_widened():
    z, new = torch.full((2, 3), 300.0, dtype=torch.float16), torch.zeros(2, 3)
    assert float(map_mse(z, new)) == pytest.approx(90_000)  # overflows 16 bits


def test_what_is_missing_is_named():
    z, new, u, _, labels = made()
    with pytest.raises(DataError, match="'u'"):
        compatible({"z": z}, {"new": new}, loss="l2+unc")
    with pytest.raises(DataError, match="'logits'"):
        compatible({"z": z, "u": u}, {"new": new, "labels": labels}, loss="l2+disc+unc")
    with pytest.raises(DataError, match="'labels'"):
        compatible({"z": z, "logits": z}, {"new": new}, loss="l2+disc")
    with pytest.raises(DataError, match="one shape"):
        point_loss(z, new[:, :2])
    with pytest.raises(ConfigError, match="l2\\+disk"):
        compatible({"z": z}, {"new": new}, loss="l2+disk")


@pytest.mark.parametrize(
    ("weights", "word"),
    [
        ({"mu_sim": -1.0}, "mu_sim"),
        ({"mu_disc": float("nan")}, "mu_disc"),
        ({"mu_unc": 0.0}, "mu_unc"),
        ({"mu_sim": 0.0, "mu_disc": 0.0}, "nothing would be learned"),
    ],
)
def test_bad_weights(weights, word):
    z, new, *_ = made()
    with pytest.raises(ConfigError, match=word):
        compatible({"z": z}, {"new": new}, **weights)


def test_smoothing_is_a_share():
    with pytest.raises(ConfigError, match="smoothing"):
        cluster_loss(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long), 1.5)


def test_it_is_in_the_table():
    assert OBJECTIVES.load("compatible") is compatible
