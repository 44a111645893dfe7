"""Objectives of compatible updates: map stored embeddings into a new model's space.

For an item with mapped vector z, new vector n, label y and predicted uncertainty u:

    l2   = (1/d) ||z - n||^2                        to the point
    disc = CE(kappa(z), y), smoothed                to the cluster; kappa is the new, frozen head
    l    = mu_sim l2 + mu_disc disc
    L    = mean of l, or with uncertainty mean of 0.5 exp(-u) l + mu_unc u

With mu_unc = 0.5 the last is the negative log-likelihood of a Gaussian of variance exp(u), up to a
constant: at the optimum u is the logarithm of the item's loss. Gradients of u reach z; n, kappa and
what was stored get none.

References:
    FCT, arXiv 2112.02805 (l2). FastFill, arXiv 2303.04766 (all terms).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError, DataError
from understudy.objectives.checks import fraction, needs

LOSSES = ("l2", "l2+disc", "l2+unc", "l2+disc+unc")
"""Which terms: to the point, to the cluster, weighed by a predicted uncertainty."""


def uses_labels(loss: str) -> bool:
    """Say whether a loss needs labels and a classifier."""
    return "disc" in loss


def uses_uncertainty(loss: str) -> bool:
    """Say whether a loss trains an uncertainty head."""
    return "unc" in loss


def check_weights(mu_sim: float, mu_disc: float, mu_unc: float) -> None:
    """Refuse weights that are negative, not finite, or leave nothing to learn.

    Raises:
        ConfigError: the message names the weight.
    """
    for name, value in (("mu_sim", mu_sim), ("mu_disc", mu_disc)):
        if not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"{name}: expected a number of at least 0, got {value}.")
    if not (math.isfinite(mu_unc) and mu_unc > 0):
        raise ConfigError(
            f"mu_unc: expected a number above 0 (0.5 is a Gaussian likelihood), got {mu_unc}."
        )
    if not (mu_sim or mu_disc):
        raise ConfigError("mu_sim and mu_disc are both 0: nothing would be learned.")


def _wide(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def point_loss(
    z: Float[Tensor, "batch dim"], new: Float[Tensor, "batch dim"]
) -> Float[Tensor, " batch"]:
    """Return each item's squared distance to its new vector, mean over dimensions.

    Raises:
        DataError: the shapes differ.
    """
    if z.shape != new.shape:
        raise DataError(
            f"map: mapped vectors {list(z.shape)} and new vectors {list(new.shape)} must have one "
            "shape."
        )
    return (_wide(z) - _wide(new).detach()).square().mean(dim=-1)


def map_mse(z: Float[Tensor, "batch dim"], new: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
    """Return the squared distance to the new vectors, mean over batch and dimensions."""
    return point_loss(z, new).mean()


def cluster_loss(
    logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"], smoothing: float = 0.1
) -> Float[Tensor, " batch"]:
    """Return each item's (1 - eps) (-log p_y) + eps mean_k(-log p_k)."""
    eps = fraction(smoothing, "smoothing")
    return F.cross_entropy(_wide(logits), labels, label_smoothing=eps, reduction="none")


def weigh_by_uncertainty(
    losses: Float[Tensor, " batch"], u: Float[Tensor, " batch"], mu_unc: float = 0.5
) -> Float[Tensor, ""]:
    """Return the mean of 0.5 exp(-u) l + mu_unc u."""
    u = _wide(u)
    return (0.5 * torch.exp(-u) * losses + mu_unc * u).mean()


def best_uncertainty(losses: Tensor, mu_unc: float = 0.5) -> Tensor:
    """Return the u that minimises `weigh_by_uncertainty` for given losses: log(l / (2 mu_unc))."""
    return torch.log(losses / (2 * mu_unc))


def compatible(
    outputs: Mapping[str, Any],
    batch: Mapping[str, Any],
    *,
    loss: str = "l2",
    mu_sim: float = 1.0,
    mu_disc: float = 1.0,
    mu_unc: float = 0.5,
    smoothing: float = 0.1,
) -> dict[str, Tensor]:
    """Minimise the loss of a map; see the top of this file.

    Args:
        outputs: `z` [batch, dim]; `logits` [batch, classes] of the frozen classifier on z for a
            loss with `disc`; `u` [batch] for one with `unc`.
        batch: `new` [batch, dim]; `labels` [batch] for a loss with `disc`.
        loss: one of `LOSSES`.
        mu_sim: weight of the distance to the new vector.
        mu_disc: weight of the classifier's term.
        mu_unc: weight of u itself.
        smoothing: of the labels.

    Returns:
        `loss`, the plain `mse`, and what there is of `disc` and `u_mean`.

    Raises:
        ConfigError: an unknown loss or a bad weight.
        DataError: something that the loss needs is missing.
    """
    check_choice(loss, LOSSES, "loss")
    check_weights(mu_sim, mu_disc, mu_unc)
    needs(outputs, ("z",), "compatible")
    needs(batch, ("new",), "compatible")
    l2 = point_loss(outputs["z"], batch["new"])
    found = {"mse": l2.detach().mean()}
    each = mu_sim * l2
    if uses_labels(loss):
        needs(outputs, ("logits",), f"loss '{loss}'")
        needs(batch, ("labels",), f"loss '{loss}'")
        disc = cluster_loss(outputs["logits"], batch["labels"], smoothing)
        found["disc"] = disc.detach().mean()
        each = each + mu_disc * disc
    if not uses_uncertainty(loss):
        return {"loss": each.mean(), **found}
    needs(outputs, ("u",), f"loss '{loss}'")
    total = weigh_by_uncertainty(each, outputs["u"], mu_unc)
    return {"loss": total, **found, "u_mean": outputs["u"].detach().mean()}
