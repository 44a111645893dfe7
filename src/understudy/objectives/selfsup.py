"""Objectives without labels: two views of a picture agree, or a picture is rebuilt.

They train what is stored beside an old model's embeddings for tasks that nobody knows yet.

References:
    NT-Xent: SimCLR, arXiv 2002.05709, eq. 1. Side information: FCT, arXiv 2112.02805.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from understudy.core.errors import ConfigError, DataError
from understudy.objectives.checks import needs
from understudy.objectives.contrastive import full
from understudy.objectives.gather import LOCAL, GatherGroup


def nt_xent_loss(
    first: Float[Tensor, "local dim"],
    second: Float[Tensor, "local dim"],
    temperature: float = 0.5,
    *,
    group: GatherGroup = LOCAL,
) -> Float[Tensor, ""]:
    """Return the normalised-temperature cross-entropy of two views of each picture.

    With all 2N vectors of the batch z and their cosines s_ij, mean over i of
    -log [exp(s_ij / t) / sum_{k != i} exp(s_ik / t)], where j is the other view of i.

    Args:
        first: one view's vectors of this rank, any length: they are normalised here.
        second: the other view's, row by row.
        temperature: t.
        group: the ranks that share the batch; each brings the same number of rows.

    Raises:
        ConfigError: a temperature that is not positive.
        DataError: views of different shapes, or a batch of one picture, which has no negatives.
    """
    if not temperature > 0:
        raise ConfigError(f"nt_xent: temperature must be positive, got {temperature}.")
    if first.shape != second.shape or first.ndim != 2:
        raise DataError(
            f"nt_xent: views of shapes {list(first.shape)} and {list(second.shape)}; give two "
            "vectors of each picture, [batch, dim] both."
        )
    if len(first) * group.world < 2:
        raise DataError("nt_xent: a batch of one picture has no negatives; raise the batch size.")
    with torch.autocast(first.device.type, enabled=False):
        views = [F.normalize(full(part), dim=-1) for part in (first, second)]
        everything = torch.cat([group.gather(view) for view in views])
        logits = torch.cat(views) @ everything.T / temperature
    count, total = len(first), len(everything) // 2
    own = group.targets(count, first.device)
    place = torch.cat([own, own + total])
    logits = logits.scatter(1, place[:, None], -torch.inf)  # a vector is no candidate for itself
    return F.cross_entropy(logits, torch.cat([own + total, own]))


def simclr(
    outputs: Mapping[str, Tensor],
    batch: Mapping[str, Tensor],
    *,
    temperature: float = 0.5,
    group: GatherGroup = LOCAL,
) -> dict[str, Tensor]:
    """Minimise NT-Xent of `views` and `other_views`.

    Args:
        outputs: vectors [B, D] of both views.
        batch: not used.
        temperature: see `nt_xent_loss`.
        group: the ranks that share the batch.

    Returns:
        `loss`, and `aligned`: the mean cosine of a picture's two views.
    """
    needs(outputs, ("views", "other_views"), "simclr")
    first, second = outputs["views"], outputs["other_views"]
    loss = nt_xent_loss(first, second, temperature, group=group)
    cosine = F.cosine_similarity(first.detach().float(), second.detach().float(), dim=-1)
    return {"loss": loss, "aligned": cosine.mean()}


def reconstruct(
    outputs: Mapping[str, Tensor],
    batch: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Minimise the mean squared error of a rebuilt picture: an auto-encoder.

    Args:
        outputs: `rebuilt`, of the pictures' shape.
        batch: `images`, normalised as the model sees them.

    Returns:
        `loss`, and `unexplained`: the loss over the variance of the pictures.

    Raises:
        DataError: the shapes differ.
    """
    needs(outputs, ("rebuilt",), "reconstruct")
    needs(batch, ("images",), "reconstruct")
    target, made = batch["images"], outputs["rebuilt"]
    if target.shape != made.shape:
        raise DataError(
            f"reconstruct: rebuilt {list(made.shape)} of pictures {list(target.shape)}; the "
            "decoder must end in the picture's shape."
        )
    loss = F.mse_loss(made.float(), target.float())
    variance = (target.float() - target.float().mean(0)).square().mean()
    return {"loss": loss, "unexplained": loss.detach() / variance.clamp(min=1e-12)}
