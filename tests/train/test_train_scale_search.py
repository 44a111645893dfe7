"""The search for teachers' logit scales: curves, resuming, cost, the command."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from student_world import few_steps, pair_store

from understudy.cli import main
from understudy.core.errors import CardError, ConfigError, DataError
from understudy.evaluate.held_out import scorer
from understudy.train.scale_search import (
    Curve,
    SearchConfig,
    best_scales,
    search_plan,
    search_scales,
)
from understudy.train.student_config import StudentConfig


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return pair_store(tmp_path_factory.mktemp("pairs") / "store")


STUDENT = StudentConfig(
    model="clip-conv-nano", view_set="main", vocab_size=560, train=few_steps(2), workers=0
)
CONFIG = SearchConfig(scales=(50.0, 5.0), student=STUDENT, seeds=(0, 1))


def _curve(values, scales=(1.0, 10.0, 50.0, 100.0, 300.0), rows=200):
    return Curve(teacher="t", scales=scales, values=np.array(values, float), rows=rows)


def test_the_best_scale_and_its_flat_top():
    curve = _curve([[0.1, 0.12], [0.30, 0.32], [0.40, 0.44], [0.41, 0.42], [0.2, 0.2]])
    assert curve.best == 50.0
    assert curve.errors[2] == pytest.approx(0.02)
    assert curve.flat == (50.0, 100.0)
    assert curve.interior
    assert curve.note() == "t: best 50 (0.42), flat from 50 to 100 (one standard error)"
    edge = _curve([[0.1], [0.2], [0.3], [0.4], [0.5]])
    assert not edge.interior
    assert "try scales above it too" in edge.note()
    # one seed: the error of a share of the scored rows
    assert edge.errors[4] == pytest.approx((0.5 * 0.5 / 200) ** 0.5)
    assert edge.flat == (300.0,)
    assert best_scales([curve, edge]) == (50.0, 300.0)


def test_every_teacher_and_scale_is_trained_and_kept(pairs, tmp_path):
    seen = []
    curves = search_scales(
        pairs, CONFIG, tmp_path, scorer(pairs), on_done=lambda *row: seen.append(row[:3])
    )
    assert [c.teacher for c in curves] == ["ta", "tb"]
    assert seen == [(t, s, seed) for t in ("ta", "tb") for s in (5.0, 50.0) for seed in (0, 1)]
    assert curves[0].values.shape == (2, 2)
    found = json.loads((tmp_path / "search.json").read_text())
    assert found["best"] == {c.teacher: c.best for c in curves}
    assert found["curves"][1]["scales"] == [5.0, 50.0]
    # the runs differ in the scale alone
    runs = [
        json.loads((tmp_path / f"ta/scale-{s}/seed-1/config.json").read_text()) for s in (5, 50)
    ]
    students = [run["context"]["student"] for run in runs]
    assert students[0].pop("scales") == [5.0]
    assert students[1].pop("scales") == [50.0]
    assert students[0] == students[1]

    def refuse(model):
        raise AssertionError("a finished student is not trained again")

    again = search_scales(pairs, CONFIG, tmp_path, refuse)
    assert [c.values.tolist() for c in again] == [c.values.tolist() for c in curves]
    plan = search_plan(pairs, CONFIG, tmp_path)
    assert (plan["students"], plan["done"], plan["seconds_left"]) == (8, 8, 0)


def test_a_search_that_was_stopped_goes_on(pairs, tmp_path):
    class StopError(Exception):
        pass

    def stop(teacher, scale, seed, value):
        if (teacher, scale, seed) == ("ta", 50.0, 0):
            raise StopError

    with pytest.raises(StopError):
        search_scales(pairs, CONFIG, tmp_path, scorer(pairs), on_done=stop)
    assert search_plan(pairs, CONFIG, tmp_path)["done"] == 3
    parts = search_scales(pairs, CONFIG, tmp_path, scorer(pairs))
    whole = search_scales(pairs, CONFIG, tmp_path / "whole", scorer(pairs))
    assert [c.values.tolist() for c in parts] == [c.values.tolist() for c in whole]


def test_what_a_search_would_cost(pairs, tmp_path):
    config = replace(CONFIG, teachers=("tb",), seeds=(7,))
    plan = search_plan(pairs, config, tmp_path)
    assert plan["teachers"] == ["tb"]
    assert (plan["students"], plan["done"], plan["steps"], plan["samples_seen"]) == (2, 0, 4, 32)
    assert plan["seconds_left"] > 0
    assert not any(tmp_path.iterdir())


def test_the_command(pairs, tmp_path, capsys):
    out = tmp_path / "s"
    words = ["train", "scales", pairs.path, "--out", str(out), "--scales", "5", "50"]
    words += ["--teachers", "ta", "--student.model", "clip-conv-nano"]
    words += ["--student.view-set", "main", "--student.vocab-size", "560"]
    words += ["--student.train.steps", "2", "--student.train.batch-size", "8"]
    words += ["--student.train.warmup-steps", "0", "--student.workers", "0"]
    assert main([*words, "--dry-run"]) == 0
    assert "students      2" in capsys.readouterr().out
    assert not out.exists()
    assert main(words) == 0
    shown = capsys.readouterr()
    assert "ta: best" in shown.out
    assert "search.html" in shown.err
    assert "Logit scales of teachers" in (out / "search.html").read_text()
    assert main([*words, "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["best"]) == {"ta"}
    assert main(["train", "scales"]) == 2
    assert "name the store first" in capsys.readouterr().err


def test_bad_input_search(pairs, tmp_path):
    with pytest.raises(ConfigError, match="at least two different candidates"):
        replace(CONFIG, scales=(5.0, 5.0))
    with pytest.raises(ConfigError, match=r"scales\[1\]: expected a positive number"):
        replace(CONFIG, scales=(5.0, -1.0))
    with pytest.raises(ConfigError, match="seeds: expected different ones"):
        replace(CONFIG, seeds=(1, 1))
    with pytest.raises(ConfigError, match="a search needs distillation from stored embeddings"):
        replace(CONFIG, student=replace(STUDENT, lam=0.0))
    with pytest.raises(CardError, match="by teacher 'tc'"):
        search_scales(pairs, replace(CONFIG, teachers=("tc",)), tmp_path, scorer(pairs))
    with pytest.raises(DataError, match="no finite 'retrieval.best' .metrics: rows"):
        search_scales(pairs, replace(CONFIG, metric="retrieval.best"), tmp_path, scorer(pairs))
