"""Batches of equally long sequences with a length curriculum and a constant number of tokens.

A step that draws bucket i takes tokens_per_step / 2^i sequences of 2^i tokens, so the number of
steps, the learning-rate schedule and the mean loss per token do not depend on the bucket. The
bucket is a function of (seed, step) alone: all ranks draw the same one, or the step would be as
slow as its slowest rank (arXiv 2405.13226, section 3.2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.core.hashing import hash_bytes
from understudy.core.seeds import rng
from understudy.data.sampler_buckets_checks import (
    bucket_batches,
    check_buckets,
    check_tokens_per_step,
)
from understudy.data.sampler_buckets_curricula import Odds, check_odds, curriculum_odds, draw_order
from understudy.data.sampler_parts import Recent, check_at_least
from understudy.data.samplers import Batch

Weighting = Literal["batches", "raw"]


class BucketSampler:
    """Draw each step from one bucket, every sequence at most once a pass over its bucket.

    An epoch takes `tokens` of each bucket in `cycles` rounds, each with 1/cycles of the bucket's
    batches. A step draws bucket i with probability proportional to `odds_i` times its batches at
    the start of the cycle, as long as it has some. Epochs go on where the one before stopped in a
    bucket's order, so nothing comes twice before everything came once; the sequences that do not
    fill a last batch of a pass are left out, others each pass.

    Args:
        buckets: row numbers by exponent: `{8: rows of 256 tokens, ...}`, as
            `TokenStore.buckets` gives them.
        tokens_per_step: input tokens of an optimiser step, over all ranks and micro-batches; a
            multiple of 2^max * world * accumulate.
        seed: of all orders.
        curriculum: `uniform`, `grow-linear`, `grow-p2`, `grow-p100`, `natural` or `only-<k>`.
        odds: odds by bucket (or a list, shortest first) instead of a named curriculum; 0 leaves a
            bucket out.
        weighting: `batches` multiplies odds by the bucket's batches of the cycle, `raw` takes the
            odds as they are. They agree where all buckets hold the same number of tokens.
        cycles: rounds of the curriculum in an epoch.
        tokens: input tokens of an epoch: by bucket, or in all (shared out as the buckets are
            filled); `None` takes everything.
        repeat: allow an epoch to take more than a bucket holds, in further passes over it.
        rank: this process's number.
        world: processes that share each step.
        accumulate: micro-batches of a step: `batch(n)` is part n % accumulate of optimiser step
            n // accumulate.
        fingerprint: of the data (`TokenStore.fingerprint`); a run is not resumed on other data.

    Raises:
        ConfigError: sizes do not divide, a bucket is missing or too small, odds do not fit, or more
            is asked for than there is.
    """

    num_views = 0

    def __init__(
        self,
        buckets: Mapping[int, Sequence[int] | np.ndarray],
        tokens_per_step: int,
        seed: int = 0,
        *,
        curriculum: str = "grow-p2",
        odds: Odds | None = None,
        weighting: Weighting = "batches",
        cycles: int = 8,
        tokens: Mapping[int, int] | int | None = None,
        repeat: bool = False,
        rank: int = 0,
        world: int = 1,
        accumulate: int = 1,
        fingerprint: str = "",
    ) -> None:
        for name, value in (("world", world), ("accumulate", accumulate), ("cycles", cycles)):
            check_at_least(name, value, 1)
        if not 0 <= rank < world:
            raise ConfigError(
                f"sampler rank: expected 0 to {world - 1} (world {world}), got {rank}."
            )
        check_choice(weighting, ("batches", "raw"), "sampler weighting")
        found = check_buckets(buckets)
        self.odds = (
            curriculum_odds(curriculum, list(found))
            if odds is None
            else check_odds(odds, list(found))
        )
        kept = [k for k in sorted(found) if self.odds is None or self.odds[k] > 0]
        self.rows = {k: found[k] for k in kept}
        self.tokens_per_step = int(tokens_per_step)
        check_tokens_per_step(self.tokens_per_step, kept[-1], world, accumulate)
        held = {k: len(rows) for k, rows in found.items()}
        counts = bucket_batches(held, kept, self.tokens_per_step, tokens, repeat)
        self.buckets = np.array(kept, np.int64)
        self.batches = np.array([counts[k] for k in kept], np.int64)
        self.per_pass = np.array([held[k] // self.sequences(k) for k in kept], np.int64)
        self.seed, self.cycles, self.weighting = int(seed), int(cycles), weighting
        self.curriculum = curriculum if odds is None else "given"
        self.rank, self.world, self.accumulate = rank, world, int(accumulate)
        self.repeat, self.fingerprint = repeat, fingerprint
        # first batch of every cycle in each bucket's order, int64 [cycles + 1, K]
        turns = np.arange(self.cycles + 1, dtype=np.int64)[:, None]
        self._firsts = self.batches * turns // self.cycles
        self._starts = self._firsts.sum(axis=1)
        self._recent = Recent(8 + 2 * len(kept))

    def sequences(self, bucket: int) -> int:
        """Return how many sequences of a bucket an optimiser step takes, over all ranks."""
        return self.tokens_per_step >> bucket

    @property
    def steps(self) -> int:
        """Optimiser steps of an epoch."""
        return int(self.batches.sum())

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch: optimiser steps times micro-batches."""
        return self.steps * self.accumulate

    @property
    def cycle_ends(self) -> list[int]:
        """Optimiser steps after which a cycle of the first epoch ends."""
        return self._starts[1:].tolist()

    def schedule(self, epoch: int = 0) -> np.ndarray:
        """Return the exponent of the bucket of each optimiser step of an epoch, int64 [steps]."""
        check_at_least("epoch", epoch, 0)
        parts = [self._cycle(epoch, cycle)[0] for cycle in range(self.cycles)]
        return self.buckets[np.concatenate(parts)]

    def batch(self, step: int) -> Batch:
        """Return this rank's rows of a (micro-)batch; `size` is the length of its sequences."""
        check_at_least("step", step, 0)
        number, part = divmod(int(step), self.accumulate)
        epoch, at = divmod(number, self.steps)
        cycle = int(np.searchsorted(self._starts, at, "right")) - 1
        places, turns = self._cycle(epoch, cycle)
        place = int(places[at - self._starts[cycle]])
        turn = int(turns[at - self._starts[cycle]])
        bucket = int(self.buckets[place])
        taken = epoch * int(self.batches[place]) + int(self._firsts[cycle, place]) + turn
        order, position = self._order(bucket, *divmod(taken, int(self.per_pass[place])))
        sequences = self.sequences(bucket)
        share = sequences // (self.world * self.accumulate)
        low = position * sequences + (part * self.world + self.rank) * share
        rows = self.rows[bucket][order[low : low + share]]
        return Batch(rows=rows, view=0, epoch=epoch, step=int(step), size=1 << bucket)

    def _order(self, bucket: int, number: int, position: int) -> tuple[np.ndarray, int]:
        count = len(self.rows[bucket])
        order = self._recent.get(
            ("order", bucket, number),
            lambda: rng("bucket-order", self.seed, bucket, number).permutation(count),
        )
        return order, position

    def _cycle(self, epoch: int, cycle: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (place of the bucket, which of its batches of the cycle) for each step of it."""

        def plan() -> tuple[np.ndarray, np.ndarray]:
            counts = self._firsts[cycle + 1] - self._firsts[cycle]
            draw = rng("bucket-cycle", self.seed, epoch, cycle)
            places = draw_order(counts, self.weights(counts), draw)
            turns = np.empty(len(places), np.int64)
            for place in range(len(counts)):
                turns[places == place] = np.arange(counts[place])
            return places.astype(np.int8), turns

        return self._recent.get(("cycle", epoch, cycle), plan)

    def weights(self, counts: np.ndarray) -> np.ndarray | None:
        """Return the weights of the draws of a cycle, float64 [K]; `None` for `natural`.

        Args:
            counts: batches of each bucket at the start of the cycle.
        """
        if self.odds is None:
            return None
        odds = np.array([self.odds[int(k)] for k in self.buckets])
        return odds * counts if self.weighting == "batches" else odds

    def describe(self) -> dict[str, Any]:
        """Return what identifies the stream (not the rank, which shares it)."""
        hashes = {str(k): hash_bytes(rows.tobytes()) for k, rows in self.rows.items()}
        return {
            "kind": "buckets",
            "fingerprint": self.fingerprint,
            "num_rows": {str(k): len(rows) for k, rows in self.rows.items()},
            "rows_hash": hashes,
            "tokens_per_step": self.tokens_per_step,
            "batches": {str(k): int(n) for k, n in zip(self.buckets, self.batches, strict=True)},
            "curriculum": self.curriculum,
            "odds": None if self.odds is None else {str(k): v for k, v in self.odds.items()},
            "weighting": self.weighting,
            "cycles": self.cycles,
            "repeat": self.repeat,
            "world": self.world,
            "accumulate": self.accumulate,
            "seed": self.seed,
        }
