"""The near/far driver against systems written out in full: extended form, compensation, ladder."""

import numpy as np
import pytest
from scipy import sparse

from understudy.core.errors import DataError
from understudy.solve import factorize
from understudy.solve.operations import solve_plain, steps_of
from understudy.solve.options import FactorConfig, alpha_of
from understudy.solve.partition import Tree
from understudy.solve.problems import contrast_media, poisson
from understudy.solve.reference_near import _step, near_reference
from understudy.solve.reference_parts import Blocks


def spd(n, seed):
    a = np.random.default_rng(seed).standard_normal((n, n))
    return a @ a.T + n * np.eye(n)


def four_clusters(seed):
    """Clusters a, s, f, n; a touches s and f, n touches s and f: eliminating a fills s-f."""
    sizes = (2, 6, 5, 4)
    label = np.repeat(np.arange(4), sizes)
    draw = np.random.default_rng(seed)
    couple = np.array([[1, 1, 1, 0], [1, 1, 0, 1], [1, 0, 1, 1], [0, 1, 1, 1]])
    a = draw.uniform(-1, 1, (label.size, label.size)) * couple[label][:, label]
    a = (a + a.T) / 2
    # one strong and one weak direction from s to f through a
    a[np.ix_(label == 0, label == 1)] *= np.array([[1.0], [0.005]])
    a[np.ix_(label == 1, label == 0)] = a[np.ix_(label == 0, label == 1)].T
    return a + np.diag(np.abs(a).sum(axis=1) + 0.1), label


@pytest.mark.parametrize("seed", range(5))
def test_compressing_equals_the_extended_system(seed):
    """Unknowns y (black) and z (red) replace a far block; both forms have one solution."""
    a, label = four_clusters(seed)
    tree = Tree(leaf=label, depth=2, source="test")
    config = FactorConfig(method="hsolve", eps=0.1)
    stages, _ = near_reference(sparse.csr_array(a), tree, np.zeros((17, 0)), config)
    step = steps_of(stages[0])[1]
    assert step.kept == 1
    first, rest = label == 0, label > 0
    schur = a[rest][:, rest] - a[rest][:, first] @ np.linalg.solve(
        a[first][:, first], a[first][:, rest]
    )
    part = label[rest]
    s, f, n = (part == k for k in (1, 2, 3))
    ss, sf = schur[s][:, s], schur[s][:, f]
    # G = Q^T L^-1: columns of its inverse are L U
    basis = np.linalg.inv(step.forward)[:, : step.kept]
    lower = np.linalg.cholesky(ss)
    unscaled = np.linalg.solve(lower, basis)
    np.testing.assert_allclose(unscaled.T @ unscaled, np.eye(step.kept), atol=1e-12)
    k = unscaled.T @ np.linalg.solve(lower, sf)
    zero = np.zeros
    extended = np.block(
        [
            [ss, schur[s][:, n], basis, zero((6, 1)), zero((6, 5))],
            [schur[n][:, s], schur[n][:, n], zero((4, 2)), schur[n][:, f]],
            [unscaled.T @ lower.T, zero((1, 5)), -np.eye(1), zero((1, 5))],
            [zero((1, 10)), -np.eye(1), zero((1, 1)), k],
            [zero((5, 6)), schur[f][:, n], zero((5, 1)), k.T, schur[f][:, f]],
        ]
    )
    b = np.random.default_rng(99).standard_normal(15)
    order = np.concatenate([b[s], b[n], [0.0], [0.0], b[f]])
    found = np.linalg.solve(extended, order)
    expected = zero(15)
    expected[s], expected[n], expected[f] = found[:6], found[6:10], found[12:]
    matrix = sparse.csr_array(a)
    full = np.concatenate([zero(2), b])
    x = solve_plain(stages, full)
    np.testing.assert_allclose(x[2:], expected, atol=1e-10)
    exact = np.linalg.solve(matrix.toarray(), full)
    assert np.abs(x - exact).max() > 1e-8


