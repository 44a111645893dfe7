"""Cross-entropy of many tokens in pieces, so that no large array of probabilities is held twice.

Two forms of one sum. `token_losses` starts from logits; `head_losses` starts from hidden states and
the head's weights, makes each piece's logits, takes their gradient at once and drops them: for a
vocabulary of V and n tokens, n V numbers are never held at all. Gradients are exact.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

IGNORE = -100
"""Label of a token that is not learned: prompts, images, padding."""
CPU_PIECE = 1 << 21
"""Logits in a piece on the processor: 8 MB of float32 stay in its caches."""
DEVICE_PIECE = 1 << 28
"""Logits in a piece on an accelerator: 1 GB of float32."""


@dataclass(frozen=True, slots=True)
class Sums:
    """What tokens add up to.

    Attributes:
        loss: mean of -log p(target) + z_loss * logsumexp^2 over the tokens that count;
            differentiable.
        nll: mean of -log p(target), detached.
        z: mean of logsumexp^2, detached.
        hits: share of tokens whose target no other token is likelier than, detached.
        count: tokens that count, float.
    """

    loss: Float[Tensor, ""]
    nll: Float[Tensor, ""]
    z: Float[Tensor, ""]
    hits: Float[Tensor, ""]
    count: Float[Tensor, ""]


def piece_length(vocabulary: int, device: torch.device, chunk: int = 0) -> int:
    """Return the tokens of a piece: `chunk`, or as many as suit the device."""
    size = CPU_PIECE if device.type == "cpu" else DEVICE_PIECE
    return chunk or max(size // vocabulary, 64)


def _piece(
    logits: Float[Tensor, "n vocabulary"], targets: Int[Tensor, " n"], z_loss: float
) -> tuple[Tensor, Tensor]:
    """Return a piece's sums of (nll, logsumexp^2, hits), and its gradient, in place.

    The gradient is that of the summed loss: softmax * (1 + 2 z logsumexp) - onehot, and 0 at tokens
    that do not count.
    """
    kept = targets != IGNORE
    place = targets.masked_fill(~kept, 0)[:, None]
    top = logits.amax(-1, keepdim=True)
    shifted = logits.sub_(top)
    at_target = shifted.gather(1, place)[:, 0]
    total = shifted.exp_().sum(-1, keepdim=True)
    log_z = (top + total.log())[:, 0]
    mask = kept.to(logits.dtype)
    nll = (total.log()[:, 0] - at_target) * mask
    squared = log_z.square() * mask
    hits = ((at_target == 0) & kept).to(logits.dtype)
    sums = torch.stack([nll.sum(), squared.sum(), hits.sum()])
    grown = (mask * (1 + 2 * z_loss * log_z))[:, None] / total
    gradient = shifted.mul_(grown)
    gradient.scatter_add_(1, place, -mask[:, None])
    return sums, gradient


def _means(sums: Tensor, count: Tensor, z_loss: float) -> tuple[Tensor, ...]:
    nll, z, hits = (sums / count.clamp(min=1)).unbind()
    return nll + z_loss * z, nll, z, hits


def _wide(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype == torch.float64 else torch.float32


class _TokenLosses(torch.autograd.Function):
    """From logits; the gradient is made piece by piece, in the logits' dtype."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Tensor, z_loss: float, chunk: int
    ) -> tuple[Tensor, ...]:
        ctx.save_for_backward(logits, targets)
        ctx.options = z_loss, chunk
        count = (targets != IGNORE).sum()
        sums = logits.new_zeros(3, dtype=_wide(logits.dtype))
        for piece, labels in zip(logits.split(chunk), targets.split(chunk), strict=True):
            sums += _piece(piece.to(_wide(piece.dtype), copy=True), labels, z_loss)[0]
        found = _means(sums, count, z_loss)
        ctx.mark_non_differentiable(*found[1:])
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:  # type: ignore[override]
        logits, targets = ctx.saved_tensors
        z_loss, chunk = ctx.options
        scale = grads[0] / (targets != IGNORE).sum().clamp(min=1)
        gradient = torch.empty_like(logits)
        parts = (logits.split(chunk), targets.split(chunk), gradient.split(chunk))
        for piece, labels, out in zip(*parts, strict=True):
            found = _piece(piece.to(_wide(piece.dtype), copy=True), labels, z_loss)[1]
            out.copy_(found.mul_(scale))
        return gradient, None, None, None


class _HeadLosses(torch.autograd.Function):
    """From hidden states and the head's weights; gradients are made on the way forward."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        table: Tensor,
        targets: Tensor,
        z_loss: float,
        chunk: int,
        dtype: torch.dtype,
        learns: bool,
    ) -> tuple[Tensor, ...]:
        count = (targets != IGNORE).sum()
        wide = _wide(dtype)
        weights = table.to(dtype)
        sums = states.new_zeros(3, dtype=wide)
        to_states = torch.empty_like(states) if learns else None
        to_table = torch.zeros_like(table, dtype=wide) if learns else None
        for start in range(0, len(states), chunk):
            piece = states[start : start + chunk].to(dtype)
            logits = (piece @ weights.T).to(wide)
            found, gradient = _piece(logits, targets[start : start + chunk], z_loss)
            sums += found
            if to_states is not None and to_table is not None:
                gradient = gradient.to(dtype)
                to_states[start : start + chunk] = gradient @ weights
                to_table += gradient.T @ piece
        if to_states is not None and to_table is not None:
            ctx.save_for_backward(to_states, to_table, count)
        ctx.table_dtype = table.dtype
        means = _means(sums, count, z_loss)
        ctx.mark_non_differentiable(*means[1:])
        return means

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:  # type: ignore[override]
        to_states, to_table, count = ctx.saved_tensors
        scale = grads[0] / count.clamp(min=1)
        # not in place: a graph that is kept may be walked again
        states = to_states * scale.to(to_states.dtype)
        return states, (to_table * scale).to(ctx.table_dtype), None, None, None, None, None


def token_losses(
    logits: Float[Tensor, "n vocabulary"],
    targets: Int[Tensor, " n"],
    z_loss: float = 0.0,
    chunk: int = 0,
) -> Sums:
    """Return the losses of tokens whose logits are known.

    Args:
        logits: of the token after each place; float32 arithmetic whatever their dtype.
        targets: that token, or `IGNORE`.
        z_loss: weight of logsumexp^2.
        chunk: tokens of a piece; 0 for as many as suit the device.
    """
    chunk = piece_length(logits.shape[-1], logits.device, chunk)
    found = _TokenLosses.apply(logits, targets, z_loss, chunk)
    return Sums(*found, (targets != IGNORE).sum().to(found[0].dtype))  # type: ignore[misc]


def head_losses(
    states: Float[Tensor, "n width"],
    table: Float[Tensor, "vocabulary width"],
    targets: Int[Tensor, " n"],
    z_loss: float = 0.0,
    chunk: int = 0,
) -> Sums:
    """Return the losses of tokens whose logits would be `states @ table.T`; see `token_losses`.

    Under autocast the products are taken in its dtype; sums and the head's gradient in float32.
    """
    dtype, kind = states.dtype, states.device.type
    casts = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    if casts and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(kind)
    chunk = piece_length(len(table), states.device, chunk)
    learns = torch.is_grad_enabled() and (states.requires_grad or table.requires_grad)
    # the products inside choose their own dtype
    with torch.autocast(kind, enabled=False) if casts else nullcontext():
        found = _HeadLosses.apply(states, table, targets, z_loss, chunk, dtype, learns)
    return Sums(*found, (targets != IGNORE).sum().to(found[0].dtype))  # type: ignore[misc]
