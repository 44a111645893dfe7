"""Pages of jobs against plain filtering, and what numbers tell."""

from __future__ import annotations

import random

import pytest

from understudy.launch.home import Home
from understudy.launch.job_pages import job_page, next_of
from understudy.launch.metric_query import (
    last_values,
    metric_names,
    step_counts,
    thinned,
    values,
)
from understudy.launch.spec import JobSpec
from understudy.launch.state import JobStore
from understudy.launch.state_metrics import MetricSink, curve
from understudy.launch.states import State


@pytest.fixture
def home(tmp_path):
    return Home.open(tmp_path)


@pytest.fixture
def store(home):
    with JobStore(home.database) as found:
        yield found


def spec(name, project="default", key=""):
    return JobSpec(name=name, project=project, command=("true",), key=key)


def test_pages_are_slices_of_what_plain_filtering_gives(store, home):
    dice = random.Random(3)
    made = []
    for i in range(60):
        name, project = dice.choice(["Alpha", "beta", "be_a"]), dice.choice(["one", "Two"])
        engine = dice.choice(["local", "slurm"])
        job, _ = store.submit(spec(name, project, str(i)), engine=engine, now=float(i))
        if dice.random() < 0.5:
            store.move(job.id, dice.choice([State.QUEUED, State.CANCELLED]))
        made.append(store.job(job.id))
    made.reverse()
    for text in ("", "ALPHA", "be_", "%", "tw"):
        match = [j for j in made if text.lower() in j.id or text.lower() in j.project.lower()]
        for states in ((), (State.QUEUED,), (State.CREATED, State.CANCELLED)):
            wanted = [j.id for j in match if not states or j.state in states]
            seen, offset = [], 0
            while True:
                page = job_page(store, home, states=states, text=text, offset=offset, limit=7)
                assert page.total == len(wanted)
                assert page.counts == {
                    s: n for s in State if (n := sum(j.state == s for j in match))
                }
                if not page.jobs:
                    break
                seen += [j.id for j in page.jobs]
                offset += 7
            assert seen == wanted


def test_repetitions_of_a_job(store):
    first, _ = store.submit(spec("a", key="a"), engine="local")
    again = [store.submit(spec("a", key=f"b{i}"), engine="local", retry_of=first.id, now=float(i))
             for i in range(2)]  # fmt: skip
    assert next_of(store, first.id) == [job.id for job, _ in again]
    assert next_of(store, again[0][0].id) == []


def test_steps_done_twice(store):
    assert step_counts(store, "none") == (0, 0)
    with MetricSink(store) as sink:
        for step in (1, 2, 3, 2, 3, 4):
            sink.add("j", step, "loss", float(step))
            sink.add("j", step, "loss", 0.0, rank=1)
        sink.add("j", 4, "eval", 0.5)
        sink.add("other", 9, "loss", 0.5)
    assert step_counts(store, "j") == (4, 6)
    assert metric_names(store, "j") == {"eval": [0], "loss": [0, 1]}
    assert len(list(values(store, "j"))) == 13
    kept = [(v.name, v.rank, v.step, v.value) for v in last_values(store, "j")]
    assert kept == [("eval", 0, 4, 0.5), *[("loss", 0, s, float(s)) for s in (1, 2, 3, 4)],
                    *[("loss", 1, s, 0.0) for s in (1, 2, 3, 4)]]  # fmt: skip
    assert curve(store, "j", "loss") == [(s, float(s)) for s in (1, 2, 3, 4)]


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 12_345])
def test_thinning_keeps_ends_peaks_and_order(count):
    dice = random.Random(count)
    points = [(i, None if dice.random() < 0.1 else dice.gauss(0, 1)) for i in range(count)]
    kept = thinned(points, 100)
    assert len(kept) <= 104
    assert set(kept) <= set(points)
    assert [p[0] for p in kept] == sorted({p[0] for p in kept})
    if count:
        assert (kept[0], kept[-1]) == (points[0], points[-1])
        finite = [v for _, v in points if v is not None]
        if finite:
            shown = [v for _, v in kept if v is not None]
            assert (min(shown), max(shown)) == (min(finite), max(finite))
