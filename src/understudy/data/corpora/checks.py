"""A rough look at documents: would the usual heuristics keep them?

These are quick stand-ins for the filters of the curation pipeline (words are split at white space),
to say of a corpus whether its prose survives; they filter nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
_EDGE = re.compile(r"^\W+|\W+$")


def reasons(text: str) -> list[str]:
    """Return why the simple rules of RefinedWeb and Gopher would drop a text; empty to keep it.

    50 to 100,000 words; mean word length 3 to 10; symbols to words at most 0.1; at most 0.9 of the
    lines with a bullet and 0.3 with an ellipsis at the end; at most 0.2 of the words without a
    letter; two stop words.
    """
    words = text.split()
    lines = [line for line in text.split("\n") if line.strip()]
    if not 50 <= len(words) <= 100_000:
        return ["words"]
    out = []
    if not 3 <= sum(map(len, words)) / len(words) <= 10:
        out.append("mean word length")
    if (text.count("#") + text.count("...") + text.count("…")) / len(words) > 0.1:
        out.append("symbols")
    if sum(line.lstrip().startswith(("-", "*", "•", "‣")) for line in lines) > 0.9 * len(lines):
        out.append("bullets")
    if sum(line.rstrip().endswith(("...", "…")) for line in lines) > 0.3 * len(lines):
        out.append("ellipses")
    if sum(not any(c.isalpha() for c in word) for word in words) > 0.2 * len(words):
        out.append("non-alphabetic words")
    if sum(_EDGE.sub("", word.lower()) in STOP_WORDS for word in words) < 2:
        out.append("stop words")
    return out


def survey(texts: Iterable[str]) -> dict[str, Any]:
    """Return documents, megabytes, words, the share the simple rules keep, and why others fall."""
    count = size = words = kept = 0
    why: Counter[str] = Counter()
    for text in texts:
        count, size, words = count + 1, size + len(text.encode()), words + len(text.split())
        found = reasons(text)
        kept += not found
        why.update(found)
    return {
        "documents": count,
        "megabytes": round(size / 1e6, 3),
        "words": words,
        "kept": round(kept / count, 4) if count else None,
        "reasons": dict(why.most_common()),
    }
