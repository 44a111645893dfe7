"""The alignment objective: symmetry, limits, several positives, modalities, chunks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import DataError
from understudy.models.multimodal import linear_align
from understudy.objectives.alignment import (
    alignment,
    chunked_loss,
    multi_positive_loss,
    pair_loss,
    recall_at,
    regression,
)
from understudy.objectives.contrastive import clip_loss


def units(count=9, dim=5, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, dim, generator=generator, dtype=dtype), dim=1)


def outputs(**sides):
    named = {f"{k}_features": v for k, v in sides.items()}
    return {"logit_scale": torch.tensor(10.0), **named}


def test_loss_is_symmetric_under_swapping_the_sides():
    a, b = units(), units(seed=1)
    assert pair_loss(a, b, 7.0) == pytest.approx(float(pair_loss(b, a, 7.0)))
    groups = torch.tensor([0, 0, 1, 2, 3, 3, 3, 4, 5])
    one = multi_positive_loss(a, b, 7.0, groups)
    assert one == pytest.approx(float(multi_positive_loss(b, a, 7.0, groups)))


@settings(max_examples=10, deadline=None)
@given(batch=st.integers(2, 40), scale=st.floats(0.1, 100))
def test_loss_is_log_b_when_all_similarities_are_equal(batch, scale):
    same = units(1).repeat(batch, 1)
    assert pair_loss(same, same, scale) == pytest.approx(math.log(batch), rel=1e-5)


def test_loss_vanishes_for_orthonormal_pairs_and_a_large_scale():
    eye = torch.eye(8, dtype=torch.float64)
    assert pair_loss(eye, eye, 100.0) < 1e-6
    assert pair_loss(eye, eye.roll(1, 0), 100.0) > 50


def test_gradient_of_the_temperature_meets_finite_differences():
    a, b = units(), units(seed=1)
    theta = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    loss = pair_loss(a, b, theta.exp(), groups=torch.arange(9))
    loss.backward()
    h = 1e-3
    up, down = (
        float(pair_loss(a, b, (theta.detach() + d).exp(), groups=torch.arange(9))) for d in (h, -h)
    )
    assert float(theta.grad) == pytest.approx((up - down) / (2 * h), rel=2e-3)


def test_different_groups_give_the_clip_loss():
    a, b = units(), units(seed=1)
    expected = clip_loss(a, b, 12.0)
    assert multi_positive_loss(a, b, 12.0, torch.arange(9)) == pytest.approx(float(expected))


def test_several_positives_against_a_loop():
    a, b = units(), units(seed=1)
    groups = [0, 1, 0, 2, 1, 0, 3, 4, 4]
    logits = 5.0 * a @ b.T
    total = 0.0
    for i in range(9):
        mine = [j for j in range(9) if groups[j] == groups[i]]
        for table in (logits, logits.T):
            log_p = F.log_softmax(table[i], dim=0)
            total += -sum(float(log_p[j]) for j in mine) / len(mine)
    got = multi_positive_loss(a, b, 5.0, torch.tensor(groups))
    assert float(got) == pytest.approx(total / 18, rel=1e-5)


@pytest.mark.parametrize("groups", [None, [0, 1, 0, 2, 1, 0, 3, 4, 4]])
@pytest.mark.parametrize("chunk", [1, 4, 9, 50])
def test_chunks_change_neither_loss_nor_gradients(chunk, groups):
    groups = None if groups is None else torch.tensor(groups)
    found = []
    for size in (0, chunk):
        a, b = units().requires_grad_(), units(seed=1).requires_grad_()
        scale = torch.tensor(6.0, dtype=torch.float64, requires_grad=True)
        if size:
            loss = chunked_loss(a, b, scale, size, groups)
        else:
            loss = pair_loss(a, b, scale, groups=groups)
        loss.backward()
        found.append([loss.detach(), a.grad, b.grad, scale.grad])
    for whole, part in zip(*found, strict=True):
        assert torch.allclose(whole.double(), part.double(), atol=1e-5)


def test_no_chunk_holds_more_logits_than_its_rows(monkeypatch):
    shapes = []
    whole = F.log_softmax
    monkeypatch.setattr(
        "understudy.objectives.alignment.F.log_softmax",
        lambda x, dim: shapes.append(tuple(x.shape)) or whole(x, dim=dim),
    )
    a, b = units(), units(seed=1)
    pair_loss(a, b, 5.0, groups=torch.arange(9) // 2, chunk=4)
    assert set(shapes) == {(4, 9), (1, 9)}


def test_more_modalities_sum_over_their_pairs():
    sides = {name: units(seed=i, dtype=torch.float32) for i, name in enumerate(("a", "b", "c"))}
    got = alignment(outputs(**sides), {}, modalities=("a", "b", "c"))
    expected = sum(
        float(clip_loss(sides[x], sides[y], 10.0)) for x, y in (("a", "b"), ("a", "c"), ("b", "c"))
    )
    assert float(got["loss"]) == pytest.approx(expected, rel=1e-5)
    assert set(got) == {"loss", "a-b", "a-c", "b-c"}


def test_rows_without_both_sides_are_left_out_of_that_pair():
    sides = {name: units(seed=i, dtype=torch.float32) for i, name in enumerate(("a", "b", "c"))}
    there = {"b": torch.arange(9) < 5, "c": torch.arange(9) > 2}
    got = alignment(outputs(**sides), {"present": there}, modalities=("a", "b", "c"))
    a, b, c = sides.values()
    assert float(got["a-b"]) == pytest.approx(float(clip_loss(a[:5], b[:5], 10.0)), rel=1e-5)
    assert float(got["b-c"]) == pytest.approx(float(clip_loss(b[3:5], c[3:5], 10.0)), rel=1e-5)
    changed = {**sides, "b": torch.where((torch.arange(9) < 5)[:, None], b, b.flip(1))}
    again = alignment(outputs(**changed), {"present": there}, modalities=("a", "b", "c"))
    assert float(again["loss"]) == float(got["loss"])


def test_pair_with_one_common_row_is_left_out():
    sides = {name: units(seed=i, dtype=torch.float32) for i, name in enumerate(("a", "b", "c"))}
    there = {"b": torch.arange(9) < 4, "c": torch.arange(9) > 2}
    got = alignment(outputs(**sides), {"present": there}, modalities=("a", "b", "c"))
    assert "b-c" not in got


def test_linear_head_with_squares_meets_closed_form_ridge():
    draw = np.random.default_rng(0)
    x = draw.standard_normal((40, 6))
    y = x @ draw.standard_normal((6, 3)) + 0.3 * draw.standard_normal((40, 3))
    layer = torch.nn.Linear(6, 3).double()
    inputs, targets = torch.from_numpy(x), torch.from_numpy(y)
    optimizer = torch.optim.LBFGS(
        layer.parameters(), max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = regression(layer(inputs), targets, [layer.weight], l2=0.05)
        loss.backward()
        return loss

    optimizer.step(closure)
    maps = linear_align.ridge(x, y, 0.05)
    assert np.allclose(layer.weight.detach().numpy().T, maps.first, atol=1e-4)
    assert np.allclose(layer.bias.detach().numpy(), maps.first_bias, atol=1e-4)


def test_recall_counts_partners_and_groups():
    a = torch.eye(4)
    b = torch.eye(4)[[0, 1, 3, 2]]
    assert float(recall_at(a, b)) == 0.5
    assert float(recall_at(a, b, 1, torch.tensor([0, 1, 2, 2]))) == 1.0
    assert float(recall_at(a, b, 4)) == 1.0


def test_bad_input_missing_outputs_or_groups():
    with pytest.raises(DataError, match="has no 'text_features'"):
        alignment(outputs(image=units()), {})
    with pytest.raises(DataError, match="has no 'groups'"):
        alignment(outputs(image=units(), text=units()), {}, multi_positive=True)


def test_bad_input_no_pair_has_both_sides():
    there = {"image": torch.arange(9) < 4, "text": torch.arange(9) > 2}
    with pytest.raises(DataError, match="no pair of modalities has two rows"):
        alignment(outputs(image=units(), text=units()), {"present": there})
