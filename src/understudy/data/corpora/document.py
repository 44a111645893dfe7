"""What every corpus yields: documents, with the group that is held out together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from understudy.core.hashing import hash_bytes

_CODING = re.compile(rb"^[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)", re.MULTILINE)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff\ufffe\uffff]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    r"""One text and where it is from.

    Attributes:
        id: stable: depends on the source and the place in it, not on the machine's folders.
        text: the text, with `\n` between lines and no control characters.
        source: the corpus (`stdlib`, `docstrings`, `readme`, `man`, ...).
        url: an address under the reserved domain `.example`, or a real one where it is known.
        time: ISO date (`2006-01-02`) or date and time; empty where unknown.
        group: package (or standard-library module, speaker, ...): groups are held out whole.
        facts: more strings about it, such as `version`.
    """

    id: str
    text: str
    source: str
    url: str
    time: str = ""
    group: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)


def clean_text(text: str) -> str:
    """Return the text with plain newlines, without control characters and trailing spaces."""
    text = _CONTROL.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    return "\n".join(line.rstrip() for line in text.split("\n")).strip("\n")


def decode(data: bytes) -> str:
    """Turn bytes into text: the declared coding if there is one, else UTF-8, else Latin-1.

    Latin-1 gives a character for every byte, so nothing fails and nothing is dropped.
    """
    head = b"\n".join(data.split(b"\n", 2)[:2])
    declared = _CODING.search(head)
    names = [declared.group(1).decode("ascii", "replace")] if declared else []
    for name in (*names, "utf-8-sig"):
        try:
            return clean_text(data.decode(name))
        except (UnicodeDecodeError, LookupError):
            continue
    return clean_text(data.decode("latin-1"))


def read_text(path: Path) -> str:
    """Return a file's text (see `decode`), or an empty string if it can't be read.

    A walk over somebody's system meets dangling links and files of others: those hold no text.
    """
    try:
        return decode(path.read_bytes())
    except OSError:
        return ""


def text_key(text: str) -> str:
    """Return a hash of the text that ignores case and white space."""
    return hash_bytes(" ".join(text.lower().split()).encode("utf-8", "surrogatepass"))


def host(name: str) -> str:
    """Return a host under the reserved domain `.example` (RFC 2606) for a package name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") + ".example"


def paragraphs(text: str) -> list[str]:
    """Return the blocks between blank lines."""
    return [block for block in re.split(r"\n\s*\n", text) if block.strip()]


def pieces(text: str, target: int, least: int = 0, join: str = "\n\n") -> Iterator[str]:
    """Cut a text between paragraphs into pieces of about `target` characters.

    A paragraph of more than twice the target is cut between its lines, or else at spaces. What is
    left over at the end joins the piece before it if it is shorter than `least`.

    Args:
        text: what to cut.
        target: a piece ends with the paragraph that brings it to this length.
        least: shortest piece, in characters, unless the whole text is shorter.
        join: what stands between the paragraphs of a piece.
    """
    waiting: list[str] = []
    ready: str | None = None
    size = 0
    for block in _blocks(text, target):
        waiting.append(block)
        size += len(block) + len(join)
        if size >= target:
            if ready is not None:
                yield ready
            ready, waiting, size = join.join(waiting), [], 0
    rest = join.join(waiting)
    if ready is not None and rest and len(rest) < least:
        ready, rest = ready + join + rest, ""
    if ready is not None:
        yield ready
    if rest:
        yield rest


def _blocks(text: str, target: int) -> Iterator[str]:
    for block in paragraphs(text):
        if len(block) <= 2 * target:
            yield block
            continue
        lines = block.split("\n")
        if max(map(len, lines)) > target:
            lines = [part for line in lines for part in _wrap(line, target)]
        yield from _groups(lines, target)


def _groups(lines: list[str], target: int) -> Iterator[str]:
    waiting: list[str] = []
    size = 0
    for line in lines:
        waiting.append(line)
        size += len(line) + 1
        if size >= target:
            yield "\n".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield "\n".join(waiting)


def _wrap(line: str, width: int) -> Iterator[str]:
    """Cut a line at the last space before `width`, or at `width` where there is no space."""
    start = 0
    while len(line) - start > width:
        space = line.rfind(" ", start + width // 2, start + width)
        cut = space if space > 0 else start + width
        yield line[start:cut]
        start = cut + (space > 0)
    if start < len(line):
        yield line[start:]
