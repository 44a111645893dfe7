"""Facts about characters, looked up for whole texts at once.

For each character there are four bytes: two masks that say with which neighbours it stays in one
word, what Python's `str` methods say of it, and its word-break class. The bytes of ASCII come from
`bytes.translate`, others from a table that is filled for the characters that occur.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

CLASSES = (
    "Other",
    "CR",
    "LF",
    "Newline",
    "WSegSpace",
    "ALetter",
    "Numeric",
    "ExtendNumLet",
    "MidLetter",
    "MidNum",
    "MidNumLet",
    "Single_Quote",
    "Double_Quote",
    "Katakana",
    "Hebrew_Letter",
    "Regional_Indicator",
    "Extend",
    "Format",
    "ZWJ",
)
"""Word_Break values of UAX 29, table 3; `Hebrew_Letter` and those after it need all rules."""
CLASS = {name: number for number, name in enumerate(CLASSES)}
CLASS_BITS, PICTURE = 0x1F, 0x20
"""Parts of the fourth byte: the class; Extended_Pictographic."""

UPPER, DIGIT, ALPHA, SPACE, ALNUM = 1, 2, 4, 8, 16
"""Bits of the third byte: `isupper`, `isdigit`, `isalpha`, `isspace`, `isalnum`."""
MIDDLE, COMPLEX = 32, 64
"""Bits of the third byte: may join what is on both sides; needs all rules."""

LETTER, NUMBER = 1, 2
"""Bits of the first byte: ALetter or Hebrew_Letter; Numeric."""

_WORD = ("ALetter", "Hebrew_Letter", "Numeric")
# rule: classes on the left, classes on the right; bits 0 and 1 name the left side's class
_RULES: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("ALetter", "Hebrew_Letter"), _WORD),  # WB5, WB9
    (("Numeric",), _WORD),  # WB8, WB10
    (("Katakana",), ("Katakana",)),  # WB13
    ((*_WORD, "Katakana", "ExtendNumLet"), ("ExtendNumLet",)),  # WB13a
    (("ExtendNumLet",), (*_WORD, "Katakana")),  # WB13b
    (("CR",), ("LF",)),  # WB3
    (("WSegSpace",), ("WSegSpace",)),  # WB3d
    (("Hebrew_Letter",), ("Single_Quote",)),  # WB7a
)
_MIDDLES = ("MidLetter", "MidNum", "MidNumLet", "Single_Quote")
_ASCII = {
    "\r": "CR",
    "\n": "LF",
    "\v": "Newline",
    "\f": "Newline",
    " ": "WSegSpace",
    "_": "ExtendNumLet",
    ":": "MidLetter",
    ",": "MidNum",
    ";": "MidNum",
    ".": "MidNumLet",
    "'": "Single_Quote",
    '"': "Double_Quote",
}


class Facts(NamedTuple):
    """Facts of the characters of a text.

    Attributes:
        codes: code points, uint8 [n] for pure ASCII, else uint32 [n].
        left: how each character joins the next one, uint8 [n].
        right: how it joins the one before; joined if `left[i] & right[i + 1]`, uint8 [n].
        flags: bits `UPPER` and so on, uint8 [n].
        kinds: class and picture bit, uint8 [n]; empty for pure ASCII, which does not need it.
    """

    codes: NDArray[Any]
    left: Bytes
    right: Bytes
    flags: Bytes
    kinds: Bytes


def _masks(name: str) -> tuple[int, int]:
    left = sum(1 << bit for bit, (lefts, _) in enumerate(_RULES) if name in lefts)
    right = sum(1 << bit for bit, (_, rights) in enumerate(_RULES) if name in rights)
    return left, right


@cache
def class_masks() -> tuple[Bytes, Bytes]:
    """Return the two masks of each class, uint8 [number of classes] each."""
    masks = np.array([_masks(name) for name in CLASSES], np.uint8)
    return masks[:, 0].copy(), masks[:, 1].copy()


def _four(char: str, name: str, picture: bool) -> tuple[int, int, int, int]:
    flags = (
        (UPPER if char.isupper() else 0)
        | (DIGIT if char.isdigit() else 0)
        | (ALPHA if char.isalpha() else 0)
        | (SPACE if char.isspace() else 0)
        | (ALNUM if char.isalnum() else 0)
        | (MIDDLE if name in _MIDDLES else 0)
        | (COMPLEX if CLASS[name] >= CLASS["Hebrew_Letter"] else 0)
    )
    return (*_masks(name), flags, CLASS[name] | (PICTURE if picture else 0))


def _ascii_four(code: int) -> tuple[int, int, int, int]:
    char = chr(code)
    usual = "ALetter" if char.isalpha() else "Numeric" if char.isdigit() else "Other"
    return _four(char, _ASCII.get(char, usual), False)


@cache
def _ascii_tables() -> tuple[bytes, bytes, bytes]:
    rows = [_ascii_four(code) for code in range(128)]
    left, right, flags = (bytes([row[k] for row in rows]) + bytes(128) for k in range(3))
    return left, right, flags


@cache
def _patterns() -> tuple[Any, Any]:
    from understudy.core.lazy import require

    regex = require("regex", "curate", "cutting text beyond ASCII into words")
    classes = "|".join(rf"(\p{{WB={name}}})" for name in CLASSES[1:])
    return regex.compile(classes), regex.compile(r"\p{Extended_Pictographic}")


@cache
def _table() -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
    """Return the four bytes of all code points, uint32 [0x110000], and which are filled in."""
    table, known = np.zeros(0x110000, np.uint32), np.zeros(0x110000, np.bool_)
    rows = np.array([_ascii_four(code) for code in range(128)], np.uint8)
    table[:128] = rows.view("<u4").ravel()
    known[:128] = True
    return table, known


def _fill(codes: NDArray[Any], table: NDArray[np.uint32], known: NDArray[np.bool_]) -> None:
    classes, picture = _patterns()
    for code in np.unique(codes[~known[codes]]).tolist():
        found = classes.match(chr(code))
        name = CLASSES[found.lastindex if found else 0]
        four = _four(chr(code), name, picture.match(chr(code)) is not None)
        table[code] = int.from_bytes(four, "little")
        known[code] = True


def facts_of(text: str, *, table: bool = False) -> Facts:
    """Return the facts of a text.

    Args:
        text: the text.
        table: use the table for ASCII too.

    Raises:
        MissingExtraError: there is a character beyond ASCII, and `regex` is not installed.
    """
    if text.isascii() and not table:
        data = text.encode("ascii")
        left, right, flags = (
            np.frombuffer(data.translate(byte), np.uint8) for byte in _ascii_tables()
        )
        return Facts(np.frombuffer(data, np.uint8), left, right, flags, np.zeros(0, np.uint8))
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.dtype("<u4"))
    all_facts, known = _table()
    found = all_facts[codes]
    # no character has no facts at all but those that are not filled in, and `Other`
    if not found.all() and not known[codes].all():
        _fill(codes, all_facts, known)
        found = all_facts[codes]
    four = found.astype("<u4", copy=False).view(np.uint8).reshape(-1, 4)
    left, right, flags, kinds = (np.ascontiguousarray(four[:, k]) for k in range(4))
    return Facts(codes, left, right, flags, kinds)
