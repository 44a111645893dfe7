"""The loss of causal language models on the tokens that are to be learned."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from understudy.core.errors import DataError
from understudy.objectives.checks import needs

IGNORE = -100
"""Label of a token that is not learned: prompts, images, padding."""


def next_token_loss(
    logits: Float[Tensor, "rows length vocabulary"], labels: Int[Tensor, "rows length"]
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy of labelled tokens, each predicted from those before it.

    Logits at other places get a gradient of exactly 0. Without any labelled token the loss is 0.

    Args:
        logits: of the token that follows each place.
        labels: the tokens themselves; `IGNORE` where nothing is learned. A label in the first place
            has nothing before it and does not count.

    Raises:
        DataError: shapes differ.

    References:
        arXiv 2304.08485, eq. 3: only the assistant's tokens count.
    """
    if logits.shape[:2] != labels.shape:
        raise DataError(
            f"next_token_loss: logits of {list(logits.shape[:2])} tokens, labels of "
            f"{list(labels.shape)}."
        )
    kept = labels[:, 1:] != IGNORE
    chosen = logits[:, :-1][kept]
    if not len(chosen):
        return chosen.sum() * 0.0
    return F.cross_entropy(chosen.float(), labels[:, 1:][kept])


def language_modelling(
    outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Minimise the next-token loss of a language model's outputs.

    Args:
        outputs: `logits` [B, L, vocabulary] and `labels` int64 [B, L], images in place.
        batch: not used.

    Returns:
        `loss`; `token_accuracy`, detached: the share of labelled tokens that are the likeliest.
    """
    needs(outputs, ("logits", "labels"), "language_modelling")
    logits, labels = outputs["logits"], outputs["labels"]
    loss = next_token_loss(logits, labels)
    kept = labels[:, 1:] != IGNORE
    hits = logits.detach()[:, :-1][kept].argmax(-1) == labels[:, 1:][kept]
    return {"loss": loss, "token_accuracy": hits.float().sum() / max(len(hits), 1)}
