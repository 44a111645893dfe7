"""Bloom filters: sizes, rates and the sequential pass against a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError
from understudy.curate.dedup.bloom import (
    BloomFilter,
    false_positive_rate,
    false_removal_bound,
    ideal_bits_per_item,
    max_items,
    num_bits,
    num_hashes,
)
from understudy.curate.dedup.bloom_pass import removed_paragraphs
from understudy.curate.dedup.hashing import mix64


def items(start: int, stop: int) -> np.ndarray:
    return mix64(np.arange(start, stop, dtype=np.uint64))


def test_sizes_of_the_paper():
    assert num_hashes(0.01) == 7
    assert round(ideal_bits_per_item(0.01), 3) == 9.585
    # a whole number of hash functions costs less than 0.1 per cent more than the ideal
    assert 9.585 < num_bits(10**9, 0.01) / 10**9 < 9.595
    assert round(num_bits(10**12, 1e-12) / 8 / 2**40, 2) == 6.54
    assert round(10**12 * ideal_bits_per_item(1e-12) / 8 / 2**40, 2) == 6.54
    # the filter that was once capped silently: 2e12 n-grams at 0.01 need 2.4 TB
    assert round(num_bits(2 * 10**12, 0.01) / 8e12, 1) == 2.4


@settings(max_examples=100, deadline=None)
@given(st.integers(1000, 10**13), st.floats(1e-13, 0.5))
def test_sizes_solve_their_equation(count, eps):
    k, bits = num_hashes(eps), num_bits(count, eps)
    assert k - 1 < -math.log(eps) / math.log(2) + 1e-6 <= k + 1e-5
    assert false_positive_rate(count, bits, k) <= eps * (1 + 1e-9)
    assert false_positive_rate(count, int(bits * 0.97) - 1, k) > eps
    # and backwards, to the rounding of large floats
    assert abs(max_items(bits, eps) - count) <= 2 + count * 1e-12


def test_bound_on_false_removal():
    found = false_removal_bound(100, 60, 0.8, 0.01)
    assert found == pytest.approx(math.exp(-2 * (80 - 60 - 0.4) ** 2 / 40))
    assert found < 1e-8
    assert false_removal_bound(100, 81) == 1.0
    assert false_removal_bound(20, 0) < false_removal_bound(13, 0) < 1


@pytest.mark.parametrize("eps", [0.01, 0.1, 0.5])
def test_no_false_negatives_and_the_promised_rate_of_false_positives(eps):
    count, tries = 20_000, 100_000
    filter = BloomFilter(count, eps)
    filter.add(items(0, count))
    assert filter.contains(items(0, count)).all()
    share = filter.contains(items(count, count + tries)).mean()
    true = false_positive_rate(count, filter.bits, filter.hashes)
    assert true == pytest.approx(eps, rel=1e-3)
    # of the filter's own fill, on top of that of the tries
    spread = math.sqrt(eps * (1 - eps) / tries) + eps * filter.hashes / math.sqrt(filter.bits) / 2
    assert abs(share - eps) < 3 * spread


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(60)), st.integers(1, 60))
def test_order_of_insertion_does_not_matter(order, cut):
    one, two = BloomFilter(60, 0.01), BloomFilter(60, 0.01)
    one.add(items(0, 60))
    values = items(0, 60)[list(order)]
    two.add(values[:cut])
    two.add(values[cut:])
    two.add(values[:cut])
    assert np.array_equal(one.data, two.data)


def plainly(filter, grams, sizes, threshold):
    """Go through paragraphs one by one."""
    removed, contained, start = [], [], 0
    for size in sizes:
        part = grams[start : start + size]
        start += size
        seen = sum(bool(filter.contains(part[i : i + 1])[0]) for i in range(size))
        contained.append(seen)
        removed.append(seen / size > threshold)
        if not removed[-1]:
            for i in range(size):
                filter.add(part[i : i + 1])
    return removed, contained


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=50),
    st.integers(1, 60),
    st.sampled_from([0.0, 0.3, 0.5, 0.8, 1.0]),
    st.sampled_from([0.01, 0.3, 0.7]),
    st.sampled_from([1, 7, 30, 10_000]),
    st.integers(0, 2**32),
)
def test_the_pass_is_sequential(sizes, words, threshold, eps, chunk, seed):
    # small vocabularies, crowded filters: repetitions and collisions within a chunk
    generator = np.random.default_rng(seed)
    grams = items(0, words)[generator.integers(0, words, sum(sizes))]
    for _ in range(3):
        a, b = generator.integers(0, len(grams), 2)
        length = min(8, len(grams) - max(a, b))
        grams[a : a + length] = grams[b : b + length].copy()
    one, two = BloomFilter(10, eps), BloomFilter(10, eps)
    expected = plainly(one, grams, sizes, threshold)
    found = removed_paragraphs(two, grams, np.array(sizes), threshold, chunk)
    assert (found[0].tolist(), found[1].tolist()) == expected
    assert np.array_equal(one.data, two.data)


def test_a_second_pass_removes_everything():
    filter = BloomFilter(5000, 0.01)
    sizes = np.full(250, 20)
    first, _ = removed_paragraphs(filter, items(0, 5000), sizes)
    before = filter.data.copy()
    second, seen = removed_paragraphs(filter, items(0, 5000), sizes)
    assert not first.any()
    assert second.all()
    assert (seen == 20).all()
    assert np.array_equal(before, filter.data)


def test_bad_options():
    with pytest.raises(ConfigError, match=r"0 or more items and eps in \(0, 1\), got 5 and 1"):
        BloomFilter(5, 1)
