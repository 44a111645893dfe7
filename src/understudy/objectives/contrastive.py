"""Contrastive losses between images and texts: softmax (CLIP) and sigmoid (SigLIP).

References:
    CLIP: arXiv 2103.00020, sec. 2.3; as a term of reinforced training arXiv 2311.17049, sec. 3.
    SigLIP: arXiv 2303.15343, sec. 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from understudy.objectives.checks import needs
from understudy.objectives.gather import LOCAL, GatherGroup

MAX_SCALE = 100.0
"""The largest logit scale exp(theta), arXiv 2103.00020, sec. 2.5."""


def logit_scale(theta: Float[Tensor, ""], maximum: float = MAX_SCALE) -> Float[Tensor, ""]:
    """Return exp(theta), at most `maximum`."""
    return theta.exp().clamp(max=maximum)


class Affinity(NamedTuple):
    """This rank's rows of the affinity matrix, in both directions, each [local, all].

    Attributes:
        image_to_text: rows are this rank's images, columns all texts.
        text_to_image: rows are this rank's texts, columns all images.
    """

    image_to_text: Tensor
    text_to_image: Tensor

    def log_softmax(self) -> Affinity:
        """Return the row-wise log-softmax of both, in float32."""
        return Affinity(*(F.log_softmax(m.float(), dim=-1) for m in self))


def full(features: Tensor) -> Tensor:
    """Return features in float32 if they are in half precision, else as they are."""
    return features.float() if features.dtype in (torch.float16, torch.bfloat16) else features


def affinity(
    images: Float[Tensor, "local dim"],
    texts: Float[Tensor, "local dim"],
    scale: Tensor | float,
    *,
    group: GatherGroup = LOCAL,
    all_images: Float[Tensor, "all dim"] | None = None,
) -> Affinity:
    """Return `scale * A B^T` for this rank's rows, image to text and text to image.

    Args:
        images: unit-norm image embeddings of this rank.
        texts: unit-norm text embeddings of this rank, matching row by row.
        scale: factor of the dot products.
        group: the ranks that share the batch.
        all_images: the gathered `images`, if the caller has them already.
    """
    images, texts = full(images), full(texts)
    # Logits reach 100 and their differences count: never in bfloat16, autocast or not.
    with torch.autocast(images.device.type, enabled=False):
        if group.world == 1:
            logits = (images * scale) @ texts.T
            return Affinity(logits, logits.T)
        all_texts = group.gather(texts)
        all_images = group.gather(images) if all_images is None else full(all_images)
        return Affinity((images * scale) @ all_texts.T, (texts * scale) @ all_images.T)


def matching_nll(log_probabilities: Affinity, group: GatherGroup = LOCAL) -> Float[Tensor, ""]:
    """Return the CLIP loss from row-wise log-softmax affinities: matching pairs' mean NLL."""
    first, second = log_probabilities
    columns = group.targets(len(first), first.device)
    return 0.5 * (F.nll_loss(first, columns) + F.nll_loss(second, columns))


def clip_loss(
    images: Float[Tensor, "local dim"],
    texts: Float[Tensor, "local dim"],
    scale: Tensor | float,
    *,
    group: GatherGroup = LOCAL,
) -> Float[Tensor, ""]:
    """Return the symmetric softmax loss 1/2 [CE(s U V^T, diag) + CE(s V U^T, diag)].

    Args:
        images: unit-norm image embeddings U of this rank.
        texts: unit-norm text embeddings V of this rank.
        scale: s = exp(theta), see `logit_scale`.
        group: the ranks that share the batch.
    """
    return matching_nll(affinity(images, texts, scale, group=group).log_softmax(), group)


def pair_logits(
    images: Float[Tensor, "local dim"],
    texts: Float[Tensor, "local dim"],
    scale: Tensor | float,
    bias: Tensor | float,
    group: GatherGroup = LOCAL,
) -> Float[Tensor, "local all"]:
    """Return `scale * U V^T + bias` of this rank's images against all texts, in float32."""
    images, texts = full(images), full(texts)
    with torch.autocast(images.device.type, enabled=False):
        return ((images * scale) @ group.gather(texts).T).float() + bias


def sigmoid_loss(
    images: Float[Tensor, "local dim"],
    texts: Float[Tensor, "local dim"],
    scale: Tensor | float,
    bias: Tensor | float,
    *,
    group: GatherGroup = LOCAL,
) -> Float[Tensor, ""]:
    """Return -(1/b) sum_ij log sigmoid(y_ij (s u_i.v_j + bias)), y = +1 for pairs, else -1.

    Args:
        images: unit-norm image embeddings of this rank.
        texts: unit-norm text embeddings of this rank.
        scale: s; SigLIP starts at 10.
        bias: added to every logit; SigLIP starts at -10.
        group: the ranks that share the batch.
    """
    logits = pair_logits(images, texts, scale, bias, group)
    columns = group.targets(len(logits), logits.device)
    # -log sigmoid(-x) = softplus(x) for all pairs; matching ones become softplus(-x) = that - x.
    matching = logits.gather(1, columns[:, None])
    return (F.softplus(logits).sum() - matching.sum()) / len(logits)


def clip(
    outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], *, group: GatherGroup = LOCAL
) -> dict[str, Tensor]:
    """Minimise the CLIP loss of `image_features` and `text_features`.

    Args:
        outputs: what a CLIP model returns: `image_features`, `text_features`, `logit_scale`.
        batch: not used.
        group: the ranks that share the batch.
    """
    needs(outputs, ("image_features", "text_features", "logit_scale"), "clip")
    loss = clip_loss(
        outputs["image_features"], outputs["text_features"], outputs["logit_scale"], group=group
    )
    return {"loss": loss}


def siglip(
    outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], *, group: GatherGroup = LOCAL
) -> dict[str, Tensor]:
    """Minimise the sigmoid loss; `outputs` also hold `logit_bias`."""
    needs(outputs, ("image_features", "text_features", "logit_scale", "logit_bias"), "siglip")
    loss = sigmoid_loss(
        outputs["image_features"],
        outputs["text_features"],
        outputs["logit_scale"],
        outputs["logit_bias"],
        group=group,
    )
    return {"loss": loss}
