"""The script that kills everything: it kills, it sees what is wrong, and jobs survive it."""

from __future__ import annotations

import json
import os
import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from contract import job, moves, running, until

import chaos
import chaos_aims
from chaos_checks import Checker, history, tries, twice
from chaos_jobs import PATIENT, Kind, _spec
from chaos_processes import Process, kill, living
from chaos_run import Chaos, WrongError, unbroken
from understudy.launch.engines.local import open_local
from understudy.launch.engines.local_settings import LocalSettings
from understudy.launch.outcome import backoff_s
from understudy.launch.spec_parts import Output
from understudy.launch.state_rows import Attempt, Event, Replica
from understudy.launch.states import State

PIECES = 12
TEXT = """
set -e; cd {out}; echo "$UNDERSTUDY_ATTEMPT $UNDERSTUDY_REPLICA" >> runs
for i in 01 02 03 04 05 06 07 08 09 10 11 12; do [ -e p$i ] || { sleep 0.1; touch p$i; }; done
"""


def toy(end: str) -> Kind:
    """Return a job of twelve pieces and a last command, which writes `result`."""
    spec = _spec("toy", TEXT + end, workdir="", include=("**",),
                 outputs=(Output(name="result", path="result"),))  # fmt: skip
    return Kind(
        name="toy", spec=spec,
        progress=lambda folder: set(folder.glob("out/p*")),
        result=lambda folder: (folder / "out" / "result").read_text(),
    )  # fmt: skip


SOUND = toy("ls p* | tr '\\n' ' ' > new; mv new result")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(chaos_aims, "CONTROLLER_S", 1.0)
    monkeypatch.setattr(chaos_aims, "START_S", 1.0)
    monkeypatch.setattr(chaos_aims, "PIECES", 2.0)


def play(folder: Path, kind: Kind, kills: int) -> Chaos:
    kinds = {"toy": kind}
    found = Chaos(folder, kinds, unbroken(folder, kinds, 60), wanted=kills, seed=0,
                  say=lambda _: None)  # fmt: skip
    found.run(120)
    return found


def test_jobs_survive_and_a_run_that_was_stopped_goes_on(tmp_path):
    first = play(tmp_path, SOUND, 4)
    assert first.expected == {"toy": "".join(f"p{i:02d} " for i in range(1, PIECES + 1))}
    assert [k.n for k in first.kills] == [1, 2, 3, 4]
    assert first.done
    assert all(j.state is State.SUCCEEDED for j in first.done)
    on_jobs = [k for k in first.kills if k.job]
    # nothing but a kill of a replica's process costs an attempt
    assert sum(j.attempt - 1 for j in first.done) <= len(on_jobs)
    assert first.checker.looks >= 5
    again = play(tmp_path, SOUND, 6)
    assert [k.n for k in again.kills] == [1, 2, 3, 4, 5, 6]
    assert again.kills[:4] == first.kills
    kept = [json.loads(line) for line in (tmp_path / "kills.jsonl").read_text().splitlines()]
    assert [k["n"] for k in kept] == [1, 2, 3, 4, 5, 6]


def test_a_result_that_depends_on_kills_is_seen(tmp_path):
    kind = toy('echo "$UNDERSTUDY_ATTEMPT" > result')
    kinds = {"toy": kind}
    found = Chaos(tmp_path, kinds, unbroken(tmp_path, kinds, 60), wanted=20, seed=1,
                  say=lambda _: None)  # fmt: skip
    with pytest.raises(WrongError, match=r"toy-\w+: the result is [2-9]\n, unbroken 1"):
        found.run(120)
    assert not living(found.engine.home.root, set(found.jobs.values()))
    until(lambda: not found.engine.controller_alive(), "the controller has gone too")


def test_curate_under_kills_by_the_script_itself(tmp_path, capsys):
    words = ["--kills", "6", "--jobs", "curate", "--folder", str(tmp_path), "--seed", "3"]
    code = chaos.main(words)
    said = capsys.readouterr().out
    assert code == 0, said
    assert "6 kills, " in said
    assert "all SUCCEEDED with the unbroken result" in said


