"""Where words begin: the default word boundaries of Unicode, for whole texts at once.

References:
    Unicode Standard Annex 29, "Unicode Text Segmentation", section 4.1.1; the comments name its
    rules. Rules that look at two neighbours only are in `chars`.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from understudy.curate.text.chars import (
    CLASS,
    CLASS_BITS,
    CLASSES,
    COMPLEX,
    LETTER,
    MIDDLE,
    NUMBER,
    PICTURE,
    Bytes,
    Facts,
    class_masks,
)

Mask = NDArray[np.bool_]


@cache
def _mask(*names: str) -> Mask:
    mask = np.zeros(CLASS_BITS + 1, np.bool_)
    mask[[CLASS[name] for name in names]] = True
    return mask


def _join_middles(joins: Mask, middle: NDArray[np.int64], left: Bytes, right: Bytes) -> None:
    """Apply WB6, WB7, WB11 and WB12 to marks between letters, or between numbers.

    Args:
        joins: whether each place but the first belongs to the word before it, bool [n - 1].
        middle: places of marks that have a neighbour on both sides.
        left: masks of the characters; their first bits tell letters from numbers.
        right: `LETTER` where a mark can stand between letters, `NUMBER` between numbers.
    """
    kept = middle[(left[middle - 1] & left[middle + 1] & right & (LETTER | NUMBER)) != 0]
    joins[kept - 1] = True
    joins[kept] = True


@cache
def _between() -> Bytes:
    """Return what each class can stand between, uint8 [32]."""
    found = np.zeros(CLASS_BITS + 1, np.uint8)
    found[_mask("MidLetter", "MidNumLet", "Single_Quote")] |= LETTER
    found[_mask("MidNum", "MidNumLet", "Single_Quote")] |= NUMBER
    return found


@cache
def _between_ascii() -> Bytes:
    found = np.zeros(128, np.uint8)
    for chars, bits in ((":", LETTER), (",;", NUMBER), (".'", LETTER | NUMBER)):
        for char in chars:
            found[ord(char)] = bits
    return found


def _simple_starts(facts: Facts) -> Mask:
    size = facts.left.size
    starts = np.empty(size, np.bool_)
    starts[0] = True
    joins = (facts.left[:-1] & facts.right[1:]) != 0
    middle = np.flatnonzero(facts.flags[1:-1] & MIDDLE) + 1
    if middle.size:
        if facts.kinds.size:
            between = _between()[facts.kinds[middle] & CLASS_BITS]
        else:
            between = _between_ascii()[facts.codes[middle]]
        _join_middles(joins, middle, facts.left, between)
    np.logical_not(joins, out=starts[1:])
    return starts


def _join_hebrew_quotes(classes: Bytes, joins: Mask) -> None:
    hebrew = classes == CLASS["Hebrew_Letter"]
    quote = classes[1:-1] == CLASS["Double_Quote"]
    kept = np.flatnonzero(quote & hebrew[:-2] & hebrew[2:]) + 1  # WB7b, WB7c
    joins[kept - 1] = True
    joins[kept] = True


def _join_flags(classes: Bytes, joins: Mask) -> None:
    flag = classes == CLASS["Regional_Indicator"]
    place = np.arange(classes.size)
    # an indicator joins the one before it if its number in the run is even: WB15, WB16
    start = np.maximum.accumulate(np.where(flag, -1, place))
    joins |= (flag & ((place - start) % 2 == 0))[1:]


def _general_starts(kinds: Bytes) -> Mask:
    classes: Bytes = kinds & np.uint8(CLASS_BITS)
    # WB4: what is ignored belongs to the character before it, except at the start and after a break
    attached = _mask("Extend", "Format", "ZWJ")[classes]
    attached[0] = False
    attached[1:] &= ~_mask("CR", "LF", "Newline")[classes[:-1]]
    places = np.flatnonzero(~attached)
    starts = ~attached
    if places.size < 2:
        return starts
    base, later = classes[places], places[1:]
    left, right = (mask[base] for mask in class_masks())
    joins = (left[:-1] & right[1:]) != 0
    space = classes == CLASS["WSegSpace"]
    joins &= ~space[later] | space[later - 1]  # WB3d is for neighbours, with nothing ignored
    middle = np.flatnonzero(_between()[base[1:-1]]) + 1
    _join_middles(joins, middle, left, _between()[base[middle]])
    _join_hebrew_quotes(base, joins)
    _join_flags(base, joins)
    # WB3c
    joins |= (classes[later - 1] == CLASS["ZWJ"]) & ((kinds[later] & PICTURE) != 0)
    starts[later[joins]] = False
    return starts


def word_starts(facts: Facts, *, general: bool = False) -> Mask:
    """Return whether a word, a run of white space or a mark begins at each place, bool [n].

    Args:
        facts: of the characters.
        general: apply all rules, even if no character needs them; not for facts without `kinds`.
    """
    if not facts.left.size:
        return np.zeros(0, np.bool_)
    if general or (facts.kinds.size and (facts.flags & COMPLEX).any()):
        return _general_starts(facts.kinds)
    return _simple_starts(facts)


assert len(CLASSES) <= CLASS_BITS
