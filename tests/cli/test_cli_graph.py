"""`understudy graph ...`: from a store's vectors and labels to columns with cards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from understudy.cli import main
from understudy.curate.graph import stage, values
from understudy.data.card import Card
from understudy.data.knowledge import (
    decode_embeddings,
    embedding_config,
    embedding_type,
    encode_embeddings,
    fixed_list,
)
from understudy.data.store import Store
from understudy.solve.graph import (
    Graph,
    KnnConfig,
    SolverConfig,
    build_graph,
    harmonic_labels,
    propagate,
    smooth,
    spectral_embedding,
    spread_labels,
)

N = 180


def make(path, n: int = N, seed: int = 0, d: int = 4) -> Store:
    draw = np.random.default_rng(seed)
    kind = draw.integers(0, 3, n)
    x = (draw.standard_normal((n, d)) + 2 * np.eye(3, d)[kind]).astype(np.float32)
    labels = [int(k) if i < 12 else None for i, k in enumerate(kind)]
    names = [["ant", "bee", "cow"][k] if i < 12 else "" for i, k in enumerate(kind)]
    table = pa.table(
        {
            "id": [f"r{i}" for i in range(n)],
            "vector": fixed_list(x),
            "label": pa.array(labels, pa.int32()),
            "name": names,
            "truth": kind,
            "split": ["train" if i % 2 else "test" for i in range(n)],
        }
    )
    return Store.create(path, table.to_batches())


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make(tmp_path / "s")


def run(capsys, *words: str) -> tuple[int, str, str]:
    status = main(["graph", *words])
    out = capsys.readouterr()
    return status, out.out, out.err


def reference(store: Store, k: int = 8) -> Graph:
    return build_graph(store.array("vector"), KnnConfig(k=k))


def test_knn_writes_columns_and_a_file(store, capsys):
    status, out, err = run(capsys, "knn", "s", "--column", "vector", "--k", "8", "--json")
    assert status == 0, err
    facts = json.loads(out)
    assert facts["nodes"] == N
    store.refresh()
    graph = Graph.load("s.vector.knn.npz")
    direct = reference(store)
    assert abs(graph.weights - direct.weights).max() < 1e-6
    assert facts["fingerprint"] == graph.fingerprint
    card = store.card("knn.vector")
    assert card.config["k"] == 8
    assert card.rows_done == N
    assert store.verify() == []
    before = store.version
    assert run(capsys, "knn", "s", "--column", "vector", "--k", "8")[0] == 0
    assert store.refresh().version == before  # nothing new
    status, _, err = run(capsys, "knn", "s", "--column", "vector", "--k", "5")
    assert status == 2
    assert "graph of other vectors or settings" in err
    words = ("knn", "s", "--column", "vector", "--k", "5", "--overwrite")
    assert run(capsys, *words)[0] == 0
    assert store.refresh().card("knn.vector").config["k"] == 5


def test_dry_run_says_the_cost_and_writes_nothing(store, tmp_path, capsys):
    before = sorted(p.name for p in tmp_path.iterdir())
    status, out, _ = run(capsys, "knn", "s", "--column", "vector", "--dry-run", "--json")
    assert status == 0
    cost = json.loads(out)
    assert cost["flops"] == 2 * N * N * 4
    assert cost["memory_bytes"] > 0
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    run(capsys, "knn", "s", "--column", "vector")
    columns = store.refresh().columns
    for words in (
        ("spread", "s"),
        ("harmonic", "s"),
        ("pagerank", "s", "--column", "vector"),
        ("pagerank", "s", "--seeds", "truth = 1"),
        ("smooth", "s", "--column", "vector"),
        ("embed", "s"),
    ):
        status, out, err = run(capsys, *words, "--dry-run", "--json")
        assert status == 0, err
        assert json.loads(out)["nodes"] == N
    assert store.refresh().columns == columns


def test_solved_columns_are_what_the_functions_return(store, capsys):
    assert run(capsys, "knn", "s", "--column", "vector", "--k", "8")[0] == 0
    graph = Graph.load("s.vector.knn.npz")
    labels = np.full(N, -1)
    labels[:12] = store.array("truth")[:12]
    for method, find in (("spread", spread_labels), ("harmonic", harmonic_labels)):
        status, _, err = run(capsys, method, "s", "--scores")
        assert status == 0, err
        direct = find(graph, labels)
        store.refresh()
        np.testing.assert_array_equal(store.array(f"label.{method}"), direct.labels)
        np.testing.assert_allclose(store.array(f"label.{method}.margin"), direct.margin, atol=1e-6)
        np.testing.assert_allclose(
            store.array(f"label.{method}.entropy"), direct.entropy, atol=1e-6
        )
        np.testing.assert_allclose(store.array(f"label.{method}.scores"), direct.scores, atol=1e-6)
    assert (store.array("label.harmonic") == store.array("truth")).mean() > 0.7
    card = store.card("label.spread")
    assert card.fingerprint == graph.fingerprint
    assert card.config["alpha"] == 0.99
    assert card.config["classes"] == [0, 1, 2]
    assert card.facts["solve"]["residual"] < 1e-9

    assert run(capsys, "spread", "s", "--labels", "name", "--out", "label.text")[0] == 0
    assert set(store.refresh().array("label.text")) == {"ant", "bee", "cow"}
    x = store.array("vector")
    assert run(capsys, "pagerank", "s", "--column", "vector", "--teleport", "0.2")[0] == 0
    found = store.refresh().array("pagerank.vector")
    np.testing.assert_allclose(found, propagate(graph, x, teleport=0.2), atol=1e-5)
    assert run(capsys, "pagerank", "s", "--seeds", "truth = 1")[0] == 0
    assert store.refresh().array("pagerank.seeds").sum() == pytest.approx(1)
    assert run(capsys, "embed", "s", "--k", "3")[0] == 0
    found = decode_embeddings(
        store.refresh().array("spectral.vector"), store.card("spectral.vector").config
    )
    np.testing.assert_allclose(found, spectral_embedding(graph, 3).vectors, atol=1e-5)
    confident = ("--column", "vector", "--confidence", "label.spread.margin", "--strength", "2")
    assert run(capsys, "smooth", "s", *confident)[0] == 0
    c = store.array("label.spread.margin").astype(float)
    direct = smooth(graph, x, strength=2, confidence=c).values
    np.testing.assert_allclose(store.refresh().array("smooth.vector"), direct, atol=1e-5)
    assert store.verify() == []
    status, _, err = run(capsys, "spread", "s", "--scores", "--alpha", "0.5")
    assert status == 2
    assert "differs in config.alpha" in err


def test_smoothing_fills_in_rows_that_the_teacher_has_not_seen(store, capsys):
    run(capsys, "knn", "s", "--column", "vector", "--k", "8")
    rows = np.arange(0, N, 2)
    t = np.random.default_rng(0).standard_normal((N, 2, 3)).astype(np.float32)
    card = Card(column="teacher.out", writer="t", config=embedding_config([2, 3], "bfloat16"))
    kind = embedding_type([2, 3], "bfloat16")
    with store.refresh().job([card], {"teacher.out": kind}, rows=rows) as job:
        for unit in job.todo():
            job.write(unit, {"teacher.out": encode_embeddings(t[job.rows(unit)], "bfloat16")})
    status, _, err = run(capsys, "pagerank", "s", "--column", "teacher.out")
    assert status == 2
    assert "is empty in 90 rows of the graph (row 1 is the first)" in err
    status, out, err = run(capsys, "smooth", "s", "--column", "teacher.out", "--json")
    assert status == 0, err
    assert json.loads(out)["filled_in"] == 90
    store.refresh()
    found = decode_embeddings(
        store.array("smooth.teacher.out"), store.card("smooth.teacher.out").config
    )
    assert found.shape == (N, 2, 3)  # the shape it had
    c = np.zeros(N)
    c[rows] = 1
    graph = Graph.load("s.vector.knn.npz")
    direct = smooth(graph, t.reshape(N, 6), confidence=c).values
    np.testing.assert_allclose(found.reshape(N, 6), direct, atol=0.02)  # bfloat16
    assert not list(Path().glob("*.work"))


def test_only_some_rows_and_what_no_label_reaches(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    x = np.vstack([np.random.default_rng(0).standard_normal((60, 2)) + s for s in (0, 1e3)])
    x[5] = x[3]
    x = x.astype(np.float32)
    labels = [0, 1] + [-1] * 118
    table = {
        "id": [f"r{i}" for i in range(120)],
        "vector": fixed_list(x),
        "label": pa.array(labels, pa.int64()),
        "keep": [i % 3 != 2 for i in range(120)],
    }
    store = Store.create("s", pa.table(table).to_batches())
    status, _, err = run(capsys, "knn", "s", "--column", "vector", "--where", "keep", "--k", "4")
    assert status == 0, err
    assert "duplicated" not in err  # row 5 is no node
    run(capsys, "knn", "s", "--column", "vector", "--k", "4", "--graph", "all.npz", "--overwrite")
    status, _, err = run(capsys, "knn", "s", "--column", "vector", "--k", "4", "--graph", "all.npz")
    assert "duplicated: r3, r5" in err
    run(capsys, "knn", "s", "--column", "vector", "--where", "keep", "--k", "4", "--overwrite")
    status, out, err = run(capsys, "spread", "s", "--json")
    assert status == 0, err
    store.refresh()
    filled = store.filled("label.spread")
    np.testing.assert_array_equal(filled, store.array("keep"))
    found = store.array("label.spread", np.flatnonzero(filled))
    assert set(found[:40]) == {0, 1}
    assert set(found[40:]) == {-1}
    assert json.loads(out)["not_reached"] == 40
    margin = store.array("label.spread.margin", np.flatnonzero(filled))
    assert (margin[40:] == 0).all()
    status, _, err = run(capsys, "spread", "s", "--where", "id = 'r0'", "--out", "label.one")
    assert status == 0, err
    assert set(store.refresh().array("label.one", np.flatnonzero(filled))) == {0, -1}


def test_wrong_inputs_give_one_line(store, capsys):
    def wrong(*words: str) -> str:
        status, _, err = run(capsys, *words)
        assert status == 2
        assert err.count("\n") == 1
        return err

    assert "no graph beside it; make one with 'understudy graph knn" in wrong("spread", "s")
    assert "has no column 'vectr'. Did you mean vector" in wrong("knn", "s", "--column", "vectr")
    assert "holds string; a graph takes numbers" in wrong("knn", "s", "--column", "name")
    assert "expected 1 to 179 neighbours" in wrong("knn", "s", "--column", "vector", "--k", "180")
    assert "sigma" in wrong("knn", "s", "--column", "vector", "--sigma", "medium")
    run(capsys, "knn", "s", "--column", "vector")
    assert "labels are whole numbers or text" in wrong("spread", "s", "--labels", "vector")
    assert "no label is given" in wrong("spread", "s", "--where", "id = 'r99'")
    assert "alpha: expected a number in (0, 1)" in wrong("spread", "s", "--alpha", "1")
    assert "give either --column" in wrong("pagerank", "s")
    assert "no row of the graph meets" in wrong("pagerank", "s", "--seeds", "id = 'zz'")
    assert "strength: expected" in wrong("smooth", "s", "--column", "vector", "--strength", "-1")
    assert "'magic' is not one of" in wrong("spread", "s", "--method", "magic")
    assert "no such graph" in wrong("spread", "s", "--graph", "none.npz")
    run(capsys, "knn", "s", "--column", "vector", "--graph", "s.two.knn.npz")
    assert "several graphs beside it" in wrong("spread", "s")
    make("other", seed=1)
    assert "is of another dataset" in wrong("spread", "other", "--graph", "s.vector.knn.npz")


def test_a_graph_of_vectors_that_changed_is_refused(store, capsys):
    def fill(seed: int) -> None:
        x = np.random.default_rng(seed).standard_normal((N, 3)).astype(np.float32)
        card = Card(
            column="embed.m", writer="m", seed=seed, config=embedding_config([3], "float32")
        )
        kind = embedding_type([3], "float32")
        with store.refresh().job([card], {"embed.m": kind}, overwrite=True) as job:
            for unit in job.todo():
                job.write(unit, {"embed.m": fixed_list(x[job.rows(unit)])})

    fill(0)
    assert run(capsys, "knn", "s", "--column", "embed.m")[0] == 0
    assert run(capsys, "spread", "s")[0] == 0
    fill(1)
    status, _, err = run(capsys, "harmonic", "s")
    assert status == 2
    assert "has been written again (or dropped) since the graph was made" in err


SLOW = """
import sys, time
import understudy.curate.graph.knn as knn
import understudy.curate.graph.stage as stage
from understudy.cli import main
knn.UNIT_ROWS = 16
find = knn._Source.find
knn._Source.find = lambda self, places: (time.sleep(0.05), find(self, places))[1]
load = stage.atomic_path
def slow(path):
    time.sleep(0.3)
    return load(path)
