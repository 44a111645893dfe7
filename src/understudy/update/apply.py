"""Bring stored vectors into a new model's space, without reading one item again.

    report = apply_map(store, load_map("runs/map"))            # writes embed.new.from.old
    report = apply_map(store, load_map("runs/map"), in_place=True)

Rows stream through the map a few megabytes at a time and are written exactly once: killed at any
moment, the same call goes on and the column ends up the same.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from understudy.core import progress
from understudy.data.knowledge import decode_embeddings, embedding_type, fixed_list
from understudy.update.apply_plan import ApplyPlan, plan_apply
from understudy.update.columns import uncertainty_column
from understudy.update.maps import CompatibleMap
from understudy.update.vector_checks import Norms, check_same_norms, check_vectors

if TYPE_CHECKING:
    from understudy.data.store import Store

UNIT_BYTES = 8 << 20
"""Vectors that are read, mapped and kept at a time."""


@dataclass(frozen=True, slots=True)
class ApplyReport:
    """What `apply_map` did.

    Attributes:
        column: what was written.
        uncertainty: column of uncertainties; empty if the map predicts none.
        rows: rows that are mapped now.
        written: rows that this call mapped; the others were from before.
        skipped: rows left out because they have no side information.
        seconds: wall seconds of this call, reading and writing included.
        tag: name of the version before, in place; else empty.
    """

    column: str
    uncertainty: str
    rows: int
    written: int
    skipped: int
    seconds: float
    tag: str = ""

    @property
    def items_per_second(self) -> float:
        """Rows that this call mapped in a second."""
        return self.written / max(self.seconds, 1e-9)


def apply_map(
    store: Store,
    compatible: CompatibleMap,
    *,
    old: str = "",
    side: str = "",
    out: str = "",
    in_place: bool = False,
    where: str = "",
    skip_missing_side: bool = False,
    trust: bool = False,
    overwrite: bool = False,
    unit_rows: int = 0,
) -> ApplyReport:
    """Map a store's column.

    Args:
        store: open at its newest version.
        compatible: the map.
        old: column to map; empty takes the one that the map was trained on.
        side: column of side information; empty takes the one that the map was trained on.
        out: column to write; empty writes `embed.<new>.from.<old>`. A map with uncertainties also
            writes `<out>.u`.
        in_place: replace `old` itself, in one version; the version before is tagged. Vectors of
            the old space are then in that version only.
        where: SQL filter of the rows to map.
        skip_missing_side: leave out rows that have no side information.
        trust: take the column for vectors of the map's old space although nothing says so.
        overwrite: replace what another map wrote to `out`.
        unit_rows: rows at a time; chosen by their width when 0.

    Raises:
        DataError: the column is in the target space already; rows without side information;
            vectors that are NaN, infinite, zero, or normalised where those that the map learned
            from were not. Items are named.
        SpaceError: the column is in another space than the map takes.
        CardError: `out` holds something else.
    """
    start = time.perf_counter()
    store.refresh()
    plan = plan_apply(
        store,
        compatible,
        old=old,
        side=side,
        out=out,
        in_place=in_place,
        where=where,
        skip_missing_side=skip_missing_side,
        trust=trust,
    )
    tag = _tag(store, plan, compatible) if in_place else ""
    written = _write(store, plan, compatible, overwrite or in_place, unit_rows)
    store.refresh()
    return ApplyReport(
        column=plan.out,
        uncertainty=uncertainty_column(plan.out) if compatible.has_uncertainty else "",
        rows=len(plan.rows),
        written=written,
        skipped=plan.skipped,
        seconds=time.perf_counter() - start,
        tag=tag,
    )


def _tag(store: Store, plan: ApplyPlan, compatible: CompatibleMap) -> str:
    """Name the version that still has the old vectors; an earlier, interrupted call has perhaps."""
    name = f"before-{compatible.fingerprint[:8]}-{plan.source[:8]}"
    if name not in store.tags():
        store.tag(name)
    return name


def _write(
    store: Store, plan: ApplyPlan, compatible: CompatibleMap, overwrite: bool, unit_rows: int
) -> int:
    vectors, uncertainty = plan.out, uncertainty_column(plan.out)
    types: dict[str, pa.DataType] = {vectors: embedding_type([compatible.new_dim], "float32")}
    if compatible.has_uncertainty:
        types[uncertainty] = pa.float32()
    width = compatible.old_dim + compatible.side_dim + compatible.new_dim
    unit_rows = unit_rows or max(512, UNIT_BYTES // (4 * width))
    reader = RowReader(store, plan, compatible)
    job = store.job(
        plan.cards(compatible),
        types,
        rows=plan.rows,
        unit_rows=unit_rows,
        overwrite=overwrite,
    )
    written = 0
    with job, progress.bar(f"apply {vectors}", job.num_wanted, "rows", job.num_done) as bar:
        for unit in job.todo():
            began = time.perf_counter()
            old, side = reader.read(job.rows(unit))
            z, u = compatible.transform(old, side)
            columns: dict[str, pa.Array] = {vectors: fixed_list(z)}
            if u is not None:
                columns[uncertainty] = pa.array(u)
            job.write(unit, columns, seconds=time.perf_counter() - began)
            written += len(z)
            bar.advance(len(z))
    return written


class RowReader:
    """Reads rows of a plan's columns and refuses what must not be mapped.

    Args:
        store: where they are.
        plan: which columns.
        compatible: the map, which knows the lengths of the vectors that it learned from.
    """

    def __init__(self, store: Store, plan: ApplyPlan, compatible: CompatibleMap) -> None:
        self.store, self.norms = store, Norms()
        self.columns = {"old": plan.old, **({"side": plan.side} if plan.side else {})}
        self.configs = {n: store.card(c).config for n, c in self.columns.items()}
        self.expected = compatible.manifest.get("norms", {}).get("old")

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return old vectors and side information of rows, checked."""

        def names(places: np.ndarray) -> list[str]:
            return self.store.take(rows[places], ["id"])["id"].to_pylist()

        found: dict[str, np.ndarray] = {}
        for name, column in self.columns.items():
            values = decode_embeddings(self.store.array(column, rows), self.configs[name])
            lengths = check_vectors(values, names, f"column '{column}' of {self.store.path}")
            found[name] = values
            if name == "old":
                self.norms.add(lengths)
        where = f"column '{self.columns['old']}' of {self.store.path}"
        check_same_norms(self.norms, self.expected, where)
        return found["old"], found.get("side")
