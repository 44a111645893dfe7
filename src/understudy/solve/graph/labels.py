"""Labels of nodes: -1 where there is none, before and after."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from understudy.core.errors import DataError
from understudy.solve.graph.confidence import entropies, margins

UNLABELLED = -1


@dataclass(frozen=True, kw_only=True)
class LabelResult:
    """What label spreading or harmonic functions say of each node.

    Attributes:
        scores: float64 [n, C]; rows sum to 1, or are zero where no label reached the node.
        labels: int64 [n], the class with the largest score, -1 where no label reached the node.
        weak: bool [n], nodes that a label reaches only with less than the solver's accuracy;
            their class is noise, and their confidence is none.
        report: how the system was solved, and counts of nodes that were not reached.
    """

    scores: np.ndarray
    labels: np.ndarray
    weak: np.ndarray
    report: dict[str, Any]

    @property
    def reached(self) -> np.ndarray:
        """Bool [n]: nodes that a label reached."""
        return self.labels != UNLABELLED

    @cached_property
    def margin(self) -> np.ndarray:
        """float64 [n]: confidence, the best score minus the second; 0 where there is none."""
        return np.where(self.weak, 0.0, margins(self.scores))

    @cached_property
    def entropy(self) -> np.ndarray:
        """float64 [n]: entropy over log C; 1 where nothing is known."""
        return np.where(self.weak, 1.0, entropies(self.scores))


def checked_labels(labels: Any, n: int, num_classes: int | None) -> tuple[np.ndarray, int]:
    """Return labels int64 [n], -1 for none, and the number of classes.

    Raises:
        DataError: another length, below -1, not whole numbers, beyond the classes, or all -1.
    """
    values = np.asarray(labels)
    if values.shape != (n,):
        raise DataError(f"labels: expected {n}, one a node, got the shape {values.shape}.")
    if values.dtype.kind not in "iub":
        raise DataError(f"labels: expected whole numbers with -1 for none, got {values.dtype}.")
    values = values.astype(np.int64)
    low = np.flatnonzero(values < UNLABELLED)
    if low.size:
        raise DataError(f"labels: node {low[0]} has {values[low[0]]}; expected -1 or a class.")
    largest = int(values.max(initial=-1))
    if largest < 0:
        raise DataError("labels: all nodes are -1; at least one must have a class.")
    count = largest + 1 if num_classes is None else num_classes
    if largest >= count:
        at = int(np.argmax(values >= count))
        raise DataError(f"labels: node {at} has class {values[at]} of {count} classes.")
    return values, count


def one_hot(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return float64 [n, C]; rows without a label are zero."""
    values = np.zeros((len(labels), num_classes))
    known = np.flatnonzero(labels >= 0)
    values[known, labels[known]] = 1.0
    return values


def result_of(
    raw: np.ndarray, reached: np.ndarray, rtol: float, report: dict[str, Any]
) -> LabelResult:
    """Return shares and classes of solved scores.

    Args:
        raw: float64 [n, C], not negative up to rounding.
        reached: bool [n], nodes in a component with a label.
        rtol: accuracy of `raw`, relative to its largest column norm.
        report: how it was solved.
    """
    values = np.where(reached[:, None], np.maximum(raw, 0.0), 0.0)
    totals = values.sum(axis=1)
    noise = rtol * float(np.linalg.norm(values, axis=0).max(initial=0.0))
    weak = reached & (totals <= noise)
    known = totals > 0
    scores = np.divide(values, totals[:, None], out=np.zeros_like(values), where=known[:, None])
    labels = np.where(known, values.argmax(axis=1), UNLABELLED)
    facts = {**report, "not_reached": int((~reached).sum()), "weak": int(weak.sum())}
    return LabelResult(scores=scores, labels=labels, weak=weak, report=facts)


def encoded(y: Any, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return codes int64 [n] (-1: none) and the sorted classes of labels.

    Raises:
        DataError: another length, numbers with a fraction, or no label at all.
    """
    values = np.asarray(y)
    if values.shape != (n,):
        raise DataError(f"y: expected {n} labels, one a point, got the shape {values.shape}.")
    if values.dtype.kind == "f":
        values = np.where(np.isnan(values), UNLABELLED, values)
        if (values != np.round(values)).any():
            raise DataError("y: classes are whole numbers or text, got numbers with a fraction.")
        values = values.astype(np.int64)
    if values.dtype.kind in "OU":
        none = np.array([v is None or v in ("", UNLABELLED, str(UNLABELLED)) for v in values], bool)
        values = np.array([str(v) for v in values])
    elif values.dtype.kind in "iub":
        values = values.astype(np.int64) if values.dtype.kind == "b" else values
        none = values == UNLABELLED
    else:
        raise DataError(f"y: classes are whole numbers or text, got {values.dtype}.")
    if none.all():
        raise DataError("y: no label is given (all are -1); at least one is needed.")
    classes = np.unique(values[~none])
    codes = np.where(none, UNLABELLED, np.searchsorted(classes, values))
    return codes.astype(np.int64), classes
