"""HTTP responses as archives keep them: headers and decoded bodies."""

from __future__ import annotations

import zlib
from typing import NamedTuple

MAX_BODY = 1 << 28
"""Most bytes that a compressed body may unpack to."""


class Response(NamedTuple):
    """One HTTP response.

    Attributes:
        status: code, 0 if the first line has none.
        headers: names in lower case; of repeated ones the last.
        body: after transfer and content decoding; as it came if that fails.
    """

    status: int
    headers: dict[str, str]
    body: bytes


def parse_headers(lines: list[bytes]) -> dict[str, str]:
    """Return header lines as a mapping; continued lines are joined."""
    found: dict[str, str] = {}
    name = ""
    for line in lines:
        text = line.decode("utf-8", "replace")
        if text[:1] in (" ", "\t") and name:
            found[name] += " " + text.strip()
            continue
        name, separator, value = text.partition(":")
        name = name.strip()
        if separator and name:
            found[name] = value.strip()
        else:
            name = ""
    return found


def split_head(block: bytes) -> tuple[list[bytes], int]:
    """Return the lines before the first empty line, and where the rest begins."""
    ends = [(at, len(mark)) for mark in (b"\r\n\r\n", b"\n\n") if (at := block.find(mark)) >= 0]
    if not ends:
        return block.splitlines(), len(block)
    at, size = min(ends)
    return block[:at].splitlines(), at + size


def _unchunk(body: bytes) -> bytes:
    """Undo chunked transfer.

    Raises:
        ValueError: it is not chunked.
    """
    parts, place = [], 0
    while True:
        end = body.find(b"\n", place)
        if end < 0:
            raise ValueError("no size of a chunk")
        size = int(body[place:end].split(b";")[0].strip(), 16)
        if size == 0:
            return b"".join(parts)
        if size < 0 or end + 1 + size > len(body):
            raise ValueError("a chunk is cut off")
        parts.append(body[end + 1 : end + 1 + size])
        place = end + 1 + size
        place += 2 if body[place : place + 2] == b"\r\n" else 1


def _inflate(body: bytes, bits: int) -> bytes:
    unpack = zlib.decompressobj(bits)
    found = unpack.decompress(body, MAX_BODY)
    if not unpack.eof:
        raise ValueError("cut off, or too large")
    return found


def _unpack(body: bytes, encoding: str) -> bytes:
    if encoding in ("gzip", "x-gzip"):
        return _inflate(body, 31)
    if encoding == "deflate":
        try:
            return _inflate(body, 15)
        except zlib.error:
            return _inflate(body, -15)
    if encoding == "br":
        import brotli

        return brotli.decompress(body)
    if encoding in ("", "identity"):
        return body
    raise ValueError(f"unknown encoding {encoding}")


def parse_response(block: bytes) -> Response:
    """Return the response of a record.

    Crawlers often store bodies decoded but keep the headers, so a body that does not decode is
    taken as it is.
    """
    lines, start = split_head(block)
    first = lines[0].split() if lines else []
    status = int(first[1]) if len(first) > 1 and first[1].isdigit() else 0
    headers = {name.lower(): value for name, value in parse_headers(lines[1:]).items()}
    body = block[start:]
    encodings = [e.strip().lower() for e in headers.get("content-encoding", "").split(",")]
    try:
        if "chunked" in headers.get("transfer-encoding", "").lower():
            body = _unchunk(body)
    except ValueError:
        pass
    try:
        for encoding in reversed(encodings):
            body = _unpack(body, encoding)
    except Exception:  # brotli's own error class is not known without it
        pass
    return Response(status, headers, body)
