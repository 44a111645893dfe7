import numpy as np
import pytest
from scipy import sparse

from understudy.core.errors import ConfigError, DataError
from understudy.solve import factorize, load, solve
from understudy.solve.choose import choose, is_m_matrix, predicted_fill, top_separator
from understudy.solve.krylov import IndefiniteError, cg, gmres
from understudy.solve.null_space import find_components
from understudy.solve.problems import contrast_media, convection, elasticity, poisson
from understudy.solve.system import METHODS

B = np.random.default_rng(0).standard_normal((400, 3))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_solves(method):
    matrix = poisson(20).matrix
    found = solve(matrix, B, method=method, eps=0.1 if method[:2] in ("sp", "hs") else None)
    assert np.linalg.norm(matrix @ found.x - B, axis=0).max() <= 2e-10 * np.sqrt(400)
    assert found.converged
    assert found.residual <= 1e-10
    assert found.report()["method"] == found.method
    one = solve(matrix, B[:, 0], method=method)
    np.testing.assert_allclose(one.x, found.x[:, 0], atol=1e-7)


def test_permuting_the_unknowns_permutes_the_solution():
    problem = contrast_media(24, 100.0, 1)
    b = np.random.default_rng(1).standard_normal(problem.n)
    order = np.random.default_rng(2).permutation(problem.n)
    for method in ("spand", "hsolve"):
        x = solve(problem.matrix, b, method=method, rtol=1e-13).x
        turned = solve(problem.matrix[order][:, order], b[order], method=method, rtol=1e-13).x
        assert np.abs(turned - x[order]).max() <= 1e-9 * np.abs(x).max()


def test_iterations_hardly_grow_with_ones_preserved():
    counts = {}
    for side in (64, 128):
        problem = poisson(side)
        b = np.random.default_rng(0).standard_normal(problem.n)
        for phi in ("ones", None):
            factors = factorize(problem.matrix, eps=0.1, phi=phi, coords=problem.coords)
            found = solve(problem.matrix, b, factorization=factors)
            counts[side, phi] = found.iterations
            assert found.kappa is not None
    assert counts[128, "ones"] <= counts[64, "ones"] + 2
    assert counts[128, None] >= 1.7 * counts[64, None]


def test_rigid_modes_help_elasticity():
    problem = elasticity(20)
    b = np.random.default_rng(0).standard_normal(problem.n)
    with_modes, without = (
        solve(problem.matrix, b, method="spand", eps=0.1, phi=phi, second_order=False).iterations
        for phi in (problem.phi, None)
    )
    assert with_modes < without


def test_unsymmetric_by_gmres():
    problem = convection(20, 100.0)
    for method in ("spand_lu", "hsolve_lu"):
        found = solve(problem.matrix, B, method=method, eps=0.1)
        assert found.residual <= 1e-10
        assert found.iterations < 15


def test_indefinite_by_gmres():
    matrix = poisson(20).matrix - 0.4 * sparse.eye_array(400)
    found = solve(matrix, B, method="spand_ldl", eps=0.1)
    assert found.residual <= 1e-10


def test_cg_turns_to_gmres_with_a_note():
    matrix = poisson(20).matrix - 0.4 * sparse.eye_array(400)
    with pytest.warns(UserWarning, match="after 60 iterations"):
        found = solve(matrix, B[:, :1], method="jacobi", max_iterations=60)
    assert "GMRES instead of CG" in found.notes[0]


def test_constant_null_space():
    base = poisson(15).matrix
    lap = sparse.csr_array(base - sparse.diags_array(base.sum(axis=1)))
    both = sparse.block_diag([lap, lap, [[3.0]]]).tocsr()
    b = np.random.default_rng(0).standard_normal((451, 2))
    for part in (slice(0, 225), slice(225, 450)):
        b[part] -= b[part].mean(axis=0)
    for method in ("auto", "spand", "hsolve", "rs", "sa", "direct"):
        found = solve(both, b, null="constant", method=method)
        np.testing.assert_allclose(both @ found.x, b, atol=1e-7)
        np.testing.assert_allclose(found.x[:225].mean(axis=0), 0, atol=1e-10)
        np.testing.assert_allclose(found.x[450], b[450] / 3)
        assert found.components == 3
    assert find_components(both).singular.tolist() == [0, 1]
    wrong = b.copy()
    wrong[230, 1] += 1
    with pytest.raises(DataError, match=r"on component 1 \(225 nodes, column 1\) it sums to 1,"):
        solve(both, wrong, null="constant")
    with pytest.raises(DataError, match=r"A\*1 = 0 on component 0 \(225 nodes\): pass null="):
        solve(both, b)
    assert solve(base, B[:225], null="constant").converged


