"""Pages from files that hold one page each: HTML and plain text."""

from __future__ import annotations

import codecs
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from understudy.core.errors import DataError
from understudy.curate.engine.pages import FORM, MARKUP, Page
from understudy.curate.text.sources import page_of
from understudy.curate.text.sources_bad import Skipped
from understudy.data.importers.streams import open_stream

if TYPE_CHECKING:
    from understudy.curate.engine.inputs import InputUnit

MAX_FILE = 1 << 28
"""Largest file that is read as one page, in bytes."""
LOOK = 2_048
"""Bytes in which a page's own word on its encoding is looked for."""
_CHARSET = re.compile(rb"""charset\s*=\s*["']?\s*([A-Za-z0-9_.:-]+)""", re.IGNORECASE)
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# what browsers take these names for (WHATWG Encoding Standard)
_ALIASES = {"iso-8859-1": "cp1252", "latin1": "cp1252", "ascii": "cp1252", "us-ascii": "cp1252"}


def decode(data: bytes, content_type: str = "") -> str:
    """Return the text of a web page's bytes.

    The encoding is that of a byte order mark, of the `Content-Type` header, or of the page's own
    `<meta charset>`; else UTF-8, and Windows-1252 for what is no UTF-8. Bytes that do not fit
    become U+FFFD.

    Args:
        data: the page.
        content_type: value of its header, for example `text/html; charset=utf-8`.

    References:
        The order of the WHATWG HTML standard, section "Determining the character encoding".
    """
    for mark, name in _BOMS:
        if data.startswith(mark):
            return data[len(mark) :].decode(name, "replace")
    for where in (content_type.encode("ascii", "ignore"), data[:LOOK]):
        found = _CHARSET.search(where)
        if found is None:
            continue
        name = found[1].decode("ascii").lower()
        name = _ALIASES.get(name, name)
        try:
            if not name.startswith("utf-16"):  # it could not have been found in ASCII
                return data.decode(name, "replace")
        except (LookupError, ValueError):  # no such encoding, or none of text
            continue
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _read_files(unit: InputUnit, skipped: Skipped, facts: dict[str, str]) -> Iterator[Page]:
    root = Path(unit.path)
    for name in unit.files:
        path = root / name
        try:
            with open_stream(path) as stream:
                data = stream.read(MAX_FILE + 1)
        except DataError as error:
            skipped.bad(str(path), "unreadable", str(error).rstrip("."))
            continue
        except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
            text = str(error).splitlines()[0]
            skipped.bad(f"{path}, byte 0", "cut off", f"damaged or cut off ({text})")
            continue
        if len(data) > MAX_FILE:
            skipped.bad(str(path), "too long", f"the file is larger than {MAX_FILE:,} bytes")
            continue
        record = {"text": decode(data), "source": name, "metadata": {"file": name, **facts}}
        page = page_of(record, unit, name, skipped, str(path))
        if page is not None:
            yield page


def read_html(unit: InputUnit, skipped: Skipped) -> Iterator[Page]:
    """Yield one page of markup for each file."""
    return _read_files(unit, skipped, {"Content-Type": "text/html", FORM: MARKUP})


def read_text(unit: InputUnit, skipped: Skipped) -> Iterator[Page]:
    """Yield one page for each file of plain text."""
    return _read_files(unit, skipped, {})
