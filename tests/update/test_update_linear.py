"""Linear maps: identity and rotations recovered, least squares against another solver."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from map_world import quick

from understudy.core.errors import ConfigError, DataError
from understudy.update.fit import fit_map
from understudy.update.linear import fit_linear
from understudy.update.maps import load_map
from understudy.update.pair_files import pairs_of_file
from understudy.update.vector_files import write_npz

pytestmark = pytest.mark.filterwarnings("ignore::understudy.update.fit.FitWarning")


def pairs_at(path, old, new, **more):
    write_npz(path, np.array([str(i) for i in range(len(old))]), {"old": old, "new": new, **more})
    return pairs_of_file(path)


def distances(queries, gallery):
    q, g = queries.astype(np.float64), gallery.astype(np.float64)
    return ((q[:, None] - g[None]) ** 2).sum(2)


def ranks(queries, gallery):
    return np.argsort(distances(queries, gallery), axis=1, kind="stable")


def test_no_update_is_the_identity(tmp_path):
    old = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    pairs = pairs_at(tmp_path / "p.npz", old, old)
    result = fit_map(pairs, quick(kind="least-squares"), tmp_path / "run")
    assert result.held_out.mse < 1e-8
    z, _ = load_map(tmp_path / "run").transform(old)
    assert ((z - old) ** 2).mean() < 1e-8
    np.testing.assert_array_equal(ranks(old[:50], z), ranks(old[:50], old))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), width=st.integers(1, 12))
def test_a_rotation_is_recovered(tmp_path_factory, seed, width):
    draw = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(draw.normal(size=(width, width)))
    old = draw.normal(size=(60, width)).astype(np.float32)
    new = (old @ turn.T).astype(np.float32)  # phi_new(x) = Q phi_old(x)
    pairs = pairs_at(tmp_path_factory.mktemp("p") / "p.npz", old, new)
    module = fit_linear(pairs, "orthogonal")
    weight = module.linear.weight.detach().numpy()
    np.testing.assert_allclose(weight, turn, atol=1e-6)
    np.testing.assert_allclose(weight @ weight.T, np.eye(width), atol=1e-6)


def test_rankings_after_a_rotation_are_those_of_the_new_model(tmp_path):
    draw = np.random.default_rng(3)
    turn, _ = np.linalg.qr(draw.normal(size=(6, 6)))
    old = draw.normal(size=(80, 6)).astype(np.float32)
    new = (old @ turn.T).astype(np.float32)
    pairs = pairs_at(tmp_path / "p.npz", old, new)
    found = fit_map(pairs, quick(kind="orthogonal"), tmp_path / "run").map
    z, _ = found.transform(old)
    np.testing.assert_array_equal(ranks(new, z), ranks(new, new))


def test_procrustes_of_other_widths_and_noise_is_the_best_of_many(tmp_path):
    draw = np.random.default_rng(4)
    old, new = draw.normal(size=(50, 5)), draw.normal(size=(50, 3))
    pairs = pairs_at(tmp_path / "p.npz", old, new)
    weight = fit_linear(pairs, "orthogonal").linear.weight.detach().numpy().T
    np.testing.assert_allclose(weight.T @ weight, np.eye(3), atol=1e-6)
    best = np.trace(weight.T @ old.T @ new)
    for _ in range(300):
        other, _ = np.linalg.qr(draw.normal(size=(5, 3)))
        assert np.trace(other.T @ old.T @ new) <= best + 1e-4


def test_least_squares_against_an_independent_solver(tmp_path):
    draw = np.random.default_rng(5)
    old, side = draw.normal(size=(70, 4)) + 3, draw.normal(size=(70, 2)) * 5
    new = draw.normal(size=(70, 3)) - 2
    pairs = pairs_at(tmp_path / "p.npz", old, new, side=side)
    module = fit_linear(pairs, "least-squares")
    x = np.concatenate([old, side, np.ones((70, 1))], axis=1).astype(np.float32)
    expected = np.linalg.lstsq(x.astype(np.float64), new.astype(np.float32), rcond=None)[0]
    found = module.linear.weight.detach().numpy()
    np.testing.assert_allclose(found, expected[:-1].T, atol=1e-5)
    np.testing.assert_allclose(module.linear.bias.detach().numpy(), expected[-1], atol=1e-5)


def test_directions_that_do_not_vary_are_left_alone(tmp_path):
    """Dead dimensions, as ReLUs leave them, give no infinite weights."""
    draw = np.random.default_rng(6)
    old = draw.normal(size=(50, 4)).astype(np.float32)
    old[:, 2] = 0
    old[:, 3] = old[:, 0]  # and copies neither
    new = (old[:, :2] * 2 + 1).astype(np.float32)
    module = fit_linear(pairs_at(tmp_path / "p.npz", old, new), "least-squares")
    weight = module.linear.weight.detach().numpy()
    assert np.abs(weight).max() < 3
    np.testing.assert_array_equal(weight[:, 2], 0)
    z = old @ weight.T + module.linear.bias.detach().numpy()
    assert ((z - new) ** 2).mean() < 1e-8


def test_what_cannot_be_solved(tmp_path):
    old = np.ones((5, 3), np.float32)
    pairs = pairs_at(tmp_path / "p.npz", old, old, side=old)
    with pytest.raises(ConfigError, match="takes no side information"):
        fit_linear(pairs, "orthogonal")
    with pytest.raises(DataError, match="two or more"):
        fit_linear(pairs, "least-squares", np.array([1]))
