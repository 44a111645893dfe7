"""Web archives: HTML pages of WARC files, texts of WET files.

Records come from `fastwarc` where it is installed, else from a reader of ours that gives the same.

References:
    ISO 28500, "WARC file format"; Common Crawl's use of it (WET files hold the text of pages as
    `conversion` records).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from understudy.core.errors import DataError
from understudy.core.lazy import installed
from understudy.curate.text.http import parse_response
from understudy.curate.text.warc_records import Damaged, RawRecord, fast_records, plain_records

HTML = ("text/html", "application/xhtml+xml")
Reader = Literal["auto", "fastwarc", "plain"]


class WebRecord(NamedTuple):
    """One page of an archive.

    Attributes:
        url: its address, or None.
        body: HTML (WARC) or UTF-8 text (WET) as bytes.
        headers: HTTP headers with names in lower case; empty in WET files.
        metadata: headers of the record, such as `WARC-Record-ID`, `WARC-Date`, `WARC-Target-URI`,
            `Content-Type`.
    """

    url: str | None
    body: bytes
    headers: dict[str, str]
    metadata: dict[str, str]


class Notes(Protocol):
    """Takes note of what cannot be read, or raises."""

    def bad(self, where: str, reason: str, detail: str) -> None:
        """Take note of a place, a reason to count by, and what is wrong."""


def _records(path: Path, reader: Reader) -> Iterator[RawRecord]:
    fast = reader == "fastwarc" or (reader == "auto" and installed("fastwarc"))
    return (fast_records if fast else plain_records)(path)


def _read(
    path: str | Path,
    skipped: Notes | None,
    reader: Reader,
    page_of: Callable[[RawRecord], WebRecord | None],
) -> Iterator[WebRecord]:
    number = 0
    try:
        for record in _records(Path(path), reader):
            number += 1
            page = page_of(record)
            if page is not None:
                yield page
    except Damaged as error:
        where = f"{path}, byte {error.offset:,}"
        detail = f"damaged or cut off after {number:,} whole records ({error.what})"
        if skipped is None:
            raise DataError(f"{where}: {detail}; the rest of the file is not read.") from None
        skipped.bad(where, "cut off", f"{detail}; the rest of the file is lost")


def _is_html(kind: str, body: bytes) -> bool:
    if kind:
        return kind.split(";")[0].strip().lower() in HTML
    start = body[:1024].lower()
    return b"<html" in start or b"<!doctype html" in start


def _html(record: RawRecord) -> WebRecord | None:
    facts = record.headers
    if facts.get("WARC-Type") != "response":
        return None
    if not facts.get("Content-Type", "application/http").lower().startswith("application/http"):
        return None
    response = parse_response(record.block)
    kind = response.headers.get("content-type") or facts.get("WARC-Identified-Payload-Type", "")
    if response.status // 100 != 2 or not response.body or not _is_html(kind, response.body):
        return None
    return WebRecord(facts.get("WARC-Target-URI"), response.body, response.headers, facts)


def _text(record: RawRecord) -> WebRecord | None:
    facts = record.headers
    if facts.get("WARC-Type") != "conversion" or not record.block.strip():
        return None
    return WebRecord(facts.get("WARC-Target-URI"), record.block, {}, facts)


def read_warc(
    path: str | Path, skipped: Notes | None = None, *, reader: Reader = "auto"
) -> Iterator[WebRecord]:
    """Yield the HTML pages of a WARC file: successful responses of an HTML type.

    Args:
        path: plain, gzip (a member a record, or one) or Zstandard.
        skipped: told where the file is damaged, and whole records before it are kept; without,
            damage is an error.
        reader: which reader of records; `auto` takes `fastwarc` if it is installed.

    Raises:
        DataError: the file cannot be opened, or is damaged or cut off; byte offset and number of
            whole records are in the message.
        MissingExtraError: `fastwarc` is asked for and not installed.
    """
    return _read(path, skipped, reader, _html)


def read_wet(
    path: str | Path, skipped: Notes | None = None, *, reader: Reader = "auto"
) -> Iterator[WebRecord]:
    """Yield the texts of a WET file; arguments and errors as for `read_warc`."""
    return _read(path, skipped, reader, _text)
