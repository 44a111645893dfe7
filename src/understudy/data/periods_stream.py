"""A stream of time steps over a store: which rows arrive when, and which are scored for each step.

    >>> stream = Stream.of(store, PeriodRule(merge=("2014..2016", "2017")))  # doctest: +SKIP
    >>> for step in stream:                                                  # doctest: +SKIP
    ...     print(step.name, len(step.rows), len(step.eval_rows))

Every step has rows to learn from, rows to score on and, for methods that choose something, held
rows to choose on. The three are disjoint, also by an id of the content where the store has one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.core.errors import ConfigError, DataError
from understudy.core.hashing import hash_bytes
from understudy.core.seeds import seed_for
from understudy.data.periods import PeriodRule, Periods, find_periods
from understudy.data.periods_uids import check_disjoint
from understudy.data.splits import TEST, VAL, training_filter

if TYPE_CHECKING:
    from understudy.data.store import Store

UID_COLUMN = "uid"
"""Column with an id of a sample's content, where a store has one."""


@dataclass(frozen=True, kw_only=True)
class TimeStep:
    """What arrives at one step.

    Attributes:
        name: of the period.
        rows: int64, row numbers to learn from, ascending.
        eval_rows: int64, row numbers to score on.
        held_rows: int64, row numbers to choose settings on; may be empty.
    """

    name: str
    rows: np.ndarray
    eval_rows: np.ndarray
    held_rows: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def fingerprint(self) -> str:
        """Hash of the rows to learn from."""
        return hash_bytes(np.ascontiguousarray(self.rows, np.int64).tobytes())


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamRule:
    """Say which rows of each period are for learning, for scoring and for choosing.

    Attributes:
        periods: how times become periods.
        train: SQL filter of the rows to learn from; empty takes the split `train`, or whatever is
            neither `val` nor `test`.
        test: SQL filter of the rows to score on; empty takes the split `test`, or `test_share`.
        held: SQL filter of the rows to choose on; empty takes the split `val`, or `held_share`.
        test_share: without any rows of `test`: share of each period's rows that is scored on
            instead of learned from. arXiv 2310.16226 takes 1 %.
        held_share: likewise for choosing, of the rows that are left.
        seed: of these shares; a row's place depends on its number alone, so that rows which
            arrive later change nothing.
    """

    periods: PeriodRule = field(default_factory=PeriodRule)
    train: str = ""
    test: str = ""
    held: str = ""
    test_share: float = 0.2
    held_share: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("test_share", "held_share"):
            value = getattr(self, name)
            if not 0.0 <= value < 1.0:
                raise ConfigError(f"stream: {name} must lie in [0, 1), got {value}.")

    def extends(self, known: StreamRule) -> bool:
        """Say whether this is another rule with more periods at the end of `merge`, or the same."""
        merge, before = self.periods.merge, known.periods.merge
        same = replace(self, periods=replace(self.periods, merge=before)) == known
        return same and merge[: len(before)] == before and bool(merge) == bool(before)


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Time steps in order; iterate, or take one by number or name.

    Attributes:
        steps: in order.
        periods: what they came from; None for a stream that was put together by hand.
        rule: how a store was divided; None likewise.
    """

    steps: tuple[TimeStep, ...]
    periods: Periods | None = None
    rule: StreamRule | None = None

    def __post_init__(self) -> None:
        names = [step.name for step in self.steps]
        if not names:
            raise DataError("stream: there is no time step.")
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise DataError(f"stream: the time step '{twice}' is there twice.")
        for i, step in enumerate(self.steps):
            for other in self.steps[i:]:
                _apart(other.rows, step.eval_rows, other.name, step.name)
                _apart(step.rows, other.eval_rows, step.name, other.name)

    @classmethod
    def of(cls, store: Store, rule: StreamRule | PeriodRule) -> Stream:
        """Divide a store into time steps.

        Raises:
            DataError: no times, a step without rows to learn from, evaluation ids among training
                ids.
        """
        if isinstance(rule, PeriodRule):
            rule = StreamRule(periods=rule)
        periods = find_periods(store, rule.periods)
        train, test, held = _parts(store, rule)
        steps = []
        for name in periods.names:
            mine = np.zeros(store.num_rows, bool)
            mine[periods.rows(name)] = True
            found = (np.flatnonzero(mine & part).astype(np.int64) for part in (train, test, held))
            rows, scored, chosen = found
            steps.append(TimeStep(name=name, rows=rows, eval_rows=scored, held_rows=chosen))
        stream = cls(steps=tuple(steps), periods=periods, rule=rule)
        stream.check_contents(store)
        return stream

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[TimeStep]:
        return iter(self.steps)

    def __getitem__(self, index: int) -> TimeStep:
        return self.steps[index]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the steps, in order."""
        return tuple(step.name for step in self.steps)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows to learn from, of each step."""
        return tuple(len(step.rows) for step in self.steps)

    def index(self, name: str) -> int:
        """Return a step's number.

        Raises:
            ConfigError: there is none of that name; the names are listed.
        """
        if name not in self.names:
            raise ConfigError(
                f"there is no time step '{name}'; the stream has {', '.join(self.names)}"
                + (
                    "."
                    if self.rule is None or not self.rule.periods.merge
                    else "; a new one of merged periods is added at the end of merge."
                )
            )
        return self.names.index(name)

    def check_steps(self, batch_size: int = 1, *, evaluated: bool = True) -> None:
        """Refuse steps that are empty, smaller than a batch, or without rows to score on.

        Raises:
            DataError: the step and its size are named.
        """
        for number, step in enumerate(self.steps, 1):
            where = f"time step {number}, '{step.name}'"
            if not len(step.rows):
                raise DataError(
                    f"{where}: it is empty (0 rows to learn from); merge it with a neighbour "
                    "(periods.merge), or leave it out."
                )
            if len(step.rows) < batch_size:
                raise DataError(
                    f"{where}: {len(step.rows)} rows are fewer than a batch of {batch_size}; merge "
                    "it with a neighbour (periods.merge) or lower the batch size."
                )
            if evaluated and not len(step.eval_rows):
                raise DataError(
                    f"{where}: no rows to score on; set test_share, or a split 'test' that has "
                    "rows of every period."
                )

    def check_contents(self, store: Store, column: str = UID_COLUMN) -> None:
        """Refuse training rows whose content is scored on, by the column `uid` if there is one.

        Raises:
            DataError: how many, and the first ids.
        """
        if not store.has(column):
            return
        scored = np.unique(np.concatenate([step.eval_rows for step in self.steps]))
        held = np.asarray(_texts(store, column, scored))
        for step in self.steps:
            train = np.asarray(_texts(store, column, step.rows))
            check_disjoint(train, held, f"time step '{step.name}'")


def _texts(store: Store, column: str, rows: np.ndarray) -> list[str]:
    if not len(rows):
        return []
    return [str(value) for value in store.take(rows, [column]).column(0).to_pylist()]


def _apart(rows: np.ndarray, scored: np.ndarray, train: str, test: str) -> None:
    both = np.intersect1d(rows, scored)
    if len(both):
        raise DataError(
            f"time step '{train}': {len(both)} evaluation rows of '{test}' are inside its training "
            f"rows, first {', '.join(str(r) for r in both[:3])}; leave them out of training."
        )


def _mask(store: Store, where: str) -> np.ndarray:
    out = np.zeros(store.num_rows, bool)
    out[store.where(where)] = True
    return out


def _parts(store: Store, rule: StreamRule) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which rows are for learning, scoring and choosing, bool [num_rows] each."""
    where = rule.train or training_filter(store)
    train = _mask(store, where) if where else np.ones(store.num_rows, bool)
    split = store.has("split")
    test = rule.test or (f"split = '{TEST}'" if split else "")
    scored = _mask(store, test) if test else np.zeros(store.num_rows, bool)
    if rule.train and rule.test:
        _apart(np.flatnonzero(train), np.flatnonzero(scored), rule.train, rule.test)
    if not scored.any():
        scored = train & (_draws("test", rule.seed, store.num_rows) < rule.test_share)
    held = rule.held or (f"split = '{VAL}'" if split else "")
    chosen = _mask(store, held) if held else np.zeros(store.num_rows, bool)
    if not chosen.any():
        drawn = _draws("held", rule.seed, store.num_rows) < rule.held_share
        chosen = train & ~scored & drawn
    return train & ~scored & ~chosen, scored, chosen & ~scored


def _draws(topic: str, seed: int, count: int) -> np.ndarray:
    """Return a number in [0, 1) for each row that depends on its number alone, float64 [count]."""
    from understudy.data.view_random import uniforms

    keys: Any = np.arange(count, dtype=np.uint64) ^ np.uint64(seed_for("stream", topic, seed))
    return uniforms(keys, 0, 1)[:, 0]


def describe_stream(stream: Stream) -> list[dict[str, Any]]:
    """Return names and sizes as plain data, a step each."""
    return [
        {
            "name": step.name,
            "rows": len(step.rows),
            "eval_rows": len(step.eval_rows),
            "held_rows": len(step.held_rows),
        }
        for step in stream
    ]


def joined_rows(steps: Sequence[TimeStep]) -> np.ndarray:
    """Return the rows to learn from of several steps, ascending."""
    return np.sort(np.concatenate([step.rows for step in steps]))
