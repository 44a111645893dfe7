"""What a model knows by heart: documents that it continues word for word, by repeat count.

A document counts as memorised if greedy decoding continues its first tokens with exactly the tokens
that follow. The rate against the number of times that a document was seen says where repetition
turns into memorisation.

References:
    arXiv 2202.07646, sec. 3 (extractable with a prompt of 50 tokens).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from understudy.core.errors import ConfigError, DataError
from understudy.evaluate.lm_tasks_generate import Generate

PROMPT_TOKENS = 50
CONTINUATION_TOKENS = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryRate:
    """How many documents of one repeat count are known by heart.

    Attributes:
        count: times that each was seen.
        documents: how many were asked.
        memorised: of these, continued exactly.
        rate: their share.
        low: lower end of its 95 % interval (Wilson).
        high: upper end.
        matched: mean number of tokens until the first wrong one.
    """

    count: int
    documents: int
    memorised: int
    rate: float
    low: float
    high: float
    matched: float


@dataclass(frozen=True)
class Memorisation:
    """Rates by repeat count.

    Attributes:
        rates: in order of the count.
        prompt_tokens: tokens that were given.
        continuation_tokens: tokens that had to follow.
        skipped: documents that were too short to be asked.
    """

    rates: tuple[MemoryRate, ...]
    prompt_tokens: int
    continuation_tokens: int
    skipped: int

    def to_plain(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return asdict(self)


def wilson(hits: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Return the Wilson score interval of a share (95 % by default)."""
    share, square = hits / total, z * z / total
    middle = (share + square / 2) / (1 + square)
    half = z / (1 + square) * math.sqrt(share * (1 - share) / total + square / (4 * total))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def matched_tokens(made: Sequence[int], truth: Sequence[int]) -> int:
    """Return how many tokens are right before the first wrong or missing one."""
    pairs = zip(made, truth, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(made), len(truth)))


def memorisation(
    documents: Sequence[Sequence[int] | np.ndarray],
    counts: Sequence[int],
    generate: Generate,
    *,
    prompt_tokens: int = PROMPT_TOKENS,
    continuation_tokens: int = CONTINUATION_TOKENS,
    start: int = 0,
) -> Memorisation:
    """Ask for the continuation of documents and compare it token by token.

    Args:
        documents: token ids, as they were trained on.
        counts: times that each was seen.
        generate: greedy decoding without end tokens, `lm_tasks_generate.greedy(model)`.
        prompt_tokens: tokens that are given.
        continuation_tokens: tokens that must follow.
        start: place in the document where the prompt begins.

    Raises:
        ConfigError: nothing is given or asked.
        DataError: lists of different lengths, or no document is long enough.
    """
    if prompt_tokens < 1 or continuation_tokens < 1 or start < 0:
        raise ConfigError(
            f"memorisation: expected at least 1 token given and asked from place 0 on, got "
            f"{prompt_tokens}, {continuation_tokens} and {start}."
        )
    if len(documents) != len(counts):
        raise DataError(f"memorisation: {len(documents)} documents and {len(counts)} counts.")
    need = start + prompt_tokens + continuation_tokens
    kept = [i for i, row in enumerate(documents) if len(row) >= need]
    if not kept:
        longest = max((len(row) for row in documents), default=0)
        raise DataError(
            f"memorisation: no document has {need} tokens, the longest has {longest}; ask for "
            "fewer."
        )
    rows = [[int(t) for t in documents[i][start:need]] for i in kept]
    made = generate([row[:prompt_tokens] for row in rows], continuation_tokens)
    right: dict[int, list[int]] = {}
    for i, row, ids in zip(kept, rows, made, strict=True):
        right.setdefault(int(counts[i]), []).append(matched_tokens(ids, row[prompt_tokens:]))
    rates = []
    for count, lengths in sorted(right.items()):
        hits = sum(n == continuation_tokens for n in lengths)
        low, high = wilson(hits, len(lengths))
        rates.append(
            MemoryRate(
                count=count,
                documents=len(lengths),
                memorised=hits,
                rate=hits / len(lengths),
                low=low,
                high=high,
                matched=float(np.mean(lengths)),
            )
        )
    skipped = len(documents) - len(kept)
    return Memorisation(tuple(rates), prompt_tokens, continuation_tokens, skipped)
