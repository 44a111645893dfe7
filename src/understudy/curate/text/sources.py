"""Input files to pages: one reader a kind of file, one form of page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from understudy.curate.engine.pages import FORM, MARKUP, Page, page_id
from understudy.curate.text.sources_bad import Skipped

if TYPE_CHECKING:
    from understudy.curate.engine.inputs import InputUnit

Reader = Callable[["InputUnit", Skipped], Iterator[Page]]


def read_input(unit: InputUnit, skipped: Skipped) -> Iterator[Page]:
    """Yield the pages of a unit of input, in order.

    Pages of HTML files and WARC records hold markup as their text, and say so in their metadata
    (`engine.pages.FORM`); the step `extract` makes text of them.

    Args:
        unit: what to read.
        skipped: told of records that cannot be read.

    Raises:
        DataError: the file cannot be read, or in strict mode a record of it.
    """
    from understudy.curate.text import sources_html, sources_lines, sources_tables

    readers: Mapping[str, Reader] = {
        "lines": sources_lines.read_lines,
        "html": sources_html.read_html,
        "text": sources_html.read_text,
        "parquet": sources_tables.read_parquet,
        "store": sources_tables.read_store,
        "warc": _read_warc,
        "wet": _read_wet,
    }
    for page in readers[unit.kind](unit, skipped):
        skipped.read += 1
        yield page


def whole_text(text: str) -> str:
    """Return text that UTF-8 can hold: halves of surrogate pairs become U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def page_of(
    record: Mapping[str, Any], unit: InputUnit, place: int | str, skipped: Skipped, where: str
) -> Page | None:
    """Return the page of a record, or None for one that is none.

    Args:
        record: `text`, and if they are there `id`, `url`, `metadata` (an object), `source`; all
            other fields join the metadata.
        unit: that it came from.
        place: where in its source it lies, part of the id of a record without one.
        skipped: told if it has no text.
        where: file and line, for messages.
    """
    text = record.get("text")
    if not isinstance(text, str):
        found = "no field 'text'" if text is None else f"'text' is {type(text).__name__}"
        skipped.bad(where, "no text", f"{found}; expected a string (fields: {_names(record)})")
        return None
    text = whole_text(text)
    given = record.get("metadata")
    metadata: dict[str, Any] = dict(given) if isinstance(given, Mapping) else {}
    if given is not None and not isinstance(given, Mapping) and given != "":
        metadata["metadata"] = given
    for name, value in record.items():
        if name not in ("text", "id", "url", "metadata", "source") and value is not None:
            metadata[name if name not in metadata else f"record.{name}"] = value
    url = record.get("url") or metadata.get("WARC-Target-URI")
    url = whole_text(url) if isinstance(url, str) else None
    id, source = record.get("id"), record.get("source")
    known = isinstance(id, str | int) and not isinstance(id, bool) and id != ""
    skipped.given_ids += known
    skipped.place = where
    return Page(
        id=whole_text(str(id)) if known else page_id(url, text, unit.source, place),
        text=text,
        url=url,
        source=whole_text(source) if isinstance(source, str) and source else unit.source,
        metadata=whole_text(json.dumps(metadata, ensure_ascii=False, default=str)),
    )


def _names(record: Mapping[str, Any]) -> str:
    names = [str(name) for name in list(record)[:8]]
    return ", ".join(names) + (", ..." if len(record) > 8 else "") or "none"


def _archive(
    records: Iterator[tuple[Any, ...]], unit: InputUnit, skipped: Skipped, *, markup: bool
) -> Iterator[Page]:
    from understudy.curate.text.sources_html import decode

    for number, (url, body, headers, metadata) in enumerate(records):
        facts = dict(metadata)
        if markup:
            facts |= {"Content-Type": "text/html", FORM: MARKUP}
        kind = next((v for k, v in dict(headers or {}).items() if k.lower() == "content-type"), "")
        text = body if isinstance(body, str) else decode(body, kind if markup else "charset=utf-8")
        record = {"text": text, "url": url, "metadata": facts}
        where = f"{unit.path}, record {number + 1}"
        page = page_of(record, unit, number, skipped, where)
        if page is not None:
            yield page


def _read_warc(unit: InputUnit, skipped: Skipped) -> Iterator[Page]:
    from understudy.curate.text.warc import read_warc

    yield from _archive(read_warc(unit.path, skipped), unit, skipped, markup=True)


def _read_wet(unit: InputUnit, skipped: Skipped) -> Iterator[Page]:
    from understudy.curate.text.warc import read_wet

    yield from _archive(read_wet(unit.path, skipped), unit, skipped, markup=False)
