"""Pages: what web curation works on, as Arrow record batches and as Python objects."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import pyarrow as pa

from understudy.core.errors import DataError
from understudy.core.hashing import hash_bytes

T = TypeVar("T")

BASE: Mapping[str, pa.DataType] = {
    "id": pa.string(),
    "text": pa.string(),
    "url": pa.string(),
    "source": pa.string(),
    "metadata": pa.string(),
}
"""Columns that every page batch has; `metadata` is a JSON object."""


FORM, MARKUP = "form", "markup"
"""Key and value in the metadata of a page whose text is still markup. Readers of HTML and of web
archives set it; `Content-Type` does not say it, since pages of extracted text keep the headers of
the crawl."""


def page_schema(added: Mapping[str, pa.DataType] | None = None) -> pa.Schema:
    """Return the schema of page batches with the columns that stages added."""
    return pa.schema([*BASE.items(), *(added or {}).items()])


def page_id(url: str | None, text: str, source: str = "", place: int | str = 0) -> str:
    """Return the id of a page that came without one, 32 hexadecimal digits.

    The first 16 are a hash of address and text, so exact copies share them; the last 16 are a hash
    of where the page lies, so copies still have ids of their own.

    Args:
        url: address, if it has one.
        text: the text, as it was read.
        source: input file.
        place: where in it: byte offset (unpacked) of a line, number of a row or record.
    """
    content = hash_bytes((url or "").encode("utf-8", "replace"), text.encode("utf-8", "replace"))
    return content[:16] + hash_bytes(source.encode("utf-8", "replace"), str(place).encode())[:16]


class Page:
    """One page.

    Attributes:
        id: stable name, unique among all pages of a run.
        url: address, or None.
        source: input file or corpus that it came from.
        metadata: facts that came with it, a JSON object as text.
        data: columns that stages added.
    """

    __slots__ = ("_cache", "_text", "data", "id", "metadata", "source", "url")

    def __init__(
        self,
        *,
        id: str,
        text: str,
        url: str | None = None,
        source: str = "",
        metadata: str = "{}",
        data: Mapping[str, Any] | None = None,
    ) -> None:
        self.id, self.url, self.source, self.metadata = id, url, source, metadata
        self.data = dict(data or {})
        self._text = text
        self._cache: dict[str, Any] = {}

    @property
    def text(self) -> str:
        """The text; setting another one forgets what was known about the old one."""
        return self._text

    @text.setter
    def text(self, value: str) -> None:
        if value != self._text:
            self._text = value
            self._cache = {}

    def cached(self, key: str, make: Callable[[str], T]) -> T:
        """Return `make(text)`, computed once for a text and a key.

        Stages of a chain see the same pages, so words and lines are found once.
        """
        if key not in self._cache:
            self._cache[key] = make(self._text)
        return self._cache[key]

    def take(self, other: Page) -> None:
        """Become another page of the same id, without forgetting what is known of an equal text."""
        self.text, self.url, self.source = other.text, other.url, other.source
        self.metadata, self.data = other.metadata, other.data

    def facts(self) -> dict[str, Any]:
        """Return the metadata as a dictionary."""
        return json.loads(self.metadata) if self.metadata else {}

    def split(self, texts: Iterable[str]) -> list[Page]:
        """Return one page for each text, with ids of their own and the same facts."""
        return [
            Page(
                id=f"{self.id}#{number}",
                text=text,
                url=self.url,
                source=self.source,
                metadata=self.metadata,
                data=self.data,
            )
            for number, text in enumerate(texts)
        ]


def pages_of(batch: pa.RecordBatch) -> list[Page]:
    """Return the pages of a batch.

    Raises:
        DataError: a column is missing.
    """
    missing = [name for name in BASE if name not in batch.schema.names]
    if missing:
        raise DataError(f"page batch: missing column {', '.join(missing)}.")
    names = [name for name in batch.schema.names if name not in BASE]
    columns = {name: batch.column(name).to_pylist() for name in batch.schema.names}
    return [
        Page(
            id=columns["id"][i],
            text=columns["text"][i],
            url=columns["url"][i],
            source=columns["source"][i] or "",
            metadata=columns["metadata"][i] or "{}",
            data={name: columns[name][i] for name in names},
        )
        for i in range(batch.num_rows)
    ]


def batch_of(pages: Iterable[Page], added: Mapping[str, pa.DataType]) -> pa.RecordBatch:
    """Return the batch of some pages.

    Args:
        pages: the pages; a column that a page has no value for is null there.
        added: types of the columns beyond the base ones.
    """
    rows = list(pages)
    columns: dict[str, list[Any]] = {
        "id": [page.id for page in rows],
        "text": [page.text for page in rows],
        "url": [page.url for page in rows],
        "source": [page.source for page in rows],
        "metadata": [page.metadata for page in rows],
    }
    for name in added:
        columns[name] = [page.data.get(name) for page in rows]
    schema = page_schema(added)
    arrays = [pa.array(columns[field.name], field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
