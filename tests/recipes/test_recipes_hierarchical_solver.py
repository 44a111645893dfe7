"""The hierarchical solver's recipe: registration, plan, a run, arms at toy size, its checks."""

import json

import numpy as np
import pytest
from scipy import io, sparse

from understudy.core.errors import ConfigError, DataError
from understudy.evaluate.claims import Context
from understudy.recipes import PAPERS, RECIPES
from understudy.recipes import hierarchical_solver_claim as claim
from understudy.solve.problems import poisson

RECIPE = RECIPES.load("hierarchical-solver")
TOY = {**claim.SETTINGS, "sides": (12, 20, 32), "repeats": 1, "media_side": 24, "leaf": 16}


def context(tmp_path):
    return Context(recipe="hierarchical-solver", scale="laptop", settings=TOY, shared_dir=tmp_path,
                   seed_dir=tmp_path, arm_dir=tmp_path)  # fmt: skip


def test_it_is_registered():
    assert RECIPE.CLAIM.recipe == "hierarchical-solver"
    assert len(RECIPE.CLAIM.seeds) == 5
    assert PAPERS["hierarchical-solver"][1] == "1611.03189"
    assert RECIPE.__doc__.count("understudy verify hierarchical-solver") == 1


def test_the_plan_is_linear():
    plan, half = RECIPE.PLAN(), RECIPE.PLAN(unknowns=150_000_000)
    assert plan.value("unknowns") == 300_000_000
    assert plan.value("factors") == pytest.approx(2 * half.value("factors"))
    assert plan.value("factors of sparse LU") > 2.5 * half.value("factors of sparse LU")
    assert RECIPE.PLAN(dims=2).value("factors") < plan.value("factors")
    for wrong in ({"scale": "laptop"}, {"dims": 4}, {"unknowns": 0}):
        with pytest.raises(ConfigError):
            RECIPE.PLAN(**wrong)


def test_run_compares_solvers(tmp_path):
    matrix = poisson(16).matrix
    io.mmwrite(tmp_path / "A.mtx", matrix, symmetry="symmetric")
    b = np.random.default_rng(0).standard_normal(256)
    np.save(tmp_path / "b.npy", b)
    config = RECIPE.Config(matrix=tmp_path / "A.mtx", right=tmp_path / "b.npy",
                           out=tmp_path / "out", methods=("spand", "rs", "hsolve_lu"))  # fmt: skip
    out = RECIPE.run(config)
    np.testing.assert_allclose(matrix @ np.load(out / "x.npy"), b, atol=1e-8)
    found = json.loads((out / "result.json").read_text())["solvers"]
    assert list(found) == [
        "spand", "spand, nothing preserved", "rs", "hsolve_lu", "hsolve_lu, nothing preserved",
    ]  # fmt: skip
    assert all(row["residual"] <= 1e-10 for row in found.values())


def test_run_lists_what_cannot_solve(tmp_path):
    indefinite = poisson(16).matrix - sparse.eye_array(256)
    sparse.save_npz(tmp_path / "A.npz", sparse.csr_matrix(indefinite))
    shared = {"matrix": tmp_path / "A.npz", "without": False}
    out = RECIPE.run(RECIPE.Config(methods=("spand", "spand_ldl"), out=tmp_path / "a", **shared))
    found = json.loads((out / "result.json").read_text())["solvers"]
    assert "A itself is not SPD" in found["spand"]["error"]
    assert found["spand_ldl"]["converged"]
    with pytest.raises(DataError, match="no method solved it"):
        RECIPE.run(RECIPE.Config(methods=("spand",), out=tmp_path / "b", **shared))
    with pytest.raises(ConfigError, match="name at least one"):
        RECIPE.Config(methods=(), matrix=tmp_path / "A.npz")
    with pytest.raises(ConfigError, match="'cholesky' is not one of"):
        RECIPE.Config(methods=("cholesky",), matrix=tmp_path / "A.npz")


def test_arms_at_toy_size(tmp_path):
    grid = claim.run_arm("spand-ones", 0, context(tmp_path))
    assert grid["iterations_4k"] <= grid["iterations_65k"] <= 12
    assert grid["rungs"] == 0
    near = claim.run_arm("hsolve", 0, context(tmp_path))
    assert near["memory_65k"] > grid["memory_65k"]
    media = claim.run_arm("media-ones", 0, context(tmp_path))
    multigrid = claim.run_arm("media-sa", 0, context(tmp_path))
    assert media["iterations_1e6"] < multigrid["iterations_1e6"]
    labels = claim.run_arm("labels", 0, context(tmp_path))
    assert labels["same_label"] == 1.0
    assert labels["harmonic_error"] < 1e-8
    assert labels["accuracy"] > 0.9


def results(**changed):
    grid = {"iterations_4k": 7.0, "iterations_65k": 10.0, "exponent": 0.1, "memory_65k": 22.0,
            "rungs": 0.0, "setup_ratio": 4.0}  # fmt: skip
    bare = {**grid, "iterations_65k": 30.0, "exponent": 0.4, "memory_65k": 20.0}
    media = {"iterations_1e2": 7.0, "iterations_1e4": 8.0, "iterations_1e6": 9.0}
    slow = {key: 10 * value for key, value in media.items()}
    arms = {
        "hsolve-ones": grid, "hsolve": bare, "spand-ones": grid, "spand": bare,
        "media-ones": media, "media": slow, "media-sa": slow,
        "labels": {"same_label": 1.0, "harmonic_error": 1e-11},
    }  # fmt: skip
    for arm, values in changed.items():
        name = arm.replace("_", "-")
        arms[name] = {**arms[name], **values}
    return {
        arm: {key: np.array([value, value]) for key, value in values.items()}
        for arm, values in arms.items()
    }


def failed(found):
    return [check.name for check in claim.CHECKS if not check.judge(found).passed]


def test_checks_accept_what_is_claimed():
    assert failed(results()) == []


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"hsolve_ones": {"iterations_65k": 13.0}}, "A: near/far, flat against growing"),
        ({"hsolve": {"iterations_65k": 14.0}}, "A: near/far, fewer iterations at 65k"),
        ({"hsolve_ones": {"exponent": 0.3}}, "A: near/far, growth exponents"),
        ({"hsolve_ones": {"memory_65k": 27.0}}, "A: near/far, memory"),
        ({"hsolve_ones": {"rungs": 1.0}}, "A: near/far, no pivot is lost"),
        ({"hsolve_ones": {"setup_ratio": 6.0}}, "A: near/far, linear setup"),
        ({"spand_ones": {"iterations_65k": 11.0}}, "A: nested dissection, flat against growing"),
        ({"spand": {"iterations_65k": 20.0}}, "A: nested dissection, flat against growing"),
        ({"media_ones": {"iterations_1e6": 16.0}}, "B: few iterations at any contrast"),
        ({"media_sa": {"iterations_1e4": 15.0}}, "B: half of smoothed aggregation"),
        ({"media": {"iterations_1e2": 85.0}}, "B: nothing preserved grows with contrast"),
        ({"labels": {"same_label": 0.999}}, "C: labels as by a dense solve"),
        ({"labels": {"harmonic_error": 1e-7}}, "C: harmonic functions as by a dense solve"),
    ],
)
def test_checks_can_fail(changed, name):
    assert name in failed(results(**changed))
