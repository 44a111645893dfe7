"""Words of batches: same as one text at a time, and hashes that depend on the word alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.curate.dedup.hashing import gram_hashes, mix64
from understudy.curate.dedup.words import lower_case, segment, segmented, words_of

TEXT = st.text(alphabet="ab1 .,'\n\té漢\u0301🇩", max_size=30)


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXT, max_size=8), st.integers(1, 40))
def test_chunks_hold_the_words_of_each_text(texts, limit):
    found: list[list[str]] = [[] for _ in texts]
    lines: list[list[int]] = [[] for _ in texts]
    for chunk in segmented(texts, limit):
        for start, end, text, line in zip(
            chunk.starts, chunk.ends, chunk.text, chunk.line, strict=True
        ):
            begin = chunk.text_starts[text]
            number = chunk.first + int(text)
            found[number].append(texts[number][start - begin : end - begin])
            lines[number].append(int(line - chunk.first_lines[text]))
    assert found == [words_of(text) for text in texts]
    # each line by itself has the same words: no word goes over a line end
    for text, words, numbers in zip(texts, found, lines, strict=True):
        alone = [(n, w) for n, part in enumerate(text.split("\n")) for w in words_of(part)]
        assert list(zip(numbers, words, strict=True)) == alone


def test_words_of_the_standard():
    text = 'The quick ("brown") fox can\'t jump 32.3 feet, right?'
    found = 'The|quick|(|"|brown|"|)|fox|can\'t|jump|32.3|feet|,|right|?'
    assert words_of(text) == found.split("|")


def test_hashes_depend_on_the_word_alone():
    texts = ["alpha beta alpha", "x beta", "béta alpha", ""]
    seen: dict[str, set[int]] = {}
    for limit in (1, 1000):
        for chunk in segmented(texts, limit):
            joined = "".join(map(chr, chunk.codes.tolist()))
            for a, b, h in zip(chunk.starts, chunk.ends, chunk.hashes(), strict=True):
                seen.setdefault(joined[a:b], set()).add(int(h))
    assert all(len(values) == 1 for values in seen.values())
    assert len({next(iter(v)) for v in seen.values()}) == len(seen) == 4


def test_many_words_have_many_hashes():
    words = [f"{a:x}" for a in range(60_000)] + ["ab", "ba", "aab", "aba", "baa"]
    found = segment([" ".join(dict.fromkeys(words))]).hashes()
    assert len(np.unique(found)) == len(dict.fromkeys(words))
    # all bits are used alike
    bits = ((found[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)).mean(0)
    assert np.abs(bits - 0.5).max() < 5 * 0.5 / np.sqrt(len(found))


def test_lower_case_is_pythons_where_it_is_one_character():
    text = "ÄΩI\u0130ẞABz1"
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    expected = [ord(c.lower()) if len(c.lower()) == 1 else ord(c) for c in text]
    assert lower_case(codes).tolist() == expected
    assert segment(["Hello WORLD"]).hashes(lower=True).tolist() == (
        segment(["hello world"]).hashes().tolist()
    )


@pytest.mark.parametrize("size", [1, 2, 5])
def test_grams_are_windows_within_groups(size):
    generator = np.random.default_rng(0)
    values = mix64(generator.integers(0, 5, 60).astype(np.uint64))
    groups = np.sort(generator.integers(0, 9, 60))
    found, first = gram_hashes(values, groups, size)
    expected = [i for i in range(60 - size + 1) if groups[i] == groups[i + size - 1]]
    assert first.tolist() == expected
    by_window: dict[tuple[int, ...], set[int]] = {}
    for place, value in zip(first.tolist(), found.tolist(), strict=True):
        by_window.setdefault(tuple(values[place : place + size].tolist()), set()).add(value)
    assert all(len(v) == 1 for v in by_window.values())
    assert len({next(iter(v)) for v in by_window.values()}) == len(by_window)
