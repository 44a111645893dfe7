"""Objectives for labelled images: label smoothing, soft and mixed targets, online distillation.

References:
    Baselines and online distillation: arXiv 2303.08983, appendix (general form
    lambda_cls CE + lambda_kd T^2 KL). Hard distillation: arXiv 2012.12877, eq. 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from understudy.core.errors import ConfigError, DataError
from understudy.objectives.checks import fraction, needs


def smoothed_ce(
    logits: Float[Tensor, "batch classes"],
    labels: Int[Tensor, " batch"],
    smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Return the cross-entropy to (1 - smoothing) one-hot + smoothing / C, mean over the batch."""
    return F.cross_entropy(logits.float(), labels, label_smoothing=fraction(smoothing, "smoothing"))


def soft_ce(
    logits: Float[Tensor, "batch classes"], targets: Float[Tensor, "batch classes"]
) -> Float[Tensor, ""]:
    """Return -(1/B) sum_b sum_c q_bc log softmax(z_b)_c."""
    return -(targets * F.log_softmax(logits.float(), dim=-1)).sum() / len(logits)


def one_hot(
    labels: Int[Tensor, " batch"],
    num_classes: int,
    smoothing: float = 0.0,
) -> Float[Tensor, "batch classes"]:
    """Return one-hot targets, smoothed.

    Raises:
        DataError: a label is outside [0, num_classes).
    """
    # Reading the extremes of a device tensor would make the loop wait for the device.
    if labels.device.type == "cpu" and len(labels):
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= num_classes:
            raise DataError(f"labels: {low}..{high} for {num_classes} classes; count the classes.")
    smoothing = fraction(smoothing, "smoothing")
    base = smoothing / num_classes
    out = torch.full((len(labels), num_classes), base, device=labels.device)
    return out.scatter_(1, labels[:, None], 1.0 - smoothing + base)


def mixed_targets(
    labels: Int[Tensor, " batch"],
    partners: Int[Tensor, " batch"],
    lam: Tensor | float,
    num_classes: int,
    smoothing: float = 0.0,
) -> Float[Tensor, "batch classes"]:
    """Return lam * y1 + (1 - lam) * y2, the targets of MixUp and CutMix.

    Args:
        labels: classes of the first images.
        partners: classes of the images mixed in.
        lam: weight of the first images, a number or [batch].
        num_classes: number of classes.
        smoothing: label smoothing of both.
    """
    weight = torch.as_tensor(lam, device=labels.device, dtype=torch.float32)
    weight = weight[:, None] if weight.ndim else weight
    first = one_hot(labels, num_classes, smoothing)
    return weight * first + (1 - weight) * one_hot(partners, num_classes, smoothing)


def accuracy(
    logits: Float[Tensor, "batch classes"],
    labels: Int[Tensor, " batch"],
) -> Float[Tensor, ""]:
    """Return the share of right answers, without gradient."""
    return (logits.detach().argmax(dim=-1) == labels).float().mean()


def classify(
    outputs: Mapping[str, Tensor], batch: Mapping[str, Any], *, smoothing: float = 0.0
) -> dict[str, Tensor]:
    """Minimise cross-entropy: to `batch["targets"]` [B, C] if there, else to smoothed `labels`.

    Returns:
        `loss`, and `top1` where the images are not mixed (a mixed image has no single label).
    """
    needs(outputs, ("logits",), "classify")
    logits = outputs["logits"]
    if batch.get("targets") is not None:
        return {"loss": soft_ce(logits, batch["targets"])}
    needs(batch, ("labels",), "classify")
    loss = smoothed_ce(logits, batch["labels"], smoothing)
    return {"loss": loss, "top1": accuracy(logits, batch["labels"])}


