"""Filters at, just below and just above their thresholds, on pages counted by hand."""

from __future__ import annotations

import pytest

from understudy.core.errors import ConfigError
from understudy.curate.engine.pages import Page, batch_of
from understudy.curate.engine.stage import chain
from understudy.curate.text.filters import (
    AlphabeticWords,
    BulletLines,
    EllipsisLines,
    PageLength,
    StopWords,
    SymbolRatio,
    WordLength,
)


def judge(stage, text: str) -> bool | str:
    page = Page(id="a", text=text)
    kept = stage.pages(page)
    assert kept == ([page] if kept else [])
    assert page.text == text
    return True if kept else stage.reason()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("word " * 49, "too few words"),
        ("word " * 50, True),
        ("word " * 51, True),
        # what begins with no letter or digit does not count
        ("word " * 49 + "- -- ... (word", "too few words"),
        ("word " * 49 + "7", True),
        ("word " * 100_000, True),
        ("word " * 100_001, "too many words"),
        ("", "too few words"),
    ],
)
def test_page_length(text, expected):
    assert judge(PageLength(), text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("abc abc", True),
        ("abc ab", "short words"),
        ("abcd ab", True),
        ("abcdefghij 0123456789", True),
        ("abcdefghij 0123456789x", "long words"),
        ("abcdefghij 012345678", True),
        (" \n", "no words"),
    ],
)
def test_word_length(text, expected):
    assert judge(WordLength(), text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("word " * 9 + "#word", True),
        ("word " * 8 + "#word", "many symbols"),
        ("word " * 10 + "#word", True),
        ("word " * 9 + "word...", True),
        ("word " * 8 + "word\u2026", "many symbols"),
        # one symbol, but three words
        ("word " * 17 + ". . .", True),
        ("word " * 6 + ". . .", "many symbols"),
        ("", "no words"),
    ],
)
def test_symbol_ratio(text, expected):
    assert judge(SymbolRatio(), text) == expected


@pytest.mark.parametrize("bullet", ["\u25cf", "\u2022", "*", "-"])
def test_bullet_lines(bullet):
    def lines(points: int, others: int) -> str:
        return "\n\n".join([f"  {bullet} point"] * points + ["plain"] * others)

    assert judge(BulletLines(), lines(9, 1)) is True
    assert judge(BulletLines(), lines(10, 1)) == "bullet lines"
    assert judge(BulletLines(), lines(8, 1)) is True
    assert judge(BulletLines(), lines(90, 10)) is True
    assert judge(BulletLines(), lines(91, 10)) == "bullet lines"
    assert judge(BulletLines(), "") is True


@pytest.mark.parametrize("ellipsis", ["...", ". . .", "\u2026"])
def test_ellipsis_lines(ellipsis):
    def lines(teasers: int, others: int) -> str:
        return "\n".join([f"more {ellipsis}  "] * teasers + ["", "plain"] * others)

    assert judge(EllipsisLines(), lines(3, 7)) is True
    assert judge(EllipsisLines(), lines(3, 6)) == "ellipsis lines"
    assert judge(EllipsisLines(), lines(3, 8)) is True
    assert judge(EllipsisLines(), lines(27, 63)) is True
    assert judge(EllipsisLines(), "") is True


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b c d 1", True),
        ("a b c 1", "words without letters"),
        ("a b c d e 1", True),
        ("(\xe9) x2 b \u4e2d \xbd", True),
        ("a ... 1 b c", "words without letters"),
        ("", "no words"),
    ],
)
def test_alphabetic_words(text, expected):
    assert judge(AlphabeticWords(), text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the cat", "few stop words"),
        ("The cat OF", True),
        ("the the", True),
        ("the, of. and; thee bee", "few stop words"),
        ("", "few stop words"),
    ],
)
def test_stop_words(text, expected):
    assert judge(StopWords(), text) == expected


def test_stop_words_are_the_eight():
    known = "the be to of and that have with".split()
    assert all(judge(StopWords(), f"{word} {word}") is True for word in known)
    assert judge(StopWords(), "a is in it for on was as") == "few stop words"
    assert judge(StopWords(words=["der"], minimum=1), "Der Hund") is True


ALL = [
    PageLength(),
    WordLength(),
    SymbolRatio(),
    BulletLines(),
    EllipsisLines(),
    AlphabeticWords(),
    StopWords(),
]


def test_a_chain_counts_reasons_in_order():
    good = "the plain text of a page with words that have a meaning " * 5
    pages = [good, "too short", "x y z " * 30, good.replace("a", "#"), good]
    batch = batch_of([Page(id=str(i), text=text) for i, text in enumerate(pages)], {})
    out, counts = chain(ALL, batch)
    assert out.column("id").to_pylist() == ["0", "4"]
    assert [dict(count.reasons) for count in counts] == [
        {"too few words": 1},
        {"short words": 1},
        {"many symbols": 1},
        {},
        {},
        {},
        {},
    ]


def test_settings_are_described_and_checked():
    assert PageLength(min_words=5).describe() == {
        "name": "page-length",
        "min_words": 5,
        "max_words": 100_000,
    }
    assert all(stage.kind == "filter" for stage in ALL)
    with pytest.raises(ConfigError, match="page-length: max_words must be at least 50, got 10."):
        PageLength(max_words=10)
    with pytest.raises(ConfigError, match="stop-words: words must be a list of words in lower"):
        StopWords(words="the")
    with pytest.raises(ConfigError, match="symbol-ratio: max_ratio must be at least 0, got -1."):
        SymbolRatio(max_ratio=-1)
