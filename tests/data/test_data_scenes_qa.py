"""Canvases with questions: every answer follows from what was drawn."""

import json

import numpy as np

from understudy.data import scenes
from understudy.data.decode import decode
from understudy.data.scenes import qa, scans


def test_answers_follow_from_the_facts():
    digits = np.array([3, -1, 7, -1])
    sides, small = np.array([30, 0, 110, 0]), np.array([True, False, False, False])
    asked = {q.text: q for q in qa.questions_of(digits, sides, small)}
    assert asked["how many digits are there?"].answer == "2"
    assert asked["which digit is at the top left?"].answer == "3"
    assert asked["which digit is at the top left?"].small
    assert asked["which digit is at the top right?"].answer == "none"
    assert not asked["which digit is at the top right?"].small
    assert asked["which digit is at the bottom left?"].answer == "7"
    assert asked["which digit is the largest?"].answer == "7"
    # two digits of about one size have no largest one
    close = qa.questions_of(digits, np.array([100, 0, 110, 0]), small)
    assert {q.kind for q in close} == {"count", "corner"}


def test_digits_stand_where_the_facts_say():
    made = next(qa.chunks(8, "test", seed=1000, size=128))
    again = next(qa.chunks(3, "test", seed=1000, size=128))
    assert np.array_equal(made.images[:3], again.images)
    paper = np.median(made.images.reshape(8, -1, 3), axis=1)
    for i in range(8):
        inked = np.abs(made.images[i].astype(int) - paper[i]).max(-1) > 40
        for corner in range(4):
            top, left = corner // 2 * 64, corner % 2 * 64
            there = inked[top : top + 64, left : left + 64].any()
            assert there == (made.digits[i, corner] >= 0)
        assert 1 <= (made.digits[i] >= 0).sum() <= 4
        assert ((made.sides[i] > 0) == (made.digits[i] >= 0)).all()


def test_a_store_of_questions(tmp_path):
    store = scenes.to_store("qa", tmp_path / "store", train=4, test=2, seed=1000, size=96)
    assert store.num_rows == 6
    rows = store.take(range(6), ["image", "conversations", "kinds", "small", "split"]).to_pylist()
    assert [r["split"] for r in rows] == ["train"] * 4 + ["test"] * 2
    for row in rows:
        turns = json.loads(row["conversations"])
        assert turns[0]["value"].startswith("<image>\n")
        assert sum("<image>" in t["value"] for t in turns) == 1
        assert len(turns) == 2 * len(row["kinds"]) == 2 * len(row["small"])
        assert set(row["kinds"]) <= set(qa.KINDS)
        assert decode(row["image"]).shape == (96, 96, 3)
    assert not set(scans.split_rows("train")) & set(scans.split_rows("test"))
    last = json.loads(qa.conversation(
        qa.questions_of(np.array([1, -1, -1, -1]), np.array([9, 0, 0, 0]), np.zeros(4, bool)), False
    ))  # fmt: skip
    assert last[0]["value"].endswith("\n<image>")
