"""Rows from columnar sources: names brought to ours, images unpacked and checked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from understudy.core.errors import ConfigError, DataError
from understudy.data.importers.common import (
    Marks,
    Pool,
    Skips,
    Unusable,
    check_image,
)
from understudy.data.importers.ids import SeenIds
from understudy.data.importers.streams import inside

NAMES = {
    "id": ("id", "uid", "key", "__key__"),
    "image": ("image", "jpg", "png", "webp", "image_bytes", "img"),
    "text": ("text", "caption", "txt", "TEXT"),
    "label": ("label", "labels", "cls", "class_label"),
}
"""What others call our payload columns; the first that is there counts."""


def our_names(given: list[str], columns: Mapping[str, str] | None, where: str) -> dict[str, str]:
    """Return {column of the source: our name} for every column.

    Args:
        given: the source's columns.
        columns: {our name: the source's}, which goes before the usual names.
        where: what to call the source in errors.

    Raises:
        DataError: a column that was asked for is not there.
    """
    renamed: dict[str, str] = {}
    for ours, theirs in (columns or {}).items():
        if theirs not in given:
            raise DataError(f"{where}: no column '{theirs}'; it has: {', '.join(given)}.")
        renamed[theirs] = ours
    for ours, usual in NAMES.items():
        if ours in renamed.values() or ours in (columns or {}):
            continue
        for theirs in usual:
            if theirs in given and theirs not in renamed:
                renamed[theirs] = ours
                break
    return {name: renamed.get(name, name) for name in given}


def is_image_struct(kind: pa.DataType) -> bool:
    """Say whether a type is Hugging Face's image: a struct of `bytes` and `path`."""
    return pa.types.is_struct(kind) and {kind.field(i).name for i in range(kind.num_fields)} == {
        "bytes",
        "path",
    }


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type under which a column is stored: structs become JSON text."""
    if is_image_struct(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if pa.types.is_fixed_size_list(kind) and pa.types.is_primitive(kind.value_type):
        return pa.list_(kind.value_type, kind.list_size)  # files may name the item otherwise
    nested = pa.types.is_struct(kind) or pa.types.is_map(kind) or pa.types.is_union(kind)
    inner = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else None
    if nested or (inner is not None and plain_type(inner) != inner):
        return pa.string()
    return pa.list_(inner) if inner is not None else kind


class TableReader:
    """Turns a source's batches into the store's.

    Attributes:
        names: {column of the source: our name}.
        schema: the store's.
        skips: what was passed over.
        marks: where the watched columns have values.

    Args:
        schema: the source's schema.
        columns: {our name: the source's name}.
        source: the file or folder, for errors and for images that are named by a path.
        split: written into every row's `split`.
        skips: what to do with images that cannot be used.
        check_images: `decode`, `header` or `none`.
        make_id: gives rows ids from (file, row number in it) where the source has none.
        watch: knowledge columns whose nulls are to be noted.
    """

    def __init__(
        self,
        schema: pa.Schema,
        columns: Mapping[str, str] | None,
        source: Path,
        split: str | None,
        skips: Skips,
        check_images: str,
        make_id: Callable[[str, int], str],
        watch: Sequence[str] = (),
    ) -> None:
        self.names = our_names(schema.names, columns, str(source))
        taken = list(self.names.values())
        double = next((n for n in taken if taken.count(n) > 1), None)
        if double is not None:
            raise ConfigError(f"{source}: two columns would be called '{double}'; use columns=.")
        types = {self.names[f.name]: plain_type(f.type) for f in schema}
        self.has_id = "id" in types
        self.types: dict[str, pa.DataType] = {"id": pa.string()}
        self.types.update({n: t for n, t in types.items() if n != "id"})
        if "image" in types and pa.types.is_string(types["image"]):
            self.types["image"] = pa.binary()  # paths below the source
        if split is not None:
            self.types["split"] = pa.string()
        self.schema = pa.schema(list(self.types.items()))
        self.skips = skips
        self._source, self._split = source, split
        self._check, self._make_id = check_images, make_id
        self._seen = SeenIds()
        self.marks = Marks(watch)
        self.rows = 0

    def read(
        self, batches: Iterable[tuple[str, int, pa.RecordBatch]], pool: Pool
    ) -> Iterator[pa.RecordBatch]:
        """Yield the store's batches of the source's (file, first row in it, batch).

        Raises:
            DataError: an id that comes again or is null, a damaged image.
        """
        for place, first, batch in batches:
            found = self._batch(place, first, batch, pool)
            self._seen.add(found.column("id").to_pylist(), [place] * found.num_rows)
            self.rows += found.num_rows
            self.marks.add(found)
            if found.num_rows:
                yield found
        if not self.rows:
            raise DataError(f"{self._source}: no rows that can be used.")

    def _batch(self, place: str, first: int, batch: pa.RecordBatch, pool: Pool) -> pa.RecordBatch:
        arrays = {self.names[n]: batch.column(i) for i, n in enumerate(batch.schema.names)}
        out = {}
        for name, kind in self.types.items():
            if name in arrays and name not in ("id", "image"):
                out[name] = _plain(arrays[name], kind, place, name)
        if self.has_id:
            out["id"] = pc.cast(arrays["id"], pa.string())
            if out["id"].null_count:
                row = first + out["id"].is_null().index(True).as_py()
                raise DataError(f"{place}, row {row}: the id is null; every row needs one.")
        else:
            ids = [self._make_id(place, first + i) for i in range(batch.num_rows)]
            out["id"] = pa.array(ids, pa.string())
        if self._split is not None:
            out["split"] = pa.array([self._split] * batch.num_rows, pa.string())
        keep = None
        if "image" in self.types:
            images = list(
                pool.map(
                    lambda pair: self._image(*pair),
                    zip(arrays["image"].to_pylist(), out["id"].to_pylist(), strict=True),
                )
            )
            for image in images:
                if isinstance(image, Unusable):
                    self.skips.add(image)
            good = [not isinstance(image, Unusable) for image in images]
            out["image"] = pa.array(
                [i if ok else None for i, ok in zip(images, good, strict=True)], pa.binary()
            )
            keep = None if all(good) else pa.array(good)
        made = pa.record_batch([out[n] for n in self.types], schema=self.schema)
        return made if keep is None else made.filter(keep)

    def _image(self, value: Any, uid: str) -> bytes | Unusable:
        """Return encoded bytes; a path is read from below the source only."""
        where = f"{self._source}, '{uid}'"
        try:
            if isinstance(value, dict):
                value = value.get("bytes") or value.get("path")
            if isinstance(value, str):
                root = self._source if self._source.is_dir() else self._source.parent
                file = inside(root, value, where)
                if not file.is_file():
                    raise Unusable("missing image", f"{where}: no image file '{value}'.")
                value = file.read_bytes()
            if not value:
                raise Unusable("missing image", f"{where}: the image is empty.")
            if not isinstance(value, bytes):
                raise DataError(
                    f"{where}: the image column holds {type(value).__name__}, not bytes."
                )
            check_image(value, where, self._check)
        except Unusable as error:
            return error
        return value


def _plain(array: pa.Array, kind: pa.DataType, place: str, name: str) -> pa.Array:
    if array.type == kind:
        return array
    if isinstance(array, pa.ExtensionArray):
        return _plain(array.storage, kind, place, name)
    if pa.types.is_dictionary(array.type):
        return _plain(array.dictionary_decode(), kind, place, name)
    try:
        if kind == pa.string() and pa.types.is_nested(array.type):
            texts = [None if v is None else json.dumps(v, default=str) for v in array.to_pylist()]
            return pa.array(texts, kind)
        return array.cast(kind)
    except pa.ArrowException as error:
        raise DataError(
            f"{place}, column '{name}': cannot be stored as {kind} ({error})."
        ) from None
