"""Words: Unicode's boundaries against a plain reading of the rules, hashes, counts."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.curate.engine.pages import Page
from understudy.curate.text import word_hash
from understudy.curate.text.boundaries import word_starts
from understudy.curate.text.chars import facts_of
from understudy.curate.text.words import Words, split_tokens, split_words

# characters of all classes, and neighbours of them
ALPHABET = (
    "aB1 _:.,;'\"\r\n\x0b\t\x1c-\u0301\u200d\xad\u05d0\u30ab\U0001f1e6\U0001f600\u2139\xe9\u4e2d"
    "\u2019\u3000\xa0\u0660\u2460\ud800"
)
TEXTS = st.text(st.sampled_from(ALPHABET), max_size=14)
ASCII = st.text(st.characters(max_codepoint=127), max_size=40)

# lines of WordBreakTest.txt of the Unicode Character Database, and examples of UAX 29
KNOWN = [
    ["can't"],
    ["3.14", " ", "3,456.789"],
    ["e.g", "."],
    ["a_b__c"],
    ["\r\n", "\n"],
    ["a", "\n", "\u0308"],
    ["a\u0308", " \u0308", " "],
    ["A", ":", "1"],
    ["A:A"],
    ["1", ":", "1"],
    ["1,1"],
    ["A", ",", "A"],
    ["\u05d0'"],
    ['\u05d0"\u05d0'],
    ["\u05d0", '"'],
    ["A\u200d\U0001f6d1"],
    ["\U0001f1e6\U0001f1e7", "\U0001f1e8", "b"],
    ["a", "\U0001f1e6\U0001f1e7", "\U0001f1e8\U0001f1e9", "b"],
    ["\U0001f1e6\u200d\U0001f1e7", "\U0001f1e8", "b"],
    ["\U0001f476\U0001f3ff", "\U0001f476"],
    ["\U0001f6d1\u200d\U0001f6d1"],
    ["\u30ab\u30ad", "\u3042", "\u4e2d", "\u6587"],
    ["  ", "a"],
    ["The", " ", "quick", " ", "(", '"', "brown", '"', ")", " ", "fox", " ", "can't", " ", "jump"],
]


def pieces(text: str, *, general: bool = False) -> list[str]:
    facts = facts_of(text, table=general)
    at = [*np.flatnonzero(word_starts(facts, general=general)).tolist(), len(text)]
    return [text[a:b] for a, b in pairwise(at)]


_CLASS = {
    name: regex.compile(rf"\p{{WB={name}}}")
    for name in (
        "CR LF Newline WSegSpace ALetter Numeric ExtendNumLet MidLetter MidNum MidNumLet "
        "Single_Quote Double_Quote Katakana Hebrew_Letter Regional_Indicator Extend Format ZWJ"
    ).split()
}
_PICTURE = regex.compile(r"\p{Extended_Pictographic}")


def class_of(char: str) -> str:
    return next((name for name, pattern in _CLASS.items() if pattern.match(char)), "Other")


def joined(text: str, at: int) -> bool:
    """Say whether there is no boundary before `at`: the rules of UAX 29, one by one."""
    kinds = [class_of(char) for char in text]
    breaks, ignored = ("CR", "LF", "Newline"), ("Extend", "Format", "ZWJ")
    left, right = kinds[at - 1], kinds[at]
    if left == "CR" and right == "LF":  # WB3
        return True
    if left in breaks or right in breaks:  # WB3a, WB3b
        return False
    if left == "ZWJ" and _PICTURE.match(text[at]):  # WB3c
        return True
    if left == right == "WSegSpace":  # WB3d
        return True
    if right in ignored:  # WB4
        return True

    def before(place: int) -> int:
        place -= 1
        while place >= 0 and kinds[place] in ignored and place > 0:
            if kinds[place - 1] in breaks:
                break
            place -= 1
        return place

    def after(place: int) -> int:
        place += 1
        while place < len(text) and kinds[place] in ignored:
            place += 1
        return place

    def kind(place: int) -> str:
        return kinds[place] if 0 <= place < len(text) else ""

    one = before(at)
    two = before(one) if one > 0 else -1
    left, far, beyond = kind(one), kind(two), kind(after(at))
    letters, linked = ("ALetter", "Hebrew_Letter"), ("ALetter", "Hebrew_Letter", "Numeric")
    quotes = ("MidNumLet", "Single_Quote")
    if left in linked and right in linked:  # WB5, WB8, WB9, WB10
        return True
    if left in letters and right in ("MidLetter", *quotes) and beyond in letters:  # WB6
        return True
    if far in letters and left in ("MidLetter", *quotes) and right in letters:  # WB7
        return True
    if left == "Hebrew_Letter" and right == "Single_Quote":  # WB7a
        return True
    if left == beyond == "Hebrew_Letter" and right == "Double_Quote":  # WB7b
        return True
    if far == right == "Hebrew_Letter" and left == "Double_Quote":  # WB7c
        return True
    if far == right == "Numeric" and left in ("MidNum", *quotes):  # WB11
        return True
    if left == beyond == "Numeric" and right in ("MidNum", *quotes):  # WB12
        return True
    if left == right == "Katakana":  # WB13
        return True
    if left in (*linked, "Katakana", "ExtendNumLet") and right == "ExtendNumLet":  # WB13a
        return True
    if left == "ExtendNumLet" and right in (*linked, "Katakana"):  # WB13b
        return True
    if left == right == "Regional_Indicator":  # WB15, WB16
        count, place = 0, one
        while place >= 0 and kinds[place] == "Regional_Indicator":
            count, place = count + 1, before(place)
        return count % 2 == 1
    return False


@pytest.mark.parametrize("expected", KNOWN)
def test_known_boundaries(expected):
    assert pieces("".join(expected)) == expected


@given(TEXTS)
@settings(max_examples=600, deadline=None)
def test_boundaries_follow_the_rules(text):
    expected, start = [], 0
    for at in range(1, len(text)):
        if not joined(text, at):
            expected.append(text[start:at])
            start = at
    if text:
        expected.append(text[start:])
    assert pieces(text) == expected


@given(ASCII)
@settings(max_examples=400, deadline=None)
def test_fast_path_of_ascii_equals_all_rules(text):
    fast, slow = facts_of(text), facts_of(text, table=True)
    assert fast.codes.dtype == np.uint8
    assert slow.codes.dtype == np.uint32
    for name in ("codes", "left", "right", "flags"):
        assert np.array_equal(getattr(fast, name), getattr(slow, name))
    assert pieces(text) == pieces(text, general=True)


def test_tokens_and_words():
    text = "Don't panic: 3.5 _x_ (really)...\u2026 ok\u3000\u201cquoted\u201d"
    tokens = split_tokens(text)
    assert "".join(tokens) == "".join(text.split())
    assert tokens[:4] == ["Don't", "panic", ":", "3.5"]
    assert split_words(text) == ["Don't", "panic", "3.5", "really", "ok", "quoted"]
    assert split_tokens("") == split_words(" \n\t") == []


@given(st.one_of(TEXTS, ASCII))
@settings(max_examples=300, deadline=None)
def test_counts_equal_plain_python(text):
    words, chunks = Words(text), text.split()
    assert words.chunk_count == len(chunks)
    assert words.chunk_chars == sum(map(len, chunks))
    assert words.word_count == sum(chunk[0].isalnum() for chunk in chunks)
    assert words.letterless == sum(not any(map(str.isalpha, chunk)) for chunk in chunks)
    assert words.words() == [w for w in words.tokens() if w[0].isalnum()]
    assert words.tokens() == [w for w in pieces(text) if w.strip()]
    assert words.word_lengths.tolist() == [len(w) for w in words.words()]


@given(st.lists(st.text(st.sampled_from("ab1\xe9_"), min_size=1, max_size=4), max_size=30))
@settings(max_examples=200, deadline=None)
def test_hashes_are_equal_where_words_are(parts):
    words = Words(" ".join(parts))
    names, hashes = words.tokens(), words.token_hashes.tolist()
    assert len(names) == len(hashes)
    known: dict[str, int] = {}
    for name, value in zip(names, hashes, strict=True):
        assert known.setdefault(name, value) == value
    assert len(set(known.values())) == len(known)


def test_hashes_do_not_depend_on_place_width_or_block(monkeypatch):
    text = "alpha beta gamma " * 40 + "x" * 300 + " alpha beta"
    plain = Words(text)
    wide = Words(text + " \u2026")
    assert wide.word_hashes.tolist() == plain.word_hashes.tolist()
    monkeypatch.setattr(word_hash, "BLOCK", 64)
    monkeypatch.setattr(word_hash, "_POWERS", {})
    assert Words(text).word_hashes.tolist() == plain.word_hashes.tolist()
    assert Counter(plain.word_hashes.tolist()).most_common()[0][1] == 41
    # the value is part of what outputs depend on
    assert int(Words("alpha").word_hashes[0]) == int(plain.word_hashes[0]) == HASH_OF_ALPHA


HASH_OF_ALPHA = 7953586872562178138


def test_words_are_found_once_a_text():
    page = Page(id="a", text="one two")
    first = Words.of(page)
    assert Words.of(page) is first
    page.text = "three"
    assert Words.of(page).words() == ["three"]
