"""Map vectors of files to files, and vectors of a store to a file, a part at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from understudy.core import progress
from understudy.core.errors import ConfigError, DataError
from understudy.core.files import atomic_path
from understudy.data.spaces import Space
from understudy.update.apply import RowReader
from understudy.update.apply_plan import check_source_space, plan_apply
from understudy.update.lineage import mapped_space
from understudy.update.maps import CompatibleMap
from understudy.update.vector_checks import Norms, check_same_norms, check_vectors
from understudy.update.vector_files import VectorFile, open_vectors, parquet_schema, write_npz

if TYPE_CHECKING:
    from understudy.data.store import Store

PART_ROWS = 8192
FIELD = "vectors"


@dataclass(frozen=True, slots=True)
class FileReport:
    """What was written to a file.

    Attributes:
        path: the file.
        rows: rows in it.
        seconds: wall seconds.
    """

    path: Path
    rows: int
    seconds: float

    @property
    def items_per_second(self) -> float:
        """Rows in a second."""
        return self.rows / max(self.seconds, 1e-9)


Part = tuple[np.ndarray | None, np.ndarray, np.ndarray | None]
"""Ids (or None), mapped vectors, uncertainties (or None)."""


def apply_to_file(
    compatible: CompatibleMap,
    source: str | Path,
    out: str | Path,
    *,
    field: str = "",
    side_field: str = "side",
    trust: bool = False,
) -> FileReport:
    """Map the vectors of a file to another file, which is whole or absent.

    Args:
        compatible: the map.
        source: `.parquet` (streamed), `.npy` (mapped) or `.npz` (read) of old vectors.
        out: `.parquet` with `id`, `vectors` and perhaps `u`; `.npz` with the same; or `.npy` of
            vectors, with uncertainties in `<name>.u.npy`.
        field: the file's field of old vectors; empty takes the one field, or `old`.
        side_field: its field of side information, for a map that needs some.
        trust: the file names no space (or another); take it for the map's old space.

    Raises:
        ConfigError: kinds of files that do not go together.
        DataError: vectors that the map does not take, or that are NaN, infinite or zero.
        SpaceError: the file says that they are of another space.
    """
    file = open_vectors(source)
    field = field or ("old" if "old" in file.widths else file.only_field_besides(side_field))
    if field not in file.widths:
        raise DataError(f"{source}: no field '{field}'; it has {', '.join(file.widths)}.")
    space = file.spaces.get(field)
    if space is None and not trust:
        raise DataError(
            f"{source}: names no space for '{field}', so nothing says that the map takes these "
            f"vectors; if they are of space {compatible.from_space}, say so with --trust."
        )
    if space is not None:
        check_source_space(space, compatible, str(source), trust)
    if file.widths[field] != compatible.old_dim:
        raise DataError(
            f"{source}: '{field}' has {file.widths[field]} numbers a row, the map takes "
            f"{compatible.old_dim}."
        )
    if compatible.side_dim and side_field not in file.widths:
        raise DataError(
            f"{source}: the map needs side information and the file has no field '{side_field}': "
            f"all {file.num_rows:,} rows lack it. Add it, or fit a map that needs none "
            "('understudy update fit' without --side)."
        )
    mapped = mapped_space(space or compatible.from_space, compatible)
    parts = _file_parts(compatible, file, field, side_field)
    return _write(compatible, parts, Path(out), file.num_rows, mapped, file.has_ids)


def apply_store_to_file(
    store: Store,
    compatible: CompatibleMap,
    out: str | Path,
    *,
    old: str = "",
    side: str = "",
    where: str = "",
    skip_missing_side: bool = False,
    trust: bool = False,
) -> FileReport:
    """Map a store's column to a file; see `apply_map` for options, `apply_to_file` for files."""
    plan = plan_apply(
        store,
        compatible,
        old=old,
        side=side,
        where=where,
        skip_missing_side=skip_missing_side,
        trust=trust,
    )
    reader = RowReader(store, plan, compatible)

    def parts() -> Iterator[Part]:
        for start in range(0, len(plan.rows), PART_ROWS):
            rows = plan.rows[start : start + PART_ROWS]
            z, u = compatible.transform(*reader.read(rows))
            ids = store.take(rows, ["id"])["id"].to_pylist()
            yield np.array(ids, object), z, u

    return _write(compatible, parts(), Path(out), len(plan.rows), plan.space, True)


