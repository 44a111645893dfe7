import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.sparse.csgraph import maximum_bipartite_matching

from understudy.solve.coarsen import coarsen
from understudy.solve.graph import KnnConfig, build_graph
from understudy.solve.halve import halve
from understudy.solve.partition import depth_for, make_tree, without_diagonal
from understudy.solve.problems import laplacian, poisson
from understudy.solve.separators import separator_depths, smallest_cover


def random_graph(n, degree, seed):
    draw = np.random.default_rng(seed)
    rows, columns = draw.integers(n, size=(2, n * degree))
    a = sparse.csr_array((np.ones(rows.size), (rows, columns)), shape=(n, n))
    a = sparse.csr_array(a + a.T + sparse.eye_array(n))
    a.sort_indices()
    a.indptr, a.indices = a.indptr.astype(np.int32), a.indices.astype(np.int32)
    return a


@pytest.mark.parametrize("coords", [True, False])
@pytest.mark.parametrize("dims", [2, 3])
def test_separators_cut_every_level(coords, dims):
    problem = poisson(20 if dims == 2 else 8, dims)
    tree = make_tree(problem.matrix, 16, problem.coords if coords else None)
    depths = separator_depths(problem.matrix, tree)
    coo = problem.matrix.tocoo()
    assert tree.depth == depth_for(problem.n, 16)
    for level in range(1, tree.depth + 1):
        inside = (depths[coo.row] >= level) & (depths[coo.col] >= level)
        at = tree.at(level)
        assert (at[coo.row] == at[coo.col])[inside].all()
    sizes = np.bincount(tree.leaf, minlength=1 << tree.depth)
    assert sizes.max() <= 2 * sizes.mean()


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 60), st.integers(1, 3), st.integers(0, 10**6))
def test_separators_of_any_graph(n, degree, seed):
    graph = random_graph(n, degree, seed)
    tree = make_tree(graph, 4)
    depths = separator_depths(graph, tree)
    coo = graph.tocoo()
    for level in range(1, tree.depth + 1):
        inside = (depths[coo.row] >= level) & (depths[coo.col] >= level)
        at = tree.at(level)
        assert (at[coo.row] == at[coo.col])[inside].all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 25), st.integers(0, 10**6))
def test_cover_is_as_small_as_a_matching(edges, seed):
    draw = np.random.default_rng(seed)
    first, second = draw.integers(10, size=edges), 100 + draw.integers(10, size=edges)
    cover = smallest_cover(first, second)
    assert (np.isin(first, cover) | np.isin(second, cover)).all()
    table = sparse.csr_array((np.ones(edges), (first, second - 100)), shape=(10, 10))
    assert len(cover) == (maximum_bipartite_matching(table, perm_type="column") >= 0).sum()


def test_tree_is_reproducible_and_survives_kNN():
    points = np.random.default_rng(0).standard_normal((300, 5))
    matrix = laplacian(build_graph(points, KnnConfig(k=5)).weights, 0.1)
    first, second = make_tree(matrix, 16), make_tree(matrix, 16)
    np.testing.assert_array_equal(first.leaf, second.leaf)
    assert first.leaf.max() < 1 << first.depth


def test_one_leaf_has_no_cut():
    tree = make_tree(poisson(4).matrix, 16)
    assert tree.depth == 0
    assert not tree.leaf.any()


def test_coarsening_keeps_weights():
    graph = random_graph(50, 2, 1)
    start, near = without_diagonal(graph)
    weights, sizes = np.ones(near.size, np.int32), np.ones(50, np.int32)
    new_start, new_near, new_weights, new_sizes, group = coarsen(start, near, weights, sizes, 2)
    rows = np.repeat(np.arange(50), np.diff(start))
    dense = np.zeros((new_sizes.size,) * 2)
    np.add.at(dense, (group[rows], group[near]), 1)
    np.fill_diagonal(dense, 0)
    found = np.zeros_like(dense)
    new_rows = np.repeat(np.arange(new_sizes.size), np.diff(new_start))
    found[new_rows, new_near] = new_weights
    np.testing.assert_array_equal(found, dense)
    assert new_sizes.sum() == 50
    assert new_sizes.max() == 2


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 400), st.integers(1, 3), st.integers(1, 6), st.integers(0, 10**6))
def test_halving_is_even_even_for_equal_points(n, dims, different, seed):
    points = np.random.default_rng(seed).integers(different, size=(n, dims)).astype(float)
    leaf = np.full(n, -1)
    halve(points, 3, leaf)
    sizes = np.bincount(leaf, minlength=8)
    assert sizes.sum() == n
    assert sizes.max() - sizes.min() <= 1


def test_halving_cuts_the_longest_side_at_the_median():
    points = np.random.default_rng(0).random((101, 2)) * np.array([1.0, 10.0])
    leaf = np.zeros(101, np.int64)
    halve(points, 1, leaf)
    assert (leaf == 0).sum() == 51
    assert points[leaf == 0, 1].max() < points[leaf == 1, 1].min()
