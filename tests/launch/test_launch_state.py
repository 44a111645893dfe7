"""The record of jobs: only the table's moves, one event each, one winner, thousands listed."""

from __future__ import annotations

import itertools
import multiprocessing
import random
import sqlite3
import time

import launch_race
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError, DataError
from understudy.launch.spec import JobSpec
from understudy.launch.spec_parts import Role
from understudy.launch.state import JobStore
from understudy.launch.state_metrics import MetricSink, ingest
from understudy.launch.state_slots import Capacity, Room, place, release_inside, room
from understudy.launch.states import FINAL, MOVES, MoveError, State

ONE = Capacity(amounts={"cpu": 1.0})
TWO = Capacity(amounts={"cpu": 2.0})


@pytest.fixture
def store(tmp_path):
    with JobStore(tmp_path / "jobs.db") as found:
        yield found


def add(store, name="a", queued=True, **fields) -> str:
    spec = JobSpec(name=name, command=("x",), **{"key": f"{name}-{random.random()}", **fields})
    job, new = store.submit(spec, engine="local")
    assert new
    if queued:
        store.move(job.id, State.QUEUED)
    return job.id


def test_the_table_is_the_documented_one():
    text = """
    CREATED > QUEUED CANCELLED LOST
    QUEUED > STARTING CANCELLED LOST
    STARTING > RUNNING CANCELLED LOST
    RUNNING > SUCCEEDED FAILED CANCELLED TIMED_OUT PREEMPTED RESTARTING LOST
    PREEMPTED > QUEUED CANCELLED LOST
    RESTARTING > RUNNING CANCELLED LOST
    LOST > QUEUED FAILED
    """
    pairs = (line.strip().split(" > ") for line in text.strip().splitlines())
    table = {State(before): set(after.split()) for before, after in pairs}
    assert {s: set(after) for s, after in MOVES.items() if after} == table
    assert {s for s, after in MOVES.items() if not after} == FINAL


def test_random_orders_of_events_keep_to_the_table(store):
    """10,000 tried moves: each either is in the table and adds one event, or changes nothing."""
    draw = random.Random(0)
    store._db.execute("PRAGMA synchronous=OFF")
    done = 0
    while done < 10_000:
        job = add(store, queued=False)
        state, seq = State.CREATED, 1
        for _ in range(40):
            done += 1
            to = draw.choice(list(State))
            if to in MOVES[state]:
                store.move(job, to, reason="r")
                state, seq = to, seq + 1
            else:
                with pytest.raises(MoveError, match=f"{to} cannot follow {state}"):
                    store.move(job, to)
            record = store.job(job)
            assert (record.state, record.last_seq) == (state, seq)
        events = store.events(job)
        assert [e.seq for e in events] == list(range(1, seq + 1))
        moves = [e.facts for e in events if e.kind == "move"]
        for before, after in itertools.pairwise(moves):
            assert before["to"] == after["from"]
        assert (record.ended is not None) == (state in FINAL)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(list(State)), max_size=12))
def test_final_states_never_change(tmp_path_factory, order):
    with JobStore(tmp_path_factory.mktemp("s") / "jobs.db") as store:
        store._db.execute("PRAGMA synchronous=OFF")
        job, final = add(store, queued=False), None
        for to in order:
            try:
                store.move(job, to)
            except MoveError:
                pass
            else:
                assert final is None
            record = store.job(job)
            final = record.state if record.final else None


def test_a_move_that_fails_leaves_no_event(store):
    job = add(store)

    def fail():
        with store.transaction() as db:
            store.move_inside(job, State.STARTING)
            db.execute("SELECT * FROM nothing")

    with pytest.raises(sqlite3.OperationalError):
        fail()
    assert store.job(job).state is State.QUEUED
    assert [e.kind for e in store.events(job)] == ["created", "move"]


def test_one_key_is_one_job(store):
    spec = JobSpec(name="a", command=("x",), priority=1)
    first, new = store.submit(spec, engine="local", code="c1")
    again, other = store.submit(spec, engine="local", code="c1")
    assert (new, other, again.id) == (True, False, first.id)
    _, new = store.submit(spec, engine="local", code="c2")
    assert new  # by default another code is another key
    keyed = JobSpec(name="a", command=("x",), key="k")
    store.submit(keyed, engine="local", code="c1")
    with pytest.raises(ConfigError, match=r"key 'k' exists .* \(diff: code: 'c1' -> 'c2'\)"):
        store.submit(keyed, engine="local", code="c2")
    with pytest.raises(ConfigError, match=r"diff: priority: 0 -> 3; timeout_s: None -> 9.0\)"):
        store.submit(
            JobSpec(name="a", command=("x",), key="k", priority=3, timeout_s=9.0),
            engine="local",
            code="c1",
        )


