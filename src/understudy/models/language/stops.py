"""Where a generated text ends: at an end token, or at its first full stop."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache

Stop = Callable[[Sequence[int]], bool]
"""Says of one row's generated ids whether nothing after them counts."""

_STOP = re.compile(r"\.(?=\s|$)")
_PASSED = re.compile(r"\.\s+\S")


def first_sentence(text: str) -> str:
    """Return a text up to its first full stop, without it, with single spaces.

    A stop counts at the end of a word; the one inside `2.5` does not.
    """
    return " ".join(_STOP.split(text, maxsplit=1)[0].split())


def full_stop(decode: Callable[[list[int]], str]) -> Stop:
    """Return a rule that ends a row once a word follows its first full stop.

    Whether a stop ends a word shows with the next token (`2.` may become `2.5`), so the rule waits
    for it: `first_sentence` of what was generated is what it would be without the rule.

    Args:
        decode: ids to text.
    """

    @cache
    def has_dot(token: int) -> bool:
        return "." in decode([token])

    def ended(ids: Sequence[int]) -> bool:
        # decoding is slow: most rows hold no dot before their last token
        if not any(has_dot(token) for token in ids[:-1]):
            return False
        return _PASSED.search(decode(list(ids))) is not None

    return ended
