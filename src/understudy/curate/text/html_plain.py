"""All visible text of an HTML page, by the standard library's parser."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_HIDDEN = frozenset("script style template noscript head svg math iframe object select".split())
_BLOCKS = frozenset(
    "address article aside blockquote body br caption dd details dialog div dl dt fieldset "
    "figcaption figure footer form h1 h2 h3 h4 h5 h6 header hr html legend li main nav ol p pre "
    "section summary table tbody tfoot thead tr ul".split()
)
_PARAGRAPHS = frozenset("blockquote h1 h2 h3 h4 h5 h6 ol p pre table ul".split())
_VOID = frozenset("area base br col embed hr img input link meta param source track wbr".split())
_SPACES = re.compile(r"[ \t\r\n\f]+")


class _Visible(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden: list[str] = []
        self._pre = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._hidden:
            # <body> ends a head that was not closed
            if tag == "body" and self._hidden == ["head"]:
                self._hidden.clear()
            elif tag == self._hidden[-1]:
                self._hidden.append(tag)
            return
        names = {name for name, _ in attrs}
        if (tag in _HIDDEN or "hidden" in names) and tag not in _VOID:
            self._hidden.append(tag)
            return
        self._break(tag)
        self._pre += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        if self._hidden:
            if tag == self._hidden[-1]:
                self._hidden.pop()
            return
        self._break(tag)
        self._pre -= tag == "pre" and self._pre > 0

    def _break(self, tag: str) -> None:
        if tag in _PARAGRAPHS:
            self.parts.append("\n\n")
        elif tag in _BLOCKS:
            self.parts.append("\n")
        elif tag in ("td", "th"):
            self.parts.append(" ")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.parts.append(data if self._pre else _SPACES.sub(" ", data))


def visible_text(html: str) -> str:
    """Return the text that a browser would show, blocks on lines of their own.

    Args:
        html: the page. Scripts, styles, hidden elements and the head are left out.
    """
    parser = _Visible()
    parser.feed(html)
    parser.close()
    text = "".join(parser.parts)
    text = re.sub(r"[ \t]+\n", "\n", text)
    text = re.sub(r"\n +(?=\S)", "\n", text) if "<pre" not in html.lower() else text
    return re.sub(r"\n{3,}", "\n\n", text).strip()
