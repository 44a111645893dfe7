"""Several samplers as one stream, mixed by odds; a pure function of (seed, step).

Odds are kept exactly, not only on average: steps (or rows) are dealt out in periods, in each of
which every source has its share to within one, in a random order. So the place of a source in its
own stream is arithmetic, and the mixture resumes like its sources do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.core.seeds import rng
from understudy.data.sampler_buckets_checks import share_out
from understudy.data.sampler_parts import Recent, check_at_least
from understudy.data.samplers import Batch, Sampler

Mode = Literal["step", "row", "all"]


class Part(NamedTuple):
    """What one source gives to a step.

    Attributes:
        source: its name.
        batch: its rows, numbered as that source numbers them.
    """

    source: str
    batch: Batch


class MixtureSampler:
    """Draw batches from several sources.

    Args:
        sources: samplers by name; each keeps its own batch size, rank and world.
        odds: one for each source, above 0; not used by mode `all`.
        seed: of the order of sources.
        mode: `step` takes each batch whole from one source. `row` makes batches of `batch_size`
            rows of all sources, each source read on from where it was. `all` lays one batch of
            every source end to end, so that their batch sizes are the mixture.
        batch_size: rows of this rank's batch; only of mode `row`.
        period: batches that share the odds out exactly; at least 1 / the smallest share.
        accumulate: micro-batches of an optimiser step, as the sources have it; mode `step` takes
            all of a step's from one source.
        offsets: added to a source's row numbers, so that several stores laid end to end can be
            addressed by one row number; without, all sources number the rows of one store.

    Raises:
        ConfigError: no sources, odds that do not fit, a share too small for the period.
    """

    num_views = 0

    def __init__(
        self,
        sources: Mapping[str, Sampler],
        odds: Mapping[str, float] | None = None,
        seed: int = 0,
        *,
        mode: Mode = "step",
        batch_size: int | None = None,
        period: int = 1000,
        accumulate: int = 1,
        offsets: Mapping[str, int] | None = None,
    ) -> None:
        check_choice(mode, ("step", "row", "all"), "sampler mode")
        check_at_least("period", period, 1)
        check_at_least("accumulate", accumulate, 1)
        if not sources:
            raise ConfigError("mixture: there are no sources.")
        if (mode == "row") != (batch_size is not None):
            raise ConfigError("mixture: batch_size is given with mode 'row', and only then.")
        if batch_size is not None:
            check_at_least("batch_size", batch_size, 1)
        self.sources, self.names = dict(sources), list(sources)
        self.mode, self.seed, self.period = mode, int(seed), int(period)
        self.batch_size = int(batch_size or 1)
        self.accumulate = int(accumulate) if mode == "step" else 1
        self.odds = {} if mode == "all" else _check_odds(odds, self.names)
        self.offsets = _check_offsets(offsets, self.names)
        self.shares: dict[str, int] = {}
        if mode != "all":
            self.shares = share_out(self.period * self.batch_size, self.odds)
            self._check_shares()
        self._sizes: dict[str, int] = {}
        self._recent = Recent(4 + 4 * len(self.names))

    def _check_shares(self) -> None:
        for name, share in self.shares.items():
            if not share:
                total = sum(self.odds.values())
                least = int(np.ceil(total / self.odds[name] / self.batch_size))
                raise ConfigError(
                    f"mixture: '{name}' with odds {self.odds[name]:g} of {total:g} gets nothing in "
                    f"a period of {self.period} batches; set period to {least} or more."
                )

    @property
    def steps_per_epoch(self) -> None:
        """None: sources have passes of their own, of different lengths."""
        return None

    def source(self, step: int) -> str:
        """Return the source of a batch; mode `step` only.

        Raises:
            ConfigError: another mode.
        """
        if self.mode != "step":
            raise ConfigError(f"mixture: a batch of mode '{self.mode}' has several sources.")
        return self.parts(step)[0].source

    def parts(self, step: int) -> list[Part]:
        """Return what each source gives to a batch, in the order of the sources."""
        check_at_least("step", step, 0)
        if self.mode == "all":
            return [Part(name, self.sources[name].batch(step)) for name in self.names]
        turn, part = divmod(int(step), self.accumulate)
        number, at = divmod(turn, self.period)
        order = self._order(number)
        low, high = at * self.batch_size, (at + 1) * self.batch_size
        found = []
        for place in np.unique(order[low:high]).tolist():
            name = self.names[place]
            start = number * self.shares[name] + int(np.count_nonzero(order[:low] == place))
            if self.mode == "step":
                return [Part(name, self.sources[name].batch(start * self.accumulate + part))]
            count = int(np.count_nonzero(order[low:high] == place))
            found.append(Part(name, self._rows(name, start, start + count, int(step))))
        return found

    def batch(self, step: int) -> Batch:
        """Return a batch; its rows are in the order of the sources, with their offsets.

        Raises:
            ConfigError: sources of one batch ask for different sizes.
        """
        parts = self.parts(step)
        rows = np.concatenate([p.batch.rows + self.offsets[p.source] for p in parts])
        sizes = {p.batch.size for p in parts}
        if len(sizes) > 1:
            raise ConfigError(
                f"mixture: the sources of step {step} ask for sizes {sorted(map(str, sizes))}; mix "
                "them with mode 'step', which takes a batch from one source."
            )
        views = [np.broadcast_to(p.batch.view, p.batch.rows.shape) for p in parts]
        view = parts[0].batch.view if len(parts) == 1 else np.concatenate(views)
        if isinstance(view, np.ndarray) and len(view) and (view == view[0]).all():
            view = int(view[0])
        epoch = min(p.batch.epoch for p in parts)
        return Batch(rows=rows, view=view, epoch=epoch, step=int(step), size=sizes.pop())

    def _order(self, number: int) -> np.ndarray:
        """Return the place of the source of each step or row of a period."""

        def draw() -> np.ndarray:
            places = np.repeat(np.arange(len(self.names)), list(self.shares.values()))
            return rng("mixture", self.seed, number).permutation(places)

        return self._recent.get(("order", number), draw)

    def _rows(self, name: str, start: int, stop: int, step: int) -> Batch:
        """Return the rows `start` to `stop` of a source's stream."""
        if name not in self._sizes:
            self._sizes[name] = len(self._batch(name, 0).rows)
        size = self._sizes[name]
        parts = [self._batch(name, n) for n in range(start // size, (stop - 1) // size + 1)]
        if any(len(part.rows) != size for part in parts):
            raise ConfigError(
                f"mixture: batches of '{name}' have different numbers of rows, so rows cannot be "
                "counted; set drop_last=True, or mix by steps."
            )
        low = start - start // size * size
        window = slice(low, low + stop - start)
        rows = np.concatenate([part.rows for part in parts])[window]
        views = [np.broadcast_to(part.view, part.rows.shape) for part in parts]
        view = np.concatenate(views)[window]
        return Batch(
            rows=rows,
            view=int(view[0]) if (view == view[0]).all() else view,
            epoch=parts[0].epoch,
            step=step,
            size=parts[0].size,
        )

    def _batch(self, name: str, number: int) -> Batch:
        return self._recent.get((name, number), lambda: self.sources[name].batch(number))

    def describe(self) -> dict[str, Any]:
        """Return what identifies the stream."""
        return {
            "kind": "mixture",
            "mode": self.mode,
            "odds": self.odds,
            "seed": self.seed,
            "period": self.period,
            "batch_size": self.batch_size,
            "accumulate": self.accumulate,
            "offsets": self.offsets,
            "sources": {name: source.describe() for name, source in self.sources.items()},
        }


def _check_odds(odds: Mapping[str, float] | None, names: list[str]) -> dict[str, float]:
    if odds is None:
        return dict.fromkeys(names, 1.0)
    if sorted(odds) != sorted(names):
        raise ConfigError(f"mixture: odds {dict(odds)} for the sources {', '.join(names)}.")
    if any(not 0 < float(odds[n]) < float("inf") for n in names):
        raise ConfigError(
            f"mixture: odds {dict(odds)}: expected numbers above 0; leave a source out instead."
        )
    return {name: float(odds[name]) for name in names}


def _check_offsets(offsets: Mapping[str, int] | None, names: list[str]) -> dict[str, int]:
    if offsets is None:
        return dict.fromkeys(names, 0)
    if sorted(offsets) != sorted(names) or any(v < 0 for v in offsets.values()):
        raise ConfigError(
            f"mixture: offsets {dict(offsets)} for the sources {', '.join(names)}; give each one, "
            "0 or more."
        )
    return {name: int(offsets[name]) for name in names}
