"""What a bucket sampler is asked for against what there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TypeVar

import numpy as np

from understudy.core.errors import ConfigError
from understudy.data.sampler_buckets_curricula import show

K = TypeVar("K", int, str)


def check_buckets(buckets: Mapping[int, Sequence[int] | np.ndarray]) -> dict[int, np.ndarray]:
    """Return the row numbers int64 of each bucket, shortest first.

    Raises:
        ConfigError: there is no bucket, an exponent is out of range, or rows are no row numbers.
    """
    if not buckets:
        raise ConfigError("sampler buckets: there are none to draw from.")
    found = {}
    for k in sorted(buckets):
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 0 <= k <= 30:
            raise ConfigError(f"sampler buckets: expected exponents of 0 to 30, got {k!r}.")
        rows = np.asarray(buckets[k])
        if rows.ndim != 1 or (rows.size and (rows.dtype.kind not in "iu" or rows.min() < 0)):
            raise ConfigError(f"sampler bucket D_{k}: expected row numbers, integers from 0 on.")
        found[int(k)] = np.ascontiguousarray(rows, np.int64)
    return found


def check_tokens_per_step(tokens: int, max_log2: int, world: int, accumulate: int) -> None:
    """Refuse a step that the longest bucket cannot fill evenly on all ranks.

    Raises:
        ConfigError: with the next smaller and larger values that work.
    """
    unit = (1 << max_log2) * world * accumulate
    if tokens >= unit and tokens % unit == 0:
        return
    below = tokens // unit * unit
    lower = f"{below:,} (below) or " if below else "no smaller value works; the next is "
    raise ConfigError(
        f"tokens_per_step {tokens:,} is not a multiple of 2^{max_log2} x {world} ranks x "
        f"{accumulate} micro-batches = {unit:,}: use {lower}{below + unit:,} (above)."
    )


def histogram(held: Mapping[int, int]) -> str:
    """Return sequences and tokens of each bucket for a message."""
    parts = (f"D_{k}: {n:,} sequences, {n << k:,} tokens" for k, n in sorted(held.items()))
    return "; ".join(parts) or "no buckets"


def bucket_batches(
    held: Mapping[int, int],
    kept: Sequence[int],
    tokens_per_step: int,
    tokens: Mapping[int, int] | int | None,
    repeat: bool,
) -> dict[int, int]:
    """Return the batches that an epoch takes of each bucket.

    Args:
        held: sequences of each bucket.
        kept: the buckets to draw from.
        tokens_per_step: tokens of a batch.
        tokens: what is asked for: by bucket, in all, or everything.
        repeat: whether more may be asked for than there is.

    Raises:
        ConfigError: a bucket is missing or fills no batch, or too much is asked for.
    """
    asked = tokens if isinstance(tokens, Mapping) else {}
    unknown = sorted(set(asked) - set(held))
    for k in [*unknown, *kept]:
        _check_filled(k, held, tokens_per_step)
    there = {k: held[k] // (tokens_per_step >> k) for k in kept}
    if tokens is None:
        return there
    if isinstance(tokens, Mapping):
        idle = sorted(k for k in set(asked) - set(kept) if asked[k])
        if idle:
            raise ConfigError(
                f"sampler tokens: {asked[idle[0]]:,} tokens of D_{idle[0]} are asked for, and its "
                f"odds are 0; buckets with odds: {show(kept)}."
            )
        wanted = {k: int(asked.get(k, 0)) // tokens_per_step for k in kept}
    else:
        wanted = share_out(int(tokens) // tokens_per_step, there)
    if not sum(wanted.values()) or min(wanted.values()) < 0:
        raise ConfigError(
            f"sampler tokens: {tokens} is less than one step of {tokens_per_step:,} tokens."
        )
    if not repeat and any(wanted[k] > there[k] for k in kept):
        _refuse_too_many(wanted, there, tokens_per_step)
    return wanted


def _check_filled(bucket: int, held: Mapping[int, int], tokens_per_step: int) -> None:
    count = held.get(bucket, 0)
    if count < tokens_per_step >> bucket or not count:
        raise ConfigError(
            f"bucket D_{bucket}: {count:,} sequences of {1 << bucket:,} ({count << bucket:,} "
            f"tokens) do not fill one step of {tokens_per_step:,} tokens. There are: "
            f"{histogram(held)}. Lower tokens_per_step, leave the bucket out with odds of 0, or "
            "cut more documents."
        )


def share_out(total: int, weights: Mapping[K, int | float]) -> dict[K, int]:
    """Share a whole number out in proportion, by the largest remainder; ties go to the first."""
    whole = sum(Fraction(w) for w in weights.values())
    exact = {k: total * Fraction(w) / whole for k, w in weights.items()}
    found = {k: int(v) for k, v in exact.items()}
    order = sorted(weights, key=lambda k: found[k] - exact[k])
    for k in order[: total - sum(found.values())]:
        found[k] += 1
    return found


def _refuse_too_many(wanted: Mapping[int, int], there: Mapping[int, int], step: int) -> None:
    parts = (
        f"D_{k}: {wanted[k] * step:,} asked, {there[k] * step:,} available"
        f" ({-(-wanted[k] // there[k])} epochs)"
        for k in sorted(wanted)
    )
    raise ConfigError(
        f"more tokens are asked for than the buckets hold: {'; '.join(parts)}. Ask for less, or "
        "pass repeat=True to read buckets several times."
    )
