import numpy as np
import pytest
from scipy import sparse

from understudy.core.errors import ConfigError
from understudy.solve import FactorConfig, factorize, load
from understudy.solve.graph import KnnConfig, build_graph
from understudy.solve.problems import (
    anisotropic,
    convection,
    elasticity,
    laplacian,
    poisson,
)

DRAW = np.random.default_rng(5)
SPD = ("spand", "hsolve")
ALL = ("spand", "hsolve", "spand_ldl", "hsolve_ldl", "spand_lu", "hsolve_lu")


@pytest.fixture(scope="module")
def weighted():
    """A grid with random weights: no ties between pivots."""
    base = poisson(24).matrix.tocoo()
    upper = base.row < base.col
    weights = np.random.default_rng(0).uniform(0.5, 1.5, upper.sum())
    half = sparse.coo_array((weights, (base.row[upper], base.col[upper])), shape=base.shape)
    affinity = sparse.csr_array(half + half.T)
    return laplacian(affinity, 1e-3)


@pytest.mark.parametrize("method", ALL)
def test_eps_zero_is_exact(method):
    matrix = poisson(20).matrix
    b = DRAW.standard_normal(400)
    x = factorize(matrix, eps=0, method=method, leaf=16).solve(b)
    assert np.linalg.norm(matrix @ x - b) <= 1e-12 * np.linalg.norm(b)


@pytest.mark.parametrize("method", ALL)
@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_apply_undoes_solve(method, eps):
    matrix = poisson(20).matrix
    factors = factorize(matrix, eps=eps, method=method, leaf=16, skip=0)
    b = DRAW.standard_normal((400, 3))
    np.testing.assert_allclose(factors.apply(factors.solve(b)), b, atol=1e-12)
    np.testing.assert_allclose(factors.apply(factors.solve(b[:, 0])), b[:, 0], atol=1e-12)


@pytest.mark.parametrize("method", ["spand", "hsolve", "spand_ldl", "hsolve_ldl"])
def test_symmetric(method, weighted):
    factors = factorize(weighted, eps=0.2, method=method, leaf=16, skip=0)
    x, y = DRAW.standard_normal((2, weighted.shape[0]))
    one, other = x @ factors.solve(y), y @ factors.solve(x)
    assert abs(one - other) <= 1e-12 * np.linalg.norm(x) * np.linalg.norm(factors.solve(y))


@pytest.mark.parametrize("method", ALL)
def test_ones_are_preserved(method, weighted):
    factors = factorize(weighted, eps=0.3, method=method, leaf=16, skip=0)
    ones = np.ones(weighted.shape[0])
    np.testing.assert_allclose(factors.solve(weighted @ ones), ones, atol=1e-9)
    without = factorize(weighted, eps=0.3, method=method, leaf=16, skip=0, phi=None)
    assert np.abs(without.solve(weighted @ ones) - ones).max() > 1e-3


@pytest.mark.parametrize(
    ("method", "second_order"), [("spand", False), ("spand", True), ("hsolve", False)]
)
def test_three_rigid_modes_are_preserved(method, second_order):
    problem = elasticity(12)
    factors = factorize(problem.matrix, eps=0.1, phi=problem.phi, method=method, skip=0,
                        second_order=second_order)  # fmt: skip
    found = factors.solve(problem.matrix @ problem.phi)
    np.testing.assert_allclose(found, problem.phi, atol=1e-9 * np.abs(problem.phi).max())


@pytest.mark.parametrize("method", SPD)
@pytest.mark.parametrize("more", [{}, {"phi": None}, {"skip": 0}, {"eps": 0.01}])
def test_compiled_equals_reference(method, more, weighted):
    options = {"eps": 0.1, "method": method, "leaf": 16, **more}
    b = DRAW.standard_normal(weighted.shape[0])
    reference = factorize(weighted, engine="reference", **options)
    compiled = factorize(weighted, **options)
    x = reference.solve(b)
    assert np.linalg.norm(compiled.solve(b) - x) <= 1e-5 * np.linalg.norm(x)
    assert abs(compiled.floats - reference.floats) <= 0.01 * reference.floats


