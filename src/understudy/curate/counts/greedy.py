"""Counts by greedy value per token, in closed form: no sort, one multiplier found by bisection.

The k-th copy of document d is worth u(d, k) = q_d^gamma (1 + eta log2(1 + m_d)) delta^(k-1) per
token: quality q, duplicates m in the raw pool, and less for each further copy. Taking copies in
decreasing u until the budget is used is optimal for the fractional problem. Because u falls
geometrically in k, all copies of at least lambda are

    c_d = clip(1 + floor(log(u(d, 1) / lambda) / log(1 / delta)), 0, c_max),

so only lambda is searched. Copies of exactly lambda that do not all fit are taken in the order of
(copy, hash of the id): the counts depend on neither the order of documents nor their sharding.

"Datasets, Documents, and Repetitions" (NeurIPS 2025) names a simple greedy function over counts of
documents; this formulation is this project's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from understudy.core.errors import ConfigError

HALVINGS = 64


def log_value(quality: np.ndarray, duplicates: np.ndarray, gamma: float, eta: float) -> np.ndarray:
    """Return log u(d, 1) per token, float64 [N].

    Args:
        quality: rank-normalised scores in (0, 1].
        duplicates: copies in the raw pool, at least 1.
        gamma: weight of quality; 0 ignores it.
        eta: weight of duplicates; 0 ignores them.
    """
    return gamma * np.log(quality) + np.log1p(eta * np.log2(1.0 + duplicates))


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """Where greedy stops: everything above a level, and some copies of exactly that level.

    Attributes:
        level: logarithm of lambda.
        step: log(1 / delta), what each further copy loses; 0 if nothing.
        most: `c_max`, or each one's own, int64 [N].
        rounds: further copies that every document at the level gets.
        threshold: those with a smaller hash get one more.
    """

    level: float
    step: float
    most: int | np.ndarray
    rounds: int = 0
    threshold: float = 0.0

    def above(self, log_u: np.ndarray) -> np.ndarray:
        """Return how many copies of each are worth more than the level, int64 [N]."""
        return _copies(log_u, float(np.nextafter(self.level, np.inf)), self.step, self.most)

    def at(self, log_u: np.ndarray) -> np.ndarray:
        """Say whose next copy is worth exactly the level, bool [N]."""
        above = self.above(log_u)
        return (log_u - above * self.step == self.level) & (above < self.most)

    def counts(self, log_u: np.ndarray, order: np.ndarray) -> np.ndarray:
        """Return the counts of documents.

        Args:
            log_u: logarithm of the first copy's value, float64 [N].
            order: `unit_hash` of the ids, float64 [N].
        """
        more = self.rounds + (order < self.threshold)
        return self.above(log_u) + np.where(self.at(log_u), more, 0)


def _copies(log_u: np.ndarray, level: float, step: float, most: int | np.ndarray) -> np.ndarray:
    if step == 0:
        return np.where(log_u >= level, most, 0).astype(np.int64)
    count = np.clip(1 + np.floor((log_u - level) / step), 0, most).astype(np.int64)
    # the quotient's rounding may be off by one copy: compare levels as they are defined
    count -= (count > 0) & (log_u - (count - 1) * step < level)
    count += (count < most) & (log_u - count * step >= level)
    return count


def cut_at(
    log_u: np.ndarray,
    tokens: np.ndarray,
    budget: int,
    *,
    delta: float,
    most: int | np.ndarray,
) -> tuple[Cut, int]:
    """Return the level that a budget reaches, and the tokens left for copies of exactly it.

    Args:
        log_u: logarithm of the first copy's value, of documents or of groups of equal ones.
        tokens: int64, of each document or group.
        budget: tokens to use.
        delta: what a further copy keeps of the value, in (0, 1].
        most: largest count, of all or of each.

    Raises:
        ConfigError: the budget is larger than all documents `most` times.
    """
    reach = int((most * tokens).sum())
    if budget > reach:
        raise ConfigError(
            f"budget: {budget:,} tokens, but {int(tokens.sum()):,} tokens at most "
            f"{int(np.max(most))} times are {reach:,}; that is the largest reachable budget: lower "
            "it or raise c_max."
        )
    step = float(-np.log(delta))

    def used(level: float) -> int:
        return int((_copies(log_u, level, step, most) * tokens).sum())

    low = float((log_u - (np.maximum(most, 1) - 1) * step).min())
    high = float(np.nextafter(log_u.max(), np.inf))
    if used(low) > budget:
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if used(middle) <= budget else (middle, high)
    else:
        high = float(np.nextafter(low, np.inf))
    # the highest level below `high` that a copy has is the first that does not fit as a whole
    above = _copies(log_u, high, step, most)
    levels = (log_u - above * step)[above < most]
    level = float(levels.max()) if len(levels) else low
    cut = Cut(level=level, step=step, most=most)
    return cut, budget - int((cut.above(log_u) * tokens).sum())


def fill(cut: Cut, tokens: np.ndarray, order: np.ndarray, left: int) -> Cut:
    """Return the cut that also takes copies of exactly its level until the next one does not fit.

    Args:
        cut: from `cut_at`.
        tokens: int64 [M], of the documents at the level.
        order: their `unit_hash`.
        left: tokens that are left.
    """
    total, limit = int(tokens.sum()), int(np.max(cut.most)) if cut.step == 0 else 1
    rounds = min(left // total, limit) if total else 0
    left -= rounds * total
    ranks = np.argsort(order, kind="stable")
    fits = int(np.searchsorted(np.cumsum(tokens[ranks]), left, "right"))
    done = rounds >= limit
    threshold = 0.0 if done or fits == len(ranks) else float(order[ranks[fits]])
    return Cut(level=cut.level, step=cut.step, most=cut.most, rounds=rounds, threshold=threshold)


def greedy_counts(
    log_u: np.ndarray,
    tokens: np.ndarray,
    order: np.ndarray,
    budget: int,
    *,
    delta: float,
    most: int | np.ndarray,
) -> tuple[np.ndarray, float]:
    """Return each document's count and lambda.

    Args:
        log_u: logarithm of the first copy's value, float64 [N].
        tokens: int64 [N].
        order: float64 [N], `unit_hash` of the ids: who comes first among equals.
        budget: tokens to use.
        delta: what a further copy keeps of the value, in (0, 1].
        most: largest count.

    Returns:
        Counts int64 [N] whose tokens are at most `budget` and less than one document short of it,
        and lambda, the value per token of the last copy taken.

    Raises:
        ConfigError: the budget is larger than all documents `most` times, or smaller than the
            smallest document.
    """
    if budget < int(tokens.min()):
        raise ConfigError(
            f"budget: {budget:,} tokens, but the smallest document has {int(tokens.min()):,}."
        )
    cut, left = cut_at(log_u, tokens, budget, delta=delta, most=most)
    at = cut.at(log_u)
    cut = fill(cut, tokens[at], order[at], left)
    return cut.counts(log_u, order), float(np.exp(cut.level))


def greedy_with_floor(
    log_u: np.ndarray,
    tokens: np.ndarray,
    order: np.ndarray,
    budget: int,
    unique: int,
    *,
    delta: float,
    most: int,
) -> tuple[np.ndarray, float]:
    """Return greedy counts that use at least so many unique tokens, and lambda.

    Where greedy alone uses fewer, the best documents come once up to the floor, and further copies
    (and documents) take what is left of the budget by the same values.

    Args:
        log_u: as for `greedy_counts`.
        tokens: as there.
        order: as there.
        budget: tokens to use.
        unique: least tokens of documents that are used, up to one document.
        delta: as there, below 1.
        most: as there.

    Raises:
        ConfigError: the floor is above the budget or above all tokens, or delta is 1.
    """
    counts, level = greedy_counts(log_u, tokens, order, budget, delta=delta, most=most)
    if int(tokens[counts > 0].sum()) >= unique:
        return counts, level
    if unique > min(budget, int(tokens.sum())) or delta == 1:
        raise ConfigError(
            f"unique_tokens: {unique:,}, but the budget is {budget:,}, all documents have "
            f"{int(tokens.sum()):,}, and delta is {delta:g}; a floor must be reachable and needs a "
            "delta below 1."
        )
    first, _ = greedy_counts(log_u, tokens, order, unique, delta=delta, most=1)
    left = budget - int((first * tokens).sum())
    if left < int(tokens.min()):
        return first, level
    step = float(-np.log(delta))
    extra, level = greedy_counts(
        log_u - first * step, tokens, order, left, delta=delta, most=most - first
    )
    return first + extra, level
