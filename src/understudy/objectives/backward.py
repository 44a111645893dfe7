"""Objectives that train a new model so that its queries may search an old model's gallery.

The opposite of a map: nothing has to be done to the gallery, and the new model pays for it.

References:
    Backward-compatible training: arXiv 2003.11942, eq. 5. Hot refresh: arXiv 2201.09724. Both forms
    are recalled, not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from understudy.core.errors import ConfigError, DataError
from understudy.objectives.checks import needs
from understudy.objectives.contrastive import full
from understudy.objectives.supervised import accuracy, smoothed_ce


def old_head_loss(
    old_logits: Float[Tensor, "batch old_classes"],
    labels: Int[Tensor, " batch"],
    smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Return the cross-entropy of the old classifier on new embeddings of its own classes.

    Mean over the rows whose label the old classifier knows; 0, with a gradient of 0, where there is
    none in the batch.

    Args:
        old_logits: what the frozen old classifier says of the new model's embeddings.
        labels: classes; those from `old_classes` on are new and left out.
        smoothing: label smoothing.
    """
    known = labels < old_logits.shape[1]
    each = F.cross_entropy(
        old_logits.float(),
        labels.clamp(max=old_logits.shape[1] - 1),
        label_smoothing=smoothing,
        reduction="none",
    )
    return (each * known).sum() / known.sum().clamp(min=1)


def regression_alleviating_loss(
    new: Float[Tensor, "batch dim"],
    old: Float[Tensor, "batch dim"],
    labels: Int[Tensor, " batch"],
    temperature: float = 0.1,
) -> Float[Tensor, ""]:
    """Return the contrast of new queries with their old selves among old and new negatives.

    With cosines over the temperature, mean over i of
    -log [exp(n_i.o_i) / (exp(n_i.o_i) + sum_{y_k != y_i} (exp(n_i.o_k) + exp(n_i.n_k)))]: a gallery
    that is half refreshed holds negatives of both kinds.

    Args:
        new: the new model's embeddings, with gradient.
        old: the old model's embeddings of the same pictures.
        labels: classes; pictures of one class are no negatives of each other.
        temperature: of the cosines.

    Raises:
        ConfigError: a temperature that is not positive.
        DataError: embeddings of different widths.
    """
    if not temperature > 0:
        raise ConfigError(f"hot refresh: temperature must be positive, got {temperature}.")
    if new.shape != old.shape:
        raise DataError(
            f"hot refresh: new embeddings {list(new.shape)}, old ones {list(old.shape)}; they are "
            "compared directly, so the new model needs the old width."
        )
    a, b = F.normalize(full(new), dim=-1), F.normalize(full(old).detach(), dim=-1)
    across, within = a @ b.T / temperature, a @ a.T / temperature
    same = labels[:, None] == labels[None, :]
    across_negative = across.masked_fill(same, -torch.inf)
    within = within.masked_fill(same, -torch.inf)
    own = across.diagonal()
    total = torch.cat([own[:, None], across_negative, within], dim=1).logsumexp(dim=1)
    return (total - own).mean()


def backward_compatible(
    outputs: Mapping[str, Tensor],
    batch: Mapping[str, Any],
    *,
    weight: float = 1.0,
    refresh: float = 0.0,
    smoothing: float = 0.0,
    temperature: float = 0.1,
) -> dict[str, Tensor]:
    """Minimise CE(new head) + weight CE(old head, old classes) + refresh x the hot-refresh term.

    Args:
        outputs: `logits` and `old_logits`, of the new and of the frozen old classifier on the new
            embedding; for `refresh`, `features` and `old_features`.
        batch: `labels`.
        weight: of the old classifier's term.
        refresh: of `regression_alleviating_loss`.
        smoothing: label smoothing of both cross-entropies.
        temperature: of the hot-refresh term.

    Raises:
        ConfigError: a negative weight.
    """
    if weight < 0 or refresh < 0:
        raise ConfigError(
            f"backward_compatible: weight {weight} and refresh {refresh} must be at least 0."
        )
    needs(outputs, ("logits", "old_logits"), "backward_compatible")
    needs(batch, ("labels",), "backward_compatible")
    labels = batch["labels"]
    own = smoothed_ce(outputs["logits"], labels, smoothing)
    old = old_head_loss(outputs["old_logits"], labels, smoothing)
    loss, terms = own + weight * old, {"ce": own.detach(), "old_ce": old.detach()}
    if refresh:
        needs(outputs, ("features", "old_features"), "hot refresh")
        term = regression_alleviating_loss(
            outputs["features"], outputs["old_features"], labels, temperature
        )
        loss, terms["refresh"] = loss + refresh * term, term.detach()
    return {"loss": loss, **terms, "top1": accuracy(outputs["logits"], labels)}