@pytest.mark.parametrize("more", [{"second_order": True}, {"method": "hsolve", "compensate": True}])
def test_compiled_variants_equal_reference(more, weighted):
    options = {"eps": 0.1, "leaf": 16, "phi": None, **more}
    b = DRAW.standard_normal(weighted.shape[0])
    x = factorize(weighted, engine="reference", **options).solve(b)
    assert np.linalg.norm(factorize(weighted, **options).solve(b) - x) <= 1e-4 * np.linalg.norm(x)


def test_second_order_squares_the_error(weighted):
    b = DRAW.standard_normal(weighted.shape[0])
    errors = []
    for second in (False, True):
        factors = factorize(weighted, eps=0.1, leaf=16, skip=0, second_order=second)
        errors.append(np.linalg.norm(weighted @ factors.solve(b) - b) / np.linalg.norm(b))
    assert errors[1] < errors[0] / 5


def test_many_columns_equal_single_solves_and_threads_change_nothing(weighted):
    b = DRAW.standard_normal((weighted.shape[0], 37))
    factors = factorize(weighted, eps=0.1, leaf=8)
    single = np.stack([factors.solve(b[:, i]) for i in range(37)], axis=1)
    np.testing.assert_allclose(factors.solve(b), single, rtol=1e-10, atol=1e-10)
    one = factorize(weighted, eps=0.1, leaf=8, threads=1)
    np.testing.assert_array_equal(one.solve(b), factors.solve(b))


def test_linear_operator(weighted):
    factors = factorize(weighted)
    operator = factors.as_linear_operator()
    b = DRAW.standard_normal((weighted.shape[0], 2))
    np.testing.assert_array_equal(operator @ b, factors.solve(b))
    np.testing.assert_array_equal(operator.matvec(b[:, :1])[:, 0], factors.solve(b[:, 0]))
    np.testing.assert_array_equal(operator.T @ b, factors.solve(b))


def test_save_and_load(tmp_path, weighted):
    b = DRAW.standard_normal(weighted.shape[0])
    for method in ("spand", "hsolve_lu"):
        factors = factorize(weighted, method=method)
        again = load(factors.save(tmp_path / "f.npz"))
        np.testing.assert_array_equal(again.solve(b), factors.solve(b))
        assert again.config == factors.config
        assert again.stats == factors.stats


def test_statistics_count_every_unknown(weighted):
    factors = factorize(weighted, leaf=16, skip=0)
    eliminated = sum(s.eliminated * s.eliminated_size for s in factors.stats)
    dropped = sum(s.clusters * (s.mean_size - s.mean_rank) for s in factors.stats)
    assert round(eliminated + dropped) == weighted.shape[0]
    assert all(s.max_rank <= s.max_size for s in factors.stats)


@pytest.mark.parametrize("method", SPD)
def test_small_and_odd_matrices(method):
    assert factorize(np.array([[4.0]]), method=method).solve([8.0])[0] == pytest.approx(2.0)
    diagonal = np.arange(1.0, 200.0)
    found = factorize(sparse.diags_array(diagonal), method=method, eps=0.5).solve(np.ones(199))
    np.testing.assert_allclose(found, 1 / diagonal)
    small = poisson(5).matrix
    np.testing.assert_allclose(
        factorize(small, method=method).solve(small @ np.arange(25.0)), np.arange(25.0), atol=1e-10
    )
    apart = sparse.block_diag([poisson(12).matrix, poisson(7).matrix, [[2.0]]]).tocsr()
    b = DRAW.standard_normal(apart.shape[0])
    found = factorize(apart, method=method, eps=0).solve(b)
    np.testing.assert_allclose(apart @ found, b, atol=1e-10)


