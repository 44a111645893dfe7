"""Plain text of HTML pages of documentation."""

from __future__ import annotations

from html.parser import HTMLParser

_BLOCKS = frozenset(
    "p div section article main table tr ul ol dl dd dt li h1 h2 h3 h4 h5 h6 blockquote pre br hr "
    "body header form figure".split()
)
_DROPPED = frozenset("script style head nav footer svg noscript".split())
_VOID = frozenset(
    "area base br col embed hr img input link meta param source track wbr basefont frame".split()
)


class _Reader(HTMLParser):
    def __init__(self, drop: frozenset[str]) -> None:
        super().__init__(convert_charrefs=True)
        self.drop = drop
        self.dropping: list[str] = []
        self.pre = 0
        self.parts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self.drop and tag not in _VOID:
            self.dropping.append(tag)
        if tag in _BLOCKS:
            self.parts.append("\n" if tag == "br" else "\n\n")
        if tag == "pre":
            self.pre += 1

    def handle_endtag(self, tag: str) -> None:
        if tag in self.dropping:
            # What was left open inside ends with it.
            while self.dropping.pop() != tag:
                pass
        if tag == "pre":
            self.pre = max(0, self.pre - 1)
        if tag in _BLOCKS:
            self.parts.append("\n\n")

    def handle_data(self, data: str) -> None:
        if self.dropping:
            return
        if self.pre:
            self.parts.append(data)
        elif data.strip():
            lead = " " if data[0].isspace() else ""
            tail = " " if data[-1].isspace() else ""
            self.parts.append(lead + " ".join(data.split()) + tail)
        elif self.parts and not self.parts[-1].endswith((" ", "\n")):
            self.parts.append(" ")


def html_text(page: str, *, code: bool = False) -> str:
    """Return the text of an HTML page, blank lines between its blocks.

    Args:
        page: the page.
        code: keep preformatted blocks too.
    """
    reader = _Reader(_DROPPED if code else _DROPPED | {"pre"})
    reader.feed(page)
    reader.close()
    lines = [
        "" if not line.strip() else line.rstrip() for line in "".join(reader.parts).split("\n")
    ]
    out: list[str] = []
    for line in lines:
        line = line if line[:2] == "  " else line.lstrip()
        if line or (out and out[-1]):
            out.append(line)
    return "\n".join(out).strip("\n")