stage.atomic_path = slow
import understudy.curate.graph.values as values
from understudy.solve.graph import SolverConfig
plain = values.write_values
values.write_values = lambda *a, **k: plain(*a, **{**k, "solver": SolverConfig(block=1)})
sys.exit(main(sys.argv[1:]))
"""


def _kill_when(words: list[str], ready, folder) -> bool:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "UNDERSTUDY_PROGRESS": "off"}
    process = subprocess.Popen([sys.executable, "-c", SLOW, *words], cwd=folder, env=env)
    try:
        while process.poll() is None and not ready():
            time.sleep(0.01)
        hit = process.poll() is None
        if hit:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
        return hit
    finally:
        if process.poll() is None:
            process.kill()


def test_killed_commands_go_on_and_end_the_same(store, tmp_path, capsys, monkeypatch):
    unbroken = make(tmp_path / "whole")
    knn = ["--column", "vector", "--k", "8"]

    def units() -> int:
        return sum(p.is_file() and "stag" in str(p) for p in (tmp_path / "s").rglob("*"))

    def blocks() -> int:
        return len(list(tmp_path.glob("s.vector.knn.npz.work/*/*.npy")))

    before = units()
    assert _kill_when(["graph", "knn", "s", *knn], lambda: units() >= before + 4, tmp_path)
    assert not (tmp_path / "s.vector.knn.npz").exists()
    assert not store.refresh().has("knn.vector")
    again = subprocess.run(
        [sys.executable, "-c", SLOW, "graph", "knn", "s", *knn], cwd=tmp_path, check=False
    )
    assert again.returncode == 0
    assert run(capsys, "knn", "whole", *knn)[0] == 0
    store.refresh(), unbroken.refresh()
    np.testing.assert_array_equal(store.array("knn.vector"), unbroken.array("knn.vector"))

    smoothing = ["--column", "vector", "--strength", "3"]
    assert _kill_when(["graph", "smooth", "s", *smoothing], lambda: blocks() >= 2, tmp_path)
    finished = {p: p.stat().st_mtime_ns for p in tmp_path.glob("s.vector.knn.npz.work/*/*.npy")}
    assert 2 <= len(finished) < 4
    assert not store.refresh().has("smooth.vector")
    kept = {}
    plain, drop = values.write_values, stage.ColumnStage.drop

    def watched(self) -> None:
        kept.update({p: p.stat().st_mtime_ns for p in self.folder.glob("*.npy")})
        drop(self)

    def one_by_one(*args, **more):
        return plain(*args, **{**more, "solver": SolverConfig(block=1)})

    monkeypatch.setattr(stage.ColumnStage, "drop", watched)
    monkeypatch.setattr(values, "write_values", one_by_one)
    assert run(capsys, "smooth", "s", *smoothing)[0] == 0
    kept = {tmp_path / p: t for p, t in kept.items()}
    assert finished.items() <= kept.items()  # finished blocks were not solved again
    assert len(kept) == 4
    assert not list(tmp_path.glob("*.work"))
    assert run(capsys, "smooth", "whole", *smoothing)[0] == 0
    np.testing.assert_allclose(
        store.refresh().array("smooth.vector"), unbroken.refresh().array("smooth.vector"), atol=1e-6
    )
    assert store.verify() == []
