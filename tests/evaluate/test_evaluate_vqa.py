"""Scores of answers against brute force; the Pareto rule."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import DataError
from understudy.evaluate import vqa
from understudy.evaluate.pareto import Point, frontier, pareto, table

WORDS = st.text(alphabet="ab c", max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["a", "b"]), st.lists(st.sampled_from(["a", "b", "c"]), min_size=4,
                                            max_size=10))  # fmt: skip
def test_vqa_accuracy_is_the_mean_over_all_nine_of_ten(answer, humans):
    kept = itertools.combinations(humans, len(humans) - 1)
    expected = np.mean([min(1.0, sum(h == answer for h in rest) / 3) for rest in kept])
    # "a" is an article: spell the words out
    spelled = {"a": "ant", "b": "bee", "c": "cow"}
    found = vqa.vqa_accuracy([spelled[answer]], [[spelled[h] for h in humans]])
    assert found == pytest.approx(expected)


def test_vqa_answers_are_cleaned():
    assert vqa.clean_answer(" The Two, dogs! ") == "2 dogs"
    assert vqa.clean_answer("1,000.") == "1000"
    assert vqa.clean_answer("2.5 m") == "2.5 m"
    assert vqa.clean_answer("at 9:30") == "at 9:30"
    assert vqa.vqa_accuracy(["two"], [["2"]]) == 1.0
    # three of ten agree: leaving one of them out leaves two
    assert vqa.vqa_accuracy(["x"], [["x"] * 3 + ["y"] * 7]) == pytest.approx((3 * 2 / 3 + 7) / 10)


def slow_distance(a, b):
    if not a or not b:
        return len(a) + len(b)
    same = slow_distance(a[1:], b[1:]) + (a[0] != b[0])
    return min(same, slow_distance(a[1:], b) + 1, slow_distance(a, b[1:]) + 1)


@settings(max_examples=80, deadline=None)
@given(WORDS, WORDS)
def test_the_edit_distance_is_the_recursive_one(a, b):
    assert vqa.edit_distance(a, b) == slow_distance(a, b)


def test_anls():
    assert vqa.anls(["Hello"], [["hello", "x"]]) == 1.0
    assert vqa.anls(["hallo"], [["hello"]]) == pytest.approx(0.8)
    assert vqa.anls(["abcd"], [["abxy"]]) == 0.0  # half of it is wrong: not below the threshold
    assert vqa.anls(["a", "b"], [["a"], ["c"]]) == 0.5


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=12))
def test_pope_counts(pairs):
    said = ["Yes, it is." if s else "No, there is not." for s, _ in pairs]
    found = vqa.pope(said, ["yes" if r else "no" for _, r in pairs])
    tp = sum(s and r for s, r in pairs)
    fp = sum(s and not r for s, r in pairs)
    fn = sum(r and not s for s, r in pairs)
    assert found["accuracy"] == pytest.approx(sum(s == r for s, r in pairs) / len(pairs))
    assert found["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn) if tp else 0.0)
    assert found["yes_ratio"] == pytest.approx(sum(s for s, _ in pairs) / len(pairs))


def test_relaxed_accuracy():
    good = [("105", "100"), ("95%", "0.95"), ("1,050", "1000"), ("Red", "red"), ("0", "0")]
    bad = [("106", "100"), ("94", "100"), ("blue", "red"), ("0.001", "0"), ("-100", "100")]
    assert all(vqa.relaxed_match(a, t) for a, t in good)
    assert not any(vqa.relaxed_match(a, t) for a, t in bad)
    assert vqa.relaxed_accuracy(["105", "200"], ["100", "100"]) == 0.5


def test_exact_choice():
    choices = ["the cat", "the dog"]
    for answer in ("B", "(b)", "B.", "b) dog", "B: the dog", "The dog", "dog."):
        assert vqa.choice_of(answer, choices) == 1, answer
    for answer in ("Because", "C", "", "a bird"):
        assert vqa.choice_of(answer, choices) is None, answer
    assert vqa.choice_accuracy(["A", "dog"], [0, 0], [choices, choices]) == 0.5
    assert vqa.exact_accuracy(["Seven!", "1"], ["7", "2"]) == 0.5
    assert vqa.avg5(63.1, 62.9, 86.6, 70.4, 69.2) == pytest.approx(70.44)


def test_bad_input_scores():
    for call in (
        lambda: vqa.vqa_accuracy([], []),
        lambda: vqa.anls(["a"], []),
        lambda: vqa.pope(["yes"], ["maybe"]),
        lambda: vqa.vqa_accuracy(["a"], [[]]),
        lambda: vqa.anls(["a"], [[]]),
        lambda: vqa.choice_accuracy(["A"], [2], [["x", "y"]]),
        lambda: vqa.relaxed_accuracy(["1"], ["1", "2"]),
    ):
        with pytest.raises(DataError):
            call()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=8))
def test_a_point_stays_unless_another_is_faster_and_better(pairs):
    points = [Point(name=str(i), cost=c, score=s, facts={}) for i, (c, s) in enumerate(pairs)]
    expected = [not any(c2 < c and s2 > s for c2, s2 in pairs) for c, s in pairs]
    assert pareto(points) == expected
    kept = frontier(points)
    assert [p.cost for p in kept] == sorted(p.cost for p in kept)
    assert [row["kept"] for row in table(points)].count(True) == len(kept)


def test_bad_input_pareto():
    with pytest.raises(DataError, match="no points"):
        pareto([])
    with pytest.raises(DataError, match="'x' is not finite"):
        pareto([Point(name="x", cost=float("nan"), score=1.0, facts={})])
