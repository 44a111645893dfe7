"""The contract of curation: a stage turns a batch of pages into a batch of pages.

Most stages look at one page at a time (`PageStage`: page -> list of pages, none for a drop, several
for a split). `chain` runs stages one after the other on the same page objects, so that what one of
them found out about a text (words, lines) is not found out again by the next, and keeps count.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from understudy.core.errors import DataError, UnderstudyError
from understudy.curate.engine.pages import BASE, Page, batch_of, pages_of

Kind = Literal["filter", "modifier", "enricher"]
Dropped = Callable[[int, Page, str], None]
"""Told of each page that a stage drops: number of the stage in the chain, page, reason."""


class Stage(ABC):
    """One step over batches.

    Attributes:
        name: as statistics and configuration files call it.
        kind: whether it drops pages, changes them or adds columns.
        adds: columns that it adds, with their types.
    """

    name: str = ""
    kind: Kind = "modifier"
    adds: Mapping[str, pa.DataType] = {}

    @abstractmethod
    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the batch that goes on: no, one or several rows for each row."""

    def describe(self) -> dict[str, Any]:
        """Return what decides its result, as plain data: part of the identity of all outputs."""
        return {"name": self.name}


class PageStage(Stage):
    """A step over single pages."""

    @abstractmethod
    def pages(self, page: Page) -> list[Page]:
        """Return what goes on; an empty list drops the page."""

    def reason(self) -> str:
        """Return why the last page was dropped, in a word or two."""
        return self.name

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Run over a batch."""
        return chain([self], batch)[0]


class FilterStage(PageStage):
    """A step that keeps a page as it is or drops it."""

    kind: Kind = "filter"
    _reason = ""

    @abstractmethod
    def keep(self, page: Page) -> bool | str:
        """Return True to keep the page; False, or a reason, to drop it."""

    def pages(self, page: Page) -> list[Page]:
        """Keep or drop."""
        found = self.keep(page)
        if found is True:
            return [page]
        self._reason = found if isinstance(found, str) else self.name
        return []

    def reason(self) -> str:
        """Return what the last `keep` said."""
        return self._reason or self.name


@dataclass(kw_only=True)
class Count:
    """What one stage did.

    Attributes:
        pages_in: pages that came.
        pages_out: pages that went on.
        bytes_in: UTF-8 bytes of text that came.
        bytes_out: UTF-8 bytes of text that went on.
        seconds: processor seconds of this process.
        reasons: dropped pages by reason.
    """

    pages_in: int = 0
    pages_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, other: Mapping[str, Any] | Count) -> None:
        """Add the counts of another batch or unit."""
        data = other.to_plain() if isinstance(other, Count) else other
        for name in ("pages_in", "pages_out", "bytes_in", "bytes_out", "seconds"):
            setattr(self, name, getattr(self, name) + data[name])
        self.reasons.update(data["reasons"])

    def to_plain(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "pages_in": self.pages_in,
            "pages_out": self.pages_out,
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
            "seconds": self.seconds,
            "reasons": dict(sorted(self.reasons.items())),
        }


def _utf8_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _bytes(pages: Sequence[Page]) -> int:
    # counted again only for texts that changed
    return sum(page.cached("utf8-bytes", _utf8_bytes) for page in pages)


def _run_pages(
    stage: PageStage, pages: list[Page], count: Count, drop: Callable[[Page, str], None]
) -> list[Page]:
    kept: list[Page] = []
    for page in pages:
        try:
            found = stage.pages(page)
        except UnderstudyError:
            raise
        except Exception as error:
            raise DataError(
                f"{stage.name}: page '{page.id}' of {page.source or 'no source'} failed "
                f"({type(error).__name__}: {error})."
            ) from error
        if not found:
            reason = stage.reason()
            count.reasons[reason] += 1
            drop(page, reason)
        kept += found
    return kept


def _run_batch(
    stage: Stage,
    pages: list[Page],
    added: Mapping[str, pa.DataType],
    count: Count,
    drop: Callable[[Page, str], None],
) -> list[Page]:
    known = {page.id: page for page in pages}
    kept: list[Page] = []
    for page in pages_of(stage(batch_of(pages, added))):
        old = known.pop(page.id, None)
        if old is not None:
            old.take(page)  # what is known of a text that stayed is still known
        kept.append(old or page)
    left = {origin(page.id) for page in kept}
    for page in pages:
        if origin(page.id) not in left:
            count.reasons[stage.name] += 1
            drop(page, stage.name)
    return kept


def origin(id: str) -> str:
    """Return the id of the page that a piece was split from."""
    return id.split("#", 1)[0]


def chain(
    stages: Sequence[Stage], batch: pa.RecordBatch, dropped: Dropped | None = None
) -> tuple[pa.RecordBatch, list[Count]]:
    """Run stages in order.

    Args:
        stages: of any kind.
        batch: pages.
        dropped: told of every page that is dropped.

    Returns:
        The batch after the last stage, with all columns that stages add, and one count a stage.

    Raises:
        DataError: a stage failed on a page; both are named.
    """
    added = {f.name: f.type for f in batch.schema if f.name not in BASE}
    pages, counts = pages_of(batch), []
    for number, stage in enumerate(stages):
        count = Count(pages_in=len(pages), bytes_in=_bytes(pages))

        def drop(page: Page, reason: str, number: int = number) -> None:
            if dropped is not None:
                dropped(number, page, reason)

        start = time.process_time()
        if isinstance(stage, PageStage):
            pages = _run_pages(stage, pages, count, drop)
        else:
            pages = _run_batch(stage, pages, added, count, drop)
        added |= stage.adds
        count.seconds = time.process_time() - start
        count.pages_out, count.bytes_out = len(pages), _bytes(pages)
        counts.append(count)
    return batch_of(pages, added), counts
