"""Vectors with ids in files: NumPy archives and Parquet.

| file | holds |
| --- | --- |
| `.npz` | `ids` [N], one or more fields [N, d], optionally `labels`, `u` and `spaces` (JSON) |
| `.parquet` | `id`, one or more lists of equal length, optionally `label`; spaces as metadata |
| `.npy` | one field [N, d] without ids: can be mapped, cannot be paired |

A file's one field may have any name; in a file of pairs the fields are `old`, `new` and `side`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.core.errors import DataError
from understudy.data.spaces import Space

if TYPE_CHECKING:
    import pyarrow as pa

SPACES_KEY = "understudy.spaces"
SUFFIXES = (".npz", ".parquet", ".npy")


@dataclass(frozen=True, kw_only=True)
class VectorBatch:
    """Some rows of a file.

    Attributes:
        ids: [B] strings; None where the file has none.
        fields: by name, float [B, d].
        labels: int64 [B], where there are some.
    """

    ids: np.ndarray | None
    fields: dict[str, np.ndarray]
    labels: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class VectorFile:
    """A file of vectors, open for reading in batches.

    Attributes:
        path: where it is.
        num_rows: how many rows it has.
        widths: width of each field.
        spaces: space of each field that the file names one for.
        has_ids: whether rows have ids.
    """

    path: Path
    num_rows: int
    widths: dict[str, int]
    spaces: dict[str, Space] = field(default_factory=dict)
    has_ids: bool = True

    def only_field(self) -> str:
        """Return the name of the file's one field.

        Raises:
            DataError: there are several.
        """
        if len(self.widths) == 1:
            return next(iter(self.widths))
        raise DataError(
            f"{self.path}: fields {', '.join(self.widths)}; expected a file of one field, or name "
            "the one that is meant."
        )

    def only_field_besides(self, other: str) -> str:
        """Return the name of the one field that is not `other`; see `only_field`."""
        names = [name for name in self.widths if name != other]
        return names[0] if len(names) == 1 else self.only_field()

    def batches(self, rows: int = 8192) -> Iterator[VectorBatch]:
        """Yield the rows in order, a part at a time.

        Args:
            rows: rows of a part.
        """
        if self.path.suffix == ".parquet":
            yield from self._parquet(rows)
            return
        whole = _arrays(self.path)
        ids, labels = whole.pop("ids", None), whole.pop("labels", None)
        whole.pop("u", None)
        for start in range(0, self.num_rows, rows):
            part = slice(start, start + rows)
            yield VectorBatch(
                ids=None if ids is None else ids[part],
                fields={name: np.asarray(values[part]) for name, values in whole.items()},
                labels=None if labels is None else np.asarray(labels[part], np.int64),
            )

    def _parquet(self, rows: int) -> Iterator[VectorBatch]:
        import pyarrow.parquet as pq

        start = 0
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(batch_size=rows):
                ids = np.array([str(i) for i in batch.column("id").to_pylist()], object)
                where = f"{self.path}, rows from {start:,} on"
                fields = {
                    name: _matrix(batch.column(name), width, f"{where}, field '{name}'")
                    for name, width in self.widths.items()
                }
                labels = None
                if "label" in batch.schema.names:
                    labels = batch.column("label").to_numpy(zero_copy_only=False)
                yield VectorBatch(ids=ids, fields=fields, labels=labels)
                start += batch.num_rows


def _matrix(values: pa.Array, width: int, where: str) -> np.ndarray:
    """Return lists of one length as [N, width]."""
    flat = values.flatten()
    if values.null_count or flat.null_count or len(flat) != width * len(values):
        raise DataError(f"{where}: every row must have {width} numbers; some have not.")
    return flat.to_numpy(zero_copy_only=False).reshape(len(values), width)


def _arrays(path: Path) -> dict[str, Any]:
    """Return what a NumPy file holds; the vectors of a `.npy` are mapped, not read."""
    try:
        if path.suffix == ".npy":
            return {"vectors": np.load(path, mmap_mode="r")}
        with np.load(path) as file:
            return {name: file[name] for name in file.files if name != "spaces"}
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path}: not a NumPy file of plain numbers ({error}).") from None


def open_vectors(path: str | Path) -> VectorFile:
    """Open a file of vectors.

    Raises:
        DataError: missing, of another kind, without ids (npz, Parquet) or without vectors.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: expected a file of vectors ({', '.join(SUFFIXES)}).")
    if not path.is_file():
        raise DataError(f"{path}: no such file.")
    if path.suffix == ".parquet":
        return _open_parquet(path)
    arrays = _arrays(path)
    if path.suffix == ".npz" and "ids" not in arrays:
        raise DataError(
            f"{path}: no array 'ids'; vectors are never paired by position, so each row needs an "
            f"id (the file has {', '.join(arrays) or 'nothing'})."
        )
    fields = {n: a for n, a in arrays.items() if n not in ("ids", "labels", "u")}
    for name, values in fields.items():
        if values.ndim != 2 or not np.issubdtype(values.dtype, np.floating):
            raise DataError(
                f"{path}: '{name}' is {values.dtype} {list(values.shape)}; expected floating-point "
                "[rows, width]."
            )
    counts = {n: len(a) for n, a in arrays.items()}
    if not fields or len(set(counts.values())) > 1:
        raise DataError(f"{path}: expected arrays of one length, got {counts}.")
    return VectorFile(
        path=path,
        num_rows=next(iter(counts.values())),
        widths={n: int(a.shape[1]) for n, a in fields.items()},
        spaces=_npz_spaces(path) if path.suffix == ".npz" else {},
        has_ids="ids" in arrays,
    )


