"""Affinity distillation: the student's image-text affinities imitate those of several teachers.

Notation of arXiv 2311.17049, sec. 3: S_sigma(A, B) is the row softmax of sigma A B^T; teacher k has
unit-norm embeddings Psi_k of the same views and captions, and its own scale sigma_k
(arXiv 2508.20691, sec. 3). The loss is the mean over teachers, rows and both directions of
KL(S_sigma_k(Psi_k) || S_s(U, V)). No gradient reaches a teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.objectives.checks import same_teachers, teacher_scales
from understudy.objectives.contrastive import Affinity, affinity, pair_logits
from understudy.objectives.gather import LOCAL, GatherGroup

Combine = Literal["average", "mean-kl", "concat"]
Value = Literal["ce", "kl"]
COMBINE = ("average", "mean-kl", "concat")
VALUE = ("ce", "kl")


class Targets(NamedTuple):
    """What the student imitates: row distributions, and what the KL value needs besides.

    Attributes:
        image_to_text: probabilities [local, all], rows sum to 1.
        text_to_image: the same of the other direction.
        entropy: mean over directions, teachers and rows of H(P_k), a scalar: what cross-entropy
            exceeds KL by. None if it was not asked for.
    """

    image_to_text: Tensor
    text_to_image: Tensor
    entropy: Tensor | None


def _entropy(log_probabilities: Affinity) -> Tensor:
    parts = [-(m.exp() * m).sum(dim=-1).mean() for m in log_probabilities]
    return 0.5 * (parts[0] + parts[1])


@torch.no_grad()
def teacher_affinities(
    teacher_images: Sequence[Float[Tensor, "local dim"]],
    teacher_texts: Sequence[Float[Tensor, "local dim"]],
    scales: Sequence[float] | float,
    *,
    concat: bool = False,
    group: GatherGroup = LOCAL,
    all_images: Sequence[Float[Tensor, "all dim"]] | None = None,
) -> list[Affinity]:
    """Return each teacher's row-wise log-softmax affinities.

    Args:
        teacher_images: per teacher, unit-norm embeddings of this rank's views.
        teacher_texts: per teacher, unit-norm embeddings of this rank's captions.
        scales: sigma_k per teacher.
        concat: one softmax of sum_k sigma_k A_k B_k^T, which *multiplies* the experts; returns a
            list of one.
        group: the ranks that share the batch.
        all_images: the gathered `teacher_images`, if the caller has them already.

    Raises:
        ConfigError: not one scale per teacher.
        DataError: lists or shapes of the two modalities differ.
    """
    count = same_teachers(teacher_images, teacher_texts, "affinity distillation")
    scales = teacher_scales(scales, count)
    gathered = [None] * count if all_images is None else [a.float() for a in all_images]
    logits = [
        affinity(a.float(), b.float(), s, group=group, all_images=g)
        for a, b, s, g in zip(teacher_images, teacher_texts, scales, gathered, strict=True)
    ]
    if concat:
        both = zip(*logits, strict=True)
        logits = [Affinity(*(torch.stack(ms).sum(dim=0) for ms in both))]
    return [m.log_softmax() for m in logits]


@torch.no_grad()
def average_targets(teachers: Sequence[Affinity], *, entropy: bool = False) -> Targets:
    """Average the teachers' row softmaxes: P = (1/K) sum_k S_sigma_k.

    Args:
        teachers: log-softmax affinities from `teacher_affinities`.
        entropy: also return the mean of the teachers' entropies (for the value of KL).
    """
    mean = [sum(m[d].exp() for m in teachers) / len(teachers) for d in range(2)]
    extra = sum(_entropy(m) for m in teachers) / len(teachers) if entropy else None
    return Targets(mean[0], mean[1], extra)  # type: ignore[arg-type]


def imitation(targets: Targets, log_student: Affinity) -> Float[Tensor, ""]:
    """Return the mean over directions and rows of CE(P, S), less the teachers' entropy if given.

    Args:
        targets: from `average_targets`.
        log_student: the student's row-wise log-softmax affinities.
    """
    local = len(log_student.image_to_text)
    cross = (targets.image_to_text * log_student.image_to_text).sum()
    cross = cross + (targets.text_to_image * log_student.text_to_image).sum()
    loss = -0.5 / local * cross
    return loss if targets.entropy is None else loss - targets.entropy


def mean_kl(teachers: Sequence[Affinity], log_student: Affinity) -> Float[Tensor, ""]:
    """Return the mean over teachers, directions and rows of KL(teacher || student)."""
    total = torch.zeros((), device=log_student.image_to_text.device)
    for teacher in teachers:
        for p, q in zip(teacher, log_student, strict=True):
            total = total + F.kl_div(q, p, reduction="batchmean", log_target=True)
    return total / (2 * len(teachers))


def distill_from_log(
    log_student: Affinity,
    teacher_images: Sequence[Tensor],
    teacher_texts: Sequence[Tensor],
    scales: Sequence[float] | float,
    *,
    combine: Combine = "average",
    value: Value = "ce",
    group: GatherGroup = LOCAL,
    all_images: Sequence[Tensor] | None = None,
) -> Float[Tensor, ""]:
    """Return the distillation loss for log-softmax affinities that are there already.

    See `affinity_distill` for the arguments; `all_images` are the gathered `teacher_images`.
    """
    check_choice(combine, COMBINE, "combine")
    check_choice(value, VALUE, "value")
    teachers = teacher_affinities(
        teacher_images,
        teacher_texts,
        scales,
        concat=combine == "concat",
        group=group,
        all_images=all_images,
    )
    if combine == "mean-kl":
        loss = mean_kl(teachers, log_student)
        return loss if value == "kl" else loss + average_targets(teachers, entropy=True).entropy  # type: ignore[operator]
    return imitation(average_targets(teachers, entropy=value == "kl"), log_student)


def affinity_distill(
    images: Float[Tensor, "local dim"],
    texts: Float[Tensor, "local dim"],
    scale: Tensor | float,
    teacher_images: Sequence[Float[Tensor, "local width"]],
    teacher_texts: Sequence[Float[Tensor, "local width"]],
    scales: Sequence[float] | float,
    *,
    combine: Combine = "average",
    value: Value = "ce",
    group: GatherGroup = LOCAL,
) -> Float[Tensor, ""]:
    """Return L_Distill of arXiv 2311.17049, sec. 3.

    Args:
        images: the student's unit-norm image embeddings U of this rank.
        texts: the student's unit-norm text embeddings V of this rank.
        scale: the student's scale s.
        teacher_images: per teacher, unit-norm embeddings of the same views.
        teacher_texts: per teacher, unit-norm embeddings of the same captions.
        scales: the teachers' scales sigma_k (100 in arXiv 2311.17049; tuned per teacher in
            arXiv 2508.20691).
        combine: `"average"` minimises the cross-entropy to the mean of the teachers' softmaxes,
            one pass over the student; `"mean-kl"` sums the KL to each teacher, with the same
            gradient; `"concat"` takes one softmax over concatenated teachers, which is another
            objective.
        value: `"ce"` returns cross-entropy, `"kl"` subtracts the teachers' mean entropy (what the
            paper writes); gradients are equal.
        group: the ranks that share the batch.

    Raises:
        ConfigError: not one scale per teacher, or an unknown option.
        DataError: lists or shapes of the two modalities differ.
    """
    student = affinity(images, texts, scale, group=group).log_softmax()
    return distill_from_log(
        student,
        teacher_images,
        teacher_texts,
        scales,
        combine=combine,
        value=value,
        group=group,
    )


@torch.no_grad()
def sigmoid_targets(
    teacher_images: Sequence[Float[Tensor, "local dim"]],
    teacher_texts: Sequence[Float[Tensor, "local dim"]],
    scales: Sequence[float] | float,
    biases: Sequence[float],
    *,
    group: GatherGroup = LOCAL,
) -> Float[Tensor, "local all"]:
    """Return mean_k sigmoid(sigma_k a.b + beta_k): how likely the teachers call each pair a match.

    Raises:
        ConfigError: not one scale and one bias per teacher.
    """
    count = same_teachers(teacher_images, teacher_texts, "sigmoid distillation")
    scales = teacher_scales(scales, count)
    if len(biases) != count:
        raise ConfigError(f"biases: {len(biases)} values for {count} teachers; give one each.")
    terms = [
        torch.sigmoid(pair_logits(a.float(), b.float(), s, beta, group))
        for a, b, s, beta in zip(teacher_images, teacher_texts, scales, biases, strict=True)
    ]
    return torch.stack(terms).mean(dim=0)


def sigmoid_distill(
    images: Float[Tensor, "local dim"],
    texts: Float[Tensor, "local dim"],
    scale: Tensor | float,
    bias: Tensor | float,
    teacher_images: Sequence[Float[Tensor, "local width"]],
    teacher_texts: Sequence[Float[Tensor, "local width"]],
    scales: Sequence[float] | float,
    biases: Sequence[float],
    *,
    compat: bool = False,
    group: GatherGroup = LOCAL,
) -> Float[Tensor, ""]:
    """Return the sigmoid form of distillation, summed over columns, mean over rows.

    Args:
        images: the student's unit-norm image embeddings of this rank.
        texts: the student's unit-norm text embeddings of this rank.
        scale: the student's scale.
        bias: the student's bias.
        teacher_images: per teacher, unit-norm embeddings of the same views.
        teacher_texts: per teacher, unit-norm embeddings of the same captions.
        scales: the teachers' scales.
        biases: the teachers' biases.
        compat: use -log sigmoid(y * logit) with y = 2 p - 1, as published code for
            arXiv 2508.20691 does. For |y| < 1 its minimum is not at the teachers' probability, so
            the default is the binary cross-entropy to p.
        group: the ranks that share the batch.
    """
    targets = sigmoid_targets(teacher_images, teacher_texts, scales, biases, group=group)
    logits = pair_logits(images, texts, scale, bias, group)
    if compat:
        loss = F.softplus(-(2 * targets - 1) * logits)
    else:
        loss = F.softplus(logits) - targets * logits
    return loss.sum() / len(logits)