def test_black_node_identity():
    """Keeping U of a rotated cluster equals eliminating it and the black node behind it."""
    for seed in range(20):
        draw = np.random.default_rng(seed)
        a, n = spd(7, seed), draw.standard_normal((7, 3))
        q = np.linalg.qr(draw.standard_normal((7, 7)))[0]
        u, w = q[:, :3], q[:, 3:]
        ww, uw = w.T @ a @ w, u.T @ a @ w
        red = np.linalg.inv(u.T @ np.linalg.solve(a, u))
        np.testing.assert_allclose(u.T @ a @ u - uw @ np.linalg.solve(ww, uw.T), red, atol=1e-11)
        left = n.T @ u - n.T @ w @ np.linalg.solve(ww, w.T @ a @ u)
        np.testing.assert_allclose(left, n.T @ np.linalg.solve(a, u) @ red, atol=1e-11)


def test_compensation_never_loses_positive_definiteness():
    for seed in range(50):
        a = spd(18, seed)
        draw = np.random.default_rng(seed + 1000)
        a[:6, 10:] *= draw.uniform(0, 3)
        a[10:, :6] = a[:6, 10:].T
        a += np.eye(18) * max(0.0, 0.05 - np.linalg.eigvalsh(a)[0])
        label = np.repeat([0, 1, 2, 3], (6, 4, 4, 4))
        blocks = Blocks.of(sparse.csr_array(a), label.tolist(), np.ones((18, 1)), np.ones((18, 1)))
        config = FactorConfig(method="hsolve", eps=0.5, compensate=True)
        step = _step(blocks, 0, {0, 1}, config, (0, 0, False), False)
        k = step.kept
        turned = np.eye(18)
        turned[:6, :6] = step.forward
        whole = turned @ a @ turned.T
        w = np.arange(k, 6)
        rest = np.concatenate([np.arange(k), np.arange(6, 18)])
        exact = whole[np.ix_(rest, rest)] - whole[np.ix_(rest, w)] @ whole[np.ix_(w, rest)]
        parts = [0, 1, 2, 3]
        new = np.block([[blocks.block(i, j) for j in parts] for i in parts])
        gap = np.linalg.eigvalsh(new - exact)
        assert gap[0] >= -1e-12 * max(1.0, np.abs(whole).max())
        assert alpha_of(0.5) == 0.5


@pytest.mark.parametrize(
    ("contrast", "words"),
    [(1e4, "eps / 10: eps = 0.01"), (1e6, "compensation: eps = 0.1")],
)
def test_the_ladder_repairs_lost_pivots(contrast, words):
    problem = contrast_media(48, contrast, 0)
    options = {"eps": 0.1, "phi": None, "method": "hsolve", "coords": problem.coords, "leaf": 16}
    with pytest.warns(UserWarning, match="truncation made a pivot indefinite") as caught:
        factors = factorize(problem.matrix, **options)
    assert words in str(caught[0].message)
    assert words in factors.notes[0]
    identity = factors.solve(np.eye(problem.n)[:, :40])[:40]
    assert np.linalg.eigvalsh((identity + identity.T) / 2)[0] > 0
    with pytest.raises(DataError, match="on_indefinite='ladder'"):
        factorize(problem.matrix, on_indefinite="raise", **options)


def test_spand_needs_no_ladder():
    for contrast in (1e2, 1e6):
        problem = contrast_media(48, contrast, 0)
        for eps in (0.1, 0.9):
            assert not factorize(problem.matrix, eps=eps, phi=None, leaf=16, skip=0).notes


def test_full_ranks_are_told():
    draw = np.random.default_rng(0)
    rows, columns = draw.integers(2000, size=(2, 6000))
    a = sparse.coo_array((np.ones(6000), (rows, columns)), shape=(2000, 2000))
    a = sparse.csr_array(a + a.T)
    a.setdiag(0)
    matrix = sparse.csr_array(sparse.diags_array(a.sum(axis=1) + 0.01) - a)
    with pytest.warns(UserWarning, match=r"no low-rank structure \(mean k/m = [01]\.\d\)"):
        factorize(matrix, eps=1e-8, phi=None, leaf=8)


def test_notes_about_vectors_to_preserve():
    matrix = poisson(12).matrix
    ones = np.ones(144)
    with pytest.warns(UserWarning, match="phi: column 1 depends on those before it"):
        factors = factorize(matrix, phi=np.stack([ones, 2 * ones], axis=1), leaf=16, skip=0)
    np.testing.assert_allclose(factors.solve(matrix @ ones), ones, atol=1e-10)
    with pytest.warns(UserWarning, match="phi: column 0 is zero and was dropped"):
        factorize(matrix, phi=0 * ones)