def _npz_spaces(path: Path) -> dict[str, Space]:
    with np.load(path) as file:
        return _spaces(str(file["spaces"]), path) if "spaces" in file.files else {}


def _spaces(text: str, path: Path) -> dict[str, Space]:
    try:
        return {name: Space.from_dict(data) for name, data in json.loads(text).items()}
    except (json.JSONDecodeError, AttributeError, TypeError) as error:
        raise DataError(f"{path}: its spaces are not readable ({error}).") from None


def _open_parquet(path: Path) -> VectorFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            schema, num_rows = file.schema_arrow, file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a Parquet file ({str(error).splitlines()[0]}).") from None
    widths = {f.name: _width(path, f) for f in schema if _is_vector(f.type)}
    if "id" not in schema.names or not widths:
        raise DataError(
            f"{path}: expected a column 'id' and lists of floating-point numbers, got "
            f"{', '.join(schema.names)}."
        )
    text = (schema.metadata or {}).get(SPACES_KEY.encode())
    spaces = {} if text is None else _spaces(text.decode(), path)
    return VectorFile(path=path, num_rows=num_rows, widths=widths, spaces=spaces)


def _is_vector(kind: pa.DataType) -> bool:
    import pyarrow as pa

    lists = (pa.types.is_fixed_size_list, pa.types.is_list, pa.types.is_large_list)
    return any(is_list(kind) for is_list in lists) and pa.types.is_floating(kind.value_type)


def _width(path: Path, field: pa.Field) -> int:
    """Return the length of a column's lists: by its type, else of the first row."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if pa.types.is_fixed_size_list(field.type):
        return field.type.list_size
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=1, columns=[field.name]):
            return len(batch.column(0).flatten())
    return 0


def parquet_schema(widths: Mapping[str, int], spaces: Mapping[str, Space], u: bool) -> pa.Schema:
    """Return the schema of a file of vectors: `id`, the fields, and `u` if asked for."""
    import pyarrow as pa

    fields = [pa.field("id", pa.string())]
    fields += [pa.field(name, pa.list_(pa.float32(), width)) for name, width in widths.items()]
    fields += [pa.field("u", pa.float32())] if u else []
    text = json.dumps({name: space.to_dict() for name, space in spaces.items()}, sort_keys=True)
    return pa.schema(fields, metadata={SPACES_KEY: text})


def write_npz(
    path: str | Path,
    ids: np.ndarray,
    fields: Mapping[str, np.ndarray],
    *,
    labels: np.ndarray | None = None,
    spaces: Mapping[str, Space] | None = None,
    u: np.ndarray | None = None,
) -> Path:
    """Write vectors that are in memory to one NumPy archive, atomically, and return the path.

    Args:
        path: where to.
        ids: [N] strings.
        fields: vectors [N, d] by name.
        labels: int [N] classes.
        spaces: space of each field that one is known of.
        u: [N] uncertainties.
    """
    from understudy.core.files import atomic_path

    arrays: dict[str, Any] = {"ids": np.asarray(ids, str), **fields}
    if labels is not None:
        arrays["labels"] = labels
    if u is not None:
        arrays["u"] = u
    if spaces:
        text = json.dumps({name: space.to_dict() for name, space in spaces.items()})
        arrays["spaces"] = np.array(text)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)
    return Path(path)
