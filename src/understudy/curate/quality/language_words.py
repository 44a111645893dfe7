"""Tell languages apart without a model: by script and by their most frequent words.

This is a heuristic, not a trained classifier. It is meant for filters that keep one large language
where no model can be had; short texts, lists and code look like no language to it.

For a text of n words, language l of a script with share s of the text's letters gets

    p(l) = s * h(l) / (sum of h over the script's languages + 0.05 n + 0.5)

where h(l) counts words that l lists, each divided by the number of languages that list it. Prose is
a third to a half such words, so that the pseudo-count in the denominator, the mass of "none of
these", hardly matters there. A script that one listed language alone writes counts as evidence by
itself: p = s.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_READ = 20_000
"""Characters of a text that are looked at."""

LISTS = Path(__file__).parent / "lists" / "frequent_words.txt"
"""The words: a language a line."""
_SCRIPT_OF = {
    **dict.fromkeys(("ru", "uk", "bg", "sr"), "cyrillic"),
    **dict.fromkeys(("ar", "fa"), "arabic"),
}
_ALONE = {
    "greek": "el",
    "hebrew": "he",
    "devanagari": "hi",
    "bengali": "bn",
    "tamil": "ta",
    "telugu": "te",
    "thai": "th",
    "hangul": "ko",
    "kana": "ja",
    "han": "zh",
    "georgian": "ka",
    "armenian": "hy",
}
"""Scripts that stand for one language here, whatever else is written in them."""
_RANGES = (
    (0x41, "latin"),
    (0x370, "greek"),
    (0x400, "cyrillic"),
    (0x530, "armenian"),
    (0x590, "hebrew"),
    (0x600, "arabic"),
    (0x780, ""),
    (0x900, "devanagari"),
    (0x980, "bengali"),
    (0xA00, ""),
    (0xB80, "tamil"),
    (0xC00, "telugu"),
    (0xC80, ""),
    (0xE00, "thai"),
    (0xE80, ""),
    (0x10A0, "georgian"),
    (0x1100, "hangul"),
    (0x1200, ""),
    (0x1E00, "latin"),
    (0x1F00, "greek"),
    (0x2000, ""),
    (0x3040, "kana"),
    (0x3100, ""),
    (0x3400, "han"),
    (0xA000, ""),
    (0xAC00, "hangul"),
    (0xD7B0, ""),
    (0xF900, "han"),
    (0xFB00, ""),
    (0xFB50, "arabic"),
    (0xFF00, ""),
    (0x20000, "han"),
    (0x30000, ""),
)
_STARTS = np.array([start for start, _ in _RANGES])


@functools.cache
def frequent_words() -> dict[str, list[tuple[str, float]]]:
    """Return for each listed word the languages that list it, with their weights."""
    listed: dict[str, list[str]] = {}
    for line in LISTS.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            language, _, words = line.partition(":")
            for word in words.split():
                listed.setdefault(word, []).append(language)
    return {word: [(lang, 1 / len(found)) for lang in found] for word, found in listed.items()}


def script_shares(text: str) -> dict[str, float]:
    """Return the share of each script among the letters of a text."""
    if text.isascii():
        return {"latin": 1.0} if any(map(str.isalpha, text)) else {}
    letters = "".join(filter(str.isalpha, text))
    codes = np.frombuffer(letters.encode("utf-32-le", "replace"), np.uint32)
    places = np.searchsorted(_STARTS, codes, "right") - 1
    counts = np.bincount(places[places >= 0], minlength=len(_RANGES))
    shares: dict[str, float] = {}
    for (_, script), count in zip(_RANGES, counts.tolist(), strict=True):
        if count:
            shares[script] = shares.get(script, 0) + count / len(codes)
    return shares


def language_shares(text: str) -> dict[str, float]:
    """Return p(l) of every language with p > 0 (see the module); they sum to at most 1."""
    text = text[:_READ]
    shares = script_shares(text)
    if shares.get("kana", 0) > 0.05:  # Japanese is written in both
        shares["kana"] += shares.pop("han", 0)
    out = {_ALONE[script]: share for script, share in shares.items() if script in _ALONE}
    counts = Counter(_WORD.findall(text.lower()))
    hits: dict[str, float] = {}
    table = frequent_words()
    for word, count in counts.items():
        for language, weight in table.get(word, ()):
            hits[language] = hits.get(language, 0) + weight * count
    for script in ("latin", "cyrillic", "arabic"):
        own = {lang: h for lang, h in hits.items() if _SCRIPT_OF.get(lang, "latin") == script}
        words = shares.get(script, 0) * sum(counts.values())
        total = sum(own.values()) + 0.05 * words + 0.5
        out |= {lang: shares.get(script, 0) * h / total for lang, h in own.items()}
    return {lang: p for lang, p in out.items() if p > 0}


def predict_languages(texts: Sequence[str]) -> tuple[list[str | None], np.ndarray]:
    """Return the likeliest language of each text and its p, float32 [N]; None and 0 for none."""
    names: list[str | None] = []
    probabilities = np.zeros(len(texts), np.float32)
    for i, text in enumerate(texts):
        found = language_shares(text)
        best = max(found, key=lambda lang: (found[lang], lang), default=None)
        names.append(best)
        probabilities[i] = found[best] if best else 0
    return names, probabilities
