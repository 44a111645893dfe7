"""`--on`: the same command, the same bytes, somewhere else."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from understudy.cli import main, on
from understudy.core.errors import ConfigError
from understudy.core.ray_session import RaySession
from understudy.data.store import Store
from understudy.launch.engines import open_engine
from understudy.launch.spec import JobSpec
from understudy.launch.states import State

sys.path.insert(0, str(Path(__file__).parents[1] / "reinforce"))
import workers_toys as toys
from reinforce_world import make_store

REINFORCE = Path(toys.__file__).parent


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home of jobs, in whose engine everything ends with the test."""
    monkeypatch.setenv("UNDERSTUDY_JOBS", str(tmp_path / "jobs"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(REINFORCE))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    engine = open_engine("local")
    for job in engine.store.jobs():
        if not job.final:
            engine.cancel(job.id, 0.1)
            engine.wait(job.id, 30)
    pid = engine.controller_pid()
    engine.close()
    if pid is not None:
        os.kill(pid, signal.SIGKILL)


def jobs(home):
    engine = open_engine("local")
    found = engine.store.jobs()
    engine.close()
    return found


# the flag


def test_the_flag_is_taken_off():
    assert on.take(["s", "--steps", "3"]) == (on.On(), ["s", "--steps", "3"])
    place, rest = on.take(["--on=slurm", "s", "--on.cpus", "4", "--on.queue=gpu", "--online", "x"])
    assert (place.where, place.cpus, place.queue) == ("slurm", 4, "gpu")
    assert rest == ["s", "--online", "x"]
    place, _ = on.take(["--on", "ray://head:10001"])
    assert (place.where, place.address, place.here) == ("ray", "ray://head:10001", False)
    assert on.take(["--on", "local"])[0].here


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--on", "clod"], "expected local, local-job, ray, ray://HOST:PORT or slurm, got 'clod'"),
        (["--on", "http://head:8265"], "expected local, local-job, ray"),
        (["--on"], "--on needs a value"),
        (["--on", "slurm", "--on.gpu", "1"], r"--on.gpu: no such option; did you mean --on.gpus\?"),
        (["--on", "slurm", "--on.gpus", "one"], "expected a number of at least 0, got 'one'"),
        (["--on", "slurm", "--on.cpus", "-1"], "expected a number of at least 0, got '-1'"),
        (["--on.cpus", "2"], "--on.cpus is for --on local-job, ray or slurm"),
        (["--on", "local", "--on.mem-mb", "2"], "--on.mem-mb is for"),
    ],
)
def test_bad_input_flags(words, message):
    with pytest.raises(ConfigError, match=message):
        on.take(words)


@pytest.mark.parametrize(("text", "found"), [("3", (3, 3)), ("1:8", (1, 8)), ("2:2", (2, 2))])
def test_workers(text, found):
    assert on.take_workers(["--workers", text, "x"]) == (found, ["x"])


@pytest.mark.parametrize("text", ["0", "-1", "two", "4:2", "1:", ":3", "0:3"])
def test_bad_input_workers(text):
    with pytest.raises(ConfigError, match="LEAST:MOST such as 1:8, got"):
        on.take_workers(["--workers", text])


# the job


def test_the_job_is_the_command_in_this_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = on.On(where="slurm", cpus=4, gpus=1, mem_mb=9000, queue="long", timeout_s=600)
    spec = on.job_spec(place, ["train", "data/my store", "--out", "runs/x"])
    assert spec.command[1:] == (
        "-m", "understudy.cli.there", str(tmp_path), "train", "data/my store", "--out", "runs/x"
    )  # fmt: skip
    assert spec.name == "train-my-store"
    assert spec.roles[0].resources.vector() == {"cpu": 4, "gpu": 1, "mem_mb": 9000}
    assert (spec.queue, spec.timeout_s, spec.replicas) == ("long", 600, 1)
    # what failed by itself would fail again; what was stopped from outside goes on
    assert spec.retry.on == ("preemption", "node_loss")
    workers = on.job_spec(on.On(where="slurm"), ["reinforce", "s"], replicas=3)
    assert (workers.replicas, workers.is_gang) == (3, False)
    monkeypatch.setattr(on, "_job_server", lambda address: f"{address} takes jobs at")
    ray = on.job_spec(on.On(where="ray", address="ray://h:1"), ["demo"])
    assert ray.engine_options == {"ray": {"address": "ray://h:1 takes jobs at"}}
    assert on.job_spec(on.On(where="ray"), ["demo"]).engine_options == {}


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ("127.0.0.1:8265", "http://head:8265"),
        ("http://10.1.2.3:44", "http://10.1.2.3:44"),
    ],
)
def test_where_a_cluster_takes_jobs(told, found):
    session = RaySession("ray://head:10001")
    session.open = lambda: None
    session._context = SimpleNamespace(dashboard_url=told)
    assert session.dashboard() == found
    session._context = SimpleNamespace(dashboard_url="")
    with pytest.raises(ConfigError, match="ray://head:10001 has no job server"):
        session.dashboard()


