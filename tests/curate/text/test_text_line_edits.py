"""Line edits: known lines, thresholds, and a plain reading of the rules one after the other."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError
from understudy.curate.engine.pages import Page
from understudy.curate.text.line_edits import LineEdits

ANY = {"max_removed": 1.0}


def edited(text: str, **given) -> str | None:
    """Return the text of the page, or None if it was dropped."""
    page = Page(id="a", text=text)
    kept = LineEdits(**given).pages(page)
    return page.text if kept else None


def around(line: str) -> str:
    return f"first line stays\n{line}\nlast line stays"


GONE = "first line stays\nlast line stays"


@pytest.mark.parametrize(
    ("line", "stays"),
    [
        ("", True),
        ("ABCD efg", True),  # 4 of 8 characters
        ("ABCDE fgh", False),  # 5 of 9
        ("ABC defg", True),
        ("\xc9\xc9\xc9 \xe9", False),
        ("12 34", True),  # the space is a character: 4 of 5
        ("1234", False),
        ("\u0661\u0662", False),
        ("3 likes", False),
        ("* 1,234.5K views *", False),
        ("2M  followers", False),
        ("3 Shares", False),
        ("3 likes this", True),
        ("x 3 likes", True),
        ("many likes", True),
        ("3 hats", True),
        ("word", False),
        ("two words", True),
        ("   ", False),
        ("\t", False),
        ("items in cart", False),
        ("Read more...", False),
        ("Sign-in ", False),
    ],
)
def test_lines(line, stays):
    assert edited(around(line), **ANY) == (around(line) if stays else GONE)


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("You have 3 ITEMS IN CART now", "You have 3 now"),
        ("items in cart and items in cart", " and"),
        ("a b c d e f g items in cart", "a b c d e f g"),  # ten words
        ("a b c d e f g h items in cart", "a b c d e f g h items in cart"),  # eleven
        ("A short story read MORE...", "A short story"),
        ("Read more... of this", "Read more... of this"),
        ("Read more about it", "Read more about it"),
        ("sign-in to the page", "to the page"),
        ("please sign-in here", "please sign-in here"),
        ("Sign-in items in cart", None),
    ],
)
def test_phrases(line, left):
    assert edited(around(line), **ANY) == (GONE if left is None else around(left))


def test_outer_white_space_and_empty_lines():
    assert edited("\n\n  first line here\n\n\nlast line here  \n", **ANY) == (
        "first line here\n\n\nlast line here"
    )
    # the first line is stripped before phrases at its beginning are looked for
    assert edited("  sign-in to the page\nmore text", **ANY) == "to the page\nmore text"


@pytest.mark.parametrize(
    ("removed", "words", "kept"), [(1, 20, True), (1, 19, False), (1, 21, True), (2, 40, True)]
)
def test_removal_ratio(removed, words, kept):
    # one-word lines go; the page's words are those lines and the others
    lines = ["word"] * removed + ["some word"] * ((words - removed) // 2)
    if (words - removed) % 2:
        lines[-1] += " more"
    stage, page = LineEdits(), Page(id="a", text="\n".join(lines))
    assert len(page.text.split()) == words
    assert stage.pages(page) == ([page] if kept else [])
    assert kept or stage.reason() == "many words removed"


def test_marks_are_no_words_that_were_removed():
    assert edited("some words of text\n...\n--\n" * 3) == "\n".join(["some words of text"] * 3)


@pytest.mark.parametrize("text", ["", " \n ", "WORD", "1\n2\n3", "- -\n. ."])
def test_nothing_left(text):
    stage, page = LineEdits(max_removed=1.0), Page(id="a", text=text)
    assert stage.pages(page) == []
    assert stage.reason() == "no text left"


def plainly(text: str) -> str:
    """Apply the rules one after the other on lists of lines."""

    def each(rule) -> None:
        nonlocal text
        text = "\n".join(line for line in text.split("\n") if not line or rule(line))

    each(lambda line: sum(map(str.isupper, line)) / len(line) <= 0.5)
    each(lambda line: sum(map(str.isdigit, line)) / len(line) <= 0.999999)
    nouns = (
        "likes|shares|comments|retweets|reposts|quotes|bookmarks|upvotes|downvotes|downloads|views"
        "|followers"
    )
    each(lambda line: not re.fullmatch(rf"\W*\d[,.\d]*[kmb]?\s+({nouns})\W*", line.lower()))
    each(lambda line: len(line.split()) >= 2)
    text = text.strip()
    for pattern in (r"(?i)\s?items in cart", r"(?i)\s?read more\.\.\.$", r"(?i)^sign-in\s?"):
        lines = []
        for line in text.split("\n"):
            new = re.sub(pattern, "", line) if len(line.split()) <= 10 else line
            if new.strip() or not line:
                lines.append(new)
        text = "\n".join(lines).strip()
    return text


PIECES = [
    "\n",
    " ",
    "a",
    "AB",
    "12",
    "3 likes",
    "items in cart",
    "Read more...",
    "Sign-in",
    "\xe9.",
]


@given(st.lists(st.sampled_from(PIECES), max_size=30))
@settings(max_examples=400, deadline=None)
def test_edits_equal_the_plain_reading(parts):
    text = "".join(parts)
    expected = plainly(text)
    counted = any(chunk[0].isalnum() for chunk in text.split())
    assert edited(text, **ANY) == (expected if expected and counted else None)


def test_settings():
    assert edited(around("WORDS IN CAPITALS"), max_upper=1.0) == around("WORDS IN CAPITALS")
    assert edited(around("word"), min_words=0) == around("word")
    stage = LineEdits()
    assert stage.kind == "modifier"
    assert stage.describe()["max_removed"] == 0.05
    with pytest.raises(ConfigError, match="line-edits: max_removed must be at least 0 and at most"):
        LineEdits(max_removed=5)
