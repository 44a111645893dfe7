"""The objective of multi-modal reinforced training: real and synthetic captions, CLIP and teachers.

arXiv 2311.17049, sec. 3: L_Total(B) = (1 - lambda) L_CLIP(B) + lambda L_Distill(B), and the loss is
L_Total(B_real) + L_Total(B_syn), where the two batches share their augmented images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.core.seeds import torch_generator
from understudy.objectives.checks import fraction, needs
from understudy.objectives.contrastive import affinity, matching_nll, sigmoid_loss
from understudy.objectives.distill import Combine, Value, distill_from_log, sigmoid_distill
from understudy.objectives.gather import LOCAL, GatherGroup

Captions = Literal["both", "real", "syn", "mix"]
CAPTIONS = ("both", "real", "syn", "mix")


def check_weights(weights: Sequence[float]) -> tuple[float, float]:
    """Return the weights of B_real and B_syn; raise `ConfigError` unless two, not negative."""
    if len(weights) != 2 or any(w < 0 for w in weights) or not any(weights):
        raise ConfigError(
            f"weights: expected two numbers of at least 0 (real, synthetic), not both 0, got "
            f"{tuple(weights)}."
        )
    return (float(weights[0]), float(weights[1]))


def _sum(
    outputs: Mapping[str, Tensor],
    weights: Sequence[float],
    lam: float,
    terms: Callable[[Tensor, str], tuple[Tensor | None, Tensor | None]],
) -> dict[str, Tensor]:
    """Add up B_real and B_syn; `terms(texts, teacher key)` gives a batch's two losses."""
    batches = (
        ("real", outputs.get("text_features"), "teacher_texts"),
        ("syn", outputs.get("syn_text_features"), "teacher_syn_texts"),
    )
    loss: Tensor | None = None
    facts: dict[str, Tensor] = {}
    for (name, texts, key), weight in zip(batches, check_weights(weights), strict=True):
        if texts is None or not weight:
            continue
        for kind, share, term in zip(
            ("clip", "distill"), (1 - lam, lam), terms(texts, key), strict=True
        ):
            if term is not None:
                facts[f"{kind}_{name}"] = term.detach()
                loss = weight * share * term if loss is None else loss + weight * share * term
    if loss is None:
        raise ConfigError(
            f"reinforced: no captions to learn from (weights {tuple(weights)}, outputs "
            f"{', '.join(outputs)}); give texts or syn_texts a positive weight."
        )
    return {"loss": loss, **facts}


def reinforced(
    outputs: Mapping[str, Tensor],
    batch: Mapping[str, Any],
    *,
    lam: float,
    scales: Sequence[float] | float = (),
    weights: Sequence[float] = (1.0, 1.0),
    combine: Combine = "average",
    value: Value = "ce",
    group: GatherGroup = LOCAL,
) -> dict[str, Tensor]:
    """Minimise L_Total(B_real) + L_Total(B_syn).

    Args:
        outputs: `image_features`, `text_features` and/or `syn_text_features` (a batch that is
            absent adds nothing), `logit_scale`.
        batch: for `lam > 0`: `teacher_images`, `teacher_texts`, `teacher_syn_texts`, lists with
            one [b, D_k] tensor per teacher.
        lam: weight of distillation; the CLIP loss has 1 - lam.
        scales: logit scale sigma_k per teacher.
        weights: of B_real and B_syn.
        combine: how teachers combine, see `affinity_distill`.
        value: `"ce"` or `"kl"`, see `affinity_distill`.
        group: the ranks that share the batch.

    Returns:
        `loss`; `clip_real`, `distill_real`, `clip_syn`, `distill_syn` for the terms that count,
        detached and unweighted.

    Raises:
        ConfigError: `lam` outside [0, 1], or not one scale per teacher.
        DataError: the batch misses a teacher's embeddings.
    """
    lam = fraction(lam, "lam")
    needs(outputs, ("image_features", "logit_scale"), "reinforced")
    images, scale = outputs["image_features"], outputs["logit_scale"]
    # One gather of the images, and of what teachers say of them, serves both caption batches.
    all_images = all_teachers = None
    if group.world > 1:
        all_images = group.gather(images)
        if lam > 0 and batch.get("teacher_images") is not None:
            all_teachers = [group.gather_constant(m) for m in batch["teacher_images"]]

    def terms(texts: Tensor, key: str) -> tuple[Tensor | None, Tensor | None]:
        logp = affinity(images, texts, scale, group=group, all_images=all_images).log_softmax()
        clip_term = matching_nll(logp, group) if lam < 1 else None
        if lam == 0:
            return clip_term, None
        needs(batch, ("teacher_images", key), "reinforced")
        return clip_term, distill_from_log(
            logp,
            batch["teacher_images"],
            batch[key],
            scales,
            combine=combine,
            value=value,
            group=group,
            all_images=all_teachers,
        )

    return _sum(outputs, weights, lam, terms)


