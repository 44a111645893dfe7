"""Going on with a stream: the state beside the runs, honest buffers, what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from continual_world import config_of, make_store, score

from understudy.core.errors import ConfigError, DataError
from understudy.core.files import read_json
from understudy.data.periods import PeriodRule
from understudy.data.periods_stream import Stream, StreamRule
from understudy.data.store import Store
from understudy.update.continual import run_stream
from understudy.update.continual_next import cost, next_step, student_of, take_step
from understudy.update.continual_state import FILE, StreamState

RULE = StreamRule(held_share=0.2)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("world") / "s", steps=4)


@pytest.fixture
def first(store, tmp_path):
    stream = Stream.of(store, RULE)
    found = run_stream(store, Stream(steps=stream.steps[:1]), config_of(), tmp_path / "runs", score)
    return Path(found.steps[0].run)


def go(store, run, period, method="cumulative-equal", **options):
    config = config_of(method, memory=options.pop("memory", 1.0), **options.pop("config", {}))
    return next_step(store, run, period, config, rule=options.pop("rule", None), **options)


def test_step_by_step_equals_the_whole_stream(store, first, tmp_path):
    whole = run_stream(
        store, Stream.of(store, RULE), config_of("cumulative-equal", capacity=20), tmp_path / "w",
        score,
    )  # fmt: skip
    run = first
    for number, period in enumerate(("1", "2", "3"), 1):
        rule = RULE if number == 1 else None
        task = go(store, run, period, rule=rule, config={"capacity": 20})
        record = take_step(task, score)
        assert record.weights == whole.steps[number].weights
        assert record.replayed == whole.steps[number].replayed
        run = task.out
    state = StreamState.read(first.parent)
    assert state is not None
    assert [s.name for s in state.steps] == ["0", "1", "2", "3"]
    assert [s.run for s in state.steps[1:]] == ["step-02-1", "step-03-2", "step-04-3"]
    assert state.rule == RULE
    assert sum(list(state.steps[-1].kept.values())[:-1]) == 20


def test_buffers_only_ever_lose(store, first):
    one = go(store, first, "1", rule=RULE, config={"capacity": 12})
    take_step(one, score)
    kept = one.mix.replayed["0"]
    two = go(store, one.out, "2", config={"capacity": 40})  # a larger buffer brings nothing back
    assert set(two.mix.replayed["0"].tolist()) <= set(kept.tolist())
    anew = go(store, one.out, "2", config={"capacity": 40, "buffer": "archive"})
    assert len(anew.mix.replayed["0"]) > len(kept)


def test_after_a_method_without_replay_only_its_own_period_is_held(store, first):
    one = go(store, first, "1", "sequential", rule=RULE)
    take_step(one, score)
    two = go(store, one.out, "2")
    assert {k: len(v) > 0 for k, v in two.mix.replayed.items()} == {"0": False, "1": True}


def test_rows_that_come_late_change_nothing(tmp_path):
    store = make_store(tmp_path / "s", steps=3)
    stream = Stream.of(store, RULE)
    found = run_stream(store, Stream(steps=stream.steps[:1]), config_of(), tmp_path / "r", score)
    one = go(store, found.steps[0].run, "1", rule=RULE)
    take_step(one, score)
    before = go(store, one.out, "2").mix
    table = store.take(range(40), store.columns)
    late = table.set_column(
        table.schema.get_field_index("id"), "id", pa.array([f"late/{i}" for i in range(40)])
    )
    store.append(late.to_batches())
    after = go(Store.open(store.path), one.out, "2").mix
    assert after.rows.tolist() == before.rows.tolist()


def test_changed_rows_are_refused(store, first):
    one = go(store, first, "1", rule=RULE)
    take_step(one, score)
    path = first.parent / FILE
    text = path.read_text().replace(one.state.steps[0].rows_hash, "0" * 32)
    path.write_text(text)
    with pytest.raises(DataError, match="time step '0': .* rows were learned from"):
        go(store, one.out, "2")


def test_dry_runs_write_nothing(store, first):
    held = sorted(p for p in first.parent.rglob("*"))
    made = cost(go(store, first, "1", "lwf", rule=RULE))
    assert sorted(p for p in first.parent.rglob("*")) == held
    assert made.value("iterations") == 3
    assert made.value("rows replayed") == 0
    plain = cost(go(store, first, "1", "sequential", rule=RULE))
    assert made.value("training") == pytest.approx(1.2 * plain.value("training"))
    equal = cost(go(store, first, "1", rule=RULE))
    assert equal.value("capacity for old rows") > 0


def test_budgets(store, first):
    assert go(store, first, "1", rule=RULE, factor=2.0).iterations == 6
    assert go(store, first, "1", "oracle", rule=RULE).iterations == 6
    assert go(store, first, "1", "oracle", rule=RULE).last is None
    with pytest.raises(ConfigError, match="its budgets depend on how many steps will follow"):
        go(store, first, "1", "cumulative-all-star", rule=RULE)
    with pytest.raises(ConfigError, match="patching: every step needs held rows"):
        go(store, first, "1", "patching", rule=StreamRule(held_share=0.0))
    with pytest.raises(ConfigError, match="budget: expected more than 0"):
        go(store, first, "1", rule=RULE, factor=0.0)


def test_a_done_step_is_returned_and_other_continuations_are_refused(store, first, tmp_path):
    one = go(store, first, "1", rule=RULE)
    record = take_step(one, score)
    again = go(store, first, "1")
    assert take_step(again, score) == record
    with pytest.raises(ConfigError, match="the stream went on from it with '1'"):
        go(store, first, "2")
    branch = go(store, first, "2", out=tmp_path / "branch" / "two")
    take_step(branch, score)
    state = StreamState.read(tmp_path / "branch")
    assert state is not None
    assert [s.name for s in state.steps] == ["0", "2"]
    shutil.copytree(branch.out, branch.out.parent / "other")
    with pytest.raises(ConfigError, match="not a run of the stream"):
        go(store, branch.out.parent / "other", "3")


def test_periods_that_do_not_fit(store, first):
    one = go(store, first, "1", rule=RULE)
    take_step(one, score)
    with pytest.raises(ConfigError, match="there is no time step '9'; the stream has 0, 1, 2, 3"):
        go(store, one.out, "9")
    with pytest.raises(ConfigError, match=r"has learned 0, 1 already; give a later period \(2, 3"):
        go(store, one.out, "0")
    with pytest.raises(ConfigError, match="divides rows in another way"):
        go(store, one.out, "2", rule=StreamRule(held_share=0.5))


def test_state_files_of_others(store, first):
    (first.parent / FILE).write_text("[]")
    with pytest.raises(DataError, match="not the state of a stream"):
        go(store, first, "1", rule=RULE)
    (first.parent / FILE).write_text('{"format": "understudy-stream", "version": 9}')
    with pytest.raises(DataError, match="version 9, this version reads 1"):
        go(store, first, "1", rule=RULE)


def test_what_a_run_learned_by_is_known(first, tmp_path):
    found = student_of(first)
    own = config_of().student
    assert (found.model, found.changes, found.captions) == (own.model, own.changes, "real")
    assert (found.train.steps, found.train.lr) == (own.train.steps, own.train.lr)
    assert student_of(tmp_path).model == "mobileclip-nano"
    assert read_json(first / "step.json")["record"]["name"] == "0"


def test_a_whole_stream_leaves_a_state_that_goes_on(tmp_path):
    path = tmp_path / "s"
    store = make_store(path, steps=3)
    rule = StreamRule(periods=PeriodRule(merge=("0", "1")), held_share=0.2)
    stream = Stream.of(store, rule)
    config = config_of("cumulative-equal", memory=1.0)
    found = run_stream(store, stream, config, tmp_path / "r", score)
    state = StreamState.read(tmp_path / "r")
    assert state is not None
    assert [(s.name, s.run, s.method) for s in state.steps] == [
        ("0", "step-01-0", "cumulative-equal"),
        ("1", "step-02-1", "cumulative-equal"),
    ]
    wider = StreamRule(periods=PeriodRule(merge=("0", "1", "2")), held_share=0.2)
    assert wider.extends(rule)
    assert not rule.extends(wider)
    assert not StreamRule(held_share=0.2).extends(rule)
    task = go(store, found.steps[-1].run, "2", rule=wider)
    take_step(task, score)
    again = run_stream(store, stream, config, tmp_path / "r", score)  # leaves the longer state
    assert again == found
    state = StreamState.read(tmp_path / "r")
    assert state is not None
    assert ([s.name for s in state.steps], state.rule) == (["0", "1", "2"], wider)
