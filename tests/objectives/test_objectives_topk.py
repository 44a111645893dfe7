from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError, DataError
from understudy.objectives.supervised import one_hot
from understudy.objectives.topk import check_topk, densify, kl_topk, sparsify, topk


def probabilities(seed: int, rows: int = 4, classes: int = 9, sharp: float = 2.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.softmax(sharp * torch.randn(rows, classes, generator=generator), dim=-1)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 9999), k=st.integers(1, 9), half=st.booleans())
def test_densify_sums_to_one_and_keeps_the_top(seed, k, half):
    p = probabilities(seed)
    values, ids = sparsify(p, k)
    if half:
        values = values.half()
    for method in ("smooth", "zeros"):
        q = densify(values, ids, 9, method)
        torch.testing.assert_close(q.sum(dim=-1), torch.ones(4), atol=1e-6, rtol=0)
    smooth = densify(values, ids, 9, "smooth")
    if k < 9 and not half:
        assert torch.equal(smooth.gather(1, ids), values)  # kept entries exactly
        dropped = 1 - values.sum(dim=-1)
        rest = smooth.sum(dim=-1) - smooth.gather(1, ids).sum(dim=-1)
        torch.testing.assert_close(rest, dropped, atol=1e-6, rtol=1e-4)


def test_all_classes_kept_round_trip_up_to_storage_precision():
    p = probabilities(3)
    values, ids = sparsify(p, 9)
    torch.testing.assert_close(densify(values, ids, 9), p, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(densify(values.half(), ids, 9), p, atol=2**-11, rtol=2**-10)


def test_mass_above_one_by_rounding_falls_to_zeros_for_that_row_only():
    values = torch.tensor([[0.75, 0.26], [0.5, 0.25]])
    ids = torch.tensor([[0, 2], [1, 3]])
    q = densify(values, ids, 5, "smooth")
    torch.testing.assert_close(q[0], torch.tensor([0.75 / 1.01, 0, 0.26 / 1.01, 0, 0]))
    rest = 0.25 / 3
    torch.testing.assert_close(q[1], torch.tensor([rest, 0.5, rest, 0.25, rest]))


def test_reference_zeros_is_the_softmax_of_probabilities_and_needs_the_flag():
    values, ids = sparsify(probabilities(5, sharp=4.0), 3)
    with pytest.raises(ConfigError, match="pass compat=True to reproduce it"):
        densify(values, ids, 9, "reference-zeros")
    q = densify(values, ids, 9, "reference-zeros", compat=True)
    torch.testing.assert_close(q.gather(1, ids), values.softmax(dim=-1))
    assert float(q.max()) < 0.6  # nearly uniform over K: the trap
    proper = densify(values, ids, 9, "zeros")
    torch.testing.assert_close(proper.gather(1, ids), values / values.sum(-1, keepdim=True))


@pytest.mark.parametrize("method", ["smooth", "zeros", "reference-zeros"])
@pytest.mark.parametrize("k", [1, 3, 9])
def test_sparse_kl_equals_dense_kl(method, k):
    values, ids = sparsify(probabilities(7), k)
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(1))
    q = densify(values, ids, 9, method, compat=True)
    expected = F.kl_div(F.log_softmax(logits, -1), q, reduction="batchmean")
    found = kl_topk(logits, values, ids, method, compat=True)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_gradient_is_softmax_minus_target_over_batch_by_finite_differences():
    values, ids = sparsify(probabilities(8), 3)
    values = values.double()
    z = torch.randn(4, 9, generator=torch.Generator().manual_seed(2), requires_grad=True)
    grad = torch.autograd.grad(kl_topk(z, values, ids), z)[0]
    q = densify(values, ids, 9)
    torch.testing.assert_close(grad, (z.softmax(-1) - q) / 4, atol=1e-6, rtol=1e-5)

    def dense(x: torch.Tensor) -> float:  # the formula in float64, for the differences
        logp = F.log_softmax(x, dim=-1)
        return float((q.double() * (q.double().log() - logp)).sum() / 4)

    eps, base = 1e-5, z.detach().double()
    for b, c in ((0, 0), (1, 4), (3, 8), (2, int(ids[2, 0]))):
        up, down = base.clone(), base.clone()
        up[b, c] += eps
        down[b, c] -= eps
        numeric = (dense(up) - dense(down)) / (2 * eps)
        assert float(grad[b, c]) == pytest.approx(numeric, abs=1e-6)


def test_kl_is_cross_entropy_less_entropy():
    values, ids = sparsify(probabilities(9), 4)
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(3))
    q = densify(values, ids, 9)
    ce = F.cross_entropy(logits, q)
    entropy = -(q * q.log()).sum() / 4
    torch.testing.assert_close(kl_topk(logits, values, ids), ce - entropy)


def test_permutation_and_zero_at_the_target():
    values, ids = sparsify(probabilities(10), 4)
    q = densify(values, ids, 9)
    assert float(kl_topk(q.log(), values, ids)) == pytest.approx(0, abs=1e-6)
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(4))
    order = torch.tensor([2, 3, 0, 1])
    torch.testing.assert_close(
        kl_topk(logits, values, ids), kl_topk(logits[order], values[order], ids[order])
    )


def test_objective_mixes_plain_samples_in():
    values, ids = sparsify(probabilities(11), 4)
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(5))
    labels = torch.tensor([1, 2, 3, 4])
    data = {"topk_p": values, "topk_id": ids, "labels": labels}
    found = topk({"logits": logits}, data)
    torch.testing.assert_close(found["loss"], kl_topk(logits, values, ids))
    assert "top1" in found
    data["plain"] = torch.tensor([False, True, False, True])
    q = densify(values, ids, 9)
    hard = one_hot(labels, 9)
    rows = torch.stack([q[0], hard[1], q[2], hard[3]])
    expected = F.kl_div(F.log_softmax(logits, -1), rows, reduction="batchmean")
    torch.testing.assert_close(topk({"logits": logits}, data)["loss"], expected)
    data["plain"] = torch.zeros(4, dtype=torch.bool)
    torch.testing.assert_close(topk({"logits": logits}, data)["loss"], found["loss"])


def test_bad_targets_are_named():
    values, ids = sparsify(probabilities(12), 4)
    rows = torch.tensor([10, 11, 12, 13])
    check_topk(values, ids, 9, rows)
    with pytest.raises(ConfigError, match="K is 4 for 3 classes"):
        check_topk(values, ids, 3, rows)
    with pytest.raises(ConfigError, match="K is 12 for 9 classes"):
        sparsify(probabilities(1), 12)
    nan = values.clone()
    nan[2, 1] = float("nan")
    with pytest.raises(DataError, match="row 12 has probabilities of sum nan"):
        check_topk(nan, ids, 9, rows)
    zero = values.clone()
    zero[1] = 0
    with pytest.raises(DataError, match="row 11 has probabilities of sum 0"):
        check_topk(zero, ids, 9, rows)
    other = ids.clone()
    other[3, 0] = 57
    with pytest.raises(DataError, match="row 13 names class 57, the data set has 9 classes"):
        check_topk(values, other, 9, rows)
    with pytest.raises(
        ConfigError, match=r"densify: 'smoth' is not one of .* Did you mean 'smooth'"
    ):
        densify(values, ids, 9, "smoth")
