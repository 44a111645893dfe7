"""Imitation of stored top-K probabilities (arXiv 2303.08983, sec. 3).

A teacher's distribution P over C classes is kept as its K largest probabilities and their ids, as
they are. `densify` puts the rest back; `kl_topk` minimises KL(q || softmax(z)) without ever making
the dense q.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError, DataError
from understudy.objectives.checks import needs, row_name
from understudy.objectives.supervised import accuracy, one_hot, soft_ce

Densify = Literal["smooth", "zeros", "reference-zeros"]
METHODS = ("smooth", "zeros", "reference-zeros")


def check_k(k: int, num_classes: int) -> None:
    """Raise `ConfigError` unless 1 <= k <= num_classes."""
    if not 1 <= k <= num_classes:
        raise ConfigError(
            f"top-K: K is {k} for {num_classes} classes; expected at most {num_classes}."
        )


def sparsify(
    probabilities: Float[Tensor, "batch classes"], k: int
) -> tuple[Float[Tensor, "batch k"], Int[Tensor, "batch k"]]:
    """Return the `k` largest probabilities, largest first and not renormalised, and their ids.

    Raises:
        ConfigError: `k` is not in 1..C.
    """
    check_k(k, probabilities.shape[-1])
    values, ids = probabilities.topk(k, dim=-1)
    return values, ids


def check_topk(
    values: Float[Tensor, "batch k"],
    ids: Int[Tensor, "batch k"],
    num_classes: int,
    rows: Tensor | None = None,
) -> None:
    """Check stored targets where that costs nothing: in host memory.

    Raises:
        ConfigError: K is larger than the number of classes.
        DataError: a value is not finite or negative, a row sums to 0, or a class id is outside the
            data set's classes; the message names the row.
    """
    check_k(values.shape[-1], num_classes)
    if values.shape != ids.shape:
        raise DataError(f"top-K: values are {list(values.shape)}, ids {list(ids.shape)}.")
    total = values.float().sum(dim=-1)
    lowest = values.float().amin(dim=-1)
    bad = ~(torch.isfinite(total) & (total > 0) & (lowest >= 0))
    if bool(bad.any()):
        index = int(bad.int().argmax())
        raise DataError(
            f"top-K: {row_name(index, rows)} has probabilities of sum {float(total[index]):g}; the "
            "teacher's output was not finite, negative or all zero. Reinforce that row again."
        )
    outside = ((ids < 0) | (ids >= num_classes)).any(dim=-1)
    if bool(outside.any()):
        index = int(outside.int().argmax())
        least, most = int(ids[index].min()), int(ids[index].max())
        raise DataError(
            f"top-K: {row_name(index, rows)} names class {least if least < 0 else most}, the data "
            f"set has {num_classes} classes: the teacher was trained on other classes, so use one "
            "that was trained on these."
        )


def _kept_and_rest(
    values: Tensor, num_classes: int, method: Densify, compat: bool
) -> tuple[Tensor, Tensor]:
    """Return probabilities of the kept classes [B, K] and of each dropped class [B, 1]."""
    check_choice(method, METHODS, "densify")
    k = values.shape[-1]
    check_k(k, num_classes)
    if method == "reference-zeros" and not compat:
        raise ConfigError(
            "densify: 'reference-zeros' takes the softmax of probabilities, which is nearly "
            "uniform over K; pass compat=True to reproduce it, or use 'zeros'."
        )
    values = values.float()
    if method == "reference-zeros":
        kept = values.softmax(dim=-1)
        return kept, torch.zeros_like(kept[:, :1])
    total = values.sum(dim=-1, keepdim=True)
    normalised = values / total
    if method == "zeros" or k == num_classes:
        return normalised, torch.zeros_like(total)
    rest = 1.0 - total
    # Rounding may push the kept mass above 1; nothing is left for the others then.
    below = rest < 0
    kept = torch.where(below, normalised, values)
    return kept, rest.clamp_min(0.0) / (num_classes - k)


def densify(
    values: Float[Tensor, "batch k"],
    ids: Int[Tensor, "batch k"],
    num_classes: int,
    method: Densify = "smooth",
    *,
    compat: bool = False,
) -> Float[Tensor, "batch classes"]:
    """Return distributions over all classes; every row sums to 1.

    Args:
        values: kept probabilities, any float type.
        ids: their classes.
        num_classes: C.
        method: `"smooth"` spreads r = 1 - sum(values) evenly over the C - K dropped classes (rows
            with r < 0 fall to `"zeros"`); `"zeros"` divides the kept values by their sum;
            `"reference-zeros"` takes the softmax of the kept probabilities, as the published code
            does, and needs `compat`.
        compat: allow `"reference-zeros"`.

    Raises:
        ConfigError: K > C, or `"reference-zeros"` without `compat`.
    """
    kept, rest = _kept_and_rest(values, num_classes, method, compat)
    return rest.repeat(1, num_classes).scatter_(1, ids.long(), kept)


def _xlogx(p: Tensor) -> Tensor:
    return torch.special.xlogy(p, p)


def kl_topk(
    logits: Float[Tensor, "batch classes"],
    values: Float[Tensor, "batch k"],
    ids: Int[Tensor, "batch k"],
    method: Densify = "smooth",
    *,
    compat: bool = False,
) -> Float[Tensor, ""]:
    """Return (1/B) sum_b KL(q_b || softmax(z_b)), q = densify(values, ids).

    Its gradient in z_b is (softmax(z_b) - q_b) / B. The dense q is never made: with rest mass r per
    dropped class, sum_c q_c log p_c = r sum_c log p_c + sum_k (q_k - r) log p_k.

    Args:
        logits: the student's z.
        values: kept probabilities.
        ids: their classes.
        method: see `densify`.
        compat: see `densify`.
    """
    num_classes = logits.shape[-1]
    kept, rest = _kept_and_rest(values, num_classes, method, compat)
    logp = F.log_softmax(logits.float(), dim=-1)
    cross = (rest * logp.sum(dim=-1, keepdim=True)).sum()
    cross = cross + ((kept - rest) * logp.gather(1, ids.long())).sum()
    dropped = num_classes - values.shape[-1]
    negative_entropy = _xlogx(kept).sum() + dropped * _xlogx(rest).sum()
    return (negative_entropy - cross) / len(logits)


def targets(
    batch: Mapping[str, Any], num_classes: int, method: Densify = "smooth", *, compat: bool = False
) -> Float[Tensor, "batch classes"]:
    """Return the dense q of a batch: its stored targets, or one-hot labels where it is `plain`.

    Args:
        batch: `topk_p`, `topk_id` [B, K]; with `plain` also `labels`, see `topk`.
        num_classes: C.
        method: see `densify`.
        compat: see `densify`.

    Raises:
        DataError: the batch lacks one of these.
    """
    needs(batch, ("topk_p", "topk_id"), "topk")
    dense = densify(batch["topk_p"], batch["topk_id"], num_classes, method, compat=compat)
    plain = batch.get("plain")
    if plain is None:
        return dense
    needs(batch, ("labels",), "topk with plain samples")
    return torch.where(plain[:, None], one_hot(batch["labels"], num_classes), dense)


def topk(
    outputs: Mapping[str, Tensor],
    batch: Mapping[str, Any],
    *,
    method: Densify = "smooth",
    compat: bool = False,
) -> dict[str, Tensor]:
    """Minimise the KL to stored targets; no labels, no smoothing, temperature 1.

    Args:
        outputs: `logits`.
        batch: `topk_p` and `topk_id` [B, K]. Where the boolean `plain` [B] is set, the sample is an
            original image with ordinary augmentation and its target is the one-hot of `labels`
            (arXiv 2303.08983 draws 1% of those). With `targets` [B, C], of mixed images, these
            are q instead.
        method: see `densify`.
        compat: see `densify`.

    Returns:
        `loss`, and `top1` if the batch has labels and its images are not mixed.
    """
    needs(outputs, ("logits",), "topk")
    logits, mixed = outputs["logits"], batch.get("targets")
    if mixed is None and batch.get("plain") is None:
        needs(batch, ("topk_p", "topk_id"), "topk")
        loss = kl_topk(logits, batch["topk_p"], batch["topk_id"], method, compat=compat)
    else:
        q = mixed
        if q is None:
            q = targets(batch, logits.shape[-1], method, compat=compat)
        loss = soft_ce(logits, q) + _xlogx(q).sum() / len(q)
    terms = {"loss": loss}
    if mixed is None and batch.get("labels") is not None:
        terms["top1"] = accuracy(logits, batch["labels"])
    return terms
