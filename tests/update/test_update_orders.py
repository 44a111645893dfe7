"""Orders are permutations with ties by id; scores are compared as they are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.errors import ConfigError, DataError
from understudy.update.budget import parse_budget
from understudy.update.orders import (
    POLICIES,
    class_mean_distances,
    distances,
    order_by_score,
    order_of,
    random_order,
)

scores_and_ids = st.lists(
    st.tuples(
        st.sampled_from([-1000.0, -1.0, -0.0, 0.0, 0.5, 1000.0, float("inf"), -float("inf")]),
        st.text(min_size=1, max_size=4),
    ),
    max_size=30,
    unique_by=lambda pair: pair[1],
)


@given(scores_and_ids, st.booleans())
def test_order_is_a_permutation_with_ties_by_id(pairs, ascending):
    ids = [name for _, name in pairs]
    found = order_by_score(np.array([s for s, _ in pairs], float), ids, ascending=ascending)
    sign = 1 if ascending else -1
    expected = sorted(range(len(ids)), key=lambda i: (sign * pairs[i][0], ids[i].encode()))
    assert found.tolist() == expected


@given(scores_and_ids, st.randoms())
def test_order_does_not_depend_on_the_row_order(pairs, random):
    def names(pairs):
        order = order_by_score(np.array([s for s, _ in pairs], float), [n for _, n in pairs])
        return [pairs[i][1] for i in order]

    shuffled = list(pairs)
    random.shuffle(shuffled)
    assert names(pairs) == names(shuffled)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_thousands_sort_and_neighbours_are_told_apart(dtype):
    scores = np.array([-1000, 1000, 999, 1000.5 if dtype != np.float16 else 1001], dtype)
    assert order_by_score(scores, list("abcd")).tolist() == [3, 1, 2, 0]


def test_nan_is_refused_by_id():
    with pytest.raises(DataError, match="score of item 'b' is NaN; 1 of 3"):
        order_by_score(np.array([0.0, np.nan, 1.0]), list("abc"))
    with pytest.raises(DataError, match="expected 3 scores"):
        order_by_score(np.zeros(2), list("abc"))


def test_policies():
    ids, u = list("abcd"), np.array([0.0, 3.0, 3.0, -1.0])
    assert order_of("uncertainty", ids, scores=u).tolist() == [1, 2, 0, 3]
    assert order_of("ascending", ids, scores=u).tolist() == [3, 0, 1, 2]
    assert sorted(order_of("random", ids, seed=1).tolist()) == [0, 1, 2, 3]
    with pytest.raises(ConfigError, match="Did you mean 'uncertainty'"):
        order_of("uncertainy", ids)
    with pytest.raises(DataError, match="needs a score"):
        order_of("distance", ids)
    assert set(POLICIES) == {"uncertainty", "ascending", "random", "distance", "class-mean"}


def test_random_depends_on_the_seed_alone():
    assert np.array_equal(random_order(100, 7), random_order(100, 7))
    assert not np.array_equal(random_order(100, 7), random_order(100, 8))
    with pytest.raises(ConfigError, match="seed must not be negative"):
        random_order(3, -1)


def test_distances():
    z, n = np.array([[0.0, 0.0], [1.0, 1.0]]), np.array([[3.0, 4.0], [1.0, 1.0]])
    assert distances(z, n).tolist() == [5.0, 0.0]


@given(st.integers(1, 30), st.integers(1, 5), st.integers(0, 1000))
def test_class_mean_distances(n, classes, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n, 3)).astype(np.float32)
    labels = [f"class {c}" for c in rng.integers(0, classes, n)]
    expected = []
    for v, c in zip(vectors, labels):
        members = [w for w, d in zip(vectors, labels) if d == c]
        mean = sum(m.astype(float) for m in members) / len(members)
        expected.append(float(np.linalg.norm(v - mean)))
    assert class_mean_distances(vectors, labels) == pytest.approx(expected, abs=1e-9)


def test_class_means_need_labels():
    with pytest.raises(DataError, match="item 1 has no label; 1 of 2"):
        class_mean_distances(np.zeros((2, 2)), [3, -1])


@pytest.mark.parametrize(
    ("text", "remaining", "planned", "unspent"),
    [
        ("1.0", 10, 10, 0),
        ("0.29", 100, 29, 0),  # 0.29 * 100 is 28.999... in floating point
        ("0.25", 10, 2, 0),
        (0.5, 7, 3, 0),
        ("20%", 50, 10, 0),
        ("0", 9, 0, 0),
        (1, 9, 9, 0),
        ("12items", 9, 9, 3),
        ("5 items", 9, 5, 0),
        ("1,000items", 5000, 1000, 0),
    ],
)
def test_budgets(text, remaining, planned, unspent):
    assert parse_budget(text).of(remaining) == (planned, unspent)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("50", "budget '50' is more than everything.*write '50%' or '50items'"),
        (50, "a fraction in"),
        ("-0.1", "negative"),
        ("-5items", "negative"),
        ("nan", "not finite"),
        (float("nan"), "not finite"),
        ("inf", "not finite"),
        ("1.5items", "whole numbers"),
        ("120%", "more than everything"),
        ("half", "not a number"),
        ("1.2.3", "not a number"),
    ],
)
def test_wrong_budgets_explain_the_units(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_budget(text)
