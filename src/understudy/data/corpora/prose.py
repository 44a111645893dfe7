"""Prose out of reStructuredText and Markdown: without code, tables, directives and link syntax.

These are readers for documentation as it is found, not parsers: what they don't know, they keep as
text. Lines that were wrapped by hand are joined, so that a paragraph is one line.
"""

from __future__ import annotations

import html
import re

_UNDERLINE = re.compile(r"^\s*([=\-~^\"'`#*+.:_<>])\1{2,}\s*$")
_DIRECTIVE = re.compile(r"^\s*\.\.\s+(?:([\w:+.-]+)::|\S|$)")
_SIMPLE_TABLE = re.compile(r"^\s*(?:={2,}\s*){2,}$|^\s*(?:-{2,}\s+){2,}-*\s*$")
_GRID_TABLE = re.compile(r"^\s*[|+]")
_FIELD = re.compile(r"^(\s*):([^:`]{1,60}):(\s|$)")
_ITEM = re.compile(r"^\s*(?:[-*+•]|\d{1,2}[.)]|#\.)\s+")
_ROLE = re.compile(r":[\w+.:-]+:`([^`]*)`")
_LINK = re.compile(r"`([^`<]*?)\s*<[^`>]*>`_{0,2}")
_LITERAL = re.compile(r"``?([^`]+)``?_{0,2}")
_STRONG = re.compile(r"(?<![\w*])(\*{1,2})(?=\S)([^*\n]+?)(?<=\S)\1(?![\w*])")
_SUBSTITUTION = re.compile(r"\|[\w .-]+\|_{0,2}")
_TARGET = re.compile(r"(?<=\w)__?(?=[\s.,;:)]|$)")

KEPT = frozenset(
    "note warning tip important caution hint danger attention seealso versionadded versionchanged "
    "deprecated admonition topic epigraph function class method attribute data module exception "
    "staticmethod classmethod decorator describe option envvar property py:function py:class "
    "py:method py:attribute py:data py:exception py:module c:function c:type c:macro c:member "
    "c:var c:struct impl-detail opcode cmdoption pdbcommand glossary container rubric change "
    "availability confval rst:directive rst:role event".split()
)
"""Directives whose content is prose; what stands under any other one (code, images) is dropped."""


def unwrap(lines: list[str]) -> str:
    """Join the lines of each paragraph; list items begin a line of their own."""
    out: list[str] = []
    open_paragraph = False
    for line in lines:
        stripped = line.strip()
        if not stripped:
            if out and out[-1]:
                out.append("")
            open_paragraph = False
        elif open_paragraph and not _ITEM.match(line):
            out[-1] += " " + stripped
        else:
            out.append(stripped)
            open_paragraph = True
    return "\n".join(out).strip("\n")


def _inline(line: str) -> str:
    def role(found: re.Match[str]) -> str:
        inner = found.group(1)
        named = re.match(r"^(.*?)\s*<[^>]*>$", inner)
        return named.group(1) if named and named.group(1) else inner.lstrip("~!")

    line = _ROLE.sub(role, line)
    line = _LINK.sub(r"\1", line)
    line = _LITERAL.sub(r"\1", line)
    line = _STRONG.sub(r"\2", line)
    line = _SUBSTITUTION.sub("", line)
    return _TARGET.sub("", line).replace("\\ ", "").replace("\\*", "*")


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _skip_block(lines: list[str], i: int, indent: int) -> int:
    """Return the index after the lines that are blank or deeper than `indent`."""
    while i < len(lines) and (not lines[i].strip() or _indent(lines[i]) > indent):
        i += 1
    return i


def _directive(lines: list[str], i: int) -> tuple[int, list[str]]:
    """Return where to go on after a directive at `i`, and the lines that are kept of its head."""
    indent = _indent(lines[i])
    found = _DIRECTIVE.match(lines[i])
    name = (found.group(1) or "") if found else ""
    if name.lower() not in KEPT:
        return _skip_block(lines, i + 1, indent), []
    head = lines[i].split("::", 1)[1].strip()
    j = i + 1
    prose = name in ("note", "warning", "tip", "important", "hint", "seealso", "deprecated")
    prose = prose or name.startswith("version")
    while j < len(lines) and lines[j].strip() and _indent(lines[j]) > indent:
        option = _FIELD.match(lines[j])
        if not option and prose:
            break
        j += 1  # options, and further signatures of a function
    return j, ["", head if prose else ""]


