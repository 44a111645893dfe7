"""Killed, interrupted, or failing: what is finished is kept and the result is the same."""

import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import reinforce_functions
from reinforce_functions import SMALL, small_teachers
from reinforce_world import (
    colour_embedding,
    function_teacher,
    make_store,
)

from understudy.core.errors import CardError, DataError
from understudy.data.store import Store
from understudy.reinforce.generate import reinforce
from understudy.reinforce.prefetch import ordered_map, prefetch
from understudy.reinforce.teachers.function import FunctionTeacher


def run_and_kill(path: Path, calls: int, pause_s: float) -> bool:
    """Reinforce in a process and kill it after so many questions; say whether it ended before."""
    script = str(Path(reinforce_functions.__file__))
    command = [sys.executable, script, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(calls):
            if process.stdout.readline() != "asked\n":
                return True
        time.sleep(pause_s)
        process.send_signal(signal.SIGKILL)
    return False


def test_kill_9_and_resume_give_the_same_content(tmp_path):
    whole = make_store(tmp_path / "whole", 40)
    reinforce(whole, SMALL, teachers=small_teachers())
    path = tmp_path / "killed"
    make_store(path, 40)
    # in the captions, in the views twice, in the texts
    kills = ((4, 0.0), (14, 0.004), (8, 0.008), (7, 0.0))
    ended = [run_and_kill(path, calls, pause) for calls, pause in kills]
    assert ended == [False] * 4
    kept = Store.open(path)
    assert kept.verify() == []
    report = reinforce(kept, SMALL, teachers=small_teachers())
    assert 0 < report.computed < 2 * 40  # finished units are not computed again
    assert kept.content_hash() == whole.content_hash()
    assert kept.verify() == []
    assert kept.num_rows == 40
    for column in report.columns:
        assert kept.card(column).facts == whole.card(column).facts


def test_an_error_keeps_finished_units(tmp_path):
    store = make_store(tmp_path / "s", 20)
    seen = []

    def tired(images):
        seen.append(len(images))
        if sum(seen) > 20:
            raise RuntimeError("out of breath")
        return colour_embedding(images)

    teacher = FunctionTeacher("t", {"embed_images": tired})
    teacher.__dict__["fingerprint"] = "same"
    with pytest.raises(RuntimeError, match="out of breath"):
        reinforce(store, SMALL, teachers={"t": teacher})
    assert not store.has("view.main.0")
    rested = FunctionTeacher("t", {"embed_images": colour_embedding})
    rested.__dict__["fingerprint"] = "same"
    report = reinforce(store, SMALL, teachers={"t": rested})
    assert 0 < report.computed < 20
    whole = make_store(tmp_path / "w", 20)
    reinforce(whole, SMALL, teachers={"t": rested})
    assert store.content_hash() == whole.content_hash()


def test_bad_input_fingerprint_changed_between_kill_and_resume(tmp_path):
    store = make_store(tmp_path / "s", 20)
    reinforce(store, replace(SMALL, rows="split = 'test'"), teachers=small_teachers())
    other = FunctionTeacher("colours", {"embed_images": colour_embedding}, version="2")
    with pytest.raises(CardError, match="differs in fingerprint: stored"):
        reinforce(store, SMALL, teachers={"colours": other})


def test_errors_of_the_background_thread_arrive(tmp_path):
    store = make_store(tmp_path / "s", 12)
    data = store.take(range(12), ["id", "image", "text"]).to_pydict()
    data["image"][7] = b"broken"
    broken = Store.create(tmp_path / "b", [data])
    for threads in (1, 3):
        with pytest.raises(DataError, match=r"row 7 \(id 's0007'\)"):
            reinforce(
                broken, replace(SMALL, threads=threads), teachers={"c": function_teacher("c")}
            )


def test_prefetch_keeps_order_passes_errors_and_stops():
    assert list(prefetch(range(50))) == list(range(50))
    pulled = []

    def endless():
        i = 0
        while True:
            pulled.append(i)
            yield i
            i += 1

    stream = prefetch(endless(), depth=2)
    assert [next(stream) for _ in range(3)] == [0, 1, 2]
    stream.close()
    held = len(pulled)
    time.sleep(0.3)
    assert len(pulled) == held <= 8

    def failing():
        yield 1
        raise ValueError("no more")

    stream = prefetch(failing())
    assert next(stream) == 1
    with pytest.raises(ValueError, match="no more"):
        next(stream)


@pytest.mark.parametrize("threads", [1, 4])
def test_ordered_map_keeps_order(threads):
    def late(i):
        time.sleep(0.002 * (i % 3))
        return i * i

    assert list(ordered_map(late, iter(range(20)), threads)) == [i * i for i in range(20)]


def test_views_added_later_are_those_of_one_call(tmp_path):
    """NS parts merged are the union: two views, then four, equal four at once."""
    at_once, grown = make_store(tmp_path / "once", 24), make_store(tmp_path / "grown", 24)
    reinforce(at_once, replace(SMALL, num_views=4), teachers=small_teachers())
    first = reinforce(grown, replace(SMALL, num_views=2), teachers=small_teachers())
    grown = Store.open(grown.path)
    assert grown.content_hash() != at_once.content_hash()
    cards = {c: grown.card(c).to_json() for c in first.columns}
    second = reinforce(grown, replace(SMALL, num_views=4), teachers=small_teachers())
    grown = Store.open(grown.path)
    assert grown.content_hash() == at_once.content_hash()
    assert len(second.columns) > len(first.columns)
    # what was there is not written again
    assert {c: grown.card(c).to_json() for c in first.columns} == cards
