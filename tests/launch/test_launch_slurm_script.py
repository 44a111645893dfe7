"""What `sbatch` gets, without a Slurm: options from the spec, the script around the replicas."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from contract import until

from understudy.core.errors import ConfigError
from understudy.launch.engines.slurm_script import groups, minutes, render, site_options
from understudy.launch.spec import JobSpec
from understudy.launch.spec_parts import Checkpoint, Resources, Role

PLAIN = """\
#!/bin/sh
#SBATCH --job-name=digits-3f9a2c1b.2
#SBATCH --output=/home/me/jobs/digits-3f9a2c1b/slurm-%j.out
#SBATCH --open-mode=append
#SBATCH --chdir=/home/me/jobs/digits-3f9a2c1b
#SBATCH --requeue
#SBATCH --signal=B:USR1@31
#SBATCH --ntasks=4
#SBATCH --cpus-per-task=2
#SBATCH --mem-per-cpu=954M
#SBATCH --gpus-per-task=a100:1
#SBATCH --time=62
#SBATCH --partition=long
#SBATCH --account=vision
#SBATCH --qos=high
#SBATCH --exclusive

python=/opt/python
job=/home/me/jobs/digits-3f9a2c1b
base=2
first=0
suffix=''
wire=1
parts=1
whole=''
start() {
  srun --mpi=none --input=none --kill-on-bad-exit=0 --wait=0 \\
    --cpus-per-task=2 sh -c "$task"
}
"""
MIXED = """\
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --mem=287M
#SBATCH hetjob
#SBATCH --ntasks=3
#SBATCH --cpus-per-task=4

python=/opt/python
job=/j
base=1
first=0
suffix=''
wire=0
parts=2
whole=--het-group=0-1
start() {
  srun --mpi=none --input=none --kill-on-bad-exit=0 --wait=0 \\
    --het-group=0 --mem=0 --cpus-per-task=1 sh -c "$task" : \\
    --het-group=1 --mem=0 --cpus-per-task=4 sh -c "$task"
}
"""


def spec(**fields):
    return JobSpec(**{"name": "digits", "command": ("python", "train.py"), **fields})


def rendered(given, **fields):
    words = {"name": "n", "folder": Path("/j"), "base": 1, "python": "/opt/python", **fields}
    return render(given, **words)


def options(text):
    found = [line.removeprefix("#SBATCH ") for line in text.splitlines() if "#SBATCH" in line]
    return dict(o.removeprefix("--").partition("=")[::2] for o in found)


def test_a_gang_is_one_script():
    role = Role(replicas=4, resources=Resources(cpu=2, mem_mb=2000, gpu=1, gpu_type="a100"))
    given = spec(
        roles=(role,), launcher="torchrun", queue="long", timeout_s=3600.0,
        checkpoint=Checkpoint(dir="checkpoints", grace_s=30.5),
        engine_options={"slurm": {"sbatch": {"account": "vision", "--qos": "high",
                                             "exclusive": True, "hint": False}}},
    )  # fmt: skip
    text = rendered(given, name="digits-3f9a2c1b.2", base=2,
                    folder=Path("/home/me/jobs/digits-3f9a2c1b"))  # fmt: skip
    assert text.startswith(PLAIN)


def test_roles_that_differ_are_parts_of_one_job():
    same = Resources(cpu=4)
    given = spec(
        roles=(
            Role(name="lead", resources=Resources(mem_mb=300)),
            Role(name="left", replicas=2, resources=same),
            Role(name="right", resources=same),
        )
    )
    assert [g.count for g in groups(given)] == [1, 3]
    assert MIXED in rendered(given)


def test_a_replica_without_a_gang_is_not_requeued():
    given = spec(roles=(Role(replicas=3, resources=Resources(cpu=0.5)),), gang=False)
    text = rendered(given, rank=2)
    found = options(text)
    assert "no-requeue" in found
    assert "requeue" not in found
    assert (found["ntasks"], found["cpus-per-task"]) == ("1", "1")
    assert "first=2\nsuffix='-r2'\n" in text


@pytest.mark.parametrize(
    ("timeout_s", "longest_s", "wanted"),
    [(None, None, None), (0.3, None, 2), (3600.0, None, 62), (3600.0, 3600.0, 60), (1.0, 30.0, 1)],
)
def test_the_time_limit_is_somewhat_longer_than_ours(timeout_s, longest_s, wanted):
    assert minutes(spec(timeout_s=timeout_s), 15.0, longest_s) == wanted


@pytest.mark.parametrize(
    ("priority", "privileged", "nice"),
    [(0, True, None), (2, False, None), (2, True, "-2000"), (-1, False, "1000")],
)
def test_priority_is_niceness(priority, privileged, nice):
    found = options(rendered(spec(priority=priority), privileged=privileged))
    assert found.get("nice") == nice


def test_what_slurm_counts_by_node_gets_a_node_a_task():
    need = Resources(disk_mb=1000, custom={"license": 2})
    found = options(rendered(spec(roles=(Role(replicas=2, resources=need),))))
    assert (found["nodes"], found["ntasks-per-node"], found["gres"]) == ("2", "1", "license:2")
    assert found["tmp"] == "954M"


def test_paths_that_sbatch_would_read_otherwise():
    found = rendered(spec(), folder=Path("/a b/50%j"))
    assert "#SBATCH '--output=/a b/50%j/slurm-%j.out'" not in found
    assert "#SBATCH '--output=/a b/50%%j/slurm-%j.out'" in found
    assert "job='/a b/50%j'" in found


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"slurm": {"sbtach": {}}}, r"slurm.sbtach: expected sbatch: \{option: value\}"),
        ({"slurm": {"sbatch": {"time": "1:00"}}}, "sbatch.time: the engine gives --time itself"),
        ({"slurm": {"sbatch": {"cpus_per_task": 2}}}, "the engine gives --cpus-per-task itself"),
        ({"slurm": {"sbatch": {"a b": 2}}}, "'a b' is not an option"),
        ({"slurm": {"sbatch": {"qos": "x\n#SBATCH --uid=0"}}}, "sbatch.qos: expected a word"),
        ({"slurm": {"sbatch": {"qos": ["a"]}}}, r"expected a word, a number or true, got \['a'\]"),
    ],
)
def test_options_that_cannot_be(given, message):
    with pytest.raises(ConfigError, match=message):
        site_options(spec(engine_options=given))


def test_queue_and_partition_are_one_thing():
    given = {"slurm": {"sbatch": {"partition": "a"}}}
    with pytest.raises(ConfigError, match="queue is 'b' and .*partition 'a'; keep one"):
        site_options(spec(queue="b", engine_options=given))


# -- the script runs, with stand-ins for Slurm's programs

SRUN = """#!/bin/sh
[ "$1" = --help ] && exit
while [ "$1" != sh ]; do shift; done
SLURM_PROCID=0 exec "$@"
"""
PYTHON = """#!/bin/sh
# stands for `python -m understudy.launch.engines.slurm_node ...`
case "$3" in
  signal) echo "signal $5" >> "$NOTES"; [ "$5" = TERM ] && touch "$NOTES.term"; exit 0 ;;
  task) echo "task $4 $5 $(basename "$6") $7" >> "$NOTES" ;;
