"""Numbers handed to other tools and read back by those."""

from __future__ import annotations

import csv
import math
import subprocess
import sys

import pytest

from understudy.cli import main
from understudy.core.errors import ConfigError
from understudy.launch.home import Home
from understudy.launch.metric_export import export_metrics
from understudy.launch.metric_query import last_values
from understudy.launch.spec import JobSpec
from understudy.launch.spec_parts import Role
from understudy.launch.state import JobStore
from understudy.launch.state_metrics import MetricSink
from understudy.launch.states import State


@pytest.fixture
def home(tmp_path):
    return Home.open(tmp_path / "home")


@pytest.fixture
def store(home):
    with JobStore(home.database) as found:
        yield found


@pytest.fixture
def job(store):
    spec = JobSpec(name="toy", project="digits", command=("train", "x"), roles=(Role(replicas=2),))
    made, _ = store.submit(spec, engine="local")
    with MetricSink(store) as sink:
        for step in (1, 2, 3, 2, 3):  # 2 and 3 were done again
            sink.add(made.id, step, "loss", float(step) + len(store.events(made.id)))
        sink.add(made.id, 4, "loss", float("nan"))
        sink.add(made.id, 7, "eval/top1", 0.25)
        sink.add(made.id, 7, "loss", 0.5, rank=1)
    return made


def test_csv(store, job, tmp_path):
    path = export_metrics(store, job, "csv", str(tmp_path / "out.csv"))
    rows = list(csv.DictReader(open(path)))
    assert [(r["name"], r["rank"], r["step"], r["value"]) for r in rows] == [
        ("eval/top1", "0", "7", "0.25"),
        ("loss", "0", "1", "2.0"), ("loss", "0", "2", "3.0"), ("loss", "0", "3", "4.0"),
        ("loss", "0", "4", "nan"), ("loss", "1", "7", "0.5"),
    ]  # fmt: skip


def test_tensorboard_reads_every_step_once_also_after_a_second_export(store, job, tmp_path):
    accumulators = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="no TensorBoard here"
    )
    for _ in range(2):
        folder = export_metrics(store, job, "tensorboard", str(tmp_path / "runs"))
    assert folder == str(tmp_path / "runs" / job.id)
    found = accumulators.EventAccumulator(folder)
    found.Reload()
    assert sorted(found.Tags()["scalars"]) == ["eval/top1", "loss", "rank-1/loss"]
    points = found.Scalars("loss")
    assert [p.step for p in points] == [1, 2, 3, 4]
    assert [p.value for p in points[:3]] == [2.0, 3.0, 4.0]
    assert math.isnan(points[3].value)
    kept = {(v.name, v.step): v.t for v in last_values(store, job.id) if v.rank == 0}
    assert [p.wall_time for p in points] == [kept["loss", s] for s in (1, 2, 3, 4)]


def test_mlflow_has_one_run_also_after_a_second_export(store, job, tmp_path):
    pytest.importorskip("mlflow", reason='no MLflow here: pip install "understudy[mlflow]"')
    pytest.importorskip("sqlalchemy", reason='no SQLAlchemy here: pip install "understudy[mlflow]"')
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    store.move(job.id, State.QUEUED)
    first = export_metrics(store, store.job(job.id), "mlflow", uri)
    store.move(job.id, State.CANCELLED)
    assert export_metrics(store, store.job(job.id), "mlflow", uri) != first
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("digits")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == job.id
    assert run.info.status == "KILLED"
    assert run.data.tags["understudy.job"] == job.id
    assert run.data.params["command"] == '["train", "x"]'
    history = client.get_metric_history(run.info.run_id, "loss")
    assert sorted((m.step, m.value) for m in history)[:3] == [(1, 2.0), (2, 3.0), (3, 4.0)]
    assert len(history) == 4
    assert [m.value for m in client.get_metric_history(run.info.run_id, "rank-1/loss")] == [0.5]


def test_what_mlflow_refuses_is_one_line(store, job, tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason='no MLflow here: pip install "understudy[mlflow]"')
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    with pytest.raises(ConfigError, match="MLflow at gibberish://x"):
        export_metrics(store, job, "mlflow", "gibberish://x")


def test_bad_input(store, job, tmp_path):
    empty, _ = store.submit(JobSpec(name="empty", command=("x",)), engine="local")
    with pytest.raises(ConfigError, match="has no numbers"):
        export_metrics(store, empty, "csv", str(tmp_path / "x"))
    with pytest.raises(ConfigError, match="no format of numbers 'tensorbord'. Did you mean"):
        export_metrics(store, job, "tensorbord", str(tmp_path / "x"))


def test_the_command(store, job, home, tmp_path, capsys):
    base = ["job", "metrics", job.id, "--home", str(home.root)]
    assert main(base) == 0
    out = capsys.readouterr().out
    assert "eval/top1" in out
    assert "0.25" in out
    assert main([*base, "--to", "csv", "--out", str(tmp_path / "a.csv")]) == 0
    assert capsys.readouterr().out == f"written: {tmp_path / 'a.csv'}\n"
    assert main([*base, "--to", "csv"]) == 2
    assert "--to and --out belong together" in capsys.readouterr().err


def test_nothing_heavy_is_imported_for_a_small_thing():
    code = "import sys, understudy.launch.metric_export; print('tensorboard' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
