"""The loss of causal language models on the tokens that are to be learned."""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from understudy.core.errors import DataError
from understudy.objectives.checks import needs
from understudy.objectives.language_tokens import IGNORE, Sums, head_losses, token_losses

__all__ = ["IGNORE", "causal_lm", "head_causal_lm", "language_modelling", "next_token_loss"]


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


def causal_lm(
    outputs: Mapping[str, Tensor],
    batch: Mapping[str, Tensor],
    *,
    z_loss: float = 0.0,
    chunk: int = 0,
) -> dict[str, Tensor]:
    """Minimise the mean cross-entropy of the next tokens, and keep logits from drifting.

    loss = mean(-log p(target)) + z_loss * mean(logsumexp^2), both over the targets that are not
    `IGNORE`; a batch without any has loss 0. OpenLM's code squares the batch's mean logsumexp
    instead, which lets tokens cancel each other.

    Args:
        outputs: `logits` [B, L, vocabulary].
        batch: `targets` int64 [B, L], already shifted: the token after each place; `IGNORE` where
            nothing is learned.
        z_loss: weight of the second term.
        chunk: tokens of a piece in which probabilities are made; 0 for as many as suit the device.

    Returns:
        `loss`; detached `nll`, `z_loss` (its weight applied), `token_accuracy` and `tokens`, the
        number of targets.

    Raises:
        DataError: shapes differ, or a target that is no token.

    References:
        arXiv 2204.02311, sec. 5 (z-loss); arXiv 2406.11794, table 10 (1e-4).
    """
    needs(outputs, ("logits",), "causal_lm")
    needs(batch, ("targets",), "causal_lm")
    logits, targets = outputs["logits"], batch["targets"]
    _check_targets(logits.shape[:-1], targets, logits.shape[-1])
    return _reported(token_losses(logits.flatten(0, -2), targets.flatten(), z_loss, chunk), z_loss)


def head_causal_lm(
    states: Float[Tensor, "rows length width"],
    table: Float[Tensor, "vocabulary width"],
    batch: Mapping[str, Tensor],
    *,
    z_loss: float = 0.0,
    chunk: int = 0,
) -> dict[str, Tensor]:
    """Minimise `causal_lm` of the logits `states @ table.T`, which are never held at once.

    Args:
        states: the hidden states that the head reads.
        table: the head's weights.
        batch: see `causal_lm`.
        z_loss: see `causal_lm`.
        chunk: see `causal_lm`.
    """
    needs(batch, ("targets",), "causal_lm")
    targets = batch["targets"]
    _check_targets(states.shape[:-1], targets, len(table))
    sums = head_losses(states.flatten(0, -2), table, targets.flatten(), z_loss, chunk)
    return _reported(sums, z_loss)


def _check_targets(shape: tuple[int, ...], targets: Tensor, vocabulary: int) -> None:
    if shape != targets.shape:
        raise DataError(
            f"causal_lm: outputs of {list(shape)} tokens, targets of {list(targets.shape)}."
        )
    if targets.device.type != "cpu" or not targets.numel():
        return  # looking at values there would wait for the device
    low, high = int(targets.min()), int(targets.max())
    if high >= vocabulary or (low < 0 and bool(((targets < 0) & (targets != IGNORE)).any())):
        raise DataError(
            f"causal_lm: targets from {low} to {high}, but the model has {vocabulary} tokens; the "
            "texts were tokenised with another tokenizer."
        )


def _reported(sums: Sums, z_loss: float) -> dict[str, Tensor]:
    return {
        "loss": sums.loss,
        "nll": sums.nll,
        "z_loss": z_loss * sums.z,
        "token_accuracy": sums.hits,
        "tokens": sums.count,
    }