def test_other_fields_come_from_a_file(tmp_path):
    path = tmp_path / "site.yaml"
    path.write_text("env: {A: b}\nproject: p\nengine_options: {slurm: {sbatch: {qos: high}}}\n")
    spec = on.job_spec(on.On(where="slurm", spec=str(path)), ["demo"])
    assert (spec.env, spec.project) == ({"A": "b"}, "p")
    assert spec.engine_options == {"slurm": {"sbatch": {"qos": "high"}}}
    path.write_text("command: [ls]\n")
    with pytest.raises(ConfigError, match="'command' is given by the command line; leave it out"):
        on.job_spec(on.On(where="slurm", spec=str(path)), ["demo"])
    path.write_text("projct: p\n")
    with pytest.raises(ConfigError, match="projct"):
        on.job_spec(on.On(where="slurm", spec=str(path)), ["demo"])


def test_bad_input_is_said_before_anything_is_queued(home, capsys):
    store = make_store(home / "s", 4)
    (home / "bad.yaml").write_text("num_veiws: 3\n")
    for words, message in (
        (["reinforce", "--on", "local-job"], "name the store first"),
        (["reinforce", "none", "--on", "local-job"], "no such store"),
        (["reinforce", store.path, "--config", "bad.yaml", "--on", "local-job"], "num_views"),
        (["reinforce", store.path, "--workers", "2"], "say where they run"),
        (["reinforce", store.path, "--on", "ray", "--share", "x"], "exclude each other"),
        (["train", "none", "--lam", "0", "--on", "local-job"], "no such store"),
        (["run", "mobilclip", "--on", "local-job"], "Did you mean mobileclip"),
        (["verify", "ape", "--scale", "big", "--on", "local-job"], "big"),
        (["demo", "--steps", "3", "--on", "local-job"], "expected at least 20"),
    ):
        assert main(words) == 2, words
        assert message in capsys.readouterr().err
    assert jobs(home) == []


def test_a_dry_run_needs_no_job(home, capsys):
    assert main(["demo", "--dry-run", "--on", "local-job"]) == 0
    assert "demo/scenes" in capsys.readouterr().out
    assert jobs(home) == []


# a command as a job


def write_toy(folder: Path) -> None:
    """Write a pipeline of one's own, so that the command is quick and its folder matters."""
    (folder / "my_steps.py").write_text(
        "def upper(page):\n    page.text = page.text.upper()\n    return [page]\n"
    )
    (folder / "p.yaml").write_text(yaml.safe_dump({"steps": ["my_steps:upper"]}))
    pages = [json.dumps({"text": f"page number {i}"}) for i in range(20)]
    (folder / "pages.jsonl").write_text("\n".join(pages) + "\n")


def test_curate_as_a_job_writes_the_same_store_and_tells_the_same(home, capfd):
    write_toy(home)
    words = ["curate", "pages.jsonl", "{}", "--pipeline", "p.yaml"]
    assert main([w.format("here") for w in words] + ["--workers", "1"]) == 0
    told = capfd.readouterr().out
    assert main([w.format("there") for w in words] + ["--on", "local-job", "--workers", "1"]) == 0
    found = capfd.readouterr()
    assert [line.split()[:4] for line in found.out.splitlines()][:3] == [
        line.split()[:4] for line in told.splitlines()
    ][:3]
    assert "submitted to local-job" in found.err
    hashes = {Store.open(name).content_hash() for name in ("here", "there")}
    assert len(hashes) == 1
    (job,) = jobs(home)
    assert job.state is State.SUCCEEDED


