"""Several runs divide a reinforcement: the content is that of one run, whoever is killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import workers_toys as toys
from reinforce_functions import SMALL, small_teachers
from reinforce_world import make_store

from understudy.core.errors import CardError, ConfigError, DataError
from understudy.data.store import Store
from understudy.data.store_staging import Staging
from understudy.reinforce.config import ReinforceConfig
from understudy.reinforce.fill import Work
from understudy.reinforce.generate import reinforce
from understudy.reinforce.parts import PartWorker, split
from understudy.reinforce.shared import SharedWork, merged

CONFIG = ReinforceConfig.from_dict(toys.plain_config())
ROWS = 24


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    store = make_store(tmp_path_factory.mktemp("whole") / "s", ROWS)
    reinforce(store, CONFIG)
    return store.content_hash()


def shared(path, folder, reports, config=CONFIG, **options):
    with SharedWork(folder, poll_s=0.01, **options) as filler:
        reports.append(reinforce(Store.open(path), config, filler=filler))


def in_threads(path, folder, count, **options):
    reports = []
    arguments = (path, folder, reports)
    threads = [
        threading.Thread(target=shared, args=arguments, kwargs=options) for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return reports


@pytest.mark.parametrize("count", [1, 3])
def test_runs_that_share_write_what_one_run_writes(tmp_path, expected, count):
    store = make_store(tmp_path / "s", ROWS)
    reports = in_threads(store.path, tmp_path / "share", count)
    assert len(reports) == count
    store = store.refresh()
    assert store.content_hash() == expected
    assert store.verify() == []
    # each row once in each of the three phases, and one commit a phase
    assert sum(report.computed for report in reports) == 3 * ROWS
    assert len(store.versions()) == 1 + 3
    assert not list((tmp_path / "share" / "leases").iterdir())
    assert not list(Path(store.path).glob("_understudy/staging/*/*.unit"))


def test_a_share_goes_on_from_a_run_that_was_stopped_and_the_other_way_round(tmp_path, expected):
    """Units are the same files whoever computes them."""
    store = make_store(tmp_path / "s", ROWS)
    with pytest.raises(RuntimeError, match="enough"):
        reinforce(store, CONFIG, filler=Stops(after=3))
    (report,) = in_threads(store.path, tmp_path / "share", 1)
    assert report.computed == 3 * ROWS - 3 * 4
    assert store.refresh().content_hash() == expected


class Stops(SharedWork):
    """Breaks off after some units."""

    def __init__(self, after):
        self.after = after

    def fill(self, work):
        job = work.job()
        for unit in job.todo()[: self.after]:
            from understudy.reinforce.parts import stage_unit

            stage_unit(work.store, work.phase, unit, job.rows(unit), work.unit_rows, False)
        raise RuntimeError("enough")


def test_some_rows_first_then_all(tmp_path, expected):
    """Partly filled columns: the second call fills the rest, shared or not."""
    store = make_store(tmp_path / "s", ROWS)
    some = replace(CONFIG, rows="label < 5")
    shared(store.path, tmp_path / "share", [], some)
    assert 0 < store.refresh().card("view.main.0").rows_done < ROWS
    in_threads(store.path, tmp_path / "share", 2)
    assert store.refresh().content_hash() == expected


def test_overwrite_drops_what_the_rows_have_outgrown_once(tmp_path):
    store, other = make_store(tmp_path / "s", 12), make_store(tmp_path / "o", 12)
    fewer = replace(CONFIG, captions=1, overwrite=True)
    reinforce(store, CONFIG)
    assert store.has("a.caption.say.1")
    in_threads(store.path, tmp_path / "share", 2, config=fewer)
    reinforce(other, CONFIG)
    reinforce(other, fewer)
    assert not store.refresh().has("a.caption.say.1")
    assert store.content_hash() == other.content_hash()


def test_a_damaged_unit_is_computed_again(tmp_path, expected, monkeypatch):
    store = make_store(tmp_path / "s", ROWS)
    real, broken = Staging.save, []

    def save(self, unit, header, table):
        real(self, unit, header, table)
        if not broken:
            path = Path(self.files.base, self.folder, unit.name)
            data = bytearray(path.read_bytes())
            data[-100] ^= 1
            path.write_bytes(data)
            broken.append(unit)
            self._sound.clear()

    monkeypatch.setattr(Staging, "save", save)
    (report,) = in_threads(store.path, tmp_path / "share", 1)
    assert report.computed == 3 * ROWS + 4
    assert broken
    assert store.refresh().content_hash() == expected


def test_bad_input_is_a_sentence_and_frees_the_claim(tmp_path):
    store = make_store(tmp_path / "s", 12)
    data = store.take(range(12), ["id", "image", "text"]).to_pydict()
    data["image"][7] = b"broken"
    Store.create(tmp_path / "b", [data])
    with pytest.raises(DataError, match=r"row 7 \(id 's0007'\)"):
        shared(tmp_path / "b", tmp_path / "share", [], replace(CONFIG, captioners=()))
    assert not list((tmp_path / "share" / "leases").iterdir())


def start(store, config, share, **env):
    here = str(Path(toys.__file__).parent)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": here, **env}
    words = ["reinforce", str(store), "--config", str(config), "--share", str(share)]
    return subprocess.Popen(
        [sys.executable, "-m", "understudy", *words],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_kill_9_of_one_of_two_runs(tmp_path, expected):
    """The other takes over its claim at once: the dead process is of the same machine."""
    store, share = make_store(tmp_path / "s", ROWS).path, tmp_path / "share"
    config = toys.write_config(tmp_path / "c.yaml")
    first = start(store, config, share, TOY_PAUSE_S="600")  # takes a unit and sits on it
    try:
        deadline = time.monotonic() + 60
        while not list(share.glob("leases/*")) and time.monotonic() < deadline:
            time.sleep(0.02)
        (lease,) = share.glob("leases/*")
        second = start(store, config, share)
        time.sleep(0.3)
        first.send_signal(signal.SIGKILL)
        _, errors = second.communicate(timeout=60)
        assert second.returncode == 0, errors
        assert not lease.exists()
    finally:
        first.kill()
        first.communicate()
    opened = Store.open(store)
    assert opened.content_hash() == expected
    assert opened.verify() == []
    report = merged(share)
    assert report is not None
    assert report.computed == 3 * ROWS


# parts: what workers of a cluster are given


def works(store, config, teachers=None):
    """Yield the phases of a reinforcement as they come up, filled one after the other."""

    class Looks(SharedWork):
        def __init__(self):
            self.seen = []

        def fill(self, work: Work):
            self.seen.append(work)
            parts = split(work, apart=True)
            jobs = [work.job(phase) for _, phase in parts]
            for (part, _), job in zip(parts, jobs, strict=True):
                worker = PartWorker(part, teachers)
                for unit in reversed(job.todo()):
                    worker.run(unit, job.rows(unit))
            for job in jobs:
                job.commit()
            work.store.refresh()
            work.parts = [part for part, _ in parts]

    looks = Looks()
    reinforce(store, config, teachers=teachers, filler=looks)
    return looks.seen


def test_a_part_for_each_teacher_gives_the_same_content(tmp_path, expected):
    store = make_store(tmp_path / "s", ROWS)
    captions, views, texts = works(store, CONFIG)
    assert [part.asked for part in captions.parts] == [("say",)]
    assert [part.asked for part in views.parts] == [("a",), ("b",), ("c",)]
    assert [part.asked for part in texts.parts] == [("a",), ("b",)]
    # records of views go with the first; the others draw the same views without storing them
    assert [any(c.startswith("view.") for c in p.columns) for p in views.parts] == [
        True,
        False,
        False,
    ]
    assert [t["name"] for t in views.parts[1].config["teachers"]] == ["b"]
    columns = [c for part in views.parts for c in part.columns]
    assert sorted(columns) == sorted(views.phase.cards)
    assert store.refresh().content_hash() == expected


def test_an_ensemble_stays_together(tmp_path):
    plain = toys.plain_config()
    plain["teachers"].append({**plain["teachers"][2], "name": "d"})
    config = ReinforceConfig.from_dict(plain)
    store, whole = make_store(tmp_path / "s", 12), make_store(tmp_path / "w", 12)
    reinforce(whole, config)
    _, views, _ = works(store, config)
    assert [part.asked for part in views.parts] == [("a",), ("b",), ("c", "d", "ensemble")]
    assert store.refresh().content_hash() == whole.content_hash()


def test_ready_made_teachers_go_along(tmp_path):
    store, whole = make_store(tmp_path / "s", 12), make_store(tmp_path / "w", 12)
    reinforce(whole, SMALL, teachers=small_teachers())
    works(store, SMALL, small_teachers())
    assert store.refresh().content_hash() == whole.content_hash()


def test_bad_input_a_worker_with_other_weights_is_refused(tmp_path):
    store = make_store(tmp_path / "s", 12)

    class Other(SharedWork):
        def __init__(self):
            pass

        def fill(self, work):
            (part, _), *_ = split(work, apart=False)
            column = next(iter(part.identities))
            lies = replace(part, identities={**part.identities, column: "0" * 32})
            with pytest.raises(CardError, match="weights or settings on .* are not those of the"):
                PartWorker(lies)
            raise KeyError("seen")

    with pytest.raises(KeyError, match="seen"):
        reinforce(store, CONFIG, filler=Other())


def test_pools_are_checked():
    from understudy.reinforce.ray_workers import PoolConfig

    with pytest.raises(ConfigError, match="at least 1 with at least 1 core, got 0"):
        PoolConfig(least=0)
    with pytest.raises(ConfigError, match="at most 2 is less than at least 3"):
        PoolConfig(least=3, most=2)


def test_what_each_job_lacks_is_joined_by_unit(tmp_path):
    """A teacher whose units were finished before is asked for the others alone."""
    from understudy.reinforce.ray_workers import _todo

    store = make_store(tmp_path / "s", 12)
    seen = {}

    class Looks(SharedWork):
        def __init__(self):
            pass

        def fill(self, work):
            parts = split(work, apart=True)
            job = work.job(parts[0][1])
            unit = job.todo()[1]
            PartWorker(parts[0][0]).run(unit, job.rows(unit))
            seen.update(_todo([work.job(phase) for _, phase in parts]))
            raise KeyError("seen")

    with pytest.raises(KeyError, match="seen"):
        reinforce(store, replace(CONFIG, captioners=()), filler=Looks())
    assert {tuple(unit): sorted(rows) for unit, rows in seen.items()} == {
        (0, 4): [0, 1, 2],
        (4, 8): [1, 2],
        (8, 12): [0, 1, 2],
    }
    assert np.array_equal(seen[4, 8][1], np.arange(4, 8))
