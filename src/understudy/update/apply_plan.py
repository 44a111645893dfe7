"""What applying a map to a store would do, checked before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.core.errors import ConfigError, DataError
from understudy.core.hashing import hash_data
from understudy.core.provenance import versions
from understudy.data.card import Card
from understudy.data.knowledge import embedding_config
from understudy.data.spaces import Space, SpaceError, space_of
from understudy.update.columns import uncertainty_column
from understudy.update.lineage import mapped_space
from understudy.update.maps import CompatibleMap

if TYPE_CHECKING:
    from understudy.data.store import Store

PREFIX = "embed."
SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class ApplyPlan:
    """What is read and written.

    Attributes:
        old: column of vectors to map.
        side: column of side information; empty for none.
        out: column to write; the same as `old` in place.
        rows: int64 row numbers to map.
        skipped: rows left out because they have no side information.
        space: space of what is written.
        source: hash of the card of `old`, of which the result is a function.
        in_place: whether `old` itself is replaced.
    """

    old: str
    side: str
    out: str
    rows: np.ndarray
    skipped: int
    space: Space
    source: str
    in_place: bool

    def cards(self, compatible: CompatibleMap) -> list[Card]:
        """Return the cards of what is written: vectors, and uncertainties if there are any."""
        shared: dict[str, Any] = {"input": self.old, "source_card": self.source}
        if self.side:
            shared["side"] = self.side
        found = [(self.out, {**embedding_config([compatible.new_dim], "float32"), **shared})]
        if compatible.has_uncertainty:
            found.append((uncertainty_column(self.out), {"of": self.out, **shared}))
        return [
            Card(
                column=column,
                writer=f"map to {compatible.to_space.model}",
                fingerprint=compatible.fingerprint,
                config={**config, "space": self.space.to_dict()},
                versions=versions(),
                created_by="update.apply",
            )
            for column, config in found
        ]


def output_column(compatible: CompatibleMap, old: str) -> str:
    """Return the name of a mapped column: `embed.<new>.from.<old>`.

    Args:
        compatible: the map; the new model's column is in its manifest, else its name is taken.
        old: column that is mapped.
    """
    new = compatible.manifest.get("columns", {}).get("new", "")
    if not new.startswith(PREFIX):
        new = PREFIX + "".join(
            c if c.isalnum() or c in "-_+" else "-" for c in compatible.to_space.model
        )
    return f"{new}.from.{old.removeprefix(PREFIX)}"


def check_source_space(source: Space, compatible: CompatibleMap, where: str, trust: bool) -> None:
    """Refuse vectors that a map does not take.

    Args:
        source: their space.
        compatible: the map.
        where: what they are, for the message.
        trust: take them for the map's old space although their card says something else; only
            their width is compared.

    Raises:
        DataError: they are in the target space already.
        SpaceError: they are in another space; both are named.
    """
    target = compatible.to_space.searched_from
    if source.searched_from == target:
        raise DataError(
            f"{where}: these vectors are in the target space {target} already ({source.kind}); a "
            "map is applied once. Nothing was written."
        )
    if trust and source.dim == compatible.old_dim:
        return
    if source.searched_from != compatible.from_space.searched_from:
        same = " Equal widths do not make them one." if source.dim == compatible.old_dim else ""
        raise SpaceError(
            f"{where}: vectors are in space {source}, the map takes vectors of space "
            f"{compatible.from_space}.{same} Give the column that the map was made for, or train a "
            "map for this one ('understudy update fit')."
        )


def _side_column(store: Store, compatible: CompatibleMap, side: str) -> str:
    if not compatible.side_dim:
        if side:
            raise ConfigError(
                f"side column '{side}': this map uses no side information; leave it out."
            )
        return ""
    side = side or compatible.manifest.get("columns", {}).get("side", "")
    wanted = compatible.side_space
    if not side or not store.has(side):
        raise DataError(
            f"{store.path}: the map needs side information ({wanted}), and there is no column "
            f"'{side or '?'}' of it: all {store.num_rows:,} rows lack it. Name the column "
            "(--side), or fit a map that needs none ('understudy update fit' without --side)."
        )
    found = space_of(store, side)
    if wanted is not None and found.id != wanted.id:
        raise SpaceError(
            f"side column '{side}': vectors are in space {found}, the map takes side information "
            f"of space {wanted}; give the column that it was trained with."
        )
    return side


def _rows(
    store: Store, old: str, side: str, where: str, skip_missing_side: bool
) -> tuple[np.ndarray, int]:
    use = store.filled(old)
    if where:
        use = use & np.isin(np.arange(store.num_rows), store.where(where))
    if not use.any():
        raise DataError(f"{store.path}: no row to map; column '{old}' is filled in none of them.")
    if not side:
        return np.flatnonzero(use), 0
    lacking = np.flatnonzero(use & ~store.filled(side))
    if len(lacking) and not skip_missing_side:
        ids = store.take(lacking[:SHOWN], ["id"])["id"].to_pylist()
        more = f" and {len(lacking) - SHOWN:,} more" if len(lacking) > SHOWN else ""
        names = ", ".join(f"'{name}'" for name in ids)
        raise DataError(
            f"{store.path}: {len(lacking):,} items have '{old}' but no side information '{side}': "
            f"{names}{more}. Leave them out (--skip-missing-side), write it for them, or map them "
            "with a map that needs none ('understudy update fit' without --side)."
        )
    return np.flatnonzero(use & store.filled(side)), len(lacking)


def plan_apply(
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
) -> ApplyPlan:
    """Check that a map fits a store and say what would be done; see `apply_map`."""
    columns = compatible.manifest.get("columns", {})
    old = old or columns.get("old", "")
    if not old or not store.has(old):
        raise DataError(
            f"{store.path}: no column '{old or '?'}' of vectors to map; name it (--old). Index "
            f"columns: {', '.join(c for c in store.columns if c.startswith(PREFIX)) or 'none'}."
        )
    if in_place and out not in ("", old):
        raise ConfigError(f"out '{out}': in place, '{old}' itself is replaced; leave one out.")
    if in_place and where:
        raise ConfigError(
            "in place, all rows of the column are mapped: a column with vectors of two spaces and "
            "no sign of which is which could not be searched. Leave the filter out."
        )
    source = space_of(store, old)
    check_source_space(source, compatible, f"column '{old}' of {store.path}", trust)
    side = _side_column(store, compatible, side)
    if in_place and skip_missing_side:
        raise ConfigError(
            "in place, rows without side information would lose their vectors; write beside them, "
            "or fit a map that needs none."
        )
    rows, skipped = _rows(store, old, side, where, skip_missing_side)
    return ApplyPlan(
        old=old,
        side=side,
        out=old if in_place else out or output_column(compatible, old),
        rows=rows,
        skipped=skipped,
        space=mapped_space(source, compatible),
        source=hash_data(store.card(old).identity()),
        in_place=in_place,
    )


def describe_plan(plan: ApplyPlan, compatible: CompatibleMap) -> dict[str, Any]:
    """Return what `--dry-run` shows."""
    per_row = 4 * compatible.new_dim + (4 if compatible.has_uncertainty else 0)
    read = 4 * (compatible.old_dim + (compatible.side_dim if plan.side else 0))
    return {
        "old": plan.old,
        "side": plan.side or "none",
        "writes": plan.out,
        "in_place": plan.in_place,
        "rows": len(plan.rows),
        "rows_skipped": plan.skipped,
        "space": plan.space.id,
        "searched_from": plan.space.searched_from,
        "parameters": compatible.num_parameters,
        "flops_per_row": compatible.flops_per_item,
        "flops": compatible.flops_per_item * len(plan.rows),
        "bytes_read": read * len(plan.rows),
        "bytes_written": per_row * len(plan.rows),
    }
