"""Conversations about images, as LLaVA's JSON has them: who says what, and where images stand.

A conversation is a list of `{"from": "human" | "gpt", "value": text}`; `<image>` in a human text
marks an image. arXiv 2304.08485.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from understudy.core.errors import DataError

MARK = "<image>"
"""Where an image stands in a text."""
ROLES = ("human", "gpt")


def check_turns(turns: Any, where: str) -> list[dict[str, str]]:
    """Return a conversation after checking it.

    Raises:
        DataError: not a list of turns, an unknown role, roles that do not alternate beginning with
            the human, no answer at the end, or an image in an answer.
    """
    if not isinstance(turns, list) or not turns:
        raise DataError(f"{where}: expected a list of turns, got {str(turns)[:40]!r}.")
    for i, turn in enumerate(turns):
        if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
            raise DataError(f"{where}, turn {i}: expected {{from, value}} with a text as value.")
        expected = ROLES[i % 2]
        if turn.get("from") != expected:
            raise DataError(
                f"{where}, turn {i}: from is {turn.get('from')!r}, expected '{expected}'; human "
                "and gpt take turns, the human first."
            )
        if expected == "gpt" and MARK in turn["value"]:
            raise DataError(f"{where}, turn {i}: an answer holds {MARK}; images are the human's.")
    if len(turns) % 2:
        raise DataError(f"{where}: the last human text has no answer; nothing could be learned.")
    return [{"from": t["from"], "value": t["value"]} for t in turns]


def count_marks(turns: Sequence[dict[str, str]]) -> int:
    """Return how many images a conversation mentions."""
    return sum(turn["value"].count(MARK) for turn in turns)
