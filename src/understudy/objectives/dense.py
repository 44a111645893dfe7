"""Objectives for dense prediction: pixel classes and depth.

References:
    Pixel cross-entropy with an auxiliary head of weight 0.4: arXiv 1612.01105 and 1807.10221.
    Scale-invariant logarithmic loss: arXiv 1406.2283, eq. 4 (alpha 0.5); arXiv 1907.10326 takes
    the square root and alpha 0.85. Both serve the dense transfer of arXiv 2405.08911.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from understudy.core.errors import DataError
from understudy.objectives.checks import fraction, needs

IGNORE = 255
"""Label of pixels that do not count."""
_FLOOR = 1e-8  # below this the square root's slope would be infinite


def pixel_ce(
    logits: Float[Tensor, "batch classes height width"],
    masks: Int[Tensor, "batch height width"],
    ignore: int = IGNORE,
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy over pixels that are not ignored; 0 if all are.

    Raises:
        DataError: the sizes of logits and masks differ.
    """
    if logits.shape[:1] + logits.shape[2:] != masks.shape:
        raise DataError(
            f"masks: {list(masks.shape)} for logits {list(logits.shape)}; image and mask must have "
            "the same size."
        )
    total = F.cross_entropy(logits.float(), masks.long(), ignore_index=ignore, reduction="sum")
    return total / (masks != ignore).sum().clamp(min=1)


def segmentation(
    outputs: Mapping[str, Tensor],
    batch: Mapping[str, Any],
    *,
    ignore: int = IGNORE,
    aux_weight: float = 0.4,
) -> dict[str, Tensor]:
    """Return the pixel cross-entropy, with that of an auxiliary head where there is one.

    Args:
        outputs: `logits` [B, C, H, W], and `aux` of the same shape or none.
        batch: `masks` [B, H, W].
        ignore: label of pixels that do not count.
        aux_weight: of the auxiliary head.
    """
    needs(batch, ("masks",), "segmentation")
    main = pixel_ce(outputs["logits"], batch["masks"], ignore)
    if outputs.get("aux") is None:
        return {"loss": main}
    aux = pixel_ce(outputs["aux"], batch["masks"], ignore)
    return {"loss": main + aux_weight * aux, "main": main.detach(), "aux": aux.detach()}


def si_log(
    prediction: Float[Tensor, "*shape"],
    target: Float[Tensor, "*shape"],
    valid: Bool[Tensor, "*shape"],
    alpha: float = 0.5,
) -> Float[Tensor, ""]:
    """Return sqrt(mean(g^2) - alpha mean(g)^2) with g = log prediction - log target.

    The means are over all valid pixels of the batch; what stands in other pixels, NaN included,
    does not matter. With alpha 1 a global factor of the predictions changes nothing.

    Args:
        prediction: positive.
        target: positive where valid.
        valid: pixels that count; none gives 0.
        alpha: share of the common factor that is forgiven, in [0, 1].
    """
    alpha = fraction(alpha, "alpha")
    one = torch.ones((), device=prediction.device)
    # log 1 = 0 in the pixels that do not count, in value and in gradient
    ratio = torch.where(valid, prediction.float(), one).log()
    ratio = ratio - torch.where(valid, target.float(), one).log()
    count = valid.sum().clamp(min=1)
    mean, square = ratio.sum() / count, (ratio * ratio).sum() / count
    spread = (square - alpha * mean * mean).clamp(min=_FLOOR)
    return spread.sqrt() * valid.any()


def depth(
    outputs: Mapping[str, Tensor], batch: Mapping[str, Any], *, alpha: float = 0.5
) -> dict[str, Tensor]:
    """Return the scale-invariant logarithmic loss.

    Args:
        outputs: `depth` [B, H, W], positive.
        batch: `depth` [B, H, W] and `valid` bool [B, H, W].
        alpha: see `si_log`.

    Raises:
        DataError: the sizes differ.
    """
    needs(batch, ("depth", "valid"), "depth")
    if outputs["depth"].shape != batch["depth"].shape:
        raise DataError(
            f"depth: predicted {list(outputs['depth'].shape)} for targets "
            f"{list(batch['depth'].shape)}; image and depth must have the same size."
        )
    return {"loss": si_log(outputs["depth"], batch["depth"], batch["valid"], alpha)}
