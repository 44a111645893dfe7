"""What follows from how an attempt ended; retries, budgets, costs, checkpoints' intervals."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError
from understudy.launch import cost
from understudy.launch.conclude import conclude
from understudy.launch.home import Home
from understudy.launch.outcome import End, Outcome, backoff_s, judge, retry_after_s
from understudy.launch.spec import JobSpec
from understudy.launch.spec_parts import (
    Budget,
    Elastic,
    Input,
    Output,
    Rates,
    Resources,
    Retry,
    Role,
)
from understudy.launch.state import JobStore
from understudy.launch.state_slots import Capacity, place
from understudy.launch.states import State

PAIR = JobSpec(name="a", command=("x",), roles=(Role(replicas=2),), timeout_s=9.0)
ELASTIC = JobSpec(
    name="a", command=("x",), roles=(Role(replicas=3),), launcher="torchrun",
    elastic=Elastic(min=2, max=3),
)  # fmt: skip
ALWAYS = Retry(max_failures=9, backoff_s=10, on=("failure", "preemption", "timeout", "node_loss"))


def end(rank, code=0, stopped="", t=0.0):
    facts = {"code": code, "stopped_by": stopped, "end": t, "reason": f"exit code {code}"}
    return End(rank, "main", facts)


GONE = End(1, "main", None)


@pytest.mark.parametrize(
    ("spec", "ends", "wish", "cause", "code"),
    [
        (PAIR, [end(0), end(1)], "", "success", 0),
        (PAIR, [end(0), end(1)], "cancel", "success", 0),  # it was faster
        (PAIR, [end(0), end(1, 143, "TERM")], "cancel", "cancel", 143),
        (PAIR, [end(0, 0, "TERM"), end(1, 0, "TERM")], "cancel", "cancel", None),
        (PAIR, [end(0, 143, "TERM", 5), end(1, 4, "", 9)], "stop", "failure", 4),
        (PAIR, [end(0, 2, "", 5), end(1, 4, "", 9)], "", "failure", 2),
        (PAIR, [end(0, 143, "TERM"), GONE], "stop", "node_loss", None),
        (PAIR, [end(0, 3), GONE], "", "failure", 3),
        (PAIR, [end(0, 143, "TERM"), end(1, 143, "TERM")], "timeout", "timeout", 143),
        (PAIR, [end(0, 1), end(1, 1)], "preempt", "preemption", 1),
        (PAIR, [end(0, 0, "TERM"), end(1, 0, "TERM")], "preempt", "preemption", None),
        (PAIR, [end(0, 0, "TERM"), end(1, 0, "TERM")], "", "failure", 0),
        (PAIR, [end(0), GONE], "start_deadline", "start_deadline", None),
        (PAIR, [], "cancel", "cancel", None),
        (ELASTIC, [end(0), GONE, end(2)], "", "success", 0),
        (ELASTIC, [end(0), GONE, end(2, 1)], "", "failure", 1),
        (ELASTIC, [end(0), GONE, End(2, "main", None)], "", "node_loss", None),
    ],
)
def test_the_cause_is_found(spec, ends, wish, cause, code):
    outcome = judge(spec, ends, wish)
    assert (outcome.cause, outcome.exit_code) == (cause, code)


def test_backoff_doubles_up_to_its_cap_with_jitter():
    for n in range(1, 12):
        middle = min(10 * 2 ** (n - 1), 600)
        drawn = [backoff_s(10, n, f"job-{i}", n) for i in range(200)]
        assert all(0.8 * middle <= d <= 1.2 * middle for d in drawn)
        assert max(drawn) > 1.1 * middle > 0.9 * middle > min(drawn)
    assert backoff_s(10, 1, "a") == backoff_s(10, 1, "a")


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 3),
    st.lists(st.sampled_from(["failure", "preemption", "timeout", "node_loss"]), max_size=8),
)
def test_preemption_does_not_eat_failure_retries(most, causes):
    retry = Retry(max_failures=most, on=ALWAYS.on)
    failures = 0
    for i, cause in enumerate(causes):
        wait = retry_after_s(retry, cause, causes[:i], "j")
        failures += cause != "preemption"
        assert (wait is not None) == (cause == "preemption" or failures <= most)
        assert wait is None or (wait == 0) == (cause == "preemption")


def test_only_named_causes_are_tried_again():
    retry = Retry(max_failures=5, on=("node_loss",))
    assert retry_after_s(retry, "failure", [], "j") is None
    assert retry_after_s(retry, "preemption", [], "j") is None
    assert retry_after_s(retry, "node_loss", [], "j") is not None
    assert retry_after_s(retry, "start_deadline", [], "j") == 0


# -- the end of an attempt in the record


class World:
    def __init__(self, tmp_path, **fields):
        self.home = Home.open(tmp_path)
        self.store = JobStore(self.home.database)
        spec = JobSpec(**{"name": "a", "command": ("x",), **fields})
        self.id = self.store.submit(spec, engine="local", now=0)[0].id
        self.store.move(self.id, State.QUEUED, now=0)
        self.t = 0.0

    @property
    def job(self):
        return self.store.job(self.id)

    def attempt(self, seconds, cause, code=1):
        """Place, run for `seconds`, and end by `cause`."""
        self.t = max(self.t, self.job.not_before)
        assert place(self.store, self.id, Capacity(amounts={"cpu": 64.0, "mem_mb": 1e6}), self.t)
        self.store.move(self.id, State.RUNNING, now=self.t)
        self.t += seconds
        return conclude(self.store, self.home, self.job, Outcome(cause, cause, code), self.t)


@pytest.mark.parametrize(
    ("cause", "again", "after", "ended"),
    [
        ("failure", ["RESTARTING"], ["FAILED"], State.FAILED),
        ("timeout", ["RESTARTING"], ["TIMED_OUT"], State.TIMED_OUT),
        ("node_loss", ["LOST", "QUEUED"], ["LOST", "FAILED"], State.FAILED),
    ],
)
def test_moves_by_cause(tmp_path, cause, again, after, ended):
    world = World(tmp_path, retry=Retry(max_failures=1, on=ALWAYS.on, backoff_s=5))
    state = world.attempt(10, cause)
    assert state == again[-1]
    assert world.job.attempt == 2
    assert 14 <= world.job.not_before <= 16
    assert not place(world.store, world.id, Capacity(amounts={"cpu": 64.0}), world.t)  # too soon
    assert world.attempt(10, cause) is ended
    moved = [e.facts["to"] for e in world.store.events(world.id) if e.kind == "move"]
    placed = ["STARTING"] if again[-1] == "QUEUED" else []
    assert moved == ["QUEUED", "STARTING", "RUNNING", *again, *placed, "RUNNING", *after]
    assert [a.cause for a in world.store.attempts(world.id)] == [cause, cause]


def test_preemptions_have_no_limit_but_the_budget(tmp_path):
    # 36 s of one core cost 1; the budget pays for 5.5
    budget = Budget(max_cost=5.5, rate_table=Rates(cpu=100.0))
    world = World(tmp_path, timeout_s=36.0, budget=budget, preemptible=True,
                  retry=Retry(max_failures=0, on=("preemption",)))  # fmt: skip
    states = []
    while not world.job.final:
        states.append(world.attempt(36, "preemption"))
    # after 5 attempts 5 is spent and a sixth would not fit
    assert states == [State.QUEUED] * 4 + [State.CANCELLED]
    assert world.job.reason == "preemption; the budget pays for no more"
    assert cost.spent(world.store.replicas(world.id), budget.rate_table, 1e9) == pytest.approx(5)


def test_concluding_twice_is_once(tmp_path):
    world = World(tmp_path, retry=ALWAYS)
    world.attempt(1, "failure")
    before = world.job
    stale = replace(before, attempt=1)
    conclude(world.store, world.home, stale, Outcome("failure", "x", 1), 99)
    assert world.job == before


def test_outputs_outside_and_lineage(tmp_path):
    outputs = (Output(name="m", path="m"),)
    world = World(tmp_path, outputs=outputs, inputs=(Input(name="i", uri="/x", sha256="a" * 64),))
    out = world.home.job(world.id) / "out"
    out.mkdir(parents=True)
    (tmp_path / "elsewhere").write_text("x")
    (out / "m").symlink_to(tmp_path / "elsewhere")
    assert world.attempt(1, "success", 0) is State.FAILED
    assert world.job.reason == "missing_output m"
    other = World(tmp_path / "b", outputs=outputs,
                  inputs=(Input(name="i", uri="/x", sha256="a" * 64),))  # fmt: skip
    out = other.home.job(other.id) / "out" / "m"
    out.mkdir(parents=True)
    (out / "f").write_text("42")
    assert other.attempt(1, "success", 0) is State.SUCCEEDED
    (artefact,) = other.store.artefacts(other.id)
    assert artefact.bytes == 2
    assert other.store.lineage(other.id) == [("a" * 64, artefact.sha256)]


# -- money


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_cost_is_the_integral_of_what_was_reserved(tmp_path_factory, seed):
    draw = random.Random(seed)
    roles = tuple(
        Role(name=f"r{i}", replicas=draw.randint(1, 3),
             resources=Resources(cpu=draw.choice([0.5, 1, 4]), mem_mb=draw.choice([0, 2000])))
        for i in range(draw.randint(1, 2))
    )  # fmt: skip
    world = World(tmp_path_factory.mktemp("w"), roles=roles, gang=True, retry=ALWAYS)
    rates = Rates(cpu=0.4, mem_gb=0.05)
    for _ in range(draw.randint(1, 4)):
        world.attempt(draw.randint(1, 50), draw.choice(["failure", "preemption"]))
    # an independent sum, second by second, over what is reserved in it
    total = 0.0
    rows = world.store.replicas(world.id)
    for second in range(int(world.t) + 1):
        for row in rows:
            inside = max(0.0, min(row.released, second + 1) - max(row.placed, second))
            hourly = row.vector.get("cpu", 0) * 0.4 + row.vector.get("mem_mb", 0) / 1000 * 0.05
            total += inside * hourly / 3600
    assert cost.spent(rows, rates, world.t) == pytest.approx(total)
    # and by attempts and roles
    attempts = world.store.attempts(world.id)
    spec = world.job.spec
    assert sum(cost.estimate(spec, a.end - a.start, rates) for a in attempts) == pytest.approx(
        total
    )


def test_prices():
    rates = Rates(cpu=1, mem_gb=2, gpu={"A100": 10, "": 4}, storage_gb_month=3, egress_gb=5)
    assert cost.price_per_hour({"cpu": 2, "mem_mb": 500, "gpu": 2}, "A100", rates) == 2 + 1 + 20
    assert cost.price_per_hour({"gpu": 1}, "T4", rates) == 4
    with pytest.raises(ConfigError, match=r"no price for 'T4' \(it has A100\)"):
        cost.price_per_hour({"gpu": 1}, "T4", Rates(gpu={"A100": 1.0}))
    assert cost.kept_cost(rates, stored_bytes=2e9, stored_s=15 * 86400, sent_bytes=1e9) == 3 + 5


def test_youngs_rule_is_where_the_overhead_is_least():
    c, m = 3.0, 1200.0
    best = cost.best_interval_s(c, m)
    assert best == math.sqrt(2 * 3 * 1200)
    least = min(cost.overhead(best * k / 100, c, m) for k in range(20, 500))
    assert cost.overhead(best, c, m) == pytest.approx(least)
    assert cost.overhead(best, c, m) == pytest.approx(math.sqrt(2 * c / m))
    assert cost.best_interval_s(c, None) == cost.best_interval_s(0.0, m) == 600


def test_youngs_overhead_agrees_with_a_simulation():
    """Failures at random times; lost is the time since the last checkpoint, plus the saving."""
    draw, c, m = random.Random(1), 2.0, 2000.0
    for tau in (30.0, cost.best_interval_s(c, m), 300.0):
        useful = wall = 0.0
        failure = draw.expovariate(1 / m)
        while wall < 2_000_000:
            if failure >= tau + c:
                wall, useful, failure = wall + tau + c, useful + tau, failure - tau - c
            else:
                wall, failure = wall + failure, draw.expovariate(1 / m)
        expected = cost.overhead(tau, c, m)
        assert 1 - useful / wall == pytest.approx(expected, rel=0.15)


def test_the_useful_fraction():
    assert cost.useful_fraction(80, 100) == 0.8
    assert cost.useful_fraction(0, 0) == 1
    with pytest.raises(ConfigError, match="got 3 and 2"):
        cost.useful_fraction(3, 2)
