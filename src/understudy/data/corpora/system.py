"""What a Debian-like system has on disk: manual pages and changelogs.

Both may be absent (containers often leave them out): then `absence` says so in a sentence, and the
iterators yield nothing.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path

from understudy.core.hashing import hash_bytes
from understudy.data.corpora.document import Document, decode, host
from understudy.data.corpora.roff import roff_text

MAN = Path("/usr/share/man")
DOC = Path("/usr/share/doc")

_PAGE = re.compile(r"^(?P<name>.+)\.(?P<section>\d\w*)(?:\.gz)?$")
_HEAD = re.compile(r"^(\S+) \(([^()\s]+)\) [^;]*;\s*\S+=")
_TRAILER = re.compile(r"^ --\s?.*?(?:>|\s)\s{1,3}((?:\w{3},\s+)?\d{1,2} \w{3} \d{4} [\d:]+.*)$")


def absence(folder: Path, kind: str) -> str:
    """Return a sentence if `folder` has nothing of a kind (`man` or `changelog`), else empty."""
    pattern = "man*/*" if kind == "man" else "*/changelog.Debian*"
    if next(folder.glob(pattern), None) is not None:
        return ""
    what = "manual pages" if kind == "man" else "Debian changelogs"
    package = "man-db and manpages" if kind == "man" else "any Debian package with documentation"
    return (
        f"there are no {what} under {folder}: this system leaves documentation out; other kinds "
        f"take their share (to have them, install {package} without excluding /usr/share)."
    )


def read_packed(path: Path) -> str:
    """Return the text of a file that may be gzipped; empty if it is broken or can't be read."""
    try:
        data = path.read_bytes()
        return decode(gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data)
    except (OSError, EOFError, zlib.error):
        return ""


def man_files(folder: Path = MAN) -> list[tuple[Path, str]]:
    """Return (path, language) of the manual pages, sorted; English pages have language `en`."""
    out: list[tuple[Path, str]] = []
    for path in folder.glob("**/man*/*"):
        inner = path.relative_to(folder).parts
        if _PAGE.match(path.name) and len(inner) in (2, 3) and path.is_file():
            language = "en" if len(inner) == 2 else inner[0].split(".")[0]
            out.append((path, language))
    return sorted(out, key=lambda pair: (pair[1] != "en", pair[0].as_posix()))


def man_document(path: Path, language: str) -> Document | None:
    """Return a manual page as plain text; None for links to another page and empty ones."""
    found = _PAGE.match(path.name)
    text = roff_text(read_packed(path)) if found else ""
    if not found or len(text.split()) < 20:
        return None
    name = f"{language}/man{found['section']}/{found['name']}"
    return Document(
        id=f"man/{name}",
        text=text,
        source="man",
        url=f"https://man.example/{name}.html",
        group=f"man/{re.split(r'[-_.]', found['name'])[0].lower()}",
        facts={"language": language, "section": found["section"]},
    )


def man_pages(language: str | None = "en", folder: Path = MAN) -> Iterator[Document]:
    """Yield the manual pages as plain text.

    A page's group is the first word of its name (`git` of `git-log`), since families of pages
    share much of their text.

    Args:
        language: only pages in this one; None for all.
        folder: where they are.
    """
    for path, found in man_files(folder):
        if language in (None, found):
            document = man_document(path, found)
            if document:
                yield document


def _utc(date: str) -> str:
    """Return the ISO time in UTC of a mail date; empty if it isn't one."""
    try:
        found = parsedate_to_datetime(date)
        found = found if found.tzinfo else found.replace(tzinfo=UTC)
        return found.astimezone(UTC).isoformat()
    except (ValueError, TypeError, IndexError, OverflowError):
        return ""


def changelog_entries(text: str) -> Iterator[tuple[str, str, str, str]]:
    """Yield (package, version, ISO time, body) of the entries in a Debian changelog.

    Entries without a date that can be read are left out, and so are the names of who wrote them.
    """
    head: re.Match[str] | None = None
    body: list[str] = []
    for line in text.split("\n"):
        if found := _HEAD.match(line):
            head, body = found, []
        elif head and (end := _TRAILER.match(line)):
            time = _utc(end[1])
            kept = [part for part in body if not re.match(r"^\s*\[.*\]\s*$", part)]
            words = "\n".join(kept).strip("\n")
            if time and words.strip():
                yield head[1], head[2], time, words
            head = None
        elif head:
            body.append(line)


def changelogs(folder: Path = DOC) -> Iterator[Document]:
    """Yield every different changelog entry once, in the order of time, then package and version.

    Binary packages repeat the changelog of their source: entries are told apart by a hash of
    package, version and text.

    Args:
        folder: where packages keep their documentation.
    """
    seen: dict[str, Document] = {}
    for path in sorted(folder.glob("*/changelog*.gz")):
        for package, number, time, body in changelog_entries(read_packed(path)):
            key = hash_bytes(package.encode(), number.encode(), body.encode())
            if key not in seen:
                seen[key] = Document(
                    id=f"changelog/{package}/{number}/{key[:8]}",
                    text=body,
                    source="changelog",
                    url=f"https://{host(package)}/changelog/{number}",
                    time=time,
                    group=package,
                    facts={"version": number},
                )
    yield from sorted(seen.values(), key=lambda made: (made.time, made.id))
