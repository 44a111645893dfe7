"""Gopher's statistics: known pages, and a plain computation that joins strings."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError
from understudy.curate.engine.pages import Page
from understudy.curate.text.repeats import (
    lines_of,
    page_ngram_repeats,
    segment_repeats,
    split_segments,
)
from understudy.curate.text.repetition import NGRAM_LIMITS, Repetition
from understudy.curate.text.words import split_words


def page(text: str) -> Page:
    return Page(id="a", text=text)


def plain_ngram_share(words: list[str], size: int) -> float:
    """Compute the share for one n from lists of strings."""
    grams = [tuple(words[i : i + size]) for i in range(len(words) - size + 1)]
    counts = Counter(grams)
    total = sum(map(len, words))
    if not grams or max(counts.values()) == 1:
        return 0.0
    if size <= 4:
        most = max(counts.values())
        return max(len("".join(g)) for g, n in counts.items() if n == most) * most / total
    covered = {i + k for i, g in enumerate(grams) if counts[g] > 1 for k in range(size)}
    return sum(len(words[i]) for i in covered) / total


def shares(text: str) -> list[float]:
    return list(page_ngram_repeats(page(text)))


@given(st.lists(st.sampled_from(["a", "bb", "c", "dd\xe9", "e,"]), max_size=60))
@settings(max_examples=300, deadline=None)
def test_ngrams_equal_the_plain_computation(parts):
    text = " ".join(parts)
    words = split_words(text)
    assert shares(text) == [plain_ngram_share(words, size) for size in range(2, 11)]


@given(
    st.lists(st.sampled_from(["one two three", "four five", "six seven eight nine"]), max_size=14),
    st.integers(0, 3),
)
@settings(max_examples=100, deadline=None)
def test_ngrams_of_repeated_runs(parts, noise):
    text = " ".join(f"{part} {number * noise}" for number, part in enumerate(parts))
    words = split_words(text)
    assert shares(text) == [plain_ngram_share(words, size) for size in range(2, 11)]


def test_known_repeats():
    # "x y" twice: 2-gram of 2 characters twice of 6; no longer one is repeated
    assert shares("x y a x y b") == [4 / 6] + [0.0] * 8
    # overlapping occurrences count: "a a" occurs 3 times in 4 words
    assert shares("a a a a")[0] == 6 / 4
    # ties take the longest: "aa bb" and "c d" occur twice each
    assert shares("aa bb 1 c d 2 aa bb 3 c d")[0] == 8 / 15
    # a repeated 5-gram covers its words once: all ten of ten
    five = "v w x y z"
    assert shares(f"{five} {five}")[3] == 1.0
    # punctuation and spaces are no characters of words
    assert shares("x, y! a; x - y? b") == shares("x y a x y b")
    assert shares("") == shares("one") == [0.0] * 9


def test_known_segments():
    found = segment_repeats(["aa", "b", "aa", "cccc", "b"])
    assert (found.count, found.repeated, found.repeated_chars) == (5, 4 / 5, 6 / 10)
    assert segment_repeats(["a", "b"]).repeated == 0
    assert segment_repeats([]).count == 0
    assert split_segments("a\n\n b \n\n\n\nc\nd", "\n\n") == ["a", "b", "c\nd"]
    assert lines_of(page("\n a \n\nb\t\n")) == ["a", "b"]


@given(st.lists(st.sampled_from(["", "x", "yy", " yy ", "zzz"]), max_size=12))
def test_segments_equal_the_plain_computation(parts):
    lines = split_segments("\n".join(parts), "\n")
    found = segment_repeats(lines)
    again = [line for line in lines if lines.count(line) > 1]
    assert found.repeated == (len(again) / len(lines) if again else 0)
    assert found.repeated_chars == (len("".join(again)) / len("".join(lines)) if again else 0)


def words(count: int, start: int = 0) -> list[str]:
    """Return different words of six characters."""
    return [f"w{start + number:05d}" for number in range(count)]


def lines_page(repeated: int, single: int, single_words: int = 3) -> str:
    lines = ["same line here"] * repeated
    rest = words(single * single_words)
    lines += [" ".join(rest[i * single_words : (i + 1) * single_words]) for i in range(single)]
    return "\n".join(lines)


def judged(text: str, **limits) -> bool | str:
    return Repetition(**limits).keep(page(text))


OFF = {
    "max_lines": 1,
    "max_paragraphs": 1,
    "max_line_chars": 1,
    "max_paragraph_chars": 1,
    "max_ngrams": (),
}


@pytest.mark.parametrize(
    ("repeated", "single", "kept"),
    [(3, 8, True), (3, 7, True), (4, 9, False), (2, 5, True), (2, 4, False), (0, 1, True)],
)
def test_share_of_repeated_lines(repeated, single, kept):
    text = lines_page(repeated, single)
    assert judged(text, **{**OFF, "max_lines": 0.3}) == (kept or "repeated lines")
    paragraphs = text.replace("\n", "\n\n")
    found = judged(paragraphs, **{**OFF, "max_paragraphs": 0.3})
    assert found == (kept or "repeated paragraphs")


@pytest.mark.parametrize(("length", "kept"), [(81, True), (80, True), (79, False)])
def test_characters_in_repeated_segments(length, kept):
    # twice ten characters against one long line: 20 of 100 is the limit
    text = "0123456789\n0123456789\n" + "x" * length
    assert judged(text, **{**OFF, "max_line_chars": 0.2}) == (
        kept or "characters in repeated lines"
    )
    found = judged(text.replace("\n", "\n\n"), **{**OFF, "max_paragraph_chars": 0.2})
    assert found == (kept or "characters in repeated paragraphs")


@pytest.mark.parametrize("size", range(2, 11))
@pytest.mark.parametrize("change", [0, -1, 1])
def test_ngrams_at_the_limit(size, change):
    # words of one and the same length: a run of `size` of them twice, and others
    limit = NGRAM_LIMITS[size - 2]
    total = round(2 * size / limit) + change
    run = words(size, 90_000)
    rest = words(total - 2 * size)
    text = " ".join([*run, *rest[: len(rest) // 2], *run, *rest[len(rest) // 2 :]])
    share = 2 * size / total
    limits = [10.0] * 9
    limits[size - 2] = limit
    kept = share <= limit
    found = judged(text, **{**OFF, "max_ngrams": tuple(limits)})
    assert found == (kept or f"repeated {size}-grams")
    assert shares(text)[size - 2] == pytest.approx(share)


def test_order_of_reasons():
    text = "\n\n".join(["all of this is said more than once"] * 4)
    assert judged(text) == "repeated lines"
    assert judged(text, max_lines=1) == "repeated paragraphs"
    assert judged(text, max_lines=1, max_paragraphs=1) == "characters in repeated lines"
    off = {**OFF}
    assert (
        judged(text, **{**off, "max_paragraph_chars": 0.2}) == "characters in repeated paragraphs"
    )
    assert judged(text, **{**off, "max_ngrams": NGRAM_LIMITS}) == "repeated 2-grams"


def test_one_segment_passes_and_none_does_not():
    assert judged("one line only, with seven words here") is True
    assert judged("\n \n") == "no lines"


@given(st.lists(st.sampled_from(["a", "bb", "ccc", "d", "eeee", "f"]), min_size=1, max_size=80))
@settings(max_examples=200, deadline=None)
def test_leaving_early_changes_no_decision(parts):
    text = " ".join(parts)
    expected: bool | str = True
    for size, (share, limit) in enumerate(zip(shares(text), NGRAM_LIMITS, strict=True), 2):
        if share > limit:
            expected = f"repeated {size}-grams"
            break
    assert judged(text, **{**OFF, "max_ngrams": NGRAM_LIMITS}) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_lines": 1.5}, "repetition: max_lines must be at least 0 and at most 1, got 1.5"),
        ({"max_ngrams": (0.1,) * 10}, "repetition: max_ngrams must be at most 9 shares"),
        ({"max_line_chars": "x"}, "repetition: max_line_chars must be a number, got 'x'"),
    ],
)
def test_wrong_settings(given, message):
    with pytest.raises(ConfigError, match=message):
        Repetition(**given)