def _dedent(lines: list[str]) -> list[str]:
    """Drop the indentation: only paragraphs matter from here on."""
    return [line.strip() for line in lines]


def rst_text(text: str) -> str:
    """Return the prose of reStructuredText, one line a paragraph, blank lines between them.

    Dropped: literal blocks, doctests, tables, images, comments, targets, title underlines.
    """
    lines = text.expandtabs(8).split("\n")
    out: list[str] = []
    i = 0
    while i < len(lines):
        line = lines[i]
        stripped = line.strip()
        if not stripped or _UNDERLINE.match(line):
            if _UNDERLINE.match(line) and out and out[-1]:
                out.append("")  # a title is a paragraph
            out.append("")
            i += 1
        elif _SIMPLE_TABLE.match(line) or (_GRID_TABLE.match(line) and len(stripped) > 2):
            i += 1
            while i < len(lines) and lines[i].strip():
                i += 1
        elif stripped.startswith(">>>"):
            while i < len(lines) and lines[i].strip():
                i += 1  # with the output under it
        elif _DIRECTIVE.match(line):
            i, head = _directive(lines, i)
            out.extend(head)
        else:
            i = _text_line(lines, i, out)
    return unwrap(_dedent([_inline(line) for line in out]))


def _text_line(lines: list[str], i: int, out: list[str]) -> int:
    """Add an ordinary line; skip the literal block that `::` announces."""
    line = lines[i]
    field = _FIELD.match(line)
    if field:
        name = field.group(2).split()
        label = "" if name[:1] in (["return"], ["returns"]) else (name or [""])[-1]
        out.append("")
        line = f"{label}: {line[field.end() :].strip()}" if label else line[field.end() :]
    if line.rstrip().endswith("::"):
        head = line.rstrip()[:-2].rstrip()
        if head:
            out.append(head + ":")
        if i + 1 < len(lines) and lines[i + 1].strip():
            return i + 1  # a signature or a definition, not a literal block
        return _skip_block(lines, i + 1, _indent(lines[i]))
    out.append(line)
    return i + 1


_FENCE = re.compile(r"^\s*(```|~~~)")
_IMAGE = re.compile(r"!\[[^\]]*\](?:\([^)]*\)|\[[^\]]*\])")
_MD_LINK = re.compile(r"\[([^\]\[]*)\](?:\([^)\s]*(?:\s+\"[^\"]*\")?\)|\[[^\]]*\])")
_REFERENCE = re.compile(r"^\s*\[[^\]]+\]:\s+\S+")
_HTML_TAG = re.compile(r"<!--.*?-->|</?[a-zA-Z][^<>]*>", re.DOTALL)


def markdown_text(text: str) -> str:
    """Return the prose of Markdown, one line a paragraph, blank lines between them.

    Dropped: code blocks, tables, images (and badges), link targets, HTML tags, heading marks.
    """
    out: list[str] = []
    fence = ""
    for line in html.unescape(_HTML_TAG.sub(" ", text)).expandtabs(4).split("\n"):
        found = _FENCE.match(line)
        if fence or found:
            mark = found.group(1) if found else ""
            fence = ("" if mark == fence else fence) if fence else mark
            out.append("")
        elif line.lstrip().startswith("|") or _UNDERLINE.match(line) or _REFERENCE.match(line):
            out.append("")
        elif line.startswith("    ") and (not out or not out[-1]) and not _ITEM.match(line):
            continue  # indented code
        else:
            line = _MD_LINK.sub(r"\1", _IMAGE.sub("", line))
            line = _MD_LINK.sub(r"\1", line)  # a link around an image
            heading = re.match(r"^#{1,6}\s+(.*?)\s*#*$", line)
            line = heading.group(1) if heading else re.sub(r"^\s*>\s?", "", line)
            out.extend(["", line, ""] if heading else [line])
    return unwrap([_STRONG.sub(r"\2", re.sub(r"`+([^`]+)`+", r"\1", line)) for line in out])
