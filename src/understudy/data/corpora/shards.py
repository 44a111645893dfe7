"""Pools as files: JSON lines as curation reads them, or HTML pages in WARC records."""

from __future__ import annotations

import gzip
import json
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from understudy.core.errors import ConfigError
from understudy.core.files import atomic_path, write_bytes
from understudy.data.corpora.page_html import html_page
from understudy.data.corpora.pool import PoolPage

FORMATS = ("jsonl", "warc")
COMPRESSIONS = ("gz", "zst")
_CRAWLED = datetime(2024, 1, 1, tzinfo=UTC)


def record_id(page: PoolPage) -> str:
    """Return the WARC record id of a page: a UUID made of its id."""
    return f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, page.document.id)}>"


def crawl_date(number: int) -> str:
    """Return the time at which the `number`-th page counts as crawled."""
    return f"{_CRAWLED + timedelta(seconds=number):%Y-%m-%dT%H:%M:%SZ}"


def json_record(page: PoolPage, number: int) -> dict[str, Any]:
    """Return a page in the form of the JSON lines: text, url, metadata.

    `metadata` has the keys of crawled pages, and `truth`: for evaluation, never for filters.
    """
    document = page.document
    metadata: dict[str, Any] = {
        "WARC-Record-ID": record_id(page),
        "WARC-Date": crawl_date(number),
        "WARC-Target-URI": document.url,
        "Content-Type": "text/html; charset=utf-8",
        "truth": {**page.truth, "id": document.id, "group": document.group},
    }
    if document.time:
        metadata["time"] = document.time
    return {"text": document.text, "url": document.url, "metadata": metadata}


def packed(data: bytes, compression: str) -> bytes:
    """Compress bytes; the same bytes always give the same result (no time stamp).

    Args:
        data: what to compress.
        compression: `gz` or `zst`.
    """
    if compression == "gz":
        return gzip.compress(data, 6, mtime=0)
    if compression != "zst":
        raise ConfigError(f"compression '{compression}' is not one of {', '.join(COMPRESSIONS)}.")
    import pyarrow as pa

    return pa.Codec("zstd").compress(data, asbytes=True)


def write_jsonl(path: Path, records: Sequence[dict[str, Any]]) -> Path:
    """Write JSON lines, compressed by the suffix (`.gz`, `.zst`), atomically."""
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    return write_bytes(path, packed(lines.encode("utf-8", "replace"), path.suffix[1:]))


def warc_record(kind: str, headers: Sequence[tuple[str, str]], block: bytes) -> bytes:
    """Return one WARC/1.0 record, uncompressed.

    Args:
        kind: WARC-Type.
        headers: further headers, in order.
        block: the content.
    """
    lines = ["WARC/1.0", f"WARC-Type: {kind}", *(f"{key}: {value}" for key, value in headers)]
    lines.append(f"Content-Length: {len(block)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + block + b"\r\n\r\n"


def _info(name: str) -> bytes:
    block = b"software: understudy\r\nformat: WARC File Format 1.0\r\n"
    headers = [
        ("WARC-Record-ID", f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, 'warc/' + name)}>"),
        ("WARC-Date", crawl_date(0)),
        ("WARC-Filename", name),
        ("Content-Type", "application/warc-fields"),
    ]
    return warc_record("warcinfo", headers, block)


def _response(page: PoolPage, number: int) -> bytes:
    body = html_page(page.document).encode("utf-8", "replace")
    http = (
        "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode()
    headers = [
        ("WARC-Record-ID", record_id(page)),
        ("WARC-Date", crawl_date(number)),
        ("WARC-Target-URI", page.document.url),
        ("Content-Type", "application/http; msgtype=response"),
    ]
    return warc_record("response", headers, http + body)


def write_warc(path: Path, pages: Sequence[PoolPage], first: int = 0) -> Path:
    """Write pages as HTML in a `.warc.gz`, one gzip member a record, atomically.

    Args:
        path: the file.
        pages: the pages.
        first: number of the first of them in the pool, for its date.
    """
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(packed(_info(path.name), "gz"))
        for i, page in enumerate(pages):
            file.write(packed(_response(page, first + i), "gz"))
    return path


def write_shards(
    folder: Path, pages: Sequence[PoolPage], form: str, compression: str, per_shard: int
) -> Iterator[Path]:
    """Write pages in files of `per_shard`, and yield the paths."""
    for shard, start in enumerate(range(0, len(pages), per_shard)):
        part = pages[start : start + per_shard]
        if form == "warc":
            yield write_warc(folder / f"pages-{shard:05d}.warc.gz", part, start)
        else:
            records = [json_record(page, start + i) for i, page in enumerate(part)]
            yield write_jsonl(folder / f"pages-{shard:05d}.jsonl.{compression}", records)
