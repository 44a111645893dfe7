"""Edits line by line: what web pages have around their text."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from understudy.curate.engine.pages import Page
from understudy.curate.engine.stage import PageStage
from understudy.curate.text.chars import DIGIT, UPPER
from understudy.curate.text.contract import Described
from understudy.curate.text.words import Places, Words

COUNTED = (
    "likes shares comments retweets reposts quotes bookmarks upvotes downvotes downloads views "
    "followers"
).split()

_COUNTER = re.compile(rf"^\W*\d[,.\d]*[kmb]?\s+(?:{'|'.join(COUNTED)})\W*$")
_PHRASES = ("items in cart", "read more...", "sign-in")
# ASCII: `str.lower` finds all that these can find
_DELETIONS = (
    re.compile(r"\s?items in cart", re.IGNORECASE | re.ASCII),
    re.compile(r"\s?read more\.\.\.$", re.IGNORECASE | re.ASCII),
    re.compile(r"^sign-in\s?", re.IGNORECASE | re.ASCII),
)


def _count(places: Places, starts: Places, ends: Places) -> Places:
    """Return how many of some ascending places lie in each range, int64 [number of ranges]."""
    return np.searchsorted(places, ends) - np.searchsorted(places, starts)


@dataclass(kw_only=True)
class LineEdits(Described, PageStage):
    """Drop lines and parts of lines that are no text, then pages that lost much by it.

    In this order: lines with a share of capitals above `max_upper`; lines with a share of digits
    above `max_digits`; lines that are counters (`3 likes`, `1.2k views`); lines of fewer than
    `min_words` words, as white space separates them; from lines of at most `phrase_words` words
    "items in cart" anywhere, "Read more..." at the end, "Sign-in" at the beginning, without regard
    to case, and the line if nothing is left. Shares are of all characters of the line, spaces
    included. Empty lines stay.

    Attributes:
        max_upper: largest share of capitals of a line that stays.
        max_digits: largest share of digits of a line that stays.
        min_words: fewest words of a line that stays.
        phrase_words: most words of a line from which phrases are deleted.
        max_removed: largest share of the page's words (counted as `page-length` does) that may be
            lost; 1 keeps every page that has text left.

    References:
        arXiv 2306.01116 (RefinedWeb), appendix G.2; mlfoundations/dclm,
        baselines/mappers/modifiers.py and the order of
        baselines_configs/dclm_baseline_refinedweb.yaml.
    """

    name = "line-edits"
    max_upper: float = 0.5
    max_digits: float = 0.999999
    min_words: int = 2
    phrase_words: int = 10
    max_removed: float = 0.05

    def __post_init__(self) -> None:
        for field in ("max_upper", "max_digits", "max_removed"):
            self.check_range(field, 0, 1)
        self.check_range("min_words", 0)
        self.check_range("phrase_words", 0)
        self._reason = ""

    def pages(self, page: Page) -> list[Page]:
        """Edit the text, or drop the page."""
        before = Words.of(page).word_count
        text = self._delete_phrases(self._drop_lines(page).strip())
        if not text or not before:
            self._reason = "no text left"
            return []
        page.text = text
        after = Words.of(page).word_count
        if (before - after) / before > self.max_removed:
            self._reason = "many words removed"
            return []
        return [page]

    def reason(self) -> str:
        """Return why the last page was dropped."""
        return self._reason

    def _drop_lines(self, page: Page) -> str:
        words, text = Words.of(page), page.text
        lines = text.split("\n")
        flags = words.facts.flags
        breaks = np.flatnonzero(words.facts.codes == 10)
        starts = np.concatenate(([0], breaks + 1))
        ends = np.append(breaks, len(text))
        lengths = ends - starts
        # an empty line has a share of 0 / 1
        over = np.maximum(lengths, 1)
        digits = _count(np.flatnonzero(flags & DIGIT), starts, ends)
        drop = _count(np.flatnonzero(flags & UPPER), starts, ends) / over > self.max_upper
        drop |= digits / over > self.max_digits
        chunks = _count(words.chunk_starts, starts, ends)
        drop |= (chunks < self.min_words) & (lengths > 0)
        # a counter has one digit and one word at least; words may be long, but not many
        for number in np.flatnonzero((digits > 0) & (lengths > 0) & ~drop).tolist():
            if _COUNTER.search(lines[number].lower()):
                drop[number] = True
        if not drop.any():
            return text
        return "\n".join([lines[number] for number in np.flatnonzero(~drop).tolist()])

    def _delete_phrases(self, text: str) -> str:
        lower = text.lower()
        if not any(phrase in lower for phrase in _PHRASES):
            return text
        for pattern in _DELETIONS:
            kept = []
            for line in text.split("\n"):
                edited = line
                if len(line.split()) <= self.phrase_words:
                    edited = pattern.sub("", line)
                    if line and (not edited or edited.isspace()):
                        continue
                kept.append(edited)
            text = "\n".join(kept).strip()
        return text