def reinforced_sigmoid(
    outputs: Mapping[str, Tensor],
    batch: Mapping[str, Any],
    *,
    lam: float,
    scales: Sequence[float] | float = (),
    biases: Sequence[float] = (),
    weights: Sequence[float] = (1.0, 1.0),
    compat: bool = False,
    group: GatherGroup = LOCAL,
) -> dict[str, Tensor]:
    """Minimise the same sum with sigmoid losses (students with a logit bias).

    Args:
        outputs: as for `reinforced`, and `logit_bias`.
        batch: as for `reinforced`.
        lam: weight of distillation.
        scales: logit scale per teacher.
        biases: logit bias per teacher.
        weights: of B_real and B_syn.
        compat: see `sigmoid_distill`.
        group: the ranks that share the batch.
    """
    lam = fraction(lam, "lam")
    needs(outputs, ("image_features", "logit_scale", "logit_bias"), "reinforced_sigmoid")
    images, scale, bias = (outputs[key] for key in ("image_features", "logit_scale", "logit_bias"))

    def terms(texts: Tensor, key: str) -> tuple[Tensor | None, Tensor | None]:
        clip_term = sigmoid_loss(images, texts, scale, bias, group=group) if lam < 1 else None
        if lam == 0:
            return clip_term, None
        needs(batch, ("teacher_images", key), "reinforced_sigmoid")
        return clip_term, sigmoid_distill(
            images,
            texts,
            scale,
            bias,
            batch["teacher_images"],
            batch[key],
            scales,
            biases,
            compat=compat,
            group=group,
        )

    return _sum(outputs, weights, lam, terms)


def choose_captions(
    batch: Mapping[str, Any],
    synthetic: Bool[Tensor, " batch"],
) -> dict[str, Any]:
    """Return a batch whose captions are the synthetic ones where `synthetic`, the real elsewhere.

    The teachers' text embeddings follow; `syn_texts` and `teacher_syn_texts` are gone.
    """
    needs(batch, ("texts", "syn_texts"), "captions 'mix'")
    rest = {k: v for k, v in batch.items() if k not in ("syn_texts", "teacher_syn_texts")}
    mask = synthetic[:, None]
    rest["texts"] = torch.where(mask, batch["syn_texts"], batch["texts"])
    if batch.get("teacher_texts") is not None:
        needs(batch, ("teacher_syn_texts",), "captions 'mix'")
        pairs = zip(batch["teacher_texts"], batch["teacher_syn_texts"], strict=True)
        rest["teacher_texts"] = [torch.where(mask, syn, real) for real, syn in pairs]
    return rest


def select_captions(
    batch: Mapping[str, Any], captions: Captions, mix: float = 0.5, seed: int = 0
) -> dict[str, Any]:
    """Return the batch with the captions that an arm learns from.

    Args:
        batch: with `texts` and, unless only real ones count, `syn_texts`.
        captions: `"both"` (two losses), `"real"`, `"syn"`, or `"mix"`: one of both per pair, for
            one loss at the price of plain training.
        mix: share of synthetic captions for `"mix"`.
        seed: of that choice; with `batch["step"]` it decides the draw.
    """
    check_choice(captions, CAPTIONS, "captions")
    if captions == "both":
        needs(batch, ("texts", "syn_texts"), "captions 'both'")
        return dict(batch)
    if captions == "mix":
        count = len(batch["texts"])
        generator = torch_generator("captions", seed, int(batch.get("step", 0)))
        drawn = torch.rand(count, generator=generator) < fraction(mix, "mix")
        return choose_captions(batch, drawn.to(batch["texts"].device))
    drop = ("syn_texts", "teacher_syn_texts") if captions == "real" else ("texts", "teacher_texts")
    kept = {k: v for k, v in batch.items() if k not in drop}
    needs(kept, ("texts",) if captions == "real" else ("syn_texts",), f"captions '{captions}'")
    return kept


def reinforced_clip(
    model: nn.Module,
    batch: Mapping[str, Any],
    *,
    lam: float,
    scales: Sequence[float] | float = (),
    captions: Captions = "both",
    mix: float = 0.5,
    seed: int = 0,
    weights: Sequence[float] = (1.0, 1.0),
    combine: Combine = "average",
    value: Value = "ce",
    group: GatherGroup = LOCAL,
) -> dict[str, Tensor]:
    """Run the student once and return `reinforced` of its outputs.

    The image tower runs on b views, the text tower once on the 2b rows [real; synthetic].

    Args:
        model: called as `model(images=..., texts=..., syn_texts=...)`; returns the outputs.
        batch: `images`, `texts`, `syn_texts`, and the teachers' embeddings if `lam > 0`.
        lam: weight of distillation.
        scales: logit scale per teacher.
        captions: which captions to learn from, see `select_captions`.
        mix: share of synthetic captions for `"mix"`.
        seed: of the draw for `"mix"`.
        weights: of B_real and B_syn.
        combine: how teachers combine.
        value: `"ce"` or `"kl"`.
        group: the ranks that share the batch.
    """
    needs(batch, ("images",), "reinforced")
    batch = select_captions(batch, captions, mix, seed)
    outputs = model(
        images=batch["images"], texts=batch.get("texts"), syn_texts=batch.get("syn_texts")
    )
    return reinforced(
        outputs,
        batch,
        lam=lam,
        scales=scales,
        weights=weights,
        combine=combine,
        value=value,
        group=group,
    )
