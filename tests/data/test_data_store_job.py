from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import kill_store as toy
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import CardError, DataError
from understudy.data import store_files as files
from understudy.data import store_rows, store_staging
from understudy.data.card import Card
from understudy.data.knowledge import embedding_config, embedding_type, encode_embeddings
from understudy.data.store import Store, Unit

ONE = toy.COLUMNS[0]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make(tmp_path / "s")


def make(path: Path) -> Store:
    return Store.create(path, toy.batches(), rows_per_fragment=100)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The content hash of an unbroken run."""
    made = make(tmp_path_factory.mktemp("expected") / "s")
    toy.fill(made)
    return made.content_hash()


def write(job, unit: Unit, **options) -> None:
    found = {c: toy.values(c, unit.start, unit.stop) for c in job.columns}
    job.write(unit, found, **options)


class Stop(Exception):
    pass


# Each run of the job: unit size, units before it stops, after which of them it commits, how it
# ends, and which rows it is asked for.
RUN = st.tuples(
    st.integers(1, 130),
    st.integers(0, 6),
    st.sets(st.integers(0, 5), max_size=3),
    st.sampled_from(["error", "clean", "kill"]),
    st.one_of(st.none(), st.tuples(st.integers(0, 239), st.integers(1, 240), st.integers(1, 3))),
)


@settings(max_examples=30, deadline=None)
@given(runs=st.lists(RUN, max_size=4), last=st.integers(40, 300))
def test_any_units_and_any_interruption_give_the_same_content(
    tmp_path_factory: pytest.TempPathFactory, expected: str, runs: list, last: int
):
    made = make(tmp_path_factory.mktemp("runs") / "s")
    for unit_rows, stop_after, commits, ending, part in runs:
        rows = None if part is None else range(part[0], min(240, part[0] + part[1]), part[2])
        job = toy.job(Store.open(made.path), unit_rows=unit_rows, rows=rows)
        try:
            with job:
                for number, unit in enumerate(job.todo()):
                    if number == stop_after:
                        raise Stop
                    write(job, unit)
                    if number in commits:
                        job.commit()
                    if number + 1 == stop_after and ending == "clean":
                        break
        except Stop:
            pass
    toy.fill(made.refresh(), unit_rows=last)
    assert made.content_hash() == expected
    assert made.verify() == []
    assert made.info()["staging"] == []
    assert [made.card(c).rows_done for c in toy.COLUMNS] == [240, 240]


def test_columns_and_cards_appear_in_one_version(store: Store):
    with toy.job(store, unit_rows=100) as job:
        assert job.num_wanted == 240
        for unit in job.todo():
            write(job, unit, seconds=2.0, facts={"crc": {str(unit.start): unit.stop}})
        assert job.num_done == 240
        assert job.todo() == []
        assert Store.open(store.path).columns == ["id", "text"]
    assert store.version == 2
    assert store.columns == ["id", "text", *toy.COLUMNS]
    card = store.card(ONE)
    assert card.rows_done == 240
    assert card.facts == {"crc": {"0": 100, "100": 200, "200": 240}}
    # three units of two seconds, shared by two columns: the cards add up to what was spent
    assert sum(store.card(c).seconds for c in toy.COLUMNS) == pytest.approx(6)
    toy.fill(store)
    assert store.version == 2  # nothing was left to do


def test_partial_column_then_the_rest_in_place(store: Store):
    toy.fill(store, rows=range(30, 130, 2), unit_rows=16)
    assert np.flatnonzero(store.filled(ONE)).tolist() == list(range(30, 130, 2))
    with pytest.raises(DataError, match="not filled in row 0"):
        store.array(ONE)
    job = toy.job(store, rows=range(100), unit_rows=1000)
    assert job.todo() == [Unit(0, 100)]
    open_rows = [i for i in range(100) if not (i >= 30 and i % 2 == 0)]
    assert job.rows(job.todo()[0]).tolist() == open_rows
    with job:  # values for the open rows only
        found = {c: toy.values(c, 0, 100).take(pa.array(open_rows)) for c in toy.COLUMNS}
        job.write(job.todo()[0], found)
    every = pa.concat_arrays([toy.values(ONE, i, i + 1) for i in range(100)])
    stored = store.take(range(100), [ONE]).column(0).combine_chunks()
    assert stored.equals(every)
    assert store.verify() == []
    assert store.filled(ONE).sum() == 100 + 15


def test_one_column_filled_earlier_is_completed_in_lockstep(store: Store, expected: str):
    toy.fill(store, (ONE,), rows=range(150))
    toy.fill(store)
    assert store.content_hash() == expected
    assert store.verify() == []


def test_values_outside_the_rows_are_left_out(store: Store):
    with toy.job(store, rows=[5, 9]) as job:
        (unit,) = job.todo()
        assert unit == Unit(5, 10)
        write(job, unit)
    assert np.flatnonzero(store.filled(ONE)).tolist() == [5, 9]
    assert store.take(range(5, 10), [ONE]).column(0).null_count == 3


def test_rows_appended_meanwhile_stay_open(store: Store):
    with toy.job(store) as job:
        write(job, job.todo()[0])
        Store.open(store.path).append([{"id": ["new"], "text": ["x"]}])
    assert store.num_rows == 241
    assert store.filled(ONE).sum() == 240
    assert toy.job(store).todo() == [Unit(240, 241)]


def test_variable_length_columns(store: Store):
    kind = pa.list_(pa.string())
    card = Card(column="caption.c", writer="c")
    values = [[f"{i}", "b"][: i % 3] for i in range(240)]
    with store.job([card], {"caption.c": kind}, unit_rows=64) as job:
        for unit in job.todo()[:2]:
            job.write(unit, {"caption.c": pa.array(values[unit.start : unit.stop], kind)})
    with store.job([card], {"caption.c": kind}, unit_rows=64) as job:
        for unit in job.todo():
            job.write(unit, {"caption.c": pa.array(values[unit.start : unit.stop], kind)})
    assert store.take(range(240), ["caption.c"]).column(0).to_pylist() == values
    assert store.verify() == []


def test_overwrite_replaces_another_writer_at_the_commit(store: Store):
    toy.fill(store)
    new = Card(column=ONE, writer="u", fingerprint="f2", config=embedding_config([3]))
    kind = embedding_type([3])
    with pytest.raises(CardError, match="already holds the work of 't'"):
        store.job([new], {ONE: kind})
    half = encode_embeddings(np.ones((120, 3)))
    with store.job([new], {ONE: kind}, overwrite=True, unit_rows=120) as job:
        job.write(job.todo()[0], {ONE: half})
        assert Store.open(store.path).card(ONE).writer == "t"
    assert store.card(ONE).writer == "u"
    assert store.schema.field(ONE).type == kind
    assert store.filled(ONE).sum() == 120
    assert store.filled(toy.COLUMNS[1]).all()
    # the same command again goes on instead of starting over
    with store.job([new], {ONE: kind}, overwrite=True, unit_rows=120) as job:
        assert job.todo() == [Unit(120, 240)]
        job.write(job.todo()[0], {ONE: half})
    assert (store.array(ONE) == 1).all()
    assert store.verify() == []
    store._handle.dataset.validate()


def test_writers_of_different_columns_at_once(store: Store, expected: str):
    """Four writers of one process, each with its own handle, commit every few units."""
    errors = []

    def work(column: str, start: int) -> None:
        try:
            rows = range(start, start + 120)
            toy.fill(Store.open(store.path), (column,), rows=rows, unit_rows=20)
        except Exception as error:
            errors.append(error)

    threads = [
        threading.Thread(target=work, args=(column, start))
        for column in toy.COLUMNS
        for start in (0, 120)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert store.refresh().content_hash() == expected
    assert store.verify() == []


def run(path: Path, what: str, kill_after: float | None) -> None:
    """Run the script and kill it after some seconds, or let it finish."""
    command = [sys.executable, toy.__file__, what, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            assert process.wait(kill_after) == 0
        except subprocess.TimeoutExpired:
            process.kill()  # SIGKILL
            process.wait()


def test_kill_at_random_times_and_run_again(tmp_path: Path, expected: str):
    rng = random.Random(0)
    path = tmp_path / "s"
    run(path, "create", 0.15)  # the batches alone take twice as long
    with pytest.raises(DataError, match="no such store|interrupted before it finished"):
        Store.open(path)
    run(path, "create", None)
    made = Store.open(path)
    assert made.verify() == []
    done = 0
    for _ in range(5):
        run(path, "fill", rng.uniform(0.05, 0.5))
        made.refresh()
        assert made.verify() == []
        job = toy.job(made)
        assert job.num_done >= done, "finished units were lost"
        done = job.num_done
    toy.fill(made)
    assert made.content_hash() == expected
    assert made.verify() == []


def store_files(path: Path) -> list[Path]:
    return [p for p in path.rglob("*") if p.is_file()]


def test_killed_between_commit_and_tidying(store: Store, expected: str, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(store_staging.Staging, "drop", lambda *_: (_ for _ in ()).throw(Stop))
        with pytest.raises(Stop):
            toy.fill(store)
    assert len(store_files(Path(store.path) / "_understudy")) > 1
    assert store.verify() == []
    assert "1 finished or stale jobs' staging removed" in store.compact()
    assert store.content_hash() == expected


def test_bad_input_disk_full_while_staging(store: Store, expected: str, monkeypatch):
    job = toy.job(store, unit_rows=50)
    write(job, job.todo()[0])

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_bytes", full)
        with pytest.raises(DataError, match=r"No space left .* finished units are kept, so mend"):
            write(job, job.todo()[0])
    again = toy.job(store, unit_rows=50)
    assert again.todo()[0].start == 50
    toy.fill(store)
    assert store.content_hash() == expected


def test_bad_input_disk_full_while_committing(store: Store, expected: str, monkeypatch):
    import lance

    def full(*_, **__):
        raise OSError("LanceError(IO): No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(lance.LanceFragment, "merge_columns", full)
        with pytest.raises(DataError, match=r"No space left .* run the same command again"):
            toy.fill(store)
    assert store.columns == ["id", "text"]
    assert toy.job(store).num_done > 0
    toy.fill(store)
    assert store.content_hash() == expected


def test_bad_input_disk_full_while_the_version_is_written(store: Store, expected: str, monkeypatch):
    import lance

    def full(*_, **__):
        raise OSError("LanceError(IO): No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(lance.LanceDataset, "commit", full)
        with pytest.raises(DataError, match=r"could not be committed .*No space left .* as it was"):
            toy.fill(store)
    toy.fill(store)
    assert store.content_hash() == expected


def test_units_on_an_object_store(store: Store):
    """What is not a local disk takes another path: written in a stream, no folders."""
    from pyarrow import fs

    remote = fs.SubTreeFileSystem(store.path, fs.LocalFileSystem())
    staging = store_staging.Staging(store_staging.Files("", remote), "key")
    unit = store_staging.UnitFile.of(3, 2)
    table = pa.table({"x": [1, 2]})
    staging.describe({"columns": {}})
    done = {"rows": store_rows.encode(np.array([True, True]))}
    staging.save(unit, done, table)
    again = store_staging.Staging(store_staging.Files("", remote), "key")
    assert again.units() == [unit]
    header, found = again.load(unit)
    assert (header, found) == (done, table)
    again.drop(unit)
    with pytest.raises(store_staging.VanishedError, match="staged rows 3-4 are gone"):
        again.load(unit)
    again.clear()
    assert again.files.folders(store_staging.STAGING) == []


def test_a_unit_of_few_rows_far_apart_is_a_small_file(store: Store):
    sizes = {}
    for rows in (range(200), [3, 190]):
        job = toy.job(store, rows=rows, unit_rows=200)
        (unit,) = job.todo()
        job.write(unit, {c: toy.values(c, unit.start, unit.stop) for c in toy.COLUMNS})
        (path,) = Path(store.path).rglob("*.unit")
        sizes[len(rows)] = path.stat().st_size
        if len(rows) == 2:
            job.commit()
        path.unlink(missing_ok=True)
    assert sizes[2] < sizes[200] / 2
    assert np.flatnonzero(store.refresh().filled(ONE)).tolist() == [3, 190]
    stored = store.take([3, 190], [ONE]).column(0).combine_chunks()
    assert stored.equals(pa.concat_arrays([toy.values(ONE, i, i + 1) for i in (3, 190)]))


def damage(store: Store, how: str) -> None:
    unit = sorted(Path(store.path).rglob("*.unit"))[1]
    data = bytearray(unit.read_bytes())
    if how == "cut":
        del data[len(data) // 2 :]
    else:
        data[len(data) // 2] ^= 1
    unit.write_bytes(data)


@pytest.mark.parametrize("how", ["cut", "bit"])
def test_bad_input_damaged_unit(store: Store, expected: str, how: str):
    job = toy.job(store, unit_rows=50)
    for unit in job.todo()[:3]:
        write(job, unit)
    damage(store, how)
    (problem,) = store.verify()
    assert "unfinished t.image.main.0, t.image.main.1: staged rows 50-99 are damaged" in problem
    assert "run the same command again" in problem
    # the job that holds the unit for sound finds out when it commits, and keeps the others
    with pytest.raises(DataError, match="staged rows 50-99 are damaged"):
        job.commit()
    again = toy.job(store, unit_rows=50)
    assert again.todo()[0] == Unit(50, 100)
    toy.fill(store)
    assert store.content_hash() == expected


def test_bad_input_replaced_store(store: Store):
    job = toy.job(store, unit_rows=100)
    write(job, job.todo()[0])
    replaced = Store.create(store.path, toy.batches(), overwrite=True)
    with pytest.raises(DataError, match="store was replaced while a job ran"):
        job.commit()
    assert toy.job(replaced).num_done == 0  # staged units of the old store do not count
    assert "1 finished or stale jobs' staging removed" in replaced.compact()


def test_bad_input_units(store: Store):
    job = toy.job(store, rows=range(100), unit_rows=50)
    unit = job.todo()[0]
    good = {c: toy.values(c, 0, 50) for c in toy.COLUMNS}
    with pytest.raises(DataError, match=r"rows 0-49: expected values for .*, got t.image.main.0"):
        job.write(unit, {ONE: good[ONE]})
    with pytest.raises(DataError, match=r"'t.image.main.0', rows 0-49: expected 50 values"):
        job.write(unit, {**good, ONE: good[ONE][:49]})
    with pytest.raises(DataError, match="expected fixed_size_list"):
        job.write(unit, {**good, ONE: pa.array(range(50))})
    with pytest.raises(DataError, match="expected an Arrow array, got ndarray"):
        job.write(unit, {**good, ONE: np.zeros((50, 8))})
    hole = good[ONE].take(pa.array([*range(7), None, *range(8, 50)]))
    with pytest.raises(DataError, match="no value for row 7, which is to be filled"):
        job.write(unit, {**good, ONE: hole})
    with pytest.raises(DataError, match="lies outside of 240 rows"):
        job.write(Unit(200, 300), good)
    assert job.num_done == 0
    assert store.verify() == []


def test_bad_input_jobs(store: Store):
    card = toy.cards((ONE,))[0]
    kind = {ONE: embedding_type([8])}
    with pytest.raises(CardError, match="needs a card for each column"):
        store.job([], {})
    with pytest.raises(CardError, match="two cards for one column"):
        store.job([card, card], kind)
    with pytest.raises(DataError, match="one Arrow type for each of its columns"):
        store.job([card], {})
    with pytest.raises(DataError, match="unit_rows must be at least 1"):
        store.job([card], kind, unit_rows=0)
    with pytest.raises(DataError, match="row 240 does not exist"):
        store.job([card], kind, rows=[240])
    with pytest.raises(CardError, match="'text' came with the rows and has no card"):
        store.job([Card(column="text", writer="w")], {"text": pa.string()}, overwrite=True)
    with pytest.raises(DataError, match="'a:b' cannot be a column name"):
        store.job([Card(column="a:b", writer="w")], {"a:b": pa.string()})
    toy.fill(store)
    with pytest.raises(CardError, match="the job would write .* with the same card"):
        store.job([card], {ONE: embedding_type([9])})
    wrong = Card(column=ONE, writer="t", config=embedding_config([9]))
    with pytest.raises(CardError, match="differs in config.shape"):
        store.job([wrong], {ONE: embedding_type([9])})
    with pytest.raises(DataError, match="cannot be changed"):
        toy.job(Store.open(store.path, 1))
