"""CKA and common neighbours: identities, independent computations, the table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError, DataError
from understudy.evaluate.alignment import linear_cka, mutual_knn, rank_pairs, rank_table


def draw(count=80, width=6, seed=0):
    return np.random.default_rng(seed).standard_normal((count, width))


def hsic_slow(k, m):
    """Song et al. 2012, eq. 5, with the matrices written out."""
    n = len(k)
    k, m = (v - np.diag(np.diag(v)) for v in (k, m))
    one = np.ones(n)
    third = 2 / (n - 2) * one @ k @ m @ one
    second = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    return (np.trace(k @ m) + second - third) / (n * (n - 3))


@pytest.mark.parametrize("debiased", [False, True])
def test_equal_geometry_gives_one(debiased):
    x = draw()
    rotation = np.linalg.qr(draw(6, 6, 1))[0]
    assert linear_cka(x, 3 * x @ rotation + 5, debiased=debiased) == pytest.approx(1.0)


def test_plain_equals_the_kernel_form():
    x, y = draw(), draw(seed=1)[:, :4] + draw()[:, :4]
    centre = np.eye(80) - 1 / 80
    k, m = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre
    expected = (k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum())
    assert linear_cka(x, y) == pytest.approx(expected)


def test_debiased_equals_unbiased_hsic_of_full_matrices():
    x, y = draw(30), draw(30, 4, 1) + draw(30)[:, :4]
    k, m = x @ x.T, y @ y.T
    expected = hsic_slow(k, m) / np.sqrt(hsic_slow(k, k) * hsic_slow(m, m))
    assert linear_cka(x, y, debiased=True) == pytest.approx(expected)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), width=st.integers(40, 120))
def test_noise_looks_alike_only_to_the_plain_form(seed, width):
    x, y = draw(40, width, seed), draw(40, width, seed + 10_000)
    assert linear_cka(x, y) > 0.4
    assert abs(linear_cka(x, y, debiased=True)) < 0.1
    assert linear_cka(x, y, debiased=None) == linear_cka(x, y, debiased=True)


def test_symmetric_and_plain_when_there_are_enough_pairs():
    x, y = draw(200), draw(200, 3, 1)
    assert linear_cka(x, y) == pytest.approx(linear_cka(y, x))
    assert linear_cka(x, y, debiased=None) == linear_cka(x, y)


def test_mutual_knn_against_a_loop():
    x, y = draw(40), draw(40, 5, 1) + draw(40)[:, :5]
    total = 0
    for i in range(40):
        near = []
        for values in (x, y):
            unit = values / np.linalg.norm(values, axis=1, keepdims=True)
            scores = unit @ unit[i]
            scores[i] = -9
            near.append(set(np.argsort(-scores)[:10].tolist()))
        total += len(near[0] & near[1])
    assert mutual_knn(x, y, 10, chunk=7) == pytest.approx(total / 400)
    assert mutual_knn(x, 2 * x) == 1.0


def test_table_puts_the_matching_encoders_first():
    x = draw(300)
    images = {"good": x + 0.1 * draw(300, seed=2), "bad": draw(300, seed=3)}
    texts = {"names": x @ draw(6, 9, 4)}
    rows = rank_pairs(images, texts)
    assert [r.image for r in rows] == ["good", "bad"]
    assert rows[0].cka > rows[1].cka + 0.5
    assert rows[0].mutual_knn > rows[1].mutual_knn
    text = rank_table(rows)
    assert text.splitlines()[2].startswith("good")
    assert "Fewer than 2,000 pairs" in text


def test_one_estimator_for_the_whole_table():
    rows = rank_pairs({"wide": draw(60, 50), "thin": draw(60, 2)}, {"t": draw(60, 4, 5)})
    assert {r.debiased for r in rows} == {True}


def test_bad_input_unpaired_or_broken_features():
    with pytest.raises(DataError, match=r"paired features .* got \[5, 6\] and \[6, 6\]"):
        linear_cka(draw(5), draw(6))
    broken = draw()
    broken[7, 2] = np.nan
    with pytest.raises(DataError, match="row 7 of the second features holds NaN"):
        linear_cka(draw(), broken)
    with pytest.raises(DataError, match="3 pairs are too few"):
        linear_cka(draw(3), draw(3))
    with pytest.raises(DataError, match="do not vary"):
        linear_cka(np.ones((9, 2)), draw(9))
    with pytest.raises(DataError, match="encoders 'a' and 'b': .*NaN"):
        rank_pairs({"a": draw()}, {"b": broken})


def test_bad_input_neighbours():
    with pytest.raises(ConfigError, match="k must be between 1 and 9, got 10"):
        mutual_knn(draw(10), draw(10), 10)
    zero = draw(10)
    zero[3] = 0
    with pytest.raises(DataError, match="row 3 of the first features has length 0"):
        mutual_knn(zero, draw(10), 2)
