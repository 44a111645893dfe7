"""Edits of whole texts."""

from __future__ import annotations

import re
from dataclasses import dataclass

from understudy.curate.engine.pages import Page
from understudy.curate.engine.stage import PageStage
from understudy.curate.text.contract import Described


@dataclass(kw_only=True)
class Newlines(Described, PageStage):
    """Shorten runs of line ends.

    Attributes:
        max_newlines: most line ends in a row that are left.
    """

    name = "newlines"
    max_newlines: int = 2

    def __post_init__(self) -> None:
        self.check_range("max_newlines", 1)
        self._most = "\n" * self.max_newlines
        self._more = re.compile(rf"\n{{{self.max_newlines + 1},}}")

    def pages(self, page: Page) -> list[Page]:
        """Edit the text."""
        if self._most + "\n" in page.text:
            page.text = self._more.sub(self._most, page.text)
        return [page]
