"""Choosing the next token: nucleus and top-K sampling with a row's own random numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from understudy.core.seeds import rng

TOP_P = 0.9
"""Share of the probability that sampling keeps (arXiv 2311.17049, arXiv 2508.20691)."""


def token_draws(seeds: Sequence[int], length: int) -> np.ndarray:
    """Return the uniform numbers `float64 [rows, length]` that decide tokens, a seed a row.

    A row's numbers depend on its seed alone: not on the rows beside it, nor on how many there are.
    """
    return np.array([rng("tokens", seed).random(length) for seed in seeds]).reshape(-1, length)


def nucleus(
    logits: Float[Tensor, "rows vocabulary"],
    draws: Float[Tensor, " rows"],
    top_p: float = TOP_P,
    temperature: float = 1.0,
    top_k: int = 0,
) -> Int[Tensor, " rows"]:
    """Draw a token a row from the likeliest tokens.

    The `top_k` likeliest are kept first; of these the smallest set that holds `top_p` of their
    probability.

    Args:
        logits: of the next token.
        draws: uniform in [0, 1), one a row; equal draws give equal tokens.
        top_p: probability that the kept tokens have at least, in (0, 1].
        temperature: divides the logits.
        top_k: tokens that are kept at most; 0 for all.

    References:
        arXiv 1904.09751, sec. 3.1 (nucleus); arXiv 1805.04833, sec. 5.4 (top-K).
    """
    probabilities = (logits.double() / temperature).softmax(dim=-1)
    ordered, tokens = probabilities.sort(dim=-1, descending=True, stable=True)
    if 0 < top_k < ordered.shape[-1]:
        ordered = ordered[:, :top_k]
        ordered = ordered / ordered.sum(dim=-1, keepdim=True)
    before = ordered.cumsum(dim=-1) - ordered
    kept = ordered * (before < top_p)
    cumulative = kept.cumsum(dim=-1)
    target = draws.double()[:, None] * cumulative[:, -1:]
    index = (cumulative <= target).sum(dim=-1, keepdim=True)
    index = index.clamp(max=(kept > 0).sum(dim=-1, keepdim=True) - 1)
    return tokens.gather(-1, index)[:, 0]
