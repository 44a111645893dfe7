"""Backfilling: in order, exactly once through kill -9, by the right model only."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from backfill_world import (
    MAPPED,
    MAPPED_COLUMN,
    NEW,
    NEW_COLUMN,
    ToyEncoder,
    make_world,
    write_column,
)

from understudy.core.errors import ConfigError, DataError
from understudy.data.spaces import Space, SpaceError
from understudy.data.store import Job, Store
from understudy.update.backfill import BackfillConfig, backfill, dry_run
from understudy.update.curve import backfill_curves
from understudy.update.gallery import Gallery
from understudy.update.plan import PlanConfig, make_plan, write_plan

SMALL = BackfillConfig(input="text", encode_rows=4, commit_rows=10)


def planned(store, **options):
    return make_plan(store, PlanConfig(new=NEW_COLUMN, **options))


def test_everything_in_order_bit_equal(tmp_path):
    store, z, n, _ = make_world(tmp_path / "s")
    plan, encoder = planned(store), ToyEncoder()
    done, at = [], 0
    for limit in (7, 25, 0):
        before = store.filled(NEW_COLUMN) if store.has(NEW_COLUMN) else np.zeros(60, bool)
        result = backfill(store, plan, encoder, BackfillConfig(input="text", limit=limit))
        new = np.flatnonzero(store.filled(NEW_COLUMN) & ~before)
        at += result.encoded
        assert set(new) == set(plan.rows[at - result.encoded : at])
        assert result.done == at
        assert result.left == 60 - at
        done.append(result)
        gallery = Gallery.open(store, new=NEW_COLUMN, mapped=MAPPED_COLUMN)
        served = gallery.take(np.arange(60)).vectors
        encoded = store.filled(NEW_COLUMN)
        assert np.array_equal(served, np.where(encoded[:, None], n, z))
    assert [r.encoded for r in done] == [7, 25, 28]
    assert done[0].least_cosine is None
    assert done[1].checked == 7
    assert done[2].least_cosine == pytest.approx(1.0)
    assert np.array_equal(store.array(NEW_COLUMN), n)
    assert np.array_equal(store.array(MAPPED_COLUMN), z)
    card = store.card(NEW_COLUMN)
    assert card.rows_done == 60
    assert card.config["space"] == NEW.to_dict()
    assert card.config["input"] == "text"
    again = backfill(store, plan, encoder, SMALL)
    assert (again.encoded, again.commits, again.left) == (0, 0, 0)


def test_each_batch_is_one_version_and_stays_as_it_is(tmp_path):
    store, _, n, _ = make_world(tmp_path / "s")
    plan = planned(store)
    first = store.version
    result = backfill(store, plan, ToyEncoder(), SMALL)
    assert result.commits == 6
    assert store.version == first + 6
    counts = []
    for version in range(first + 1, store.version + 1):
        at = Store.open(store.path, version)
        filled = np.flatnonzero(at.filled(NEW_COLUMN))
        counts.append(len(filled))
        assert np.array_equal(at.array(NEW_COLUMN, filled), n[filled])
        assert set(filled) == set(plan.rows[: len(filled)])
    assert counts == [10, 20, 30, 40, 50, 60]


def test_items_after_the_update_are_left_alone(tmp_path):
    store, *_ = make_world(tmp_path / "s", encoded=[5])
    plan = planned(store)
    store.append([{"id": ["late"], "text": ["item 0 late"], "label": [0], "brand": ["b0"]}])
    encoder = ToyEncoder()
    assert backfill(store, plan, encoder, SMALL).encoded == 59
    assert store.filled(NEW_COLUMN).tolist() == [True] * 60 + [False]


def _start(folder, pause):
    command = [sys.executable, str(Path(__file__).parent / "backfill_world.py")]
    command += [str(folder / "s"), str(folder / "plan.parquet"), str(folder / "log"), str(pause)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)


def _lines(path):
    return path.read_text().splitlines() if path.exists() else []


def test_kill_and_resume(tmp_path):
    store, z, n, _ = make_world(tmp_path / "s", rows=120, rows_per_fragment=40)
    plan = planned(store)
    write_plan(plan, tmp_path / "plan.parquet")
    labels = store.array("label")
    whole = backfill_curves(z, n, labels, {"plan": plan.rows}, points=5)
    log, kills, start_version = tmp_path / "log", 0, store.version
    # wait for so many more lines, then kill: inside of a batch, later in a second one
    for more in (13, 30):
        seen = len(_lines(log))
        process = _start(tmp_path, pause=0.05)
        deadline = time.monotonic() + 60
        while len(_lines(log)) < seen + more and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert process.poll() is None, process.stderr.read()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    assert kills == 2
    middle = Store.open(store.path)
    visible = middle.filled(NEW_COLUMN)
    assert 0 < visible.sum() < 120
    assert np.array_equal(middle.array(NEW_COLUMN, np.flatnonzero(visible)), n[visible])
    process = _start(tmp_path, pause=0.0)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    store.refresh()
    # no row lost, none written twice: what was visible or staged was never encoded again
    assert store.filled(NEW_COLUMN).all()
    assert store.card(NEW_COLUMN).rows_done == 120
    calls = Counter(_lines(log))
    assert len(calls) == 120
    assert sum(calls.values()) <= 120 + kills * 4  # a kill costs the items in work, no more
    sizes = [
        int(Store.open(store.path, v).filled(NEW_COLUMN).sum())
        for v in range(start_version + 1, store.version + 1)
    ]
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == 120
    assert np.array_equal(store.array(NEW_COLUMN), n)
    assert store.verify() == []
    assert list((tmp_path / "s").glob("_understudy/staging/*/*.unit")) == []
    curve = backfill_curves(
        store.array(MAPPED_COLUMN), store.array(NEW_COLUMN), labels, {"plan": plan.rows}, points=5
    )
    assert curve == whole


def test_what_was_encoded_before_an_error_is_kept(tmp_path):
    store, *_ = make_world(tmp_path / "s")
    plan = planned(store)
    log = tmp_path / "log"

    class Stops(ToyEncoder):
        def __call__(self, items):
            if self.calls == 4:
                raise DataError("out of memory.")
            return super().__call__(items)

    with pytest.raises(DataError, match="out of memory"):
        backfill(store, plan, Stops(log=log), SMALL)
    unchecked = BackfillConfig(input="text", encode_rows=4, commit_rows=10, check_items=0)
    result = backfill(store, plan, ToyEncoder(log=log), unchecked)
    assert result.recovered == 4  # 10 were committed; 4 of the next batch were on disk
    assert result.encoded == 46
    assert max(Counter(_lines(log)).values()) == 1


def test_wrong_model_is_refused_before_anything_is_written(tmp_path):
    store, *_ = make_world(tmp_path / "s", encoded=range(0, 60, 2))
    plan, version = planned(store), store.version
    # same space by its card, another preprocessing in fact
    shifted = ToyEncoder(change=lambda v: np.roll(v, 1, axis=1))
    with pytest.raises(DataError, match="does not reproduce column 'embed.new'.*cosine"):
        backfill(store, plan, shifted, SMALL)
    assert shifted.calls == 1
    one = ToyEncoder(change=lambda v: np.concatenate([v[:-1], -v[-1:]]))
    with pytest.raises(DataError, match="1 of 30 differ so much.*wrong preprocessing"):
        backfill(store, plan, one, SMALL)
    longer = ToyEncoder(change=lambda v: v * 1.0001)
    other = Space(model="other", fingerprint="other-weights", dim=NEW.dim)
    with pytest.raises(SpaceError, match="encoder writes space"):
        backfill(store, plan, ToyEncoder(space=other), SMALL)
    assert store.refresh().version == version
    assert backfill(store, plan, longer, SMALL).checked == 30


def test_thirty_two_items_are_checked(tmp_path):
    store, *_ = make_world(tmp_path / "s", encoded=range(50))
    log = tmp_path / "log"
    result = backfill(store, planned(store), ToyEncoder(log=log), SMALL)
    assert result.checked == 32
    assert len(_lines(log)) == 32 + 10


def test_another_plan_is_refused(tmp_path):
    store, *_ = make_world(tmp_path / "s")
    other, *_ = make_world(tmp_path / "o")
    with pytest.raises(DataError, match="p.parquet: the plan was made for another store"):
        backfill(other, planned(store), ToyEncoder(), SMALL, where="p.parquet")


def test_items_that_cannot_be_encoded_are_named(tmp_path):
    store, *_ = make_world(tmp_path / "s", rows=8)
    path = tmp_path / "broken"
    texts = store.array("text").tolist()
    for bad, message in (("broken", "this text is broken"), (None, "has no 'text'")):
        changed = [*texts[:5], bad, *texts[6:]]
        broken = Store.create(
            path, [{"id": store.array("id").tolist(), "text": changed}], overwrite=True
        )
        write_column(broken, MAPPED_COLUMN, MAPPED, np.zeros((8, 8), np.float32), np.arange(8))
        plan = planned(broken, policy="random")
        name = store.array("id")[5]
        with pytest.raises(DataError, match=f"item '{name}' \\(row 5\\).*{message}"):
            backfill(broken, plan, ToyEncoder(), SMALL)
    nan = ToyEncoder(change=lambda v: np.full_like(v, np.nan))
    with pytest.raises(DataError, match="vector holds NaN or infinity"):
        backfill(store, planned(store), nan, SMALL)
    wide = ToyEncoder(change=lambda v: v[:, :3])
    with pytest.raises(DataError, match="returned .* expected"):
        backfill(store, planned(store), wide, SMALL)


def test_settings(tmp_path):
    store, *_ = make_world(tmp_path / "s")
    plan = planned(store)
    with pytest.raises(ConfigError, match="name the column of raw items"):
        backfill(store, plan, ToyEncoder())
    with pytest.raises(DataError, match="no column 'image' to encode"):
        backfill(store, plan, ToyEncoder(), BackfillConfig(input="image"))
    with pytest.raises(ConfigError, match="limit must be at least 0"):
        BackfillConfig(limit=-1)
    backfill(store, plan, ToyEncoder(), BackfillConfig(input="text", limit=3))
    with pytest.raises(DataError, match="was encoded from 'text'"):
        backfill(store, plan, ToyEncoder(), BackfillConfig(input="label"))
    assert backfill(store, plan, ToyEncoder()).left == 0  # the card names the column


def test_dry_run_costs_and_writes_nothing(tmp_path):
    store, *_ = make_world(tmp_path / "s")
    plan, version = planned(store, budget="0.5"), store.version
    cost = dry_run(store, plan, ToyEncoder(pause=0.02), SMALL)
    assert cost.items == 30
    assert cost.bytes_written == 30 * NEW.dim * 4
    assert cost.commits == 3
    assert cost.bytes_rewritten == 3 * 60 * NEW.dim * 4
    assert cost.rate_from == "a probe of 30 items"
    assert cost.seconds == pytest.approx(cost.items / cost.items_per_s)
    assert cost.bytes_read > 30 * len("item 0 number 0")
    assert store.refresh().version == version
    backfill(store, plan, ToyEncoder(pause=0.02), BackfillConfig(input="text", limit=8))
    after = dry_run(store, plan, ToyEncoder(), SMALL)
    assert after.items == 22
    assert after.rate_from == "the card of 'embed.new'"
    assert after.items_per_s == pytest.approx(8 / store.card(NEW_COLUMN).seconds)


def test_sparse_rows_do_not_make_wide_units(tmp_path, monkeypatch):
    monkeypatch.setattr("understudy.update.backfill._SPAN_BYTES", 5 * NEW.dim * 4)
    store, _, n, _ = make_world(tmp_path / "s")
    spans = []
    original = Job.write

    def watch(self, unit, *args, **kwargs):
        spans.append(unit.stop - unit.start)
        return original(self, unit, *args, **kwargs)

    monkeypatch.setattr(Job, "write", watch)
    config = BackfillConfig(input="text", limit=9)
    backfill(store, planned(store), ToyEncoder(), config)
    assert max(spans) <= 5
    assert store.filled(NEW_COLUMN).sum() == 9
    filled = np.flatnonzero(store.filled(NEW_COLUMN))
    assert np.array_equal(store.array(NEW_COLUMN, filled), n[filled])
