"""Views in memory: equal to streaming at every version, unchanged by later ones, folded."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import serve_toys as toys
from understudy.core.errors import DataError
from understudy.data.spaces import SpaceError
from understudy.update import serve_pinned
from understudy.update.columns import uncertainty_column
from understudy.update.gallery import Gallery
from understudy.update.search import search
from understudy.update.search_scores import METRICS
from understudy.update.serve_config import ServeConfig
from understudy.update.serve_pinned import Pinned
from understudy.update.serve_versions import Versions

LIMIT = 1 << 30


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    """Blocks and segments of a few rows, so that every seam is crossed."""
    monkeypatch.setattr(serve_pinned, "BLOCK_ROWS", 64)
    monkeypatch.setattr(serve_pinned, "SEGMENT_ROWS", 16)
    monkeypatch.setattr(serve_pinned, "_KEYS", 700)  # three queries at a time


def _gallery(store):
    names = {"new": toys.NEW_COLUMN, "mapped": toys.MAPPED_COLUMN}
    return Gallery.open(store.pinned(), **{k: c for k, c in names.items() if store.has(c)})


def _same(view: Pinned, queries, metric="cosine"):
    hits = view.search(queries, 7, space=toys.NEW, metric=metric)
    expected = search(view.gallery, queries, 7, space=toys.NEW, metric=metric)
    for name in ("rows", "scores", "encoded"):
        np.testing.assert_array_equal(getattr(hits, name), getattr(expected, name))
    rows = np.flatnonzero(view.gallery.states())
    np.testing.assert_array_equal(view.vectors(rows), view.gallery.take(rows).vectors)


def test_every_version_equals_streaming_and_older_views_stay(tmp_path):
    """Rows become mapped, then encoded, in random order; rows are appended on the way"""
    rng = np.random.default_rng(0)
    own, mapped = toys.vectors(230)
    store = toys.Store.create(tmp_path / "s", [toys.batch(0, 170)], rows_per_fragment=70)
    toys.fill(store, toys.MAPPED_COLUMN, toys.MAPPED, mapped, rng.permutation(170)[:90])
    view = Pinned.load(_gallery(store), LIMIT)
    views, order, folds = [view], rng.permutation(170), 0
    for step in range(8):
        if step == 2:
            toys.fill(store, toys.MAPPED_COLUMN, toys.MAPPED, mapped, np.arange(170))
        if step == 4:
            store.append([toys.batch(170, 60)])
        if step == 5:
            toys.fill(store, toys.NEW_COLUMN, toys.NEW, own, np.arange(170, 230))
        toys.fill(store, toys.NEW_COLUMN, toys.NEW, own, order[: 20 * (step + 1)])
        view = view.advanced(_gallery(store))
        views.append(view)
        while (folded := view.folded()) is not None:
            view, folds = folded, folds + 1
            views.append(view)
    assert folds > 4
    assert len(view.log) * 16 < 0.5 * 230
    queries = own[rng.permutation(230)[:10]]
    for view in views:
        for metric in METRICS:
            _same(view, queries, metric)
    assert views[0].version < views[-1].version


def test_advancing_reads_only_what_changed(tmp_path, monkeypatch):
    store, own, _ = toys.make_store(tmp_path / "s", 200)
    view = Pinned.load(_gallery(store), LIMIT)
    toys.fill(store, toys.NEW_COLUMN, toys.NEW, own, [3, 77, 150])
    read = []
    gallery = _gallery(store)
    take = gallery.take
    monkeypatch.setattr(Gallery, "take", lambda self, rows: read.extend(rows) or take(rows))
    view.advanced(gallery)
    assert read == [3, 77, 150]


def test_allowed_rows_and_refusals(tmp_path):
    store, own, _ = toys.make_store(tmp_path / "s", 150, encoded_rows=range(40))
    view = Pinned.load(_gallery(store), LIMIT)
    allowed = np.arange(30, 60)
    hits = view.search(own[0], 50, space=toys.NEW.id, allowed=allowed)
    assert set(hits.rows[0]) == {*range(30, 60), -1}
    with pytest.raises(SpaceError, match=toys.OLD.id):
        view.search(own[0], space=toys.OLD)
    with pytest.raises(DataError, match="150 rows of 16 numbers need .* MB in memory.*--memory-mb"):
        Pinned.load(_gallery(store), 1000)


def test_queries_during_swaps_see_whole_versions(tmp_path):
    """Threads search while versions come; each answer belongs to the version of its view"""
    store, own, mapped = toys.make_store(tmp_path / "s", 200)
    versions = Versions(ServeConfig(store=str(tmp_path / "s"), new=toys.NEW_COLUMN))
    # `--mapped` was not given: the one column that is mapped to it is found
    assert versions.current.gallery.mapped == toys.MAPPED_COLUMN
    encoded_at, stop, wrong, seen = {store.version: 0}, threading.Event(), [], set()
    order = np.random.default_rng(1).permutation(200)

    def ask(seed):
        rng = np.random.default_rng(seed)
        while not stop.is_set():
            view = versions.current
            hits = view.search(rng.standard_normal(16), 200, toys.NEW.id, "")
            expected = np.isin(hits.rows[0], order[: encoded_at[view.version]])
            truth = np.where(expected[:, None], own[hits.rows[0]], mapped[hits.rows[0]])
            if not (hits.encoded[0] == expected).all() or not np.array_equal(
                view.vectors(hits.rows[0]), truth
            ):
                wrong.append(view.version)
            seen.add(view.version)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for count in range(20, 201, 20):
        toys.fill(store, toys.NEW_COLUMN, toys.NEW, own, order[:count])
        encoded_at[store.version] = count
        assert versions.poll()
        assert not versions.poll()
        while versions.fold():
            pass
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(seen) >= 3
    assert versions.current.gallery.counts() == {"absent": 0, "mapped": 0, "encoded": 200}


def test_overwritten_and_replaced_columns_are_read_again(tmp_path):
    store, own, mapped = toys.make_store(tmp_path / "s", 120, encoded_rows=range(30))
    config = ServeConfig(store=str(tmp_path / "s"), new=toys.NEW_COLUMN, mapped=toys.MAPPED_COLUMN)
    versions = Versions(config)
    again = toys.OLD.mapped("map-2", toys.NEW)
    toys.fill(store, toys.MAPPED_COLUMN, again, 2 * mapped, overwrite=True)
    assert versions.poll()
    rows = np.arange(100, 110)
    np.testing.assert_array_equal(versions.current.vectors(rows), 2 * mapped[rows])
    toys.fill(store, toys.NEW_COLUMN, toys.NEW, own)
    store.drop(toys.MAPPED_COLUMN)  # all rows are encoded: the update is finished
    assert versions.poll()
    assert versions.current.gallery.counts()["encoded"] == 120
    np.testing.assert_array_equal(versions.current.vectors(rows), own[rows])
    _same(versions.current.pinned, own[:5])


def test_a_store_that_was_replaced_is_read_again(tmp_path):
    """Columns, cards and even version numbers agree; the vectors do not"""
    store, _, _ = toys.make_store(tmp_path / "s", 60, encoded_rows=range(20))
    versions = Versions(ServeConfig(store=store.path, new=toys.NEW_COLUMN))
    toys.Store.create(store.path, [toys.batch(0, 60)], overwrite=True)
    again = toys.Store.open(store.path)
    own, mapped = toys.vectors(60, seed=9)
    toys.fill(again, toys.MAPPED_COLUMN, toys.MAPPED, mapped)
    toys.fill(again, toys.NEW_COLUMN, toys.NEW, own, range(20))
    assert again.uid != store.uid
    assert versions.poll()
    np.testing.assert_array_equal(versions.current.vectors(np.arange(20)), own[:20])
    np.testing.assert_array_equal(versions.current.vectors(np.arange(20, 60)), mapped[20:])


def test_rows_fall_back_to_mapped_vectors_when_the_new_column_is_dropped(tmp_path):
    store, own, _ = toys.make_store(tmp_path / "s", 100, encoded_rows=range(0, 100, 3))
    versions = Versions(ServeConfig(store=str(tmp_path / "s"), new=toys.NEW_COLUMN))
    store.drop(toys.NEW_COLUMN)
    assert versions.poll()
    assert versions.current.gallery.counts() == {"absent": 0, "mapped": 100, "encoded": 0}
    _same(versions.current.pinned, own[:5])


def test_uncertainties_beside_a_mapped_column_are_no_second_mapped_column(tmp_path):
    store, _, mapped = toys.make_store(tmp_path / "s", 100, encoded_rows=range(20))
    column = uncertainty_column(toys.MAPPED_COLUMN)
    card = toys.Card(column=column, writer="h", config={"space": toys.MAPPED.to_dict()})
    with store.job([card], {column: toys.pa.float32()}) as job:
        for unit in job.todo():
            job.write(unit, {column: toys.pa.array(mapped[unit.start : unit.stop, 0])})
    gallery = Versions(ServeConfig(store=str(tmp_path / "s"), new=toys.NEW_COLUMN)).current.gallery
    assert gallery.mapped == toys.MAPPED_COLUMN


def test_a_version_that_cannot_be_served_leaves_the_old_one(tmp_path):
    store, own, _ = toys.make_store(tmp_path / "s", 100, encoded_rows=range(100))
    versions = Versions(ServeConfig(store=str(tmp_path / "s"), new=toys.NEW_COLUMN, poll_s=0.02))
    before = versions.current
    store.drop(toys.NEW_COLUMN)
    store.drop(toys.MAPPED_COLUMN)
    versions.start()
    for _ in range(200):
        if versions.problem:
            break
        threading.Event().wait(0.02)
    versions.stop()
    assert "has no column" in versions.problem
    assert versions.current is before
    assert before.search(own[0], 3, toys.NEW.id, "").rows[0, 0] == 0
