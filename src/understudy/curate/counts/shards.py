"""Greedy counts over shards: three passes, each a task a shard, so that no one holds all documents.

1. `sketch`: documents and tokens by (score, duplicates); merged, they give ranks and lambda.
2. `marginal`: the few documents whose next copy is worth exactly lambda, with their hashes.
3. `counts`: each shard's own counts.

The result is the one of `greedy_counts` over all documents at once, whatever the shards are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from understudy.core.errors import ConfigError, DataError
from understudy.curate.counts.greedy import Cut, cut_at, fill, log_value


@dataclass(frozen=True, kw_only=True)
class Sketch:
    """How many documents and tokens there are of each (score, duplicates).

    Attributes:
        score: float32 [G].
        duplicates: int64 [G].
        documents: int64 [G].
        tokens: int64 [G].
        smallest: tokens of the smallest document.
    """

    score: np.ndarray
    duplicates: np.ndarray
    documents: np.ndarray
    tokens: np.ndarray
    smallest: int


def _grouped(
    score: np.ndarray, duplicates: np.ndarray, documents: np.ndarray, tokens: np.ndarray, least: int
) -> Sketch:
    order = np.lexsort((duplicates, score))
    score, duplicates = score[order], duplicates[order]
    new = np.ones(len(score), bool)
    new[1:] = (score[1:] != score[:-1]) | (duplicates[1:] != duplicates[:-1])
    starts = np.flatnonzero(new)
    return Sketch(
        score=score[starts],
        duplicates=duplicates[starts],
        documents=np.add.reduceat(documents[order], starts),
        tokens=np.add.reduceat(tokens[order], starts),
        smallest=least,
    )


def sketch(score: np.ndarray, duplicates: np.ndarray, tokens: np.ndarray) -> Sketch:
    """Return the sketch of a shard.

    Args:
        score: finite, float [N].
        duplicates: int [N], at least 1.
        tokens: int [N], at least 1.

    Raises:
        DataError: a shard without documents, or a score that is not finite.
    """
    if not len(score):
        raise DataError("sketch: the shard has no documents; leave it out.")
    if not np.isfinite(score).all():
        raise DataError(f"sketch: row {int((~np.isfinite(score)).argmax())} has no score.")
    wide = tokens.astype(np.int64)
    return _grouped(
        score.astype(np.float32), duplicates.astype(np.int64), np.ones(len(score), np.int64), wide,
        int(wide.min()),
    )  # fmt: skip


def merged(sketches: Sequence[Sketch]) -> Sketch:
    """Return the sketch of all shards together."""
    parts = {
        name: np.concatenate([getattr(s, name) for s in sketches])
        for name in ("score", "duplicates", "documents", "tokens")
    }
    return _grouped(
        parts["score"], parts["duplicates"], parts["documents"], parts["tokens"],
        min(s.smallest for s in sketches),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Solution:
    """What a shard needs to know to count its documents.

    Attributes:
        scores: all scores there are, ascending, float32 [S].
        ranks: rank of each in (0, 1), float64 [S].
        gamma: weight of quality.
        eta: weight of duplicates.
        cut: where greedy stops.
        left: tokens for copies of exactly that level.
    """

    scores: np.ndarray
    ranks: np.ndarray
    gamma: float
    eta: float
    cut: Cut
    left: int

    def log_u(self, score: np.ndarray, duplicates: np.ndarray) -> np.ndarray:
        """Return the logarithm of the first copy's value of a shard's documents."""
        place = np.searchsorted(self.scores, score.astype(np.float32))
        return log_value(self.ranks[place], duplicates.astype(np.int64), self.gamma, self.eta)


def solve(
    whole: Sketch, budget: int, *, gamma: float, eta: float, delta: float, most: int
) -> Solution:
    """Find lambda from the merged sketch.

    Raises:
        ConfigError: the budget cannot be reached, or does not hold the smallest document.
    """
    if budget < whole.smallest:
        raise ConfigError(
            f"budget: {budget:,} tokens, but the smallest document has {whole.smallest:,}."
        )
    scores, place = np.unique(whole.score, return_inverse=True)
    number = np.bincount(place, whole.documents).astype(np.int64)
    ranks = (np.cumsum(number) - number + number / 2) / number.sum()
    log_u = log_value(ranks[place], whole.duplicates, gamma, eta)
    cut, left = cut_at(log_u, whole.tokens, budget, delta=delta, most=most)
    return Solution(scores=scores, ranks=ranks, gamma=gamma, eta=eta, cut=cut, left=left)


def marginal(
    solution: Solution,
    score: np.ndarray,
    duplicates: np.ndarray,
    tokens: np.ndarray,
    order: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens int64 and hashes float64 of a shard's documents at the level."""
    at = solution.cut.at(solution.log_u(score, duplicates))
    return tokens[at].astype(np.int64), order[at]


def finish(solution: Solution, parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> Solution:
    """Return the solution with the marginal documents of all shards decided."""
    tokens = np.concatenate([p[0] for p in parts])
    order = np.concatenate([p[1] for p in parts])
    return Solution(
        scores=solution.scores,
        ranks=solution.ranks,
        gamma=solution.gamma,
        eta=solution.eta,
        cut=fill(solution.cut, tokens, order, solution.left),
        left=solution.left,
    )


def counts(
    solution: Solution, score: np.ndarray, duplicates: np.ndarray, order: np.ndarray
) -> np.ndarray:
    """Return a shard's counts, int64 [N]."""
    return solution.cut.counts(solution.log_u(score, duplicates), order)
