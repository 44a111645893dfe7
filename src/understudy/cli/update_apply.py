"""`understudy update apply STORE`: stored vectors to the new space."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.cli.common import note, parse_config, positional_store, show
from understudy.cli.update_maps import facts_table
from understudy.core.errors import ConfigError
from understudy.update.vector_files import SUFFIXES

if TYPE_CHECKING:
    from understudy.update.maps import CompatibleMap


@dataclass(frozen=True, kw_only=True, slots=True)
class ApplyOptions:
    """Bring stored vectors into the new space with a map; no item is read.

    Attributes:
        store: the store, or a file of vectors; also the first word of the command.
        map: the map's file or its run's folder; several, the oldest first, are a chain.
        old: column to map; by default the one that the map was trained on. Of a file: the field.
        side: column of side information; by default the one that the map was trained on.
        out: column to write; by default embed.<new>.from.<old>.
        to: file to write instead (.parquet, .npz, .npy).
        in_place: replace the column itself; the version before is tagged.
        where: SQL filter of the rows to map.
        skip_missing_side: leave out rows without side information.
        trust: take the vectors for those of the map's old space although nothing says so.
        overwrite: replace what another map wrote.
        unit_rows: rows at a time; 0 takes a few megabytes.
        threads: of the processor.
        device: cpu, cuda, ... that the map runs on.
        dry_run: print rows, parameters, FLOPs and bytes; write nothing.
        json: print JSON.
    """

    store: Path
    map: tuple[Path, ...]
    old: str = ""
    side: str = ""
    out: str = ""
    to: Path | None = None
    in_place: bool = False
    where: str = ""
    skip_missing_side: bool = False
    trust: bool = False
    overwrite: bool = False
    unit_rows: int = 0
    threads: int = 1
    device: str = "cpu"
    dry_run: bool = False
    json: bool = False


def apply(argv: Sequence[str], prog: str) -> int:
    """Parse and run `update apply STORE`."""
    options = parse_config(ApplyOptions, positional_store(argv), prog)

    import torch

    from understudy.update.lineage import chain_maps
    from understudy.update.maps import load_map

    torch.set_num_threads(options.threads)
    maps = [load_map(path) for path in options.map]
    compatible = maps[0] if len(maps) == 1 else chain_maps(maps)
    compatible.to(options.device)
    if options.store.suffix in SUFFIXES:
        return _apply_file(options, compatible)
    from understudy.data.store import Store
    from understudy.update.apply import apply_map
    from understudy.update.apply_plan import describe_plan, plan_apply

    store = Store.open(options.store)
    given: dict[str, Any] = {
        "old": options.old,
        "side": options.side,
        "where": options.where,
        "skip_missing_side": options.skip_missing_side,
        "trust": options.trust,
    }
    if options.dry_run:
        plan = plan_apply(store, compatible, out=options.out, in_place=options.in_place, **given)
        facts = describe_plan(plan, compatible)
        facts |= {"writes": str(options.to)} if options.to else {}
        show(facts, options.json, lambda f: facts_table(f, "apply"))
        return 0
    if options.to is not None:
        from understudy.update.apply_files import apply_store_to_file

        if options.in_place or options.out:
            raise ConfigError(f"{prog}: --to writes a file; leave --out and --in-place out.")
        return _file_report(options, apply_store_to_file(store, compatible, options.to, **given))
    report = apply_map(
        store,
        compatible,
        out=options.out,
        in_place=options.in_place,
        overwrite=options.overwrite,
        unit_rows=options.unit_rows,
        **given,
    )
    facts = {
        **dataclasses.asdict(report),
        "items_per_second": round(report.items_per_second, 1),
        "store": str(options.store),
    }
    show(facts, options.json, lambda f: facts_table(f, "apply"))
    note(f"wrote column '{report.column}' of {options.store}")
    if report.tag:
        note(f"the version before is tagged '{report.tag}'")
    return 0


def _apply_file(options: ApplyOptions, compatible: CompatibleMap) -> int:
    from understudy.update.apply_files import apply_to_file
    from understudy.update.vector_files import open_vectors

    if options.to is None:
        raise ConfigError("update apply: name the file to write (--to FILE).")
    if options.dry_run:
        rows = open_vectors(options.store).num_rows
        width = compatible.new_dim + int(compatible.has_uncertainty)
        facts = {
            "writes": str(options.to),
            "rows": rows,
            "parameters": compatible.num_parameters,
            "flops": rows * compatible.flops_per_item,
            "bytes_written": 4 * rows * width,
        }
        show(facts, options.json, lambda f: facts_table(f, "apply"))
        return 0
    report = apply_to_file(
        compatible,
        options.store,
        options.to,
        field=options.old,
        side_field=options.side or "side",
        trust=options.trust,
    )
    return _file_report(options, report)


def _file_report(options: ApplyOptions, report: Any) -> int:
    facts = {
        "path": str(report.path),
        "rows": report.rows,
        "seconds": report.seconds,
        "items_per_second": round(report.items_per_second, 1),
    }
    show(facts, options.json, lambda f: facts_table(f, "apply"))
    note(f"wrote {report.path}")
    return 0
