"""`understudy job`: what it prints, its exit codes, what it says about mistakes."""

from __future__ import annotations

import json

import pytest
import yaml

from understudy.cli import main
from understudy.launch.engines.local import open_local
from understudy.launch.engines.local_settings import LocalSettings


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    root = tmp_path_factory.mktemp("home")
    engine = open_local(root, LocalSettings(idle_exit_s=1, poll_s=0.1, grace_s=1))
    engine.set_capacity(2)
    yield root
    engine.close()


@pytest.fixture
def run(home, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("UNDERSTUDY_JOBS", str(home))
    monkeypatch.setenv("UNDERSTUDY_PROGRESS", "off")
    monkeypatch.chdir(tmp_path)

    def call(*words):
        status = main(["job", *map(str, words)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def spec(tmp_path, **fields):
    path = tmp_path / f"{fields.get('name', 'a')}.yaml"
    plain = {"name": "a", "command": ["sh", "-c", "echo hello"], "retry": {"max_failures": 0}}
    path.write_text(yaml.safe_dump({**plain, **fields}))
    return path


def test_a_job_from_plan_to_logs(run, tmp_path):
    path = spec(tmp_path, name="good", outputs=[{"name": "o", "path": "o.txt"}],
                command=["sh", "-c", "echo hello; echo 42 > {outputs.o}"])  # fmt: skip
    status, out, _ = run("plan", path)
    assert status == 0
    assert "rank 0      sh -c echo hello" in out
    assert "[cpu 1]" in out
    status, out, err = run("submit", path, "--wait")
    assert (status, err) == (0, "")
    job, state = out.split()[:2]
    assert job.startswith("good-")
    assert state == "SUCCEEDED"
    status, _, err = run("submit", path)
    assert status == 0
    assert f"{job} was submitted before with this key and is SUCCEEDED" in err
    assert run("logs", "good") == (0, "hello\n", "")
    assert "1.0 stdout hello" in run("logs", job[:-1], "--stamps")[1]
    line = json.loads(run("logs", job, "--json", "--follow")[1])
    assert (line["seq"], line["stream"], line["text"]) == (1, "stdout", "hello")
    status, out, _ = run("status", job, "--events")
    assert status == 0
    assert "state     SUCCEEDED" in out
    assert "o.txt" in out
    assert "from STARTING, to RUNNING" in out
    found = json.loads(run("status", job, "--json")[1])
    assert (found["state"], found["artefacts"][0]["bytes"]) == ("SUCCEEDED", 3)
    assert job in run("list", "--state", "succeeded")[1]
    assert run("list", "--state", "failed", "--name", "good")[1] == "no jobs\n"
    assert json.loads(run("list", "--json", "--limit", "1")[1])[0]["id"] == job
    assert run("cancel", job) == (0, f"{job} SUCCEEDED\n", "")


def test_a_failed_job_is_exit_code_1(run, tmp_path):
    path = spec(tmp_path, name="bad", command=["sh", "-c", "exit 3"])
    status, out, _ = run("submit", path, "--wait")
    assert status == 1
    assert "FAILED (rank 0 (main): exit code 3)" in out
    assert run("wait", "bad")[0] == 1
    status, out, _ = run("retry", "bad", "--wait")
    assert status == 1
    assert len(json.loads(run("list", "--name", "bad", "--json")[1])) == 2


def test_a_running_job_is_cancelled(run, tmp_path):
    path = spec(tmp_path, name="long", command=["sleep", "60"])
    run("submit", path)
    assert run("wait", "long", "--timeout", "0.2")[0] == 2
    status, out, _ = run("retry", "long")
    assert status == 2
    status, out, _ = run("cancel", "long", "--grace", "1", "--wait")
    assert status == 0
    assert out.split()[1] == "CANCELLED"


def test_a_pipeline_runs_and_is_not_run_again(run, tmp_path):
    (tmp_path / "p.yaml").write_text(
        "nodes:\n"
        "- {name: n1, command: [sh, -c, 'echo 1 > {outputs.x}'], outputs: [{name: x, path: x}]}\n"
        "- {name: n2, command: [cat, '{inputs.x}'], inputs: [{name: x, uri: 'artefact:x'}]}\n"
    )
    assert run("plan", tmp_path / "p.yaml")[1].splitlines()[1] == "n2: cat {inputs.x}"
    status, out, err = run("submit", tmp_path / "p.yaml")
    assert status == 0, err
    assert [line.split()[:3] for line in out.splitlines()[2:]] == [
        ["n1", "SUCCEEDED", "now"], ["n2", "SUCCEEDED", "now"],
    ]  # fmt: skip
    assert run("logs", "n2")[1] == "1\n"
    out = run("submit", tmp_path / "p.yaml")[1]
    assert [line.split()[2] for line in out.splitlines()[2:]] == ["before", "before"]
    assert run("submit", tmp_path / "p.yaml", "--key", "k")[0] == 2


def test_export(run, tmp_path):
    path = spec(tmp_path)
    status, out, _ = run("export", path, "--to", "skypilot")
    assert status == 0
    assert yaml.safe_load(out)["run"] == "sh -c 'echo hello'"
    status, out, _ = run("export", path, "--to", "torchx", "--out", tmp_path / "job.py")
    assert (status, out) == (0, f"written: {tmp_path / 'job.py'}\n")
    assert "AppDef" in (tmp_path / "job.py").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("submit", "none.yaml"), "none.yaml: no such file"),
        (("plan", "a.yaml", "--engine", "locl"), "there is no engine 'locl'. Did you mean local?"),
        (("status", "nobody"), "there is no job 'nobody'. `understudy job list` shows"),
        (("list", "--state", "runing"), "--state: 'RUNING' is not one of"),
        (("export", "a.yaml", "--to", "nomad"), "there is no format to export to 'nomad'"),
        (("submt", "a.yaml"), "there is no command 'job submt'. Did you mean: job submit"),
        (("submit", "script.yaml"), "command file 'train.py' not found in workdir"),
        (("submit", "typo.yaml"), "typo.yaml, line 3, column 1: unknown key 'prioritty'. Did you"),
        (("submit", "gpu.yaml"), "role 'main' asks gpu=1; engine 'local' has gpu=0 in total."),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(run, tmp_path, words, message):
    spec(tmp_path)
    spec(tmp_path, name="script", command=["python", "train.py"], workdir=".")
    (tmp_path / "typo.yaml").write_text("name: a\ncommand: [x]\nprioritty: 3\n")
    spec(tmp_path, name="gpu", roles=[{"name": "main", "resources": {"gpu": 1}}])
    status, out, err = run(*words)
    assert (status, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


def test_help_imports_nothing_heavy():
    import subprocess
    import sys

    code = (
        "import sys; from understudy.launch.engines import local_controller; "
        "from understudy.launch import replica; "
        "heavy = {'torch', 'numpy', 'tyro', 'rich', 'pyarrow', 'yaml'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
