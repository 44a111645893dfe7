"""LLaVA's conversation JSON into a store: what it becomes, and what is refused."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from understudy.core.dialogue import check_turns
from understudy.core.errors import DataError
from understudy.data.importers import conversations as module
from understudy.data.importers import import_dir


def turns(question="<image>\nwhat?", answer="a cat"):
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


@pytest.fixture
def folder(tmp_path):
    Image.fromarray(np.full((9, 7, 3), 40, np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.full((9, 7), 40, np.uint8)).save(tmp_path / "gray.jpg")
    return tmp_path


def write(folder, entries, name="chats.json"):
    path = folder / name
    path.write_text(entries if isinstance(entries, str) else json.dumps(entries))
    return path


def load(folder, entries, **options):
    path = write(folder, entries, options.pop("name", "chats.json"))
    return import_dir(path, folder / "store", kind="conversations", **options)


def test_conversations_become_rows(folder, monkeypatch):
    entries = [
        {"id": "1", "image": "a.png", "conversations": turns()},
        {"id": 2, "image": "gray.jpg", "conversations": turns("är <image> grå?", 'ja [}] \\ "')},
        {"id": "3", "conversations": turns("no picture", "none")},
    ]
    monkeypatch.setattr(module, "_PIECE", 7)  # entries, and letters, fall over pieces
    store = load(folder, json.dumps(entries, ensure_ascii=False, indent=1), split="train")
    rows = store.take([0, 1, 2], ["id", "image", "conversations", "split"]).to_pylist()
    assert [r["id"] for r in rows] == ["1", "2", "3"]
    assert rows[0]["image"] == (folder / "a.png").read_bytes()
    assert rows[2]["image"] == b""
    assert json.loads(rows[1]["conversations"]) == entries[1]["conversations"]
    assert {r["split"] for r in rows} == {"train"}
    assert store.meta["import"]["kind"] == "conversations"


def test_json_lines_and_another_folder_of_images(folder):
    lines = "\n".join(json.dumps({"id": str(i), "image": "a.png", "conversations": turns()})
                      for i in range(3))  # fmt: skip
    (folder / "elsewhere").mkdir()
    write(folder / "elsewhere", lines, "chats.jsonl")
    store = import_dir(
        folder / "elsewhere", folder / "store", kind="conversations", images=str(folder)
    )
    assert store.num_rows == 3


def test_damaged_images_are_skipped_and_counted_if_asked(folder):
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), c) for c in ("red", "blue")]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    (folder / "anim.gif").write_bytes(buffer.getvalue())
    (folder / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    entries = [
        {"id": "1", "image": "anim.gif", "conversations": turns()},
        {"id": "2", "image": "bad.png", "conversations": turns()},
        {"id": "3", "image": "gone.png", "conversations": turns()},
    ]
    store = load(folder, entries, on_missing="skip")
    assert store.num_rows == 1
    assert store.meta["import"]["skipped"] == {"damaged image": 1, "missing image": 1}
    with pytest.raises(DataError, match=r"entry 1, bad.png: .*not an image|damaged"):
        load(folder, entries, overwrite=True)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"id": "1", "conversations": turns()}], "'1': the text has 1 <image> marks for 0 images"),
        ([{"id": "1", "image": "a.png", "conversations": turns("what?")}],
         "the text has 0 <image> marks for 1 images"),
        ([{"id": "1", "image": ["a.png", "a.png"], "conversations": turns()}],
         "2 images; a row of a store holds one image"),
        ([{"image": "a.png", "conversations": turns()}], "entry 0: no id"),
        ([{"id": "1", "conversations": []}], "expected a list of turns"),
        ([{"id": "1", "conversations": turns("q")[:1]}], "the last human text has no answer"),
        ([{"id": "1", "conversations": turns("q")[::-1]}], "from is 'gpt', expected 'human'"),
        ([{"id": "1", "conversations": turns("q", "<image>")}], "an answer holds <image>"),
        ([{"id": "1", "image": "../x.png", "conversations": turns()}], "leads out of"),
        ([{"id": "1", "conversations": turns("q")}] * 2, "id '1'"),
        ("[3]", "entry 0: expected an object"),
        ('{"id": 1}', "expected a JSON list"),
        ('[{"id": "1", "conv', "entry 0: not valid JSON .*cut off"),
        ('[{"id": "1", "conversations": ' + json.dumps(turns("q")) + "}", "cut off after entry 0"),
        ("[]", "no conversation that can be used"),
    ],
)  # fmt: skip
def test_bad_input_conversations(folder, entries, message):
    with pytest.raises(DataError, match=message):
        load(folder, entries)
    assert not (folder / "store").exists()


def test_turns_are_checked():
    assert check_turns(turns(), "x") == turns()
    with pytest.raises(DataError, match="x, turn 0: expected {from, value}"):
        check_turns([{"from": "human"}], "x")