def _race(target, arguments):
    context = multiprocessing.get_context("spawn")
    barrier, out = context.Barrier(len(arguments)), context.Queue()
    workers = [context.Process(target=target, args=(*a, barrier, out)) for a in arguments]
    for worker in workers:
        worker.start()
    found = [out.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    return found


def test_racing_processes_have_one_winner(tmp_path):
    path = tmp_path / "jobs.db"
    with JobStore(path) as store:
        jobs = [add(store, f"j{i}") for i in range(3)]
        found = _race(launch_race.place_one, [(path, job) for job in jobs])
        assert sorted(won for _, won in found) == [False, False, True]
        states = sorted(store.job(job).state for job in jobs)
        assert states == [State.QUEUED, State.QUEUED, State.STARTING]
        assert room(store, ONE).free["cpu"] == 0
    fresh = tmp_path / "fresh.db"
    found = _race(launch_race.submit, [(fresh,)] * 3)  # making the database is a race too
    assert len({job for job, _ in found}) == 1
    assert sorted(new for _, new in found) == [False, False, True]


def test_ten_thousand_queued_jobs_are_listed_within_a_second(store):
    store._db.execute("PRAGMA synchronous=OFF")
    first, _ = store.submit(JobSpec(name="a", command=("x",)), engine="local")
    store.move(first.id, State.QUEUED)
    row = dict(store._db.execute("SELECT * FROM jobs").fetchone())
    names = ", ".join(row)
    with store.transaction() as db:
        db.executemany(
            f"INSERT INTO jobs({names}) VALUES({', '.join('?' * len(row))})",
            [tuple({**row, "id": f"a-{i}", "key": f"{i}"}.values()) for i in range(9_999)],
        )
    from understudy.launch.engines.local import LocalEngine
    from understudy.launch.engines.local_schedule import waiting
    from understudy.launch.engines.local_settings import LocalSettings
    from understudy.launch.engines.status import Filter
    from understudy.launch.home import Home

    engine = LocalEngine.__new__(LocalEngine)
    engine.home, engine.store = Home(store.path.parent), store
    took = []
    for _ in range(3):
        begun = time.process_time()
        found = engine.list(Filter(states=(State.QUEUED,)))
        took.append(time.process_time() - begun)
    assert len(found) == 10_000
    assert min(took) < 1.0
    begun = time.process_time()
    assert len(waiting(store, LocalSettings(), time.time(), "local")) == 10_000
    assert time.process_time() - begun < 1.0


def test_a_gang_is_placed_whole_or_not_at_all(store):
    small = add(store, "small")
    gang = add(store, "gang", roles=(Role(replicas=2),))
    assert place(store, small, TWO)
    assert not place(store, gang, TWO)
    assert store.replicas(gang) == []
    assert store.attempts(gang) == []
    with store.transaction():
        release_inside(store, small, 1, time.time())
    assert place(store, gang, TWO)
    assert [r.state for r in store.replicas(gang)] == ["placed", "placed"]
    assert not place(store, gang, TWO)  # twice is once


def test_replicas_without_a_gang_take_what_there_is(store):
    job = add(store, gang=False, roles=(Role(replicas=3),))
    assert place(store, job, TWO)
    assert [r.state for r in store.replicas(job)] == ["placed", "placed", "waiting"]


def test_accelerators_are_given_by_index_and_type():
    capacity = Capacity(amounts={"cpu": 8.0, "gpu": 3.0}, gpu_types=("A", "B", "A"))
    left = Room.of(capacity)
    assert left.take({"cpu": 1, "gpu": 1}, "B") == (1,)
    assert left.take({"gpu": 2}, "A") == (0, 2)
    assert left.take({"gpu": 1}) is None
    left.give({"gpu": 2}, (0, 2))
    assert left.take({"gpu": 1}, "B") is None
    assert left.take({"gpu": 1}) == (0,)
    assert left.take({"cpu": 7.5}) is None


def test_tenths_of_a_core_fill_it():
    left = Room.of(ONE)
    assert [left.take({"cpu": 0.1}) for _ in range(10)] == [()] * 10
    assert left.take({"cpu": 0.1}) is None


def test_metrics_come_in_batches(store):
    job = add(store)
    with MetricSink(store) as sink:
        for i in range(100):
            sink.add(job, i, "loss", 1.0)
        assert store._db.execute("SELECT count(*) FROM metrics").fetchone()[0] == 100
        sink.add(job, 100, "loss", float("inf"))
    assert store._db.execute("SELECT count(*), count(value) FROM metrics").fetchone()[:] == (
        101,
        100,
    )


def test_lines_of_metrics_are_taken_once_and_whole(store, tmp_path):
    job, path = add(store), tmp_path / "m.jsonl"
    assert ingest(store, job, path, 0) == 0
    path.write_text(
        '{"step": 1, "t": 0, "values": {"a": 1, "b": 2}}\nnonsense\n{"step": 2, "t": 0,'
    )
    assert ingest(store, job, path, 0) == 2
    assert ingest(store, job, path, 0) == 0
    with path.open("a") as file:
        file.write(' "values": {"a": 3}}\n')
    assert ingest(store, job, path, 0) == 1


def test_ids_are_found_by_prefix_and_name(store):
    first, second = add(store, "digits"), add(store, "digits")
    assert store.find(first[:-1]).id == first
    assert store.find("digits").id == second
    with pytest.raises(ConfigError, match=r"'dig' begins several jobs \(digits-"):
        store.find("dig")
    with pytest.raises(ConfigError, match="there is no job 'x'"):
        store.find("x")


def test_other_databases_are_refused(tmp_path):
    path = tmp_path / "new.db"
    with JobStore(path) as store:
        store._db.execute("PRAGMA user_version=99")
    with pytest.raises(DataError, match=r"written by a newer understudy \(version 99"):
        JobStore(path)
    (tmp_path / "text.db").write_text("x" * 4096)
    with pytest.raises(DataError, match="cannot be opened"):
        JobStore(tmp_path / "text.db")
