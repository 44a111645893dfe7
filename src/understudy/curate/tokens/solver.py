"""How many sequences of each bucket an epoch takes, when loaders read whole shards.

The released trainer gives every loader worker whole shards, so the sequences of an epoch must be a
multiple of shard size x ranks x workers in each bucket (arXiv 2405.13226, its `get_dd_params.py`).
Our own sampler has no such unit; this is for data in that layout, and to compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from understudy.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class BucketCounts:
    """What the solver found, shortest bucket first.

    Attributes:
        sequences: of an epoch.
        weights: of the draws: odds times the bucket's share, in units of sequences.
        tokens_per_epoch: input tokens.
        tokens: of all epochs.
        exact: the tokens that were asked for are reached.
    """

    sequences: tuple[int, ...]
    weights: tuple[float, ...]
    tokens_per_epoch: int
    tokens: int
    exact: bool


def solve_counts(
    tokens: int,
    *,
    epochs: int,
    ranks: int,
    log2: Sequence[int],
    shards: Sequence[int],
    per_shard: Sequence[int],
    odds: Sequence[float],
    tokens_per_step: int,
    workers: int = 1,
) -> BucketCounts:
    """Return sequences per bucket and epoch that give `tokens` in all.

    Each bucket is scaled by the same factor, and rounded to whole units. If that misses the total
    and one bucket can make up for it, the last such one does; if none can, the last bucket goes
    towards the total one unit at a time, up to the one that reaches or passes it.

    Args:
        tokens: input tokens of the whole run.
        epochs: passes; also cycles of the curriculum and checkpoints.
        ranks: processes.
        log2: exponents of the buckets, shortest first.
        shards: shards of each bucket.
        per_shard: sequences of a shard of each bucket.
        odds: of each bucket.
        tokens_per_step: input tokens of a step.
        workers: loader workers of a rank.

    Raises:
        ConfigError: lists of different lengths, fewer shards than workers, a unit that is no whole
            number of steps, or a bucket that would get nothing.
    """
    _check(log2, shards, per_shard, odds, ranks, workers, tokens_per_step)
    length = np.array([1 << k for k in log2], np.int64)
    unit = np.array(per_shard, np.int64) * ranks * workers
    unit_tokens = unit * length
    available = np.array(shards, np.int64) * per_shard * length
    ideal = tokens / available.sum() * available / epochs / unit_tokens
    factors = np.rint(ideal).astype(np.int64)
    target = tokens / epochs
    missing = target - int((factors * unit_tokens).sum())
    exact = missing == 0
    for place in reversed(range(len(factors))) if not exact else ():
        add, rest = divmod(missing, int(unit_tokens[place]))
        if rest == 0 and factors[place] + add > 0:
            factors[place] += int(add)
            exact = True
            break
    if not exact:
        step = -(-abs(missing) // int(unit_tokens[-1]))
        factors[-1] += int(step if missing > 0 else -step)
    if factors.min() < 1:
        place = int(factors.argmin())
        raise ConfigError(
            f"solver: {tokens:,} tokens give bucket D_{log2[place]} less than one unit of "
            f"{int(unit[place]):,} sequences (shard x ranks x workers); use fewer loader workers, "
            "or more tokens."
        )
    per_epoch = int((factors * unit_tokens).sum())
    weights = np.array(odds, np.float64) * factors * unit_tokens / unit_tokens[0]
    return BucketCounts(
        sequences=tuple(int(n) for n in factors * unit),
        weights=tuple(float(w) for w in weights),
        tokens_per_epoch=per_epoch,
        tokens=per_epoch * epochs,
        exact=bool(exact),
    )


def _check(
    log2: Sequence[int],
    shards: Sequence[int],
    per_shard: Sequence[int],
    odds: Sequence[float],
    ranks: int,
    workers: int,
    tokens_per_step: int,
) -> None:
    sizes = {len(log2), len(shards), len(per_shard), len(odds)}
    if len(sizes) != 1 or not log2:
        raise ConfigError(
            f"solver: {len(log2)} buckets, {len(shards)} shard counts, {len(per_shard)} shard "
            f"sizes and {len(odds)} odds; give one of each for every bucket."
        )
    for k, count, size in zip(log2, shards, per_shard, strict=True):
        if count < ranks * workers:
            raise ConfigError(
                f"solver: bucket D_{k} has {count} shards for {ranks} ranks x {workers} loader "
                f"workers = {ranks * workers}; use {max(count // ranks, 1)} workers or fewer"
                + ("." if count >= ranks else f", and {count} ranks or fewer.")
            )
        step = tokens_per_step >> k
        if not step or size * ranks * workers % step:
            raise ConfigError(
                f"solver: bucket D_{k}: {size * ranks * workers:,} sequences (shard x ranks x "
                f"workers) are no whole number of steps of {step:,} sequences."
            )
