"""Documents cut into pieces of powers of two, each piece on its own (arXiv 2405.13226).

Every piece comes from one document, so there is no padding and no attention across documents, and
the pieces of equal length make a bucket.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from understudy.core.config import check_choice
from understudy.core.seeds import seed_for
from understudy.data.tokens import check_log2
from understudy.data.view_random import uniforms

Edges = Literal["spent", "shared", "pure"]


class Pieces(NamedTuple):
    """Pieces in order of documents, and in a document from left to right.

    Attributes:
        document: which document, int64 [P].
        start: place of the first token in its document, int64 [P].
        log2: exponent of the bucket, int64 [P].
        piece: number of the piece in its document, int64 [P].
        size: tokens of the piece, int64 [P].
        dropped: tokens of each document that are in no piece, int64 [N].
    """

    document: np.ndarray
    start: np.ndarray
    log2: np.ndarray
    piece: np.ndarray
    size: np.ndarray
    dropped: np.ndarray


def decompose(
    lengths: np.ndarray,
    min_log2: int = 8,
    max_log2: int = 13,
    *,
    edges: Edges = "spent",
    randomize: bool = True,
    seed: int = 0,
    keys: np.ndarray | None = None,
) -> Pieces:
    """Cut documents greedily, longest piece first, all documents at once.

    While enough is left, k = floor(log2(what is left)); below `min_log2` the rest is dropped. Above
    `max_log2`, k is drawn from all buckets with probability proportional to 2^-k, so that over-long
    documents give each bucket the same expected number of tokens.

    Args:
        lengths: tokens of each document, the end of text included, int [N].
        min_log2: exponent of the shortest bucket; 0 loses at most one token a document.
        max_log2: exponent of the longest bucket.
        edges: `spent`: a piece is 2^k + 1 tokens, of which the last is only a target, and the next
            piece starts after it (the released cutting). `shared`: the last target of a piece is
            also the first input of the next, so that every token but the first is a target once.
            `pure`: pieces of 2^k tokens, the binary expansion of the length.
        randomize: draw for over-long documents; otherwise take the longest bucket.
        seed: of the draws.
        keys: what stands for each document in its draws, int [N]; by default its number. A piece's
            draw depends on seed, key and piece only, not on the other documents.

    Raises:
        ConfigError: exponents out of order.
    """
    check_log2(min_log2, max_log2)
    check_choice(edges, ("spent", "shared", "pure"), "decompose edges")
    step_more, size_more = (0 if edges != "spent" else 1), (0 if edges == "pure" else 1)
    # what is left for pieces: predictions (all but the first token), or tokens in pure mode
    lengths = np.asarray(lengths, np.int64)
    left = np.maximum(lengths - size_more, 0)
    stamps = np.arange(len(lengths)) if keys is None else np.asarray(keys)
    seeds = np.uint64(seed_for("decompose", seed)) ^ (
        stamps.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    )
    odds = np.cumsum(2.0 ** -np.arange(min_log2, max_log2 + 1))
    start = np.zeros(len(lengths), np.int64)
    active = np.flatnonzero(left >= 1 << min_log2)
    found: list[tuple[np.ndarray, ...]] = []
    number = 0
    while len(active):
        k = floor_log2(left[active])
        over = k > max_log2
        if over.any():
            k[over] = max_log2
            if randomize:
                draws = uniforms(seeds[active[over]], number, 1)[:, 0] * odds[-1]
                k[over] = min_log2 + np.searchsorted(odds, draws, "right")
        found.append((active, start[active], k, np.full(len(active), number)))
        taken = (1 << k) + step_more
        start[active] += taken
        left[active] -= taken
        active = active[left[active] >= 1 << min_log2]
        number += 1
    return _ordered(found, lengths, size_more, step_more)


def _ordered(
    found: list[tuple[np.ndarray, ...]], lengths: np.ndarray, size_more: int, step_more: int
) -> Pieces:
    none = np.empty(0, np.int64)
    document, start, log2, piece = (
        np.concatenate([none, *(part[i] for part in found)]) for i in range(4)
    )
    order = np.lexsort((piece, document))
    document, start, log2, piece = (a[order] for a in (document, start, log2, piece))
    size = (1 << log2) + size_more
    used = np.bincount(document, weights=size, minlength=len(lengths)).astype(np.int64)
    if size_more and not step_more:  # a shared token was counted twice
        used -= np.maximum(np.bincount(document, minlength=len(lengths)) - 1, 0)
    return Pieces(document, start, log2, piece, size, lengths - used)


def floor_log2(values: np.ndarray) -> np.ndarray:
    """Return floor(log2(v)) of whole numbers from 1 on, exactly, int64."""
    # frexp gives v = m * 2^e with 0.5 <= m < 1; exact below 2^53
    return np.frexp(values.astype(np.float64))[1].astype(np.int64) - 1