def teacher_log_probabilities(
    batch: Mapping[str, Any], temperature: float
) -> Float[Tensor, "batch classes"]:
    """Return log softmax(z_t / T) from `teacher_logits`, or from `teacher_probs`.

    For probabilities softmax(log p / T) is used, which is the same for a single teacher and
    defines it for an average of several.
    """
    if batch.get("teacher_logits") is not None:
        return F.log_softmax(batch["teacher_logits"].detach().float() / temperature, dim=-1)
    needs(batch, ("teacher_probs",), "distillation")
    logp = batch["teacher_probs"].detach().float().clamp_min(1e-12).log()
    return F.log_softmax(logp / temperature, dim=-1)


def _same_classes(student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape:
        raise DataError(
            f"distillation: the teacher gives {list(teacher.shape)}, the student "
            f"{list(student.shape)}; both need the classes of the data set."
        )


def online_kd(
    outputs: Mapping[str, Tensor],
    batch: Mapping[str, Any],
    *,
    lambda_kd: float = 1.0,
    lambda_cls: float = 0.0,
    temperature: float = 1.0,
    smoothing: float = 0.0,
) -> dict[str, Tensor]:
    """Minimise lambda_cls CE(y) + lambda_kd T^2 KL(softmax(z_t / T) || softmax(z_s / T)).

    Args:
        outputs: `logits` of the student.
        batch: `teacher_logits` or `teacher_probs` [B, C] of the same views; if `lambda_cls` is not
            0, `labels`, or `targets` [B, C] where images are mixed.
        lambda_kd: weight of the imitation.
        lambda_cls: weight of the labels.
        temperature: T.
        smoothing: label smoothing of the labels' term.

    Raises:
        ConfigError: a negative weight, or a temperature that is not positive.
        DataError: the teacher's classes are not the student's.
    """
    if lambda_kd < 0 or lambda_cls < 0 or not (lambda_kd or lambda_cls):
        raise ConfigError(
            f"online_kd: lambda_kd {lambda_kd} and lambda_cls {lambda_cls} must be at least 0 and "
            "not both 0."
        )
    if not temperature > 0:
        raise ConfigError(f"online_kd: temperature must be positive, got {temperature}.")
    needs(outputs, ("logits",), "online_kd")
    logits = outputs["logits"].float()
    teacher = teacher_log_probabilities(batch, temperature)
    _same_classes(logits, teacher)
    student = F.log_softmax(logits / temperature, dim=-1)
    kl = F.kl_div(student, teacher, reduction="batchmean", log_target=True)
    loss = lambda_kd * temperature**2 * kl
    terms = {"kl": kl.detach()}
    if lambda_cls:
        # As `classify` does it: the targets of mixed images, else the labels.
        ce = classify(outputs, batch, smoothing=smoothing)["loss"]
        terms["ce"] = ce.detach()
        loss = loss + lambda_cls * ce
    return {"loss": loss, **terms}


def hard_distillation(
    outputs: Mapping[str, Tensor],
    batch: Mapping[str, Any],
    *,
    alpha: float = 0.5,
    smoothing: float = 0.0,
) -> dict[str, Tensor]:
    """Minimise (1 - alpha) CE(y) + alpha CE(argmax of the teacher).

    Args:
        outputs: `logits`, and `distill_logits` if the student has a head of its own for the
            teacher's label.
        batch: `labels` (or `targets`), and `teacher_logits` or `teacher_probs`.
        alpha: weight of the teacher's label.
        smoothing: label smoothing of the first term.
    """
    alpha = fraction(alpha, "alpha")
    needs(outputs, ("logits",), "hard_distillation")
    logits = outputs["logits"]
    teacher = batch.get("teacher_logits")
    if teacher is None:
        needs(batch, ("teacher_probs",), "hard_distillation")
        teacher = batch["teacher_probs"]
    head = outputs.get("distill_logits", logits)
    _same_classes(head, teacher)
    own = classify(outputs, batch, smoothing=smoothing)["loss"]
    imitation = smoothed_ce(head, teacher.argmax(dim=-1))
    loss = (1 - alpha) * own + alpha * imitation
    return {"loss": loss, "ce": own.detach(), "hard": imitation.detach()}
