"""The filter of pages that repeat themselves."""

from __future__ import annotations

from dataclasses import dataclass

from understudy.core.errors import ConfigError
from understudy.curate.engine.pages import Page
from understudy.curate.engine.stage import FilterStage
from understudy.curate.text.contract import Described
from understudy.curate.text.repeats import (
    LONGEST,
    MOST_COMMON,
    lines_of,
    page_ngram_repeats,
    segment_repeats,
    split_segments,
)

NGRAM_LIMITS = (0.20, 0.18, 0.16, 0.15, 0.14, 0.13, 0.12, 0.11, 0.10)


@dataclass(kw_only=True)
class Repetition(Described, FilterStage):
    """Drop pages of which too much occurs more than once (the Gopher rules).

    The rules are applied in this order and the first one that a page breaks is the reason: repeated
    lines, repeated paragraphs, characters in repeated lines, in repeated paragraphs, 2-grams to
    10-grams. A page of one line, or one paragraph, passes the rules for lines, or paragraphs.

    Attributes:
        max_lines: largest share of lines that occur more than once.
        max_paragraphs: the same of paragraphs (which blank lines separate).
        max_line_chars: largest share of the lines' characters in such lines.
        max_paragraph_chars: the same of paragraphs.
        max_ngrams: for n = 2, 3, ..., largest share of the words' characters in the most common
            n-gram (n up to 4) or in any n-gram that occurs more than once (n from 5 on).
    """

    name = "repetition"
    max_lines: float = 0.3
    max_paragraphs: float = 0.3
    max_line_chars: float = 0.2
    max_paragraph_chars: float = 0.2
    max_ngrams: tuple[float, ...] = NGRAM_LIMITS

    def __post_init__(self) -> None:
        for field in ("max_lines", "max_paragraphs", "max_line_chars", "max_paragraph_chars"):
            self.check_range(field, 0, 1)
        self.max_ngrams = tuple(self.max_ngrams)
        if len(self.max_ngrams) >= LONGEST or not all(x >= 0 for x in self.max_ngrams):
            raise ConfigError(
                f"{self.name}: max_ngrams must be at most {LONGEST - 1} shares of 0 or more, for "
                f"n = 2, 3, ..., got {list(self.max_ngrams)}."
            )

    def keep(self, page: Page) -> bool | str:
        """Keep or drop."""
        lines = lines_of(page)
        if not lines:
            return "no lines"
        by_line = segment_repeats(lines)
        by_paragraph = segment_repeats(split_segments(page.text, "\n\n"))
        if by_line.count > 1 and by_line.repeated > self.max_lines:
            return "repeated lines"
        if by_paragraph.count > 1 and by_paragraph.repeated > self.max_paragraphs:
            return "repeated paragraphs"
        if by_line.count > 1 and by_line.repeated_chars > self.max_line_chars:
            return "characters in repeated lines"
        if by_paragraph.count > 1 and by_paragraph.repeated_chars > self.max_paragraph_chars:
            return "characters in repeated paragraphs"
        shares = page_ngram_repeats(page, len(self.max_ngrams) + 1)
        for number, (share, limit) in enumerate(zip(shares, self.max_ngrams, strict=False)):
            if share > limit:
                return f"repeated {number + 2}-grams"
            # a word in a repeated n-gram is in a repeated (n-1)-gram, so later shares are no larger
            if number + 2 not in MOST_COMMON and share <= min(self.max_ngrams[number:]):
                break
        return True