@pytest.mark.slow
def test_all_jobs_under_kills(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(chaos_aims, "CONTROLLER_S", 10.0)
    monkeypatch.setattr(chaos_aims, "START_S", 8.0)
    assert chaos.main(["--kills", "20", "--folder", str(tmp_path)]) == 0, capsys.readouterr().out


def test_a_dry_run_only_shows(tmp_path, capsys):
    assert chaos.main(["--dry-run", "--jobs", "train", "--folder", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "train: 2 x sh -c 'exec python chaos_train.py {outputs.weights}'" in said
    assert "200 kills, seed 0" in said
    assert not (tmp_path / "killed").exists()
    with pytest.raises(SystemExit):
        chaos.main(["--kills", "0"])


def test_a_number_that_went_to_another_process_is_not_hit():
    own = Process(os.getpid(), 0, ("something", "else"), "j", 1, 0, "worker")
    assert not kill(own)
    assert not kill(replace(own, pid=2**22 + 1))


def test_draws_depend_on_the_seed_alone(monkeypatch):
    monkeypatch.setattr("time.monotonic", lambda: 0.0)

    def drawn(seed):
        draw = random.Random(seed)
        return [chaos_aims.draw_aim(draw, at, set()) for at in ("toy", "controller") * 50]

    assert drawn(1) == drawn(1) != drawn(2)
    assert {a.victim for a in drawn(1)} == {"controller", "wrapper", "command", "worker"}


def test_pieces_count_also_when_they_are_gone_again(tmp_path, monkeypatch):
    found = Chaos(tmp_path, {"toy": SOUND}, {}, wanted=1, seed=0, say=lambda _: None)
    there = iter([{"a"}, {"a", "b"}, {"c"}, {"d"}])
    monkeypatch.setattr(found, "_pieces", lambda _: next(there))
    aim = chaos_aims.Aim("toy", "worker", 3, 0.0, 0.0, {"a"})
    # as checkpoints are pruned, there are never three new ones at a time
    assert [found._ripe(aim) for _ in range(4)] == [False, False, False, True]
    found.engine.close()


# -- the checks see what they should


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A job that was tried twice, with its record."""
    engine = open_local(tmp_path_factory.mktemp("home"), LocalSettings(idle_exit_s=0.2))
    text = "[ $UNDERSTUDY_ATTEMPT = 2 ]"
    spec = job("twice", text, retry=PATIENT)
    found = engine.submit(spec)
    assert engine.wait(found, 30).state is State.SUCCEEDED
    yield engine, engine.store.job(found)
    until(lambda: not engine.controller_alive(), "idle")
    engine.close()


def test_a_sound_record_has_nothing_wrong(done):
    engine, record = done
    assert Checker(engine).record() == []
    store = engine.store
    assert history(record, store.events(record.id)) == []
    assert tries(record, store.attempts(record.id), store.replicas(record.id)) == []
    assert "RESTARTING" in moves(engine, record.id)


def test_wrong_histories_are_seen(done):
    engine, record = done
    events = engine.store.events(record.id)
    assert "not numbered" in history(record, events[:2] + events[3:])[0]
    assert "not numbered" in history(record, [*events, events[-1]])[0]
    assert any("its events say" in t for t in history(record, events[:-1]))
    assert any("the record says" in t for t in history(replace(record, attempt=3), events))
    at = next(i for i, e in enumerate(events) if e.facts.get("to") == "RUNNING")

    def with_(**facts) -> list[Event]:
        return [replace(e, facts={**e.facts, **facts}) if i == at else e
                for i, e in enumerate(events)]  # fmt: skip

    found = history(record, with_(to="SUCCEEDED"))
    assert any("SUCCEEDED cannot follow STARTING" in text for text in found)
    assert any("leaves QUEUED" in text for text in history(record, with_(**{"from": "QUEUED"})))
    assert any("attempt 5 follows 1" in text for text in history(record, with_(attempt=5)))


def test_wrong_attempts_are_seen(done):
    engine, record = done
    store = engine.store
    attempts, replicas = store.attempts(record.id), store.replicas(record.id)
    gang = replace(record, spec_json=json.dumps(
        {**json.loads(record.spec_json), "roles": [{"name": "main", "replicas": 2}]}
    ))  # fmt: skip

    def wrong(tried: list[Attempt] = attempts, rows: list[Replica] = replicas, of=record) -> str:
        return "; ".join(tries(of, tried, rows))

    assert "attempts [2] of a job" in wrong(attempts[1:])
    assert "attempts [1] of a job" in wrong(attempts[:1], of=replace(record, attempt=3))
    assert "attempt 1 has not ended" in wrong([replace(attempts[0], end=None), attempts[1]])
    assert "ended by 'success'" in wrong([replace(attempts[0], cause="success"), attempts[1]])
    assert "ended by 'magic'" in wrong([replace(attempts[0], cause="magic"), attempts[1]])
    assert "holds its place" in wrong(rows=[*replicas[:1], replace(replicas[1], state="placed")])
    assert "has ranks [0]" in wrong(of=gang)
    half = [r for row in replicas for r in (row, replace(row, rank=1, state="placed"))]
    assert "a gang in parts" in wrong(rows=half, of=gang)


def test_a_job_that_leaves_its_end_is_seen(done):
    engine, record = done
    checker = Checker(engine)
    assert checker.record() == []
    db = engine.store._db
    try:
        db.execute("UPDATE jobs SET exit_code=9 WHERE id=?", (record.id,))
        assert any("ended as" in text for text in checker.record())
        db.execute("UPDATE jobs SET state='QUEUED' WHERE id=?", (record.id,))
        assert any("was SUCCEEDED, is QUEUED" in text for text in checker.record())
    finally:
        db.execute("UPDATE jobs SET exit_code=0, state='SUCCEEDED' WHERE id=?", (record.id,))
    assert checker.record() == []


def test_replicas_that_live_twice_are_seen():
    wrapper = Process(1, 0, (), "j", 1, 0, "wrapper")
    command = Process(2, 1, (), "j", 1, 0, "command")
    worker = Process(3, 2, (), "j", 1, 0, "worker")
    assert twice([wrapper, replace(wrapper, pid=9), command, worker]) == set()
    assert twice([command, replace(command, pid=4, rank=1)]) == set()
    assert twice([command, replace(command, pid=4)]) == {"j: two commands of rank 0"}
    assert twice([command, replace(worker, attempt=2)]) == {"j: rank 0 lives in attempts [1, 2]"}


def test_files_that_are_not_whole_are_seen(done, tmp_path):
    engine, record = done
    checker = Checker(engine)
    assert checker.files(engine.folder(record.id)) == []
    path = tmp_path / "attempt-1" / "rank-0" / "exit.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"code": ')
    assert checker.files(tmp_path) == [f"{path} is not whole"]


def test_living_processes_have_their_places(tmp_path):
    engine = open_local(tmp_path, LocalSettings(idle_exit_s=0.2))
    found = engine.submit(job("tree", "sleep 60 & sleep 61; true"))
    running(engine, found)

    def roles() -> list[str]:
        return sorted(p.role for p in living(tmp_path, {found}))

    until(lambda: roles() == ["command", "worker", "worker", "wrapper"], "all are there")
    assert living(tmp_path, {"another"}) == []
    engine.cancel(found, 0.1)
    engine.wait(found, 30)
    until(lambda: roles() == [], "all have gone")
    until(lambda: not engine.controller_alive(), "idle")
    engine.close()


def test_pauses_do_not_overflow_after_a_thousand_failures():
    assert 480 <= backoff_s(10.0, 5000, "j") <= 720
    assert backoff_s(0.0, 5000, "j") == 0