def test_tridiagonal_in_natural_order_has_no_far_block():
    n = 1023
    matrix = poisson(n, 1).matrix
    factors = factorize(matrix, eps=0.9, method="hsolve", coords=np.arange(n), leaf=16)
    assert all(level.max_rank == 0 for level in factors.stats)
    h = 1 / (n + 1)
    x = np.arange(1, n + 1) * h
    b = h**2 * np.pi**2 * np.sin(np.pi * x)
    scale = np.pi**2 * h**2 / (4 * np.sin(np.pi * h / 2) ** 2)
    np.testing.assert_allclose(factors.solve(b), np.sin(np.pi * x) * scale, rtol=1e-9)


def test_tridiagonal_in_any_order_has_ranks_of_two_at_most():
    n = 500
    order = np.random.default_rng(3).permutation(n)
    matrix = poisson(n, 1).matrix[order][:, order]
    factors = factorize(matrix, eps=0, phi=None, method="hsolve", leaf=16)
    b = DRAW.standard_normal(n)
    np.testing.assert_allclose(matrix @ factors.solve(b), b, atol=1e-9)
    assert max(level.max_rank for level in factors.stats) <= 2


def test_eigenvalues_of_the_grid():
    side = 9
    h = 1 / (side + 1)
    one = 4 * np.sin(np.arange(1, side + 1) * np.pi * h / 2) ** 2
    expected = np.sort((one[:, None] + one[None, :]).ravel())
    np.testing.assert_allclose(np.linalg.eigvalsh(poisson(side).matrix.toarray()), expected)
    weak = np.sort((one[:, None] + 0.01 * one[None, :]).ravel())
    np.testing.assert_allclose(np.linalg.eigvalsh(anisotropic(side, 0.01).matrix.toarray()), weak)


def test_indefinite_inertia_and_unsymmetric_values():
    shifted = poisson(16).matrix - 0.5 * sparse.eye_array(256)
    b = DRAW.standard_normal(256)
    for method in ("spand_ldl", "hsolve_ldl"):
        factors = factorize(shifted, eps=0, method=method, leaf=16)
        np.testing.assert_allclose(shifted @ factors.solve(b), b, atol=1e-9)
    wind = convection(16, 50.0).matrix
    for method in ("spand_lu", "hsolve_lu"):
        factors = factorize(wind, eps=0, method=method, leaf=16)
        np.testing.assert_allclose(wind @ factors.solve(b), b, atol=1e-9)


def test_mass_is_kept_by_smoothing():
    points = np.random.default_rng(1).standard_normal((200, 3))
    affinity = build_graph(points, KnnConfig(k=6)).weights
    degrees = np.asarray(affinity.sum(axis=1)).ravel()
    tau, t = 0.1, np.random.default_rng(2).standard_normal((200, 4))
    matrix = laplacian(affinity, tau)
    z = factorize(matrix, eps=0).solve(tau * degrees[:, None] * t)
    np.testing.assert_allclose(degrees @ z, degrees @ t, atol=1e-10)


def test_scaling_scales():
    matrix, b = poisson(20).matrix, DRAW.standard_normal(400)
    for method in SPD:
        x = factorize(matrix, method=method, leaf=16).solve(b)
        np.testing.assert_allclose(factorize(4 * matrix, method=method, leaf=16).solve(b), x / 4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"eps": 1.0}, "eps: expected a number in [0, 1), got 1.0"),
        ({"method": "spandd"}, "Did you mean 'spand'?"),
        ({"leaf": 0}, "leaf: expected at least 1, got 0"),
        ({"skip": -1}, "skip: expected at least 0"),
        ({"second_order": True, "method": "hsolve"}, "second_order needs method='spand'"),
        ({"compensate": True}, "compensate needs method='hsolve'"),
    ],
)
def test_settings_are_checked(change, words):
    with pytest.raises(ConfigError) as caught:
        FactorConfig(**change)
    assert words in str(caught.value)
