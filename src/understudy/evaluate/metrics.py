"""Metrics: numbers in, one number out.

Arguments are tensors or arrays. Every metric breaks ties by position (the earlier entry counts as
larger), refuses empty input and NaN, and returns a plain float. Accuracies, recalls and errors are
fractions in [0, 1].
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from understudy.core.errors import ConfigError, DataError

Array: TypeAlias = Tensor | np.ndarray | Sequence[float] | Sequence[Sequence[float]]


def _scores(values: Array, what: str) -> Float[Tensor, "rows columns"]:
    out = torch.as_tensor(values)
    if out.ndim != 2 or out.shape[0] == 0 or out.shape[1] == 0:
        raise DataError(f"{what}: expected [rows, columns], none empty; got {list(out.shape)}.")
    if not out.is_floating_point():
        out = out.double()
    bad = torch.isnan(out).any(1)
    if bool(bad.any()):
        raise DataError(f"{what}: row {int(bad.int().argmax())} holds NaN.")
    return out


def _labels(labels: Array, rows: int, classes: int) -> Int[Tensor, " rows"]:
    out = torch.as_tensor(labels)
    if out.ndim != 1 or len(out) != rows:
        raise DataError(f"labels: expected [{rows}], one a row of scores; got {list(out.shape)}.")
    if out.is_floating_point() and not bool((out == out.round()).all()):
        raise DataError("labels: expected whole class numbers.")
    out = out.long()
    bad = (out < 0) | (out >= classes)
    if bool(bad.any()):
        i = int(bad.int().argmax())
        raise DataError(f"labels: row {i} is {int(out[i])}; there are {classes} classes.")
    return out


def first_ranks(scores: Array, relevant: Tensor | np.ndarray) -> Int[Tensor, " queries"]:
    """Return the rank (0 = first) of each query's best-ranked relevant item.

    Args:
        scores: [queries, items]; larger is better.
        relevant: bool [queries, items].

    Raises:
        DataError: shapes differ, NaN, or a query without a relevant item.
    """
    table = _scores(scores, "scores")
    wanted = torch.as_tensor(relevant)
    if wanted.shape != table.shape:
        raise DataError(f"relevant: expected {list(table.shape)}, got {list(wanted.shape)}.")
    none = ~wanted.any(1)
    if bool(none.any()):
        raise DataError(f"relevant: query {int(none.int().argmax())} has no relevant item.")
    best = table.masked_fill(~wanted, -math.inf).amax(1, keepdim=True)
    # -inf scores of irrelevant items must not win a tie with a relevant -inf
    position = ((table == best) & wanted).int().argmax(1, keepdim=True)
    earlier = torch.arange(table.shape[1], device=table.device) < position
    return ((table > best) | ((table == best) & earlier)).sum(1)


def label_ranks(scores: Array, labels: Array) -> Int[Tensor, " rows"]:
    """Return the rank (0 = first) of each row's label.

    Args:
        scores: [rows, classes]; logits or probabilities.
        labels: class numbers [rows].
    """
    table = _scores(scores, "scores")
    numbers = _labels(labels, *table.shape).to(table.device)[:, None]
    value = table.gather(1, numbers)
    earlier = torch.arange(table.shape[1], device=table.device) < numbers
    return ((table > value) | ((table == value) & earlier)).sum(1)


def top_k_accuracy(scores: Array, labels: Array, k: int = 1) -> float:
    """Return the fraction of rows whose label is among the `k` largest scores.

    Args:
        scores: [rows, classes].
        labels: class numbers [rows].
        k: at least 1.
    """
    return recall_at(label_ranks(scores, labels), k)


def per_class_accuracy(scores: Array, labels: Array) -> float:
    """Return the mean over classes of their top-1 accuracy; classes without rows are left out.

    Args:
        scores: [rows, classes].
        labels: class numbers [rows].
    """
    hit = (label_ranks(scores, labels) == 0).double()
    numbers = torch.as_tensor(labels).long().to(hit.device)
    size = int(numbers.max()) + 1
    rows = torch.zeros(size, dtype=torch.float64, device=hit.device).index_add_(
        0, numbers, torch.ones_like(hit)
    )
    hits = torch.zeros_like(rows).index_add_(0, numbers, hit)
    seen = rows > 0
    return float((hits[seen] / rows[seen]).mean())


def recall_at(ranks: Array, k: int) -> float:
    """Return the fraction of ranks (0 = first) below `k`."""
    if k < 1:
        raise ConfigError(f"recall_at: k must be at least 1, got {k}.")
    values = _ranks(ranks)
    return float((values < k).double().mean())


def median_rank(ranks: Array) -> float:
    """Return the median rank counted from 1 (1 = every query's first item is relevant).

    The median of an even number of ranks is the mean of the two in the middle.
    """
    return float(np.median(_ranks(ranks).cpu().numpy())) + 1.0


def _ranks(ranks: Array) -> Tensor:
    values = torch.as_tensor(ranks)
    if values.ndim != 1 or len(values) == 0:
        raise DataError(f"ranks: expected at least one, as [queries]; got {list(values.shape)}.")
    return values


def mean_average_precision(scores: Array, relevant: Tensor | np.ndarray) -> float:
    """Return the mean over queries of the average precision.

    A query's average precision is the mean, over its relevant items, of the precision at the rank
    of that item. Queries without a relevant item are an error.

    Args:
        scores: [queries, items]; larger is better.
        relevant: bool [queries, items].
    """
    table = _scores(scores, "scores")
    first_ranks(table, relevant)  # checks shapes and that each query has a relevant item
    order = table.argsort(dim=1, descending=True, stable=True)
    hits = torch.as_tensor(relevant).to(table.device).gather(1, order).double()
    places = torch.arange(1, table.shape[1] + 1, dtype=torch.float64, device=table.device)
    precision = hits.cumsum(1) / places
    return float(((precision * hits).sum(1) / hits.sum(1)).mean())


def expected_calibration_error(probabilities: Array, labels: Array, bins: int = 15) -> float:
    """Return sum_b (n_b / N) |accuracy(b) - confidence(b)| over equal-width bins of confidence.

    Confidence is the largest probability; bin b holds (b / bins, (b + 1) / bins]
    (arXiv 1706.04599, eq. 3; used by arXiv 2303.08983, sec. 5).

    Args:
        probabilities: [rows, classes], rows that sum to 1.
        labels: class numbers [rows].
        bins: number of bins.

    Raises:
        DataError: rows are not probabilities.
    """
    if bins < 1:
        raise ConfigError(f"expected_calibration_error: bins must be at least 1, got {bins}.")
    table = _scores(probabilities, "probabilities").double()
    off = (table.sum(1) - 1).abs() > 1e-3
    off |= (table < -1e-6).any(1)
    if bool(off.any()):
        i = int(off.int().argmax())
        raise DataError(
            f"probabilities: row {i} sums to {float(table[i].sum()):.4g}; apply softmax to logits "
            "first."
        )
    right = (label_ranks(table, labels) == 0).double()
    confidence = table.amax(1).clamp(max=1.0)
    # ceil(c * bins) - 1 puts a confidence on an edge into the lower bin
    index = (confidence * bins).ceil().long().sub(1).clamp(0, bins - 1)
    gap = torch.zeros(bins, dtype=torch.float64, device=table.device)
    gap.index_add_(0, index, right - confidence)
    return float(gap.abs().sum() / len(table))


def relative_reduction(before: float, after: float) -> float:
    """Return (before - after) / before: 0.1 when an error shrank by a tenth.

    Raises:
        DataError: `before` is not positive.
    """
    if not before > 0:
        raise DataError(f"relative_reduction: 'before' must be positive, got {before}.")
    return (before - after) / before


def negative_log_likelihood(logits: Array, labels: Array) -> float:
    """Return the mean cross-entropy of the labels, in nats.

    Args:
        logits: [rows, classes].
        labels: class numbers [rows].
    """
    table = _scores(logits, "logits").double()
    numbers = _labels(labels, *table.shape).to(table.device)
    return float(torch.nn.functional.cross_entropy(table, numbers))


Errors: TypeAlias = Mapping[str, Mapping[int, float] | Sequence[float]]
"""corruption -> error by severity, as a mapping or in order of severity from 1 on."""


def _severities(table: Errors, name: str, where: str) -> dict[int, float]:
    values = table[name]
    pairs = values.items() if isinstance(values, Mapping) else enumerate(values, start=1)
    out = {int(severity): float(error) for severity, error in pairs}
    if not out:
        raise DataError(f"{where}: corruption '{name}' has no severity.")
    for severity, error in out.items():
        if not 0.0 <= error <= 1.0:
            raise DataError(
                f"{where}: '{name}', severity {severity}: error {error} is not in [0, 1]."
            )
    return out


def mean_corruption_error(errors: Errors, baseline: Errors | None = None) -> float:
    """Return the mean corruption error (arXiv 1903.12261, sec. 3.2).

    mCE = mean over corruptions c of (sum_s E[c, s] / sum_s B[c, s]), with a baseline's errors B;
    1.0 is as good as the baseline. Without a baseline: the mean over corruptions of the mean error.

    Args:
        errors: corruption -> error by severity, fractions.
        baseline: the same corruptions and severities for the reference model.

    Raises:
        DataError: an empty table, an error outside [0, 1], or tables that do not match.
    """
    if not errors:
        raise DataError("errors: expected at least one corruption.")
    ratios = []
    for name in errors:
        own = _severities(errors, name, "errors")
        if baseline is None:
            ratios.append(sum(own.values()) / len(own))
            continue
        if name not in baseline:
            raise DataError(f"baseline: no corruption '{name}'; it has {', '.join(baseline)}.")
        theirs = _severities(baseline, name, "baseline")
        if set(theirs) != set(own):
            raise DataError(
                f"baseline: '{name}' has severities {sorted(theirs)}, the errors have "
                f"{sorted(own)}."
            )
        total = sum(theirs.values())
        if total == 0:
            raise DataError(f"baseline: '{name}' has no errors at all, so nothing can be relative.")
        ratios.append(sum(own.values()) / total)
    return sum(ratios) / len(ratios)
