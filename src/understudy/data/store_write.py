"""Rows into a store: batches checked and streamed to fragments, made visible in one commit."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from understudy.core.errors import DataError
from understudy.data.store_batch import Batch, as_table, check_schema, stored_schema
from understudy.data.store_ids import Ids, fragment_ids, stored_ids
from understudy.data.store_lance import (
    FORMAT,
    FORMAT_KEY,
    UID_KEY,
    Change,
    Handle,
    is_url,
    lance_module,
    leftovers,
    one_line,
    open_dataset,
)

if TYPE_CHECKING:
    from lance.fragment import FragmentMetadata

ROWS_PER_FRAGMENT = 32_768
"""Few enough that a column of one fragment is rewritten in memory, many enough to read fast."""


class _Stream:
    """Batches as an Arrow reader for Lance that remembers the error it stopped at."""

    def __init__(self, batches: Iterable[Batch], schema: pa.Schema | None) -> None:
        self._source = enumerate(batches)
        self._first: Any = None
        self.error: BaseException | None = None
        self.ids = Ids()
        if schema is None:
            first = next(self._source, None)
            if first is None:
                raise DataError("no rows to write, and no schema either.")
            self._first = as_table(first[1], None, 0)
            self.schema = self._first.schema.remove_metadata()
        else:
            self.schema = schema.remove_metadata()
        check_schema(self.schema)

    def _tables(self) -> Iterator[pa.Table]:
        if self._first is not None:
            yield as_table(self._first, self.schema, 0)
            self._first = None
        for number, batch in self._source:
            yield as_table(batch, self.schema, number)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        try:
            for table in self._tables():
                self.ids.add(table.column("id"))
                yield from table.rename_columns(stored_schema(self.schema).names).to_batches()
        except BaseException as error:
            self.error = error
            raise

    def reader(self) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(stored_schema(self.schema), self._batches())


def write_fragments(
    stream: _Stream,
    target: Any,
    mode: str,
    rows_per_fragment: int,
    storage_options: dict[str, str] | None,
) -> list[FragmentMetadata]:
    """Write rows to data files that no version refers to yet.

    Raises:
        DataError: a batch is wrong, or the disk is full.
    """
    write = lance_module().fragment.write_fragments
    try:
        return write(
            stream.reader(),
            target,
            mode=mode,
            max_rows_per_file=rows_per_fragment,
            storage_options=storage_options,
        )
    except BaseException as error:
        cause = stream.error
        if cause is not None and not isinstance(cause, GeneratorExit):
            raise cause from None
        if isinstance(error, OSError | ValueError | RuntimeError):
            where = getattr(target, "uri", target)
            raise DataError(f"{where}: could not be written ({one_line(error)}).") from error
        raise


def _exists(path: str | Path, options: dict[str, str] | None) -> bool:
    if not is_url(path):
        return (Path(path) / "_versions").is_dir() and not leftovers(path)
    try:
        lance_module().dataset(str(path), storage_options=options)
    except (ValueError, OSError):
        return False
    return True


def create(
    path: str | Path,
    batches: Iterable[Batch],
    *,
    schema: pa.Schema | None,
    overwrite: bool,
    rows_per_fragment: int,
    storage_options: dict[str, str] | None,
    described: Callable[[int], Mapping[str, str]],
) -> None:
    """Write a new store in one commit; see `Store.create`.

    Args:
        path: local path or object-store URL.
        batches: the rows.
        schema: the columns; taken from the first batch when absent.
        overwrite: replace a store that is there.
        rows_per_fragment: largest number of rows of a fragment.
        storage_options: passed to Lance.
        described: called with the number of rows when all are written, before the commit; returns
            the store's metadata: `META_KEY`, and what belongs to knowledge columns.
    """
    exists = _exists(path, storage_options)
    if exists and not overwrite:
        raise DataError(f"{path}: there is a store already; pass overwrite=True to replace it.")
    if exists:
        open_dataset(path, None, storage_options)  # refuses to replace what is not a store
    elif leftovers(path):
        shutil.rmtree(path)
    elif (
        not is_url(path)
        and Path(path).exists()
        and (not Path(path).is_dir() or any(Path(path).iterdir()))
    ):
        raise DataError(f"{path}: exists and is not a store; choose another place.")
    try:
        _create(path, batches, schema, exists, rows_per_fragment, storage_options, described)
    except BaseException:
        if leftovers(path):
            shutil.rmtree(path, ignore_errors=True)
        raise


def _create(
    path: str | Path,
    batches: Iterable[Batch],
    schema: pa.Schema | None,
    exists: bool,
    rows_per_fragment: int,
    storage_options: dict[str, str] | None,
    described: Callable[[int], Mapping[str, str]],
) -> None:
    stream = _Stream(batches, schema)
    mode = "overwrite" if exists else "create"
    fragments = write_fragments(stream, str(path), mode, rows_per_fragment, storage_options)
    stream.ids.check_unique(fragment_ids(path, fragments, storage_options))
    metadata = {
        FORMAT_KEY: FORMAT,
        UID_KEY: uuid.uuid4().hex,
        **described(stream.ids.num_rows),
    }
    lance = lance_module()
    lance.LanceDataset.commit(
        str(path),
        lance.LanceOperation.Overwrite(stored_schema(stream.schema, metadata), fragments),
        storage_options=storage_options,
        commit_message="create",
    )


def plain_meta(meta: Mapping[str, Any]) -> str:
    """Return dataset-level facts as JSON.

    Raises:
        DataError: a value is not plain JSON data.
    """
    try:
        return json.dumps(dict(meta), sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(f"meta holds plain JSON data only ({error}).") from None


def append(
    handle: Handle,
    batches: Iterable[Batch],
    schema: pa.Schema,
    rows_per_fragment: int,
) -> int:
    """Add rows at the end in one version; see `Store.append`.

    Args:
        handle: the store.
        batches: the rows.
        schema: the payload columns, with logical names.
        rows_per_fragment: largest number of rows of a new fragment.
    """
    handle.check_writable()
    handle.refresh()
    stream = _Stream(batches, schema)
    new = write_fragments(
        stream, handle.dataset, "append", rows_per_fragment, handle.storage_options
    )
    if not stream.ids.num_rows:
        return 0

    def build(dataset: Any) -> Change:
        ids = Ids()
        for chunk in stored_ids(handle):
            ids.add(chunk, check=False)
        ids._hashes += stream.ids._hashes

        def again() -> Iterator[pa.Array]:
            yield from stored_ids(handle)
            yield from fragment_ids(handle.path, new, handle.storage_options)

        ids.check_unique(again())
        old = [f.metadata for f in dataset.get_fragments()]
        after = max((f.id for f in old), default=-1) + 1
        for i, fragment in enumerate(new):
            fragment.id = after + i
        return Change([*old, *new], dataset.lance_schema, {})

    handle.change(build, f"append {stream.ids.num_rows} rows")
    return stream.ids.num_rows