def test_exit_status_and_messages_are_the_commands_own(home, capfd):
    write_toy(home)
    (home / "pages.jsonl").write_text("not json\n")
    words = ["curate", "pages.jsonl", "s", "--pipeline", "p.yaml", "--on", "local-job"]
    assert main(words) == 2
    err = capfd.readouterr().err
    assert "pages.jsonl" in err.split("submitted")[1]
    assert "FAILED" in err
    (job,) = jobs(home)
    assert job.attempt == 1
    # typed again it is another job, not the one that failed
    shutil.copy(home / "p.yaml", home / "pages.jsonl")
    assert main(words) == 2
    assert len(jobs(home)) == 2


def test_ctrl_c_leaves_the_job_running_and_the_same_command_finds_it(home):
    store = make_store(home / "s", 12)
    toys.write_config(home / "c.yaml")
    (home / "slow.yaml").write_text("env: {TOY_PAUSE_S: '0.3'}\n")
    words = ["reinforce", store.path, "--config", "c.yaml", "--on", "local-job"]
    words += ["--on.spec", "slow.yaml"]
    command = [sys.executable, "-m", "understudy", *words]
    first = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list((home / "jobs").glob("jobs/*/out/share/leases/*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first.send_signal(signal.SIGINT)
    _, err = first.communicate(timeout=30)
    assert first.returncode == 130
    (job,) = jobs(home)
    assert not job.final
    assert f"{job.id} goes on." in err
    assert f"understudy job cancel {job.id}" in err
    second = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert second.returncode == 0, second.stderr
    assert f"{job.id} runs this command already" in second.stderr
    assert len(jobs(home)) == 1
    assert f"{store.path}: 12 rows" in second.stdout


# reinforce divided


def killed_claim(home: Path, draw: int) -> int:
    """Kill a worker that holds a claim; return its process id."""
    deadline = time.monotonic() + 60
    while True:
        assert time.monotonic() < deadline
        for path in sorted((home / "jobs").glob("jobs/*/out/share/leases/*"))[draw:]:
            try:
                pid = json.loads(path.read_text())["pid"]
            except (OSError, ValueError):
                continue
            os.kill(pid, signal.SIGKILL)
            return pid
        time.sleep(0.01)


def test_reinforce_on_two_workers_one_of_them_killed(home):
    whole, store = make_store(home / "whole", 24), make_store(home / "s", 24)
    toys.write_config(home / "c.yaml")
    (home / "slow.yaml").write_text("env: {TOY_PAUSE_S: '0.2'}\n")
    assert main(["reinforce", whole.path, "--config", "c.yaml"]) == 0
    words = ["reinforce", store.path, "--config", "c.yaml", "--on", "local-job", "--workers", "2"]
    command = [sys.executable, "-m", "understudy", *words, "--on.spec", "slow.yaml", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        killed_claim(home, 0)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert json.loads(out)["rows"] == 24
    (job,) = jobs(home)
    assert (job.state, job.attempt) == (State.SUCCEEDED, 2)
    opened = Store.open(store.path)
    assert opened.content_hash() == whole.refresh().content_hash()
    assert opened.verify() == []
    # nothing is left to do, and that is found out without a teacher being asked
    assert main(words) == 0
    assert Store.open(store.path).version == opened.version


def test_there_runs_in_the_folder_and_goes_on_at_the_second_attempt(home, monkeypatch, capsys):
    from understudy.cli import there

    seen = []
    monkeypatch.setattr("understudy.cli.main", lambda words: seen.append((os.getcwd(), words)) or 3)
    (home / "x").mkdir()
    assert there.there([str(home / "x"), "train", "s", "--fresh"]) == 3
    monkeypatch.setenv("UNDERSTUDY_ATTEMPT", "2")
    assert there.there([str(home / "x"), "train", "s", "--fresh"]) == 3
    assert seen == [(str(home / "x"), ["train", "s", "--fresh"]), (str(home / "x"), ["train", "s"])]
    assert there.there([str(home / "none"), "train"]) == 2
    assert "must be on a file system that every node sees" in capsys.readouterr().err


def test_a_spec_of_on_survives_a_round_trip():
    from understudy.core.config import from_dict, to_dict

    spec = on.job_spec(on.On(where="slurm", cpus=2), ["reinforce", "s"], replicas=2)
    assert from_dict(JobSpec, to_dict(spec)) == spec
