"""Scores of class logits: accuracy, calibration, likelihood."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from understudy.evaluate.metrics import (
    Array,
    expected_calibration_error,
    label_ranks,
    negative_log_likelihood,
    per_class_accuracy,
    recall_at,
)


def classification_metrics(
    logits: Array, labels: Array, *, ks: Sequence[int] = (1, 5), bins: int = 15
) -> dict[str, float]:
    """Score logits against labels.

    Args:
        logits: [rows, classes].
        labels: class numbers [rows].
        ks: which top-k accuracies; a k that reaches the number of classes says nothing and is left
            out (but 1 never is).
        bins: of the calibration error.

    Returns:
        `top1`, `top5`, ... , `per_class` (mean over classes), `ece`, `nll` (nats).

    Raises:
        DataError: wrong shapes, NaN, or a label outside the classes.
    """
    table = torch.as_tensor(logits).float()
    ranks = label_ranks(table, labels)
    classes = table.shape[1]
    out = {f"top{k}": recall_at(ranks, k) for k in ks if k == 1 or k < classes}
    out["per_class"] = per_class_accuracy(table, labels)
    probabilities = table.double().softmax(-1)
    out["ece"] = expected_calibration_error(probabilities, labels, bins)
    out["nll"] = negative_log_likelihood(table, labels)
    return out
