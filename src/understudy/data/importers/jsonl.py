"""JSON lines, plain or compressed with gzip or Zstandard, to a store."""

from __future__ import annotations

import base64
import binascii
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa

from understudy.core.errors import ConfigError, DataError
from understudy.core.progress import Bar
from understudy.data.importers.common import BATCH_ROWS
from understudy.data.importers.streams import RESUME, find_files, open_stream
from understudy.data.importers.table_import import Batches, Source, import_table
from understudy.data.importers.tables import our_names
from understudy.data.interchange import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from understudy.data.store import Store

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".jsonl.zstd", ".ndjson")
INFER_ROWS = 10_000
MAX_LINE = 1 << 28


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object) of each line that is not blank.

    Raises:
        DataError: a line that is not a JSON object or is too long, or compressed data that are
            damaged or cut off; file and line are named.
    """
    stream = open_stream(path)
    number = 0
    try:
        while line := _read_line(stream):
            number += 1
            if len(line) > MAX_LINE:
                raise DataError(f"{path}, line {number}: longer than {MAX_LINE:,} bytes.")
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}, line {number}: not valid JSON ({error}).") from None
            if not isinstance(found, dict):
                raise DataError(f"{path}, line {number}: expected an object, got {line[:40]!r}.")
            yield number, found
    except (OSError, EOFError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: damaged or cut off after line {number} ({error}); {RESUME}."
        ) from None
    finally:
        stream.close()


def _read_line(stream: IO[bytes]) -> bytes:
    return stream.readline(MAX_LINE + 1)


def _plain(value: Any) -> Any:
    """Return a value with objects inside it as JSON text."""
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True)
    if isinstance(value, list) and any(isinstance(v, dict | list) for v in value):
        return json.dumps(value, sort_keys=True)
    return value


def _infer(rows: list[dict[str, Any]], types: Mapping[str, str], where: Path) -> pa.Schema:
    """Return the schema of the first rows' fields, in order of appearance."""
    fields: dict[str, pa.DataType] = {}
    for name in dict.fromkeys(key for row in rows for key in row):
        if name in types:
            continue
        values = [_plain(row.get(name)) for row in rows]
        try:
            kind = pa.array(values).type
        except (pa.ArrowException, TypeError, OverflowError) as error:
            raise DataError(
                f"{where}, field '{name}': its values are of several types ({error}); give one "
                f"with types={{'{name}': 'string'}}."
            ) from None
        fields[name] = pa.string() if pa.types.is_null(kind) else kind
    for name, alias in types.items():
        try:
            fields[name] = pa.type_for_alias(alias)
        except ValueError:
            raise ConfigError(f"types: '{alias}' of '{name}' is not an Arrow type.") from None
    return pa.schema(list(fields.items()))


def _all(files: list[Path]) -> Iterator[tuple[int, dict[str, Any]]]:
    for path in files:
        yield from read_lines(path)


def _batch(
    group: list[tuple[int, dict[str, Any]]], schema: pa.Schema, image: str | None, path: Path
) -> pa.RecordBatch:
    """Return lines as a batch; a value that does not fit is named by its line."""
    for number, row in group:
        for name in row:
            if name not in schema.names:
                raise DataError(
                    f"{path}, line {number}: field '{name}' is not in the first {INFER_ROWS:,} "
                    f"lines; give its type with types={{'{name}': 'string'}}."
                )
    arrays = []
    for name, kind in zip(schema.names, schema.types, strict=True):
        if name == image:
            values = [_image(row.get(name), path, number) for number, row in group]
        else:
            values = [_plain(row.get(name)) for _, row in group]
        try:
            arrays.append(pa.array(values, kind))
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            for (number, _), value in zip(group, values, strict=True):
                try:
                    pa.array([value], kind)
                except (pa.ArrowException, TypeError, ValueError, OverflowError):
                    raise DataError(
                        f"{path}, line {number}, field '{name}': {str(value)[:40]!r} is not {kind}"
                        f", which the first lines hold; types={{'{name}': ...}} sets another type."
                    ) from None
            raise
    return pa.record_batch(arrays, schema=schema)


def _image(value: Any, path: Path, number: int) -> dict[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise DataError(f"{path}, line {number}: the image is neither base64 nor a path.")
    if value.rpartition(".")[2].lower() in IMAGE_SUFFIXES:
        return {"bytes": None, "path": value}
    try:
        return {"bytes": base64.b64decode(value, validate=True), "path": None}
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{path}, line {number}: the image is not base64 ({error}).") from None


def _look(source: Path, columns: Mapping[str, str] | None, types: Mapping[str, str]) -> Source:
    what = f"files of JSON lines ({', '.join(SUFFIXES)})"
    files = find_files(source, SUFFIXES, what, ("manifest.jsonl",))
    peeked = [row for _, row in itertools.islice(_all(files), INFER_ROWS)]
    if not peeked:
        raise DataError(f"{source}: no lines.")
    schema = _infer(peeked, types, source)
    names = our_names(schema.names, columns, str(source))
    image = next((theirs for theirs, ours in names.items() if ours == "image"), None)
    if image is not None:
        at = schema.get_field_index(image)
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        schema = schema.set(at, pa.field(image, kind))

    def batches(progress: Bar) -> Batches:
        for path in files:
            lines, row = read_lines(path), 0
            while group := list(itertools.islice(lines, BATCH_ROWS)):
                yield str(path), row, _batch(group, schema, image, path)
                row += len(group)
            progress.advance(path.stat().st_size / 1e6)

    return Source(
        kind="jsonl",
        schema=schema,
        batches=batches,
        make_id=lambda place, row: f"{Path(place).name.split('.')[0]}-{row:09d}",
        total=sum(p.stat().st_size for p in files) / 1e6,
        unit="MB",
    )


def import_jsonl(
    source: str | Path,
    store: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    types: Mapping[str, str] | None = None,
    split: str | None = None,
    on_missing: str | None = None,
    check_images: str = "decode",
    threads: int = 2,
    overwrite: bool = False,
    rows_per_fragment: int | None = None,
    storage_options: dict[str, str] | None = None,
) -> Store:
    """Make a store of JSON lines: one object a line, one row an object.

    Names are brought to ours as for Parquet. Types are found from the first 10,000 lines; a missing
    field is null, objects inside a field are stored as JSON text. An image is base64 or a path
    below the source. Without an id field the id is `<file>-<line>`.

    Args:
        source: a file or a folder of files, read in sorted order.
        store: where the store is written.
        columns: {our name: the file's name}, before the usual names.
        types: {field: Arrow type} where the first lines mislead, for example `{"n": "float64"}`.
        split: written into every row's `split`.
        on_missing: `error` or `skip` for missing and damaged images.
        check_images: `decode` every image, read its `header`, or `none`.
        threads: threads that decode.
        overwrite: replace a store that is there.
        rows_per_fragment: rows that the store keeps together.
        storage_options: for object stores.

    Raises:
        DataError: a line that does not parse or fit (file and line are named), an id that comes
            again.
    """
    return import_table(
        lambda path: _look(path, columns, types or {}),
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
