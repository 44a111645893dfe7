"""The captioning loss, alone and with the contrastive one (CoCa, arXiv 2205.01917)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from understudy.core.errors import ConfigError
from understudy.objectives.checks import needs
from understudy.objectives.contrastive import clip_loss
from understudy.objectives.gather import LOCAL, GatherGroup

CONTRASTIVE, CAPTIONING = 1.0, 2.0
"""Weights of the two losses (arXiv 2205.01917, sec. 4.1; OpenCLIP's defaults)."""


def predicted(texts: Int[Tensor, "batch length"]) -> Bool[Tensor, "batch rest"]:
    """Return which of the tokens 1 to L - 1 are to be predicted: those up to the end, inclusive.

    The end is the largest id of a row. Padding is known by its place, not by its id: id 0 may be a
    word.
    """
    places = torch.arange(1, texts.shape[1], device=texts.device)
    return places <= texts.argmax(dim=-1, keepdim=True)


def captioning_loss(
    logits: Float[Tensor, "batch rest vocabulary"], texts: Int[Tensor, "batch length"]
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy of the tokens that follow, over all that are no padding.

    Args:
        logits: for the tokens 1 to L - 1.
        texts: start, words, end, padding.
    """
    kept = predicted(texts)
    return F.cross_entropy(logits[kept].float(), texts[:, 1:][kept])


def coca(
    outputs: Mapping[str, Tensor],
    batch: Mapping[str, Tensor],
    *,
    contrastive: float = CONTRASTIVE,
    captioning: float = CAPTIONING,
    group: GatherGroup = LOCAL,
) -> dict[str, Tensor]:
    """Minimise `contrastive * L_CLIP + captioning * L_caption`.

    Args:
        outputs: what a CoCa returns: `image_features`, `text_features`, `logit_scale`,
            `caption_logits`.
        batch: `texts`.
        contrastive: weight of the CLIP loss.
        captioning: weight of the captioning loss.
        group: the ranks that share the batch, for the CLIP loss.

    Returns:
        `loss`; `contrastive` and `captioning`, detached and unweighted, where they count.

    Raises:
        ConfigError: a weight is negative, or both are 0.
    """
    if min(contrastive, captioning) < 0 or not (contrastive or captioning):
        raise ConfigError(
            f"coca: weights of at least 0, not both 0, got contrastive {contrastive} and "
            f"captioning {captioning}."
        )
    needs(outputs, ("image_features", "text_features", "logit_scale", "caption_logits"), "coca")
    needs(batch, ("texts",), "coca")
    loss: Tensor | float = 0.0
    facts: dict[str, Tensor] = {}
    if contrastive:
        term = clip_loss(
            outputs["image_features"], outputs["text_features"], outputs["logit_scale"], group=group
        )
        loss, facts["contrastive"] = contrastive * term, term.detach()
    if captioning:
        term = captioning_loss(outputs["caption_logits"], batch["texts"])
        loss, facts["captioning"] = loss + captioning * term, term.detach()
    return {"loss": loss, **facts}  # type: ignore[dict-item]
