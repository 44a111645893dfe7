"""Filters that look at words, symbols and lines of a page, with the published thresholds.

References:
    Rules: arXiv 2112.11446 (Gopher), appendix A1.1; arXiv 2306.01116 (RefinedWeb), appendix G.
    How things are counted: mlfoundations/dclm, baselines/mappers/filters/content_filters.py, with
    the settings of baselines_configs/dclm_baseline_refinedweb.yaml.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from understudy.core.errors import ConfigError
from understudy.curate.engine.pages import Page
from understudy.curate.engine.stage import FilterStage
from understudy.curate.text.contract import Described
from understudy.curate.text.repeats import lines_of
from understudy.curate.text.words import Words

SYMBOLS = ("#", "...", ". . .", "\u2026")
ELLIPSES = ("...", ". . .", "\u2026")
BULLETS = ("\u25cf", "\u2022", "*", "-")
STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")

_CHUNK = re.compile(r"\S+")


@dataclass(kw_only=True)
class PageLength(Described, FilterStage):
    """Keep pages of a certain number of words.

    Words are what white space separates and what begins with a letter or a digit, so free-standing
    punctuation does not count.

    Attributes:
        min_words: fewest words of a page that is kept.
        max_words: most words of a page that is kept.
    """

    name = "page-length"
    min_words: int = 50
    max_words: int = 100_000

    def __post_init__(self) -> None:
        self.check_range("min_words", 0)
        self.check_range("max_words", self.min_words)

    def keep(self, page: Page) -> bool | str:
        """Keep or drop."""
        count = Words.of(page).word_count
        if count < self.min_words:
            return "too few words"
        return count <= self.max_words or "too many words"


@dataclass(kw_only=True)
class WordLength(Described, FilterStage):
    """Keep pages whose words, as white space separates them, have a certain mean length.

    Attributes:
        minimum: smallest mean in characters of a page that is kept.
        maximum: largest mean in characters of a page that is kept.
    """

    name = "word-length"
    minimum: float = 3
    maximum: float = 10

    def __post_init__(self) -> None:
        self.check_range("minimum", 0)
        self.check_range("maximum", self.minimum)

    def keep(self, page: Page) -> bool | str:
        """Keep or drop."""
        words = Words.of(page)
        if not words.chunk_count:
            return "no words"
        mean = words.chunk_chars / words.chunk_count
        if mean < self.minimum:
            return "short words"
        return mean <= self.maximum or "long words"


@dataclass(kw_only=True)
class SymbolRatio(Described, FilterStage):
    """Drop pages with many number signs and ellipses for their words.

    Attributes:
        max_ratio: largest number of symbols (`#`, `...`, `. . .`, the ellipsis character) over
            words, as white space separates them.
    """

    name = "symbol-ratio"
    max_ratio: float = 0.1

    def __post_init__(self) -> None:
        self.check_range("max_ratio", 0)

    def keep(self, page: Page) -> bool | str:
        """Keep or drop."""
        chunks = Words.of(page).chunk_count
        if not chunks:
            return "no words"
        count = sum(map(page.text.count, SYMBOLS))
        return count / chunks <= self.max_ratio or "many symbols"


@dataclass(kw_only=True)
class BulletLines(Described, FilterStage):
    """Drop pages that are lists of points.

    Attributes:
        max_ratio: largest share of lines that begin with a bullet; blank lines are not counted.
    """

    name = "bullet-lines"
    max_ratio: float = 0.9

    def __post_init__(self) -> None:
        self.check_range("max_ratio", 0, 1)

    def keep(self, page: Page) -> bool | str:
        """Keep or drop."""
        lines = lines_of(page)
        count = sum([line.startswith(BULLETS) for line in lines])
        return not count or count / len(lines) <= self.max_ratio or "bullet lines"


@dataclass(kw_only=True)
class EllipsisLines(Described, FilterStage):
    """Drop pages of teasers.

    Attributes:
        max_ratio: largest share of lines that end with an ellipsis; blank lines are not counted.
    """

    name = "ellipsis-lines"
    max_ratio: float = 0.3

    def __post_init__(self) -> None:
        self.check_range("max_ratio", 0, 1)

    def keep(self, page: Page) -> bool | str:
        """Keep or drop."""
        lines = lines_of(page)
        count = sum([line.endswith(ELLIPSES) for line in lines])
        return not count or count / len(lines) <= self.max_ratio or "ellipsis lines"


@dataclass(kw_only=True)
class AlphabeticWords(Described, FilterStage):
    """Drop pages of numbers and symbols.

    Attributes:
        max_ratio: largest share of words, as white space separates them, that have no letter.
    """

    name = "alphabetic-words"
    max_ratio: float = 0.2

    def __post_init__(self) -> None:
        self.check_range("max_ratio", 0, 1)

    def keep(self, page: Page) -> bool | str:
        """Keep or drop."""
        words = Words.of(page)
        if not words.chunk_count:
            return "no words"
        return words.letterless / words.chunk_count <= self.max_ratio or "words without letters"


@dataclass(kw_only=True)
class StopWords(Described, FilterStage):
    """Keep pages that hold stop words, as running text does.

    Attributes:
        minimum: fewest occurrences of any of them (one word twice counts twice).
        words: the stop words, in lower case.
    """

    name = "stop-words"
    minimum: int = 2
    words: tuple[str, ...] = STOP_WORDS

    def __post_init__(self) -> None:
        self.check_range("minimum", 0)
        if isinstance(self.words, str) or not all(w == w.lower() for w in self.words):
            raise ConfigError(
                f"{self.name}: words must be a list of words in lower case, got {self.words!r}."
            )
        self.words = tuple(self.words)
        self._known = frozenset(self.words)

    def keep(self, page: Page) -> bool | str:
        """Keep or drop."""
        missing = self.minimum
        if missing <= 0:
            return True
        for found in _CHUNK.finditer(page.text):
            if found[0].lower() in self._known:
                missing -= 1
                if not missing:
                    return True
        return "few stop words"