def _file_parts(
    compatible: CompatibleMap, file: VectorFile, field: str, side_field: str
) -> Iterator[Part]:
    norms, start = Norms(), 0
    for batch in file.batches(PART_ROWS):
        old = np.asarray(batch.fields[field], np.float32)
        side = None
        if compatible.side_dim:
            side = np.asarray(batch.fields[side_field], np.float32)

        def names(places: np.ndarray, ids=batch.ids, first: int = start) -> list[str]:
            if ids is None:
                return [f"row {first + int(p)}" for p in places]
            return [str(ids[p]) for p in places]

        norms.add(check_vectors(old, names, f"{file.path}, '{field}'"))
        if side is not None:
            check_vectors(side, names, f"{file.path}, '{side_field}'")
        check_same_norms(norms, compatible.manifest.get("norms", {}).get("old"), str(file.path))
        z, u = compatible.transform(old, side)
        yield batch.ids, z, u
        start += len(old)


def _write(
    compatible: CompatibleMap,
    parts: Iterator[Part],
    out: Path,
    total: int,
    space: Space,
    has_ids: bool,
) -> FileReport:
    start = time.perf_counter()
    if out.suffix not in (".parquet", ".npz", ".npy"):
        raise ConfigError(f"{out}: expected a .parquet, .npz or .npy file.")
    if not has_ids and out.suffix != ".npy":
        raise ConfigError(f"{out}: the source has no ids; write a .npy file, or give ids.")
    with progress.bar(f"apply {out.name}", total, "rows") as bar:

        def counted() -> Iterator[Part]:
            for part in parts:
                yield part
                bar.advance(len(part[1]))

        if out.suffix == ".parquet":
            _to_parquet(compatible, counted(), out, space)
        elif out.suffix == ".npy":
            _to_npy(compatible, counted(), out, total)
        else:
            _to_npz(counted(), out, space)
    return FileReport(out, total, time.perf_counter() - start)


def _to_parquet(compatible: CompatibleMap, parts: Iterator[Part], out: Path, space: Space) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from understudy.data.knowledge import fixed_list

    schema = parquet_schema(
        {FIELD: compatible.new_dim}, {FIELD: space}, u=compatible.has_uncertainty
    )
    with atomic_path(out) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for ids, z, u in parts:
            arrays = [pa.array([] if ids is None else list(ids), pa.string()), fixed_list(z)]
            arrays += [] if u is None else [pa.array(u)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _to_npy(compatible: CompatibleMap, parts: Iterator[Part], out: Path, total: int) -> None:
    shapes: dict[Path, tuple[int, ...]] = {out: (total, compatible.new_dim)}
    if compatible.has_uncertainty:
        shapes[out.with_suffix(".u.npy")] = (total,)
    with ExitStack() as stack:
        files = [
            np.lib.format.open_memmap(
                stack.enter_context(atomic_path(path)), "w+", np.float32, shape
            )
            for path, shape in shapes.items()
        ]
        at = 0
        for _, z, u in parts:
            for file, values in zip(files, (z, u), strict=False):
                file[at : at + len(z)] = values
            at += len(z)
        for file in files:
            file.flush()


def _to_npz(parts: Iterator[Part], out: Path, space: Space) -> None:
    found = list(parts)
    fields = {FIELD: np.concatenate([z for _, z, _ in found])}
    ids = np.concatenate([np.asarray(i, str) for i, _, _ in found])
    extra = [u for _, _, u in found if u is not None]
    write_npz(out, ids, fields, spaces={FIELD: space}, u=np.concatenate(extra) if extra else None)
