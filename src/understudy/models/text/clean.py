"""Text cleaning of CLIP and how it splits words (arXiv 2103.00020, its released tokenizer)."""

from __future__ import annotations

import html
import unicodedata

PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
"""Words: English clitics, runs of letters, single digits, runs of anything else but space."""

SPECIAL = ("<start_of_text>", "<end_of_text>")
SUFFIX = "</w>"
"""Marks the last symbol of a word in byte-pair encoding."""

CLEANERS = ("clip", "lower", "whitespace")


def mend(text: str) -> str:
    """Repair broken encodings with ftfy where it is installed, else normalise to NFC."""
    try:
        import ftfy
    except ModuleNotFoundError:
        return unicodedata.normalize("NFC", text)
    return ftfy.fix_text(text)


def clean_text(text: str, how: str) -> str:
    """Clean a text.

    Args:
        text: any text.
        how: `"clip"`: mend encodings, resolve HTML entities twice, collapse whitespace, lower
            case. `"lower"`: the last two. `"whitespace"`: only collapse whitespace.
    """
    if how == "clip":
        text = html.unescape(html.unescape(mend(text)))
    text = " ".join(text.split())
    return text if how == "whitespace" else text.lower()