def test_known_solution_and_zero_right_side():
    matrix = poisson(20).matrix
    for method in ("spand", "rs", "direct", "spand_lu"):
        assert not solve(matrix, np.zeros(400), method=method).x.any()
    x = np.random.default_rng(0).standard_normal(400)
    np.testing.assert_allclose(solve(matrix, matrix @ x, method="spand").x, x, atol=1e-8)


def test_factorization_is_used_again(tmp_path):
    matrix = poisson(20).matrix
    first = solve(matrix, B, method="spand")
    kept = load(first.factorization.save(tmp_path / "f.npz"))
    again = solve(matrix, B, factorization=kept)
    np.testing.assert_array_equal(again.x, first.x)
    assert again.reason == "a factorization was given"
    with pytest.raises(DataError, match="the factorization is of 400 unknowns, A has 100"):
        solve(poisson(10).matrix, B[:100], factorization=kept)


def test_krylov_agree_with_dense():
    problem = contrast_media(12, 100.0, 0)
    b = B[:144]
    dense = np.linalg.solve(problem.matrix.toarray(), b)
    inverse = 1 / problem.matrix.diagonal()[:, None]
    for method in (cg, gmres):
        found = method(problem.matrix, b, lambda v: inverse * v, 1e-12, 1000)
        np.testing.assert_allclose(found.x, dense, atol=1e-8)
        true = np.linalg.norm(b - problem.matrix @ found.x, axis=0) / np.linalg.norm(b, axis=0)
        np.testing.assert_allclose(found.residual, true, rtol=1e-6, atol=1e-15)
    scaled = problem.matrix.toarray() * np.sqrt(inverse) * np.sqrt(inverse.T)
    values = np.linalg.eigvalsh(scaled)
    kappa = cg(problem.matrix, b, lambda v: inverse * v, 1e-12, 1000).kappa
    assert kappa == pytest.approx(values[-1] / values[0], rel=0.02)


def test_cg_refuses_indefinite_parts():
    matrix = sparse.diags_array(np.array([1.0, -1.0]))
    with pytest.raises(IndefiniteError, match="matrix"):
        cg(matrix, np.array([[1.0], [2.0]]), lambda v: v, 1e-10, 10)
    with pytest.raises(IndefiniteError, match="preconditioner"):
        cg(abs(matrix), np.array([[1.0], [2.0]]), lambda v: -v, 1e-10, 10)


def test_rounding_is_told():
    problem = contrast_media(16, 1e12, 0)
    with pytest.warns(UserWarning, match="is above rtol = 1e-15"):
        found = solve(problem.matrix, np.ones(256), method="rs", rtol=1e-15)
    assert not found.converged


def test_choices_explain_themselves():
    assert choose(poisson(20).matrix, 1).method == "direct"
    flat = choose(poisson(150).matrix, 1)
    assert flat.method == "direct"
    assert "150 of 22,500" in flat.reason or "a cut takes" in flat.reason
    deep = poisson(28, 3).matrix
    assert choose(deep, 1).method == "rs"
    assert choose(deep, 64).method == "rs"
    assert choose(deep, 128).method == "spand"
    wind = deep.copy()
    wind.data[1] *= 1.5
    assert choose(wind, 1).method == "spand_lu"
    indefinite = sparse.csr_array(deep - 7 * sparse.eye_array(28**3))
    assert choose(indefinite, 1).method == "spand_ldl"
    assert is_m_matrix(deep)
    assert not is_m_matrix(elasticity(6).matrix)
    assert 26 <= top_separator(poisson(26).matrix) <= 40
    assert predicted_fill(2**20, 2**10) == pytest.approx(2 * 2**20 * 20)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "multigrid"}, "solve: method: 'multigrid' is not one of"),
        ({"null": "ones"}, "null: expected None or 'constant', got 'ones'"),
        ({"rtol": 0.0}, "rtol: expected a number in (0, 1), got 0.0"),
        ({"method": "rs", "leaf": 8}, "leaf: settings of spand"),
    ],
)
def test_options_are_checked(options, words):
    with pytest.raises(ConfigError) as caught:
        solve(poisson(20).matrix, B, **options)
    assert words in str(caught.value)
