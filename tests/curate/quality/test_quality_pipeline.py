"""The steps of this room in a pipeline: same pages for all workers, errors before the start."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from quality_world import ENGLISH, GERMAN, classifier

from understudy.core.errors import ConfigError
from understudy.curate.engine.pipeline import Pipeline
from understudy.data.store import Store


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    rng = np.random.default_rng(0)
    for k in range(3):
        with open(folder / f"part-{k}.jsonl", "w") as file:
            for i in range(30):
                words = " ".join(
                    f"{('good', 'noise')[i % 2]}{j}" for j in rng.integers(0, 9, i % 9)
                )
                text = f"{ENGLISH} {words}" if i % 3 else GERMAN
                text += " Is the answer known to be forty two? Yes it is." if i % 10 == 5 else ""
                file.write(json.dumps({"text": text, "id": f"{k}-{i}"}) + "\n")
    models = tmp_path_factory.mktemp("models")
    path = classifier().save(models / "quality.safetensors")
    test_set = models / "set.jsonl"
    test_set.write_text(
        json.dumps({"question": "Is the answer known to be forty two?", "options": ["Yes it is"]})
    )
    steps = [
        {"name": "language", "method": "words"},
        {"name": "quality-score", "model": str(path)},
        {"name": "quality-score", "scorer": "prose", "column": "score.prose"},
        {"name": "quality-threshold", "keep": 0.25, "rank": "quality_rank"},
        {"name": "decontaminate", "sets": [{"path": str(test_set)}]},
    ]
    return folder, steps


def test_pages_do_not_depend_on_workers(world, tmp_path):
    folder, steps = world
    found = []
    for workers in (1, 2):
        store = tmp_path / f"store-{workers}"
        report = Pipeline(steps).run(folder, store, workers=workers)
        found.append(report.rows)
        funnel = {row.name: row.count for row in report.funnel}
        assert funnel["language"].pages_in == 90
        assert funnel["language"].pages_out == 60
        assert funnel["quality-threshold"].pages_out == 15
        assert funnel["quality-threshold"].reasons == {"quality-threshold": 45}
        assert funnel["decontaminate"].pages_out == 15
    assert found == [15, 15]
    rows = [_rows(tmp_path / f"store-{workers}") for workers in (1, 2)]
    assert rows[0] == rows[1]
    assert not any("forty two" in row["text"] for row in rows[0])
    assert all(row["language"] == "en" and row["language_prob"] >= 0.65 for row in rows[0])
    assert all(0.7 < row["quality_rank"] < 1 for row in rows[0])
    assert all(row["score.prose"] > 0 for row in rows[0])


def _rows(store):
    found = Store.open(store)
    rows = found.take(np.arange(len(found)), found.columns).to_pylist()
    return sorted(rows, key=lambda row: row["id"])


def test_wrong_arguments_are_named_before_the_start(world, tmp_path):
    folder, _ = world
    with pytest.raises(ConfigError, match="unknown argument 'kep'. Did you mean 'keep'"):
        Pipeline([{"name": "quality-threshold", "kep": 0.1}]).run(folder, tmp_path / "s")
    with pytest.raises(ConfigError, match=r"pipeline step 1 \(language\): language: threshold"):
        Pipeline([{"name": "language", "threshold": 7}]).run(folder, tmp_path / "s")
    with pytest.raises(ConfigError, match="missing argument 'sets'"):
        Pipeline(["decontaminate"]).run(folder, tmp_path / "s")
    assert not (tmp_path / "s").exists()
