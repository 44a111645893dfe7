"""Filters by a page's address, and the removal of addresses from its text.

Pages without an address are kept by the filters: there is nothing to judge.

References:
    arXiv 2306.01116 (RefinedWeb), appendix G.1; mlfoundations/dclm,
    baselines/mappers/filters/metadata_filters.py and baselines/mappers/modifiers.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from understudy.core.errors import ConfigError
from understudy.core.hashing import hash_data
from understudy.curate.engine.pages import Page
from understudy.curate.engine.stage import FilterStage, PageStage
from understudy.curate.text.contract import Described
from understudy.curate.text.wordlists import any_of, read_list

TOP_DOMAINS = (
    "com org net edu gov mil info biz uk de fr nl eu au ca jp cn kr tw ru br mx ar ch pl se fi dk "
    "cz hu gr pt tr nz za".split()
)
"""Ends of host names by which `url-removal` knows addresses without `http://` or `www.`.

Ends that are words too (`it`, `is`, `me`, `name`, ...) are left out: `done.It` is no address.
"""


def host_of(url: str) -> str:
    """Return the host of an address in lower case, without `www.`, port and user name."""
    try:
        host = urlsplit(url if "//" in url else f"//{url}").hostname or ""
    except ValueError:
        return ""
    return host.rstrip(".").removeprefix("www.")


@dataclass(kw_only=True)
class UrlDomainBan(Described, FilterStage):
    """Drop pages of listed domains; a host must be equal to an entry, `www.` left out.

    Attributes:
        path: the list, one domain a line; None for a small example.
    """

    name = "url-domain-ban"
    path: str | None = None

    def __post_init__(self) -> None:
        entries = read_list(self.path, "domains", self.name)
        self._banned = frozenset(entry.removeprefix("www.") for entry in entries)

    def describe(self) -> dict[str, Any]:
        """Return the name and the hash of the list."""
        return {"name": self.name, "list": hash_data(sorted(self._banned))}

    def keep(self, page: Page) -> bool | str:
        """Keep or drop."""
        return not page.url or host_of(page.url) not in self._banned or "banned domain"


class _WholeWords:
    """Which words of a list are whole words of a text."""

    def __init__(self, words: list[str]) -> None:
        self._plain = frozenset(word for word in words if re.fullmatch(r"\w+", word))
        others = [word for word in words if word not in self._plain]
        self._others = re.compile(rf"(?<!\w){any_of(others)}(?!\w)") if others else None

    def count(self, text: str) -> int:
        """Return how many different entries occur."""
        found = len(self._plain.intersection(re.findall(r"\w+", text)))
        return found + (len(set(self._others.findall(text))) if self._others else 0)


@dataclass(kw_only=True)
class UrlWordBan(Described, FilterStage):
    """Drop pages with listed words in their address, without regard to case.

    Attributes:
        strict: list of words that must not occur anywhere in the address, `-` and `.` left out
            of it.
        hard: list of words of which none may be a whole word of the address.
        soft: list of words of which fewer than `soft_hits` may be whole words of the address.
        soft_hits: see `soft`; different words are counted.
    """

    name = "url-word-ban"
    strict: str | None = None
    hard: str | None = None
    soft: str | None = None
    soft_hits: int = 2

    def __post_init__(self) -> None:
        self.check_range("soft_hits", 1)
        lists = {
            kind: read_list(getattr(self, kind), f"words_{kind}", f"{self.name} ({kind})")
            for kind in ("strict", "hard", "soft")
        }
        self._hash = hash_data(lists)
        bare = [word.replace("-", "").replace(".", "") for word in lists["strict"]]
        if not all(bare):
            raise ConfigError(f"{self.name}: strict: an entry has nothing but '-' and '.'.")
        self._strict = re.compile(any_of(bare))
        self._hard, self._soft = _WholeWords(lists["hard"]), _WholeWords(lists["soft"])

    def describe(self) -> dict[str, Any]:
        """Return the name, the hash of the lists and the number of hits."""
        return {"name": self.name, "lists": self._hash, "soft_hits": self.soft_hits}

    def keep(self, page: Page) -> bool | str:
        """Keep or drop."""
        if not page.url:
            return True
        url = page.url.lower()
        if self._strict.search(url.replace("-", "").replace(".", "")):
            return "strict word"
        if self._hard.count(url):
            return "hard word"
        return self._soft.count(url) < self.soft_hits or "soft words"


_HOST = r"[-a-zA-Z0-9@:%._+~#=]"
_NEXT = r"[-\w@]|\.[-\w]"
# what ends a sentence around an address is not part of it
_REST = r"(?:[-\w()@:%+.~#?&/=,;!$'*]*[-\w/@%+~#&=])?"


_BLANK = 10
"""Most white space before an address that goes with it."""
_MAYBE_IP = re.compile(r"\.\d{1,3}\.\d{1,3}\.\d", re.ASCII)
_CHUNK_END = re.compile(r"\S*")


def _chunk_around(text: str, place: int) -> tuple[int, int]:
    """Return where the run without white space around a place begins and ends."""
    start = max(text.rfind(" ", 0, place), text.rfind("\n", 0, place)) + 1
    head = text[start:place].split()
    # other white space may lie between the last space or line end and the place
    start = place - len(head[-1]) if head and not text[place - 1].isspace() else place
    found = _CHUNK_END.match(text, place)
    return start, found.end() if found else place


@dataclass(kw_only=True)
class UrlRemoval(Described, PageStage):
    """Delete web addresses from the text, with the white space before them.

    Addresses are what begins with `http://`, `https://`, `ftp://` or `www.`, host names with a
    known end (`example.com/path`, mail addresses too) and IPv4 addresses. A page with nothing else
    is dropped.

    Attributes:
        top_domains: known ends of host names.
    """

    name = "url-removal"
    top_domains: tuple[str, ...] = tuple(TOP_DOMAINS)

    def __post_init__(self) -> None:
        self.top_domains = tuple(self.top_domains)
        if not self.top_domains or not all(re.fullmatch(r"\w+", x) for x in self.top_domains):
            raise ConfigError(
                f"{self.name}: top_domains must be names such as 'org', got "
                f"{list(self.top_domains)[:5]}."
            )
        end = rf"\.(?i:{any_of(sorted({x.lower() for x in self.top_domains}))})(?!{_NEXT})"
        tail = rf"(?:[/:?#]{_REST})?"
        number = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
        self._end = re.compile(end)
        self._addresses = (
            re.compile(rf"(?i:\b(?:https?|ftp)://|(?<!{_HOST})www\.){_REST}"),
            re.compile(rf"(?<!{_HOST}){_HOST}{{1,256}}{end}{tail}"),
            re.compile(rf"(?<!{_HOST})(?:{number}\.){{3}}{number}(?!\d)(?!\.\d){tail}", re.ASCII),
        )

    def pages(self, page: Page) -> list[Page]:
        """Edit the text."""
        text = page.text
        hits = self._hits(text)
        if not hits:
            return [page]
        parts, done = [], 0
        for hit in hits:
            if hit < done:
                continue
            start, stop = _chunk_around(text, hit)
            edited = text[start:stop]
            leading = False
            for address in self._addresses:
                leading |= address.match(edited) is not None
                edited = address.sub("", edited)
            before = text[done:start]
            if leading:
                blank = len(before) - len(before.rstrip())
                before = before[: len(before) - min(blank, _BLANK)]
            parts += [before, edited]
            done = stop
        text = "".join(parts) + text[done:]
        if not text.strip():
            return []
        page.text = text
        return [page]

    def _hits(self, text: str) -> list[int]:
        """Return places inside of all that may be addresses, ascending."""
        if "." not in text and "://" not in text:
            return []
        hits = [found.start() for found in self._end.finditer(text)]
        hits += [found.start() for found in _MAYBE_IP.finditer(text)]
        for mark in ("://", "ww.", "WW."):
            place = text.find(mark)
            while place >= 0:
                hits.append(place)
                place = text.find(mark, place + 1)
        return sorted(hits)

    def reason(self) -> str:
        """Return why the last page was dropped."""
        return "nothing but addresses"
