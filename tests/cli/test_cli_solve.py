import json
import subprocess
import sys

import numpy as np
import pytest
from scipy import io, sparse

from understudy.cli import main
from understudy.solve.problems import convection, poisson


@pytest.fixture
def files(tmp_path):
    matrix = poisson(12).matrix
    io.mmwrite(tmp_path / "A.mtx", matrix, symmetry="symmetric")
    np.save(tmp_path / "b.npy", np.random.default_rng(0).standard_normal((144, 2)))
    return tmp_path


def test_solves_from_files_to_a_file(files, capsys):
    arguments = [str(files / "A.mtx"), str(files / "b.npy"), "-o", str(files / "x.npy")]
    report = files / "r.json"
    code = main(["solve", *arguments, "--method", "spand", "--eps", ".1", "--leaf", "16",
                 "--report", str(report), "--save", str(files / "f.npz")])  # fmt: skip
    assert code == 0
    x, b = np.load(files / "x.npy"), np.load(files / "b.npy")
    np.testing.assert_allclose(io.mmread(files / "A.mtx") @ x, b, atol=1e-8)
    facts = json.loads(report.read_text())
    assert facts["method"] == "spand"
    assert facts["factorization"]["config"]["eps"] == 0.1
    assert facts["factorization"]["levels"][0]["eliminated"] > 0
    assert "method: spand (asked for)" in capsys.readouterr().out
    assert main(["solve", *arguments, "--factorization", str(files / "f.npz"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reason"] == "a factorization was given"


def test_auto_explains_itself(files, capsys):
    sparse.save_npz(files / "A.npz", sparse.csr_matrix(poisson(12).matrix))
    np.save(files / "c.npy", poisson(12).coords)
    arguments = [str(files / "A.npz"), str(files / "b.npy"), "-o", str(files / "x.npy")]
    assert main(["solve", *arguments, "--coords", str(files / "c.npy")]) == 0
    assert "method: direct (n = 144 is below 20,000: sparse LU)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("matrix", "right", "more", "words"),
    [
        ("none.mtx", "b.npy", [], "none.mtx: no such file"),
        ("b.npy", "b.npy", [], "b.npy: expected .mtx, .mtx.gz or .npz."),
        ("bad.mtx", "b.npy", [], "bad.mtx: not a matrix"),
        ("A.mtx", "bad.mtx", [], "bad.mtx: not an array in .npy form"),
        ("A.mtx", "none.npy", [], "none.npy: no such file"),
        ("A.mtx", "short.npy", [], "b: expected 144 rows"),
        ("wind.mtx", "b.npy", ["--method", "spand"], 'use method="hsolve_lu" + GMRES'),
        ("A.mtx", "b.npy", ["--method", "cholesky"], "solve: method: 'cholesky' is not one of"),
        ("A.mtx", "b.npy", ["--method", "direct", "--save", "f.npz"], "keeps no factorization"),
        ("A.mtx", "b.npy", ["--factorization", "b.npy"], "not a saved factorization"),
    ],
)
def test_wrong_inputs_take_one_line(files, monkeypatch, capsys, matrix, right, more, words):
    (files / "bad.mtx").write_text("not a matrix\n")
    np.save(files / "short.npy", np.ones(3))
    io.mmwrite(files / "wind.mtx", convection(12, 50.0).matrix)
    monkeypatch.chdir(files)
    assert main(["solve", matrix, right, *more]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_nothing_heavy_at_import():
    code = (
        "import sys, understudy.solve, understudy.cli.solve\n"
        "print([m for m in ('scipy', 'numba', 'torch', 'pymetis', 'pyamg') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
