"""Who starts next, and how many machines are wanted; on paper, with a clock of its own."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError
from understudy.launch.autoscale import Node, NodeType, decide, pack
from understudy.launch.engines.local_schedule import schedule
from understudy.launch.engines.local_settings import LocalSettings
from understudy.launch.spec import JobSpec
from understudy.launch.spec_parts import Resources, Role
from understudy.launch.state import JobStore
from understudy.launch.state_slots import Capacity, release_inside
from understudy.launch.states import State

SETTINGS = LocalSettings(aging_s=100, drain_s=50)


class Machine:
    """A store, a clock and some cores; jobs run for as long as they are told."""

    def __init__(self, path, cores=4):
        self.store = JobStore(path / "jobs.db")
        self.store._db.execute("PRAGMA synchronous=OFF")
        self.capacity = Capacity(amounts={"cpu": float(cores)})
        self.now, self.cores = 1000.0, cores
        self.ends: dict[str, float] = {}
        self.lengths: dict[str, float] = {}
        self.started: dict[str, float] = {}

    def add(self, name, cpu=1, replicas=1, length=10.0, **fields):
        role = Role(replicas=replicas, resources=Resources(cpu=cpu))
        key = f"{name}{time.perf_counter_ns()}"
        spec = JobSpec(name=name, command=("x",), roles=(role,), key=key, **fields)
        job = self.store.submit(spec, engine="local", now=self.now)[0].id
        self.store.move(job, State.QUEUED, now=self.now)
        self.lengths[job] = length
        return job

    def pass_(self):
        placed = schedule(self.store, self.capacity, SETTINGS, self.now)
        for job in placed:
            self.store.move(job, State.RUNNING, now=self.now)
            self.started[job] = self.now
            self.ends[job] = self.now + self.lengths[job]
        used = sum(
            r.vector.get("cpu", 0) for job in self.ends for r in self.store.replicas(job)
            if r.state == "placed"
        )  # fmt: skip
        assert used <= self.cores + 1e-6
        return placed

    def end(self, job):
        with self.store.transaction():
            release_inside(self.store, job, self.store.job(job).attempt, self.now)
            self.store.move_inside(job, State.SUCCEEDED, now=self.now)
        del self.ends[job]

    def tick(self, seconds=1.0):
        self.now += seconds
        for job in [j for j, t in self.ends.items() if t <= self.now]:
            self.end(job)
        return self.pass_()


def test_priority_then_age(tmp_path):
    m = Machine(tmp_path, cores=1)
    busy = m.add("busy", length=1000)
    m.pass_()
    old = m.add("old")
    m.now += 10
    first, high = m.add("first"), m.add("high", priority=1)
    m.end(busy)
    order = []
    while len(order) < 3:
        order += m.pass_()
        m.tick(11) if not order else None
        for job in list(m.ends):
            m.end(job)
    assert order == [high, old, first]


def test_waiting_grows_into_priority(tmp_path):
    m = Machine(tmp_path, cores=1)
    busy = m.add("busy", length=1e9)
    m.pass_()
    old = m.add("old")
    m.now += 150  # 1.5 of priority by age
    high = m.add("high", priority=1)
    m.end(busy)
    assert m.pass_() == [old]
    assert high not in m.started


def test_an_endless_stream_of_small_jobs_does_not_starve_a_gang(tmp_path):
    m = Machine(tmp_path, cores=4)
    gang = None
    draw = random.Random(0)
    for second in range(200):
        m.add(f"small{second}", length=draw.randint(2, 6))
        if second == 10:
            gang = m.add("gang", replicas=4)
        m.tick()
        if gang in m.started:
            break
    # passed over for drain_s, then the machine empties: within the longest small job
    assert m.started[gang] - 1011 <= SETTINGS.drain_s + 8
    assert m.store.job(gang).state is State.RUNNING


def test_small_jobs_fill_gaps_until_then(tmp_path):
    m = Machine(tmp_path, cores=2)
    m.add("one", length=30)
    m.pass_()
    gang = m.add("gang", replicas=2)
    small = m.add("small", length=5)
    assert m.pass_() == [small]
    assert m.store.job(gang).state is State.QUEUED


@settings(max_examples=4, deadline=None)
@given(st.integers(0, 10**6))
def test_random_traces_end_near_the_bound(tmp_path_factory, seed):
    """Gangs are whole, nothing starves, and the makespan is that of list scheduling or better."""
    draw = random.Random(seed)
    m = Machine(tmp_path_factory.mktemp("m"), cores=4)
    work = longest = 0.0
    jobs = []
    for i in range(15):
        replicas, length = draw.randint(1, 4), draw.randint(1, 9)
        jobs.append(m.add(f"j{i}", replicas=replicas, length=length))
        work, longest = work + replicas * length, max(longest, length)
    begun = m.now
    m.pass_()
    while m.ends:
        m.tick()
        for job in m.ends:
            assert len([r for r in m.store.replicas(job) if r.state == "placed"]) == len(
                m.store.replicas(job)
            )
    assert all(m.store.job(j).state is State.SUCCEEDED for j in jobs)
    # two of the widest never leave more than half of the machine empty
    assert m.now - begun <= 2 * work / 4 + longest + 1


def test_preemption_takes_the_fewest_and_only_those_below(tmp_path):
    m = Machine(tmp_path, cores=4)
    a = m.add("a", cpu=1, preemptible=True)
    b = m.add("b", cpu=2, preemptible=True)
    c = m.add("c", cpu=1, preemptible=True, priority=5)
    m.pass_()
    assert set(m.started) == {a, b, c}
    high = m.add("high", cpu=2, priority=5)
    m.pass_()
    assert [m.store.job(j).wish for j in (a, b, c)] == ["", "preempt", ""]
    m.pass_()  # asking again asks nobody else
    assert [m.store.job(j).wish for j in (a, b, c)] == ["", "preempt", ""]
    small = m.add("small", cpu=1)
    with m.store.transaction():
        release_inside(m.store, b, 1, m.now)
        m.store.move_inside(b, State.PREEMPTED, wish="")
        m.store.move_inside(b, State.QUEUED, attempt=2)
    assert m.pass_() == [high]
    assert m.store.job(small).state is State.QUEUED


def test_nobody_is_preempted_in_vain(tmp_path):
    m = Machine(tmp_path, cores=4)
    low = m.add("low", cpu=1, preemptible=True)
    m.add("fixed", cpu=3)
    m.pass_()
    m.add("high", cpu=2, priority=9)
    m.pass_()
    assert m.store.job(low).wish == ""


# -- machines

SMALL = NodeType(name="small", amounts={"cpu": 4.0}, price=1)
BIG = NodeType(name="big", amounts={"cpu": 16.0, "gpu": 4.0}, price=5, max_nodes=2)


def test_machines_for_waiting_gangs():
    gangs = {"a": [{"cpu": 3}] * 2, "b": [{"cpu": 1}] * 2, "g": [{"cpu": 1, "gpu": 4}]}
    scaling = decide(gangs, [], [SMALL, BIG], now=0)
    assert scaling.impossible == ()
    assert scaling.add == {"big": 1}  # what the accelerators need has room for the rest
    del gangs["g"]
    assert decide(gangs, [], [SMALL, BIG], now=0).add == {"small": 2}


def test_a_gang_that_no_machines_hold_leaves_no_trace():
    gangs = {"x": [{"gpu": 4}] * 3, "y": [{"cpu": 2}]}
    nodes, left = pack(gangs, [SMALL, BIG])
    assert left == ["x"]
    assert [n.type.name for n in nodes] == ["small"]
    assert decide({"z": [{"cpu": 99}]}, [], [SMALL], 0).impossible == ("z",)


def test_machines_go_when_idle_and_never_from_under_a_gang():
    def node(name, gangs=(), idle=None, free=4.0):
        return Node(SMALL, {"cpu": free}, set(gangs), idle, name)

    nodes = [node("busy", ["g"], None, 0.0), node("fresh", (), 90.0), node("old", (), 0.0)]
    assert decide({}, nodes, [SMALL], now=100, idle_s=50).remove == ("old",)
    assert decide({"n": [{"cpu": 4}] * 2}, nodes, [SMALL], 100, 50).remove == ()
    assert decide({"n": [{"cpu": 4}]}, nodes, [SMALL], 100, 50).add == {}
    assert decide({}, [node("odd", ["g"], 0.0)], [SMALL], 100, 50).remove == ()
    with pytest.raises(ConfigError, match="two machines have the same id"):
        decide({}, [node("a"), node("a")], [SMALL], 0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 10), min_size=1, max_size=25))
def test_first_fit_decreasing_keeps_its_bound(sizes):
    """11/9 of the least number of machines and a bit; the least is at least the sum."""
    kind = NodeType(name="n", amounts={"cpu": 10.0})
    nodes, left = pack({str(i): [{"cpu": s}] for i, s in enumerate(sizes)}, [kind])
    assert left == []
    assert sum(10 - n.free["cpu"] for n in nodes) == pytest.approx(sum(sizes))
    assert all(n.free["cpu"] >= -1e-9 for n in nodes)
    assert len(nodes) <= 11 / 9 * max(-(-sum(sizes) // 10), sum(s > 5 for s in sizes)) + 2
