"""Lengths of documents and sequences: histograms and means."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from understudy.curate.tokens.decompose import floor_log2


def log2_histogram(sizes: np.ndarray) -> dict[int, int]:
    """Return how many sizes have floor(log2(size)) = k, by k; sizes of 0 are left out."""
    sizes = np.asarray(sizes)
    counts = np.bincount(floor_log2(sizes[sizes > 0]))
    return {k: int(n) for k, n in enumerate(counts) if n}


def mean_length(tokens: Mapping[int, float]) -> float:
    """Return the mean number of tokens of a sequence.

    Args:
        tokens: tokens by bucket (log2 of the length), in any unit.

    References:
        arXiv 2405.13226, appendix F: sum n_i / sum (n_i / 2^i).
    """
    return sum(tokens.values()) / sum(n / 2**k for k, n in tokens.items())


def mean_context(tokens: Mapping[int, float]) -> float:
    """Return the mean number of earlier tokens that a token sees in its sequence.

    Args:
        tokens: tokens by bucket (log2 of the length), in any unit.

    References:
        arXiv 2405.13226, appendix F: (sum n_i 2^i / sum n_i - 1) / 2.
    """
    return (weighted_length(tokens) - 1) / 2


def weighted_length(tokens: Mapping[int, float]) -> float:
    """Return the mean length of the sequence that a token is in; it decides the attention's cost.

    Args:
        tokens: tokens by bucket (log2 of the length), in any unit.
    """
    return sum(n * 2**k for k, n in tokens.items()) / sum(tokens.values())


def lengths_mean(lengths: np.ndarray) -> tuple[float, float]:
    """Return (mean length, mean context) of sequences of any lengths.

    Args:
        lengths: input tokens of each sequence, int [N].

    References:
        arXiv 2405.13226, appendix F: sum l / N, and sum l (l - 1) / 2 / sum l.
    """
    lengths = np.asarray(lengths, np.float64)
    return float(lengths.mean()), float((lengths * (lengths - 1) / 2).sum() / lengths.sum())
