"""TFRecord files of `tf.train.Example` messages to a store."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from understudy.core.errors import DataError
from understudy.core.progress import Bar
from understudy.data.importers.common import BATCH_ROWS
from understudy.data.importers.streams import find_files
from understudy.data.importers.table_import import Batches, Source, import_table
from understudy.data.importers.tables import our_names
from understudy.data.importers.tfrecord_files import Values, parse_example, read_records

if TYPE_CHECKING:
    from understudy.data.store import Store

SUFFIXES = (".tfrecord", ".tfrecords", ".tfrecord.gz")
INFER_ROWS = 1_000

Row = tuple[int, dict[str, Values]]


def _rows(path: Path) -> Iterator[Row]:
    for number, message in read_records(path):
        yield number, parse_example(message, f"{path}, record {number}")


def _is_text(values: list[Values]) -> bool:
    try:
        for value in itertools.chain.from_iterable(values):
            if isinstance(value, bytes):
                value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _infer(rows: list[dict[str, Values]], columns: Mapping[str, str] | None) -> pa.Schema:
    """Return the schema of the first records; one value a record is a plain column."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    ours = our_names(names, columns, "records")
    fields = []
    for name in names:
        values = [row.get(name, []) for row in rows]
        first: Any = next((v[0] for v in values if v), b"")
        if isinstance(first, bytes):
            text = ours[name] != "image" and _is_text(values)
            kind = pa.string() if text else pa.binary()
        else:
            kind = pa.int64() if isinstance(first, int) else pa.float32()
        many = any(len(v) > 1 for v in values) and ours[name] != "image"
        fields.append(pa.field(name, pa.list_(kind) if many else kind))
    return pa.schema(fields)


def _value(values: Values, kind: pa.DataType) -> Any:
    inner = kind.value_type if pa.types.is_list(kind) else kind
    found: list[Any] = list(values)
    if pa.types.is_string(inner):
        found = [v.decode() for v in found]
    if pa.types.is_list(kind):
        return found
    if len(found) > 1:
        raise ValueError(f"{len(found)} values")
    return found[0] if found else None


def _batch(group: list[Row], schema: pa.Schema, path: Path) -> pa.RecordBatch:
    columns: dict[str, list[Any]] = {name: [] for name in schema.names}
    for number, row in group:
        unknown = [name for name in row if name not in columns]
        if unknown:
            raise DataError(
                f"{path}, record {number}: feature '{unknown[0]}' is not in the first "
                f"{INFER_ROWS:,} records."
            )
        for field in schema:
            try:
                columns[field.name].append(_value(row.get(field.name, []), field.type))
            except (ValueError, AttributeError) as error:
                raise DataError(
                    f"{path}, record {number}, feature '{field.name}': not {field.type}, which the "
                    f"first records hold ({error})."
                ) from None
    try:
        return pa.record_batch([pa.array(columns[f.name], f.type) for f in schema], schema=schema)
    except (pa.ArrowException, TypeError) as error:
        last = group[-1][0]
        raise DataError(f"{path}, records {group[0][0]}-{last}: {error}.") from None


def _look(source: Path, columns: Mapping[str, str] | None) -> Source:
    files = find_files(source, SUFFIXES, f"TFRecord files ({', '.join(SUFFIXES)})", ())
    every = itertools.chain.from_iterable(_rows(path) for path in files)
    peeked = [row for _, row in itertools.islice(every, INFER_ROWS)]
    if not peeked:
        raise DataError(f"{source}: no records.")
    schema = _infer(peeked, columns)

    def batches(progress: Bar) -> Batches:
        for path in files:
            rows, first = _rows(path), 0
            while group := list(itertools.islice(rows, BATCH_ROWS)):
                yield str(path), first, _batch(group, schema, path)
                first += len(group)
            progress.advance(path.stat().st_size / 1e6)

    return Source(
        kind="tfrecord",
        schema=schema,
        batches=batches,
        make_id=lambda place, row: f"{Path(place).name.split('.')[0]}-{row:09d}",
        total=sum(p.stat().st_size for p in files) / 1e6,
        unit="MB",
    )


def import_tfrecord(
    source: str | Path,
    store: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    split: str | None = None,
    on_missing: str | None = None,
    check_images: str = "decode",
    threads: int = 2,
    overwrite: bool = False,
    rows_per_fragment: int | None = None,
    storage_options: dict[str, str] | None = None,
) -> Store:
    """Make a store of TFRecord files: one `tf.train.Example` a record, one row an example.

    Names are brought to ours as for Parquet. A feature with one value a record becomes a plain
    column, with several a list; bytes that are UTF-8 in the first 1,000 records are text, all
    others stay bytes. Without an id the id is `<file>-<record>`. Every checksum is compared.

    Args:
        source: a file or a folder of files, read in sorted order.
        store: where the store is written.
        columns: {our name: the feature's name}, before the usual names, such as
            `{"image": "image/encoded"}`.
        split: written into every row's `split`.
        on_missing: `error` or `skip` for missing and damaged images.
        check_images: `decode` every image, read its `header`, or `none`.
        threads: threads that decode.
        overwrite: replace a store that is there.
        rows_per_fragment: rows that the store keeps together.
        storage_options: for object stores.

    Raises:
        DataError: a record that is damaged or does not fit (file and record are named), an id that
            comes again.
    """
    return import_table(
        lambda path: _look(path, columns),
        source,
        store,
        columns=columns,
        split=split,
        on_missing=on_missing,
        check_images=check_images,
        threads=threads,
        overwrite=overwrite,
        rows_per_fragment=rows_per_fragment,
        storage_options=storage_options,
    )
