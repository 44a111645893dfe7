"""`understudy data subset|splits`: samples of a time split, and time splits of a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import tyro

from understudy.cli.common import parse, show
from understudy.core.errors import DataError

Positional = tyro.conf.Positional


def subset(argv: Sequence[str], prog: str) -> None:
    """Parse and run `data subset`."""

    def command(
        source: Positional[Path],
        destination: Positional[Path],
        uids: Path,
        exclude: Path | None = None,
        rows_per_shard: int = 10_000,
        json: bool = False,
    ) -> None:
        """Write the samples of a time split to WebDataset tars of their own.

        Killed, the same command goes on with the next tar.

        Args:
            source: a tar or a folder of tars; `sizes.json` beside them is checked.
            destination: a new folder: tars, `sizes.json`, `meta.json`, statistics of each tar.
            uids: ids to keep: a sorted `.npy` of two 64-bit halves, a folder of them (the months
                of a year), or text with 32 hex digits a line.
            exclude: ids to leave out, likewise, for example those that are evaluated on.
            rows_per_shard: samples a tar.
            json: print what was written as JSON.
        """
        from understudy.data.reshard import read_ids, reshard

        made = reshard(
            source,
            destination,
            read_ids(uids),
            exclude=None if exclude is None else read_ids(exclude),
            rows_per_shard=rows_per_shard,
        )
        facts = {"path": str(destination), "sizes": made.sizes, "missing": made.missing}
        show(facts, json, _subset_text)

    parse(command, argv, prog)


def _subset_text(facts: dict[str, Any]) -> str:
    sizes, missing = facts["sizes"], facts["missing"]
    line = f"{facts['path']}: {sum(sizes.values()):,} samples in {len(sizes):,} tars"
    return line + (f"; {missing:,} ids are in no shard" if missing else "")


def splits(argv: Sequence[str], prog: str) -> None:
    """Parse and run `data splits`."""

    def command(
        store: Positional[Path],
        out: Positional[Path],
        column: str = "time",
        uid: str = "uid",
        kind: Literal["auto", "date", "version", "number"] = "auto",
        grain: Literal["year", "month", "day"] = "year",
        merge: tuple[str, ...] = (),
        unknown: Literal["drop", "bucket"] = "drop",
        json: bool = False,
    ) -> None:
        """Write a store's periods as time splits: sorted arrays of the samples' ids.

        A split says which samples a period has, so images need not be written anew for another.

        Args:
            store: the store.
            out: a folder; `<period>.npy` each, dtype `u8,u8`.
            column: with the times.
            uid: column with the samples' ids, 32 hex digits each.
            kind: of the times; found out by default.
            grain: of dates: year, month or day.
            merge: periods in order, FIRST..LAST or NAME=FIRST..LAST each.
            unknown: rows without a possible time: drop or bucket.
            json: print the files as JSON.
        """
        from understudy.core.files import write_json
        from understudy.data.periods import PeriodRule, find_periods
        from understudy.data.periods_uids import pack_uids, write_split
        from understudy.data.store import Store

        opened = Store.open(store)
        rule = PeriodRule(column=column, kind=kind, grain=grain, merge=merge, unknown=unknown)
        periods = find_periods(opened, rule)
        if not opened.has(uid):
            raise DataError(
                f"{store}: no column '{uid}' to take ids from; name it with --uid. It has "
                f"{', '.join(opened.columns)}."
            )
        sizes = {}
        for name in periods.names:
            rows = periods.rows(name)
            texts = opened.take(rows, [uid]).column(0).to_pylist()
            halves = pack_uids([str(t) for t in texts], f"{store}, period '{name}'")
            path = write_split(out / f"{name.replace('/', '-')}.npy", halves)
            sizes[path.name] = len(halves)
        write_json(out / "periods.json", {"column": column, "sizes": sizes})
        note = periods.note()
        facts = {"path": str(out), "sizes": sizes, "note": note}
        show(facts, json, _splits_text)

    parse(command, argv, prog)


def _splits_text(facts: dict[str, Any]) -> str:
    lines = [f"{facts['path']}/{name}: {count:,} ids" for name, count in facts["sizes"].items()]
    return "\n".join([*lines, *([facts["note"]] if facts["note"] else [])])
