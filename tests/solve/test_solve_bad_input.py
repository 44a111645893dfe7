import numpy as np
import pytest
from scipy import sparse

from understudy.core.errors import DataError
from understudy.solve import checks, factorize, load, solve
from understudy.solve.problems import convection, poisson

GOOD = poisson(10).matrix
ONES = np.ones(100)


def changed(row, column, value):
    matrix = GOOD.tolil()
    matrix[row, column] = value
    return matrix.tocsr()


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (GOOD[:5], "A: expected a square matrix, got 5 x 100."),
        (np.ones(3), "A: expected a square matrix, got 3."),
        (np.zeros((0, 0)), "A: the matrix is empty."),
        (changed(3, 4, np.nan), "A: the value at (3, 4) is not finite."),
        (changed(7, 7, np.inf), "A: the value at (7, 7) is not finite."),
        (GOOD * 1j, "A: complex values are not solved, the first is at (0, 0)"),
        (sparse.diags_array(np.r_[1.0, 0.0, 2.0]), "A: row 1 has no entry but zeros"),
        ("matrix", "A: expected a square matrix, got ."),
        (changed(2, 3, 5.0), "max |A-A^T| = 6 at (2,3)"),
        (convection(10, 50.0).matrix, 'use method="hsolve_lu" + GMRES'),
        (
            -GOOD,
            "Cholesky failed at level 0 cluster 0 before any compression: A itself is not SPD",
        ),
    ],
)
def test_matrices(matrix, words):
    with pytest.raises(DataError) as caught:
        factorize(matrix)
    assert words in str(caught.value)


def test_not_positive_definite_after_compression_is_told():
    matrix = poisson(40).matrix - 0.02 * sparse.eye_array(1600)
    with pytest.raises(DataError, match="itself is not SPD") as caught:
        factorize(matrix, leaf=16, skip=0)
    assert 'method="spand_ldl" + GMRES' in str(caught.value)


@pytest.mark.parametrize("method", ["spand", "hsolve", "spand_lu"])
def test_singular(method):
    lap = GOOD - sparse.diags_array(GOOD.sum(axis=1))
    with pytest.raises(DataError) as caught:
        factorize(lap, method=method)
    assert 'A*1 = 0 on component 0 (100 nodes): pass null="constant" or add tau' in str(
        caught.value
    )


def test_singular_pivots_without_zero_sums():
    flat = sparse.csr_array(np.ones((6, 6)))
    with pytest.raises(DataError, match="a pivot is singular at level 0 cluster 0"):
        factorize(flat, method="spand_lu")
    with pytest.raises(DataError, match="A is singular to rounding"):
        solve(flat, np.ones(6), method="direct")


@pytest.mark.parametrize(
    ("b", "words"),
    [
        (np.ones(99), "b: expected 100 rows for a matrix of 100 x 100, got the shape (99,)."),
        (np.ones((100, 2, 2)), "b: expected 100 rows"),
        (np.where(np.arange(100) == 5, np.nan, 1.0), "b: the value at (5,) is not finite."),
        (ONES * 1j, "b: complex values are not solved, the first is at (0,)."),
        (np.array(["x"] * 100), "b: expected numbers, got <U1."),
        (np.ones((100, 0)), "b has no columns."),
    ],
)
def test_right_sides(b, words):
    with pytest.raises(DataError) as caught:
        solve(GOOD, b)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"phi": "one"}, "phi: expected 'ones', None or an array, got 'one'."),
        ({"phi": np.ones(5)}, "phi: expected 100 rows"),
        ({"coords": np.ones((5, 2))}, "coords: expected 100 rows"),
        ({"coords": np.full((100, 2), np.nan)}, "coords: the value at (0, 0) is not finite."),
    ],
)
def test_vectors_of_the_factorization(options, words):
    with pytest.raises(DataError) as caught:
        factorize(GOOD, **options)
    assert words in str(caught.value)


def test_duplicates_are_summed_and_explicit_zeros_ignored():
    coo = GOOD.tocoo()
    twice = sparse.coo_array(
        (np.concatenate([coo.data / 2] * 2 + [[0.0]]),
         (np.concatenate([coo.row] * 2 + [[0]]), np.concatenate([coo.col] * 2 + [[99]]))),
        shape=(100, 100),
    )  # fmt: skip
    np.testing.assert_allclose(factorize(twice).solve(ONES), factorize(GOOD).solve(ONES))


def test_memory_is_estimated_before_the_start(monkeypatch):
    monkeypatch.setattr(checks, "available_bytes", lambda: 10_000)
    with pytest.raises(DataError, match=r"would take about 0\.0 GB .*, but 0\.0 GB are free"):
        factorize(GOOD)
    with pytest.raises(DataError, match="5 columns"):
        solve(GOOD, np.ones((100, 5)))
    monkeypatch.setattr(checks, "LARGEST_INDEX", 400)
    with pytest.raises(DataError, match="460 entries do not fit 32-bit indices"):
        factorize(GOOD)


def test_saved_files(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        load(tmp_path / "none.npz")
    bad = tmp_path / "bad.npz"
    bad.write_bytes(b"garbage")
    with pytest.raises(DataError, match=r"bad\.npz: not a saved factorization"):
        load(bad)
    np.savez(tmp_path / "other.npz", x=np.ones(3))
    with pytest.raises(DataError, match=r"other\.npz: not a saved factorization"):
        load(tmp_path / "other.npz")
    good = factorize(GOOD).save(tmp_path / "good.npz")
    data = good.read_bytes()
    bad.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="not a saved factorization"):
        load(bad)


def test_transpose_of_unsymmetric_is_refused():
    operator = factorize(convection(10, 50.0).matrix, method="spand_lu").as_linear_operator()
    with pytest.raises(DataError, match="transpose"):
        operator.rmatvec(ONES)
