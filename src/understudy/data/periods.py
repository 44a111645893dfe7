"""Periods: which step of time each row of a store belongs to.

    >>> rule = PeriodRule(kind="version", merge=("0.6..0.7", "1.0", "3.0..4.0"))
    >>> [group.name for group in rule.groups()]
    ['0.6..0.7', '1.0', '3.0..4.0']

A rule reads a column of dates, years, versions or numbers. Without `merge` every different year (or
month, day, version, number) is a period; with it periods are ranges, ends included, in the given
order. Rows without a time, or with one that cannot be (month 13, the year 20180, a version outside
all ranges), are counted, shown and then left out (`drop`) or put into a last period (`bucket`).
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError, DataError
from understudy.core.progress import bar
from understudy.data.periods_time import PARTS, Key, parse_date, parse_time, show_key

if TYPE_CHECKING:
    from understudy.data.store import Store

KINDS = ("auto", "date", "version", "number")
GRAINS = ("year", "month", "day")
UNKNOWN = ("drop", "bucket")
BUCKET = "unknown"
LEFT_OUT = -1
_EXAMPLES = 3
_LENGTH = {"year": 1, "month": 2, "day": 3}


@dataclass(frozen=True, slots=True)
class Group:
    """A range of times, ends included.

    Attributes:
        name: of the period.
        first: smallest key.
        last: largest key.
    """

    name: str
    first: Key
    last: Key

    def holds(self, key: Key, exact: bool) -> bool:
        """Say whether a time lies inside; dates are cut to the precision of the ends first."""
        if exact:
            return self.first <= key <= self.last
        return self.first <= key[: len(self.first)] and key[: len(self.last)] <= self.last


@dataclass(frozen=True, kw_only=True, slots=True)
class PeriodRule:
    """Say how times become periods.

    Attributes:
        column: with the times.
        kind: `date` (2018, 201803, 2018-03-01, dates and timestamps), `version` (12.1), `number`
            (whole numbers that are compared as they are), or `auto`: dates for Arrow dates and
            timestamps and for texts and whole numbers that look like them, else versions for
            texts and numbers for numbers.
        grain: of dates without `merge`: year, month or day.
        merge: periods in order, `FIRST..LAST` or one value each, with an optional `NAME=` before
            it; empty makes a period of every different value.
        unknown: what becomes of rows without a possible time: `drop`, or `bucket` for a last
            period of that name.
        earliest: smallest year that a date may have.
        latest: largest year that a date may have.
    """

    column: str = "time"
    kind: Literal["auto", "date", "version", "number"] = "auto"
    grain: Literal["year", "month", "day"] = "year"
    merge: tuple[str, ...] = ()
    unknown: Literal["drop", "bucket"] = "drop"
    earliest: int = 1900
    latest: int = 2100

    def __post_init__(self) -> None:
        check_choice(self.kind, KINDS, "periods: kind")
        check_choice(self.grain, GRAINS, "periods: grain")
        check_choice(self.unknown, UNKNOWN, "periods: unknown")
        if not 0 < self.earliest <= self.latest:
            raise ConfigError(
                f"periods: earliest {self.earliest} and latest {self.latest} enclose no year."
            )

    @property
    def possible(self) -> tuple[int, int]:
        """Years that a date may have, ends included."""
        return self.earliest, self.latest

    def groups(self, kind: str = "") -> tuple[Group, ...]:
        """Return the ranges of `merge`.

        Args:
            kind: what `auto` turned out to be.

        Raises:
            ConfigError: a range that does not parse, ends before it begins, overlaps the one
                before it, or a name that is there twice.
        """
        kind = kind or ("version" if self.kind == "auto" else self.kind)
        found: list[Group] = []
        for text in self.merge:
            name, named, span = text.partition("=")
            first, ranged, last = (span if named else text).partition("..")
            keys = [parse_time(end.strip(), kind, self.possible) for end in (first, last or first)]
            if None in keys or (ranged and not last):
                raise ConfigError(
                    f"periods: merge: '{text}' is no range of {kind}s; expected FIRST..LAST, one "
                    "value, or NAME=FIRST..LAST."
                )
            group = Group(name if named else text, keys[0] or (), keys[1] or ())
            if group.first > group.last and group.first[: len(group.last)] != group.last:
                raise ConfigError(f"periods: merge: '{text}' ends before it begins.")
            if found and group.first[: len(found[-1].last)] <= found[-1].last:
                raise ConfigError(
                    f"periods: merge: '{text}' begins before '{found[-1].name}' ends; give periods "
                    "in order, without overlap."
                )
            if group.name in [g.name for g in found] or group.name == BUCKET:
                raise ConfigError(f"periods: merge: two periods are called '{group.name}'.")
            found.append(group)
        return tuple(found)


@dataclass(frozen=True, kw_only=True)
class Periods:
    """Rows by period.

    Attributes:
        rule: how they came about, with `kind` settled.
        names: of the periods, in order.
        of_row: int64 [num_rows], number of each row's period; -1 for a row that is left out.
        unknown: rows without a possible time.
        examples: of these, as sentences for messages.
    """

    rule: PeriodRule
    names: tuple[str, ...]
    of_row: np.ndarray
    unknown: int = 0
    examples: tuple[str, ...] = ()

    @property
    def sizes(self) -> dict[str, int]:
        """Rows of each period."""
        return {name: int((self.of_row == i).sum()) for i, name in enumerate(self.names)}

    def rows(self, name: str) -> np.ndarray:
        """Return the row numbers of a period, ascending.

        Raises:
            ConfigError: there is none of that name; the names are listed.
        """
        check_choice(name, self.names, "period")
        return np.flatnonzero(self.of_row == self.names.index(name)).astype(np.int64)

    def note(self) -> str:
        """Return a sentence about rows without a possible time; empty if there are none."""
        if not self.unknown:
            return ""
        fate = "left out" if self.rule.unknown == "drop" else f"in the period '{BUCKET}'"
        shown = ", ".join(self.examples)
        return (
            f"{self.unknown} of {len(self.of_row)} rows have no possible time in "
            f"'{self.rule.column}' ({shown}): they are {fate} (periods.unknown = drop or bucket)."
        )


def find_periods(store: Store, rule: PeriodRule) -> Periods:
    """Give every row of a store its period.

    Raises:
        DataError: no such column, or no row with a possible time.
        ConfigError: ranges that do not fit each other.
    """
    if not store.has(rule.column):
        raise DataError(
            f"{store.path}: no column '{rule.column}' to take times from; it has "
            f"{', '.join(store.columns)}."
        )
    kind = rule.kind if rule.kind != "auto" else _kind(_first(store, rule.column), rule)
    rule = replace(rule, kind=kind)
    groups, exact = rule.groups(kind), kind != "date"
    keys: list[Key | None] = []
    lost: list[str] = []
    with bar("times", store.num_rows, "rows") as shown:
        for values in _values(store, rule.column):
            for value in values:
                key = parse_time(value, kind, rule.possible)
                if groups and key is not None and not any(g.holds(key, exact) for g in groups):
                    key = None
                if key is None and len(lost) < _EXAMPLES:
                    lost.append(f"row {len(keys)}: {value!r}")
                keys.append(key)
            shown.advance(len(values))
    known = [key for key in keys if key is not None]
    if not known:
        raise DataError(
            f"{store.path}: none of {len(keys)} rows has a possible time in '{rule.column}' "
            f"(read as {kind}; {', '.join(lost)})."
        )
    return _assign(keys, groups or _every_value(known, rule), rule, tuple(lost))


def _assign(
    keys: Sequence[Key | None], groups: Sequence[Group], rule: PeriodRule, examples: tuple[str, ...]
) -> Periods:
    names = [group.name for group in groups]
    other = len(names) if rule.unknown == "bucket" else LEFT_OUT
    exact = rule.kind != "date"
    number: dict[Key | None, int] = {None: other}
    for key in set(keys) - {None}:
        assert key is not None
        number[key] = next(i for i, group in enumerate(groups) if group.holds(key, exact))
    of_row = np.array([number[key] for key in keys], np.int64)
    unknown = sum(key is None for key in keys)
    if unknown and rule.unknown == "bucket":
        names.append(BUCKET)
    return Periods(rule=rule, names=tuple(names), of_row=of_row, unknown=unknown, examples=examples)


def _every_value(keys: Sequence[Key], rule: PeriodRule) -> tuple[Group, ...]:
    """Return a group for every different value, cut to the grain of dates."""
    length = _LENGTH[rule.grain] if rule.kind == "date" else PARTS
    short = next((key for key in keys if rule.kind == "date" and len(key) < length), None)
    if short is not None:
        raise DataError(
            f"periods: '{rule.column}' has the time {show_key(short, rule.kind)}, which names no "
            f"{rule.grain}; set periods.grain to a coarser one."
        )
    found = sorted({key[:length] for key in keys})
    return tuple(Group(show_key(key, rule.kind), key, key) for key in found)


def _values(store: Store, column: str) -> Iterator[list[Any]]:
    for batch in store.scan([column], batch_size=8192):
        yield batch.column(0).to_pylist()


def _first(store: Store, column: str) -> Any:
    for values in _values(store, column):
        for value in values:
            if value is not None and str(value).strip():
                return value
    raise DataError(f"{store.path}: the column '{column}' is empty.")


def _kind(value: Any, rule: PeriodRule) -> str:
    """Return what kind of time a value looks like."""
    if parse_date(str(value)[:10], rule.possible) is not None or isinstance(value, datetime.date):
        return "date"
    return "number" if isinstance(value, int | float) else "version"