esac
while [ -e "$NOTES.run" ] && [ ! -e "$NOTES.term" ]; do sleep 0.02; done
exit 3
"""


@pytest.fixture
def started(tmp_path, monkeypatch):
    """Return a function that starts the script; what Slurm says is in the file `shown`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    shown = f'#!/bin/sh\ncat "{tmp_path}/shown"\n'
    for name, text in (("srun", SRUN), ("python", PYTHON), ("scontrol", shown)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    (tmp_path / "shown").write_text("JobId=7 JobState=RUNNING PreemptTime=None")
    (tmp_path / "notes.run").touch()
    (tmp_path / "job.sh").write_text(
        rendered(spec(), folder=tmp_path / "job", python=str(folder / "python"), base=4)
    )
    running = []

    def start(**env):
        one = subprocess.Popen(["sh", str(tmp_path / "job.sh")], env={**os.environ, **env})
        running.append(one)
        until((tmp_path / "notes").exists, "the task runs")
        return one

    yield start
    for one in running:
        if one.poll() is None:
            one.kill()


def test_a_restart_is_the_next_attempt(tmp_path, started):
    script = started(SLURM_RESTART_COUNT="2")
    (tmp_path / "notes.run").unlink()
    assert script.wait(10) == 3
    assert (tmp_path / "notes").read_text() == f"task {tmp_path}/job 4 attempt-6 0\n"
    attempt = tmp_path / "job" / "attempt-6"
    assert '"restarts": 2' in (attempt / "slurm-begun.json").read_text()
    assert (attempt / "rank-0" / "left").read_text() == "3\n"
    assert not (attempt / "slurm-told").exists()


def told(tmp_path):
    path = tmp_path / "job" / "attempt-4" / "slurm-told"
    return path.read_text() if path.exists() else ""


def test_after_the_word_of_a_preemption_it_stays_until_slurm_ends_it(tmp_path, started):
    (tmp_path / "shown").write_text("JobId=7 JobState=RUNNING PreemptTime=2026-01-01T00:00:00")
    script = started()
    script.send_signal(10)
    until(lambda: "signal USR1" in (tmp_path / "notes").read_text(), "handed on")
    assert told(tmp_path) == "USR1 preempt\n"
    (tmp_path / "notes.run").unlink()  # the job ends in its handler
    until((tmp_path / "job" / "attempt-4" / "rank-0" / "left").exists, "the replica ended")
    time.sleep(0.3)
    assert script.poll() is None
    (tmp_path / "shown").write_text("JobId=7 JobState=COMPLETING PreemptTime=None")
    assert script.wait(10) == 3


def test_after_the_word_of_a_time_limit_it_goes(tmp_path, started):
    script = started()
    script.send_signal(10)
    until(lambda: told(tmp_path) == "USR1 limit\n", "noted")
    (tmp_path / "notes.run").unlink()
    assert script.wait(10) == 3


def test_what_we_stop_ourselves_goes_at_once(tmp_path, started):
    script = started()
    (tmp_path / "job" / "attempt-4" / "stop.json").write_text("{}")
    script.terminate()
    assert script.wait(10) != 0
    assert told(tmp_path) == ""
    assert "signal TERM" in (tmp_path / "notes").read_text()


def test_what_slurm_stops_waits_for_slurms_word(tmp_path, started):
    script = started()
    script.terminate()
    until(lambda: told(tmp_path) == "TERM outside\n", "noted")
    until((tmp_path / "job" / "attempt-4" / "rank-0" / "left").exists, "the replica ended")
    time.sleep(0.3)
    assert script.poll() is None
    (tmp_path / "job" / "attempt-4" / "stop.json").write_text("{}")  # we end it after all
    assert script.wait(10) != 0
