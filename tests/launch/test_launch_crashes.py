"""The controller is killed between any two writes; in the end the record is the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from understudy.launch.engines.local import open_local
from understudy.launch.engines.local_settings import LocalSettings
from understudy.launch.spec import JobSpec
from understudy.launch.spec_parts import Output, Retry, Role
from understudy.launch.state_slots import room
from understudy.launch.states import State

HERE = Path(__file__).parent
RUNS = 'echo "$UNDERSTUDY_ATTEMPT $UNDERSTUDY_REPLICA" >> $UNDERSTUDY_OUT_DIR/runs; '
SPECS = (
    JobSpec(
        name="gang",
        command=("sh", "-c", RUNS + "printf $UNDERSTUDY_REPLICA > {out}/r$UNDERSTUDY_REPLICA"),
        roles=(Role(replicas=2),),
        outputs=(Output(name="zero", path="r0"), Output(name="one", path="r1")),
    ),
    JobSpec(
        name="again",
        command=("sh", "-c", RUNS + "[ $UNDERSTUDY_ATTEMPT = 2 ]"),
        retry=Retry(max_failures=1, backoff_s=0.01),
    ),
)


def play(home: Path, limit: int) -> tuple[list, int]:
    """Run the jobs under a controller killed at a write, then under a sound one.

    Returns:
        what the record and the jobs' own traces say, and the writes of the first controller (0 if
        it was killed).
    """
    engine = open_local(home, LocalSettings(idle_exit_s=0, poll_s=0.02))
    engine.set_capacity(3)
    for spec in SPECS:
        job, _ = engine.store.submit(spec, engine="local", environment={"PATH": "/usr/bin:/bin"})
        engine.prepare(job)
    words = [sys.executable, str(HERE / "crashing_controller.py"), str(home), str(limit)]
    first = subprocess.run(words, capture_output=True, text=True, timeout=60)
    killed = first.returncode == -9
    assert killed or first.returncode == 0, first.stderr
    found = []
    for spec in SPECS:
        job = engine.store.find(spec.name)
        status = engine.wait(job.id, 30)
        moves = [e.facts["to"] for e in engine.store.events(job.id) if e.kind == "move"]
        runs = (engine.folder(job.id) / "out" / "runs").read_text().splitlines()
        found.append(
            {
                "state": status.state,
                "code": status.exit_code,
                "moves": moves,
                "attempts": [(a.n, a.cause, a.exit) for a in engine.store.attempts(job.id)],
                "artefacts": [(a.name, a.sha256) for a in engine.store.artefacts(job.id)],
                "runs": sorted(runs),
                "replicas": [(r.attempt, r.rank, r.state) for r in engine.store.replicas(job.id)],
            }
        )
    assert room(engine.store, engine.capacity()).free["cpu"] == 3
    engine.close()
    return found, 0 if killed else int(first.stdout)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    found, writes = play(tmp_path_factory.mktemp("unbroken"), 10**9)
    assert [f["state"] for f in found] == [State.SUCCEEDED] * 2
    assert found[0]["runs"] == ["1 0", "1 1"]
    assert found[1]["runs"] == ["1 0", "2 0"]
    assert writes > 30
    return found, writes


def same(tmp_path, unbroken, points):
    for limit in points:
        home = tmp_path / str(limit)
        found, left = play(home, limit)
        assert left == 0, "it was not killed"
        assert found == unbroken[0], f"killed at write {limit}"


def test_killed_at_some_writes(tmp_path, unbroken):
    same(tmp_path, unbroken, range(2, unbroken[1] - 6, unbroken[1] // 7))


@pytest.mark.slow
def test_killed_at_every_write(tmp_path, unbroken):
    # orders may differ a little from run to run: the last few may not be reached
    same(tmp_path, unbroken, range(1, unbroken[1] - 6))
