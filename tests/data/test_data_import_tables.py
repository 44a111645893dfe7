"""Image folders, JSON lines, Parquet and Hugging Face data sets become stores."""

from __future__ import annotations

import base64
import gzip
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from import_kit import picture, write_tar

from understudy.core.errors import ConfigError, DataError
from understudy.data.importers import detect_kind, import_dir
from understudy.data.importers.ids import SeenIds
from understudy.data.store import Store


def image_folder(root, splits=("",)):
    for split in splits:
        for name in ("dog", "cat"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(2):
                (folder / f"{i}.png").write_bytes(picture(i, kind="PNG"))
    return root


def test_image_folder(tmp_path):
    source = image_folder(tmp_path / "in")
    (source / "notes.md").write_text("not an image")
    assert detect_kind(source) == "imagefolder"
    store = import_dir(source, tmp_path / "s")
    assert store.array("id").tolist() == ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"]
    assert store.array("label").tolist() == [0, 0, 1, 1]
    assert store.meta["classes"] == ["cat", "dog"]
    assert store.array("image")[3] == picture(1, kind="PNG")


def test_image_folder_with_splits_and_captions(tmp_path):
    source = image_folder(tmp_path / "in", ("train", "val"))
    for path in source.rglob("*.png"):
        path.with_suffix(".txt").write_text(f"a {path.parent.name}\n")
    store = import_dir(source, tmp_path / "s")
    assert store.array("split").tolist() == ["train"] * 4 + ["val"] * 4
    assert store.array("label").tolist() == [0, 0, 1, 1] * 2
    assert store.array("text")[0] == "a cat"
    (source / "val" / "dog" / "1.txt").unlink()
    with pytest.raises(DataError, match=r"1.png: no caption in 1.txt"):
        import_dir(source, tmp_path / "t")
    assert import_dir(source, tmp_path / "t", on_missing="skip").num_rows == 7


def test_image_folder_without_classes(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(picture(0))
    assert import_dir(tmp_path / "in", tmp_path / "s").columns == ["id", "image"]


def test_bad_input_damaged_image_in_folder(tmp_path):
    source = image_folder(tmp_path / "in")
    (source / "dog" / "1.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(DataError, match=r"dog/1\.png: not an image"):
        import_dir(source, tmp_path / "s")
    store = import_dir(source, tmp_path / "s", on_missing="skip")
    assert store.meta["import"]["skipped"] == {"damaged image": 1}


def test_bad_input_image_beside_class_folders(tmp_path):
    source = image_folder(tmp_path / "in")
    (source / "lone.png").write_bytes(picture(0, kind="PNG"))
    with pytest.raises(DataError, match="lone.png: lies beside the class folders"):
        import_dir(source, tmp_path / "s")


def jsonl(path, rows, pack=lambda data: data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pack("".join(json.dumps(r) + "\n" for r in rows).encode()))
    return path


def zstd(data: bytes) -> bytes:
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as stream:
        stream.write(data)
    return out.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("suffix", "pack"), [("", lambda d: d), (".gz", gzip.compress), (".zst", zstd)]
)
def test_jsonl(tmp_path, suffix, pack):
    rows = [
        {"text": "one", "n": 1, "meta": {"b": [1], "a": None}, "tags": ["x", "y"]},
        {"text": "two \u00fc", "n": 2.5, "extra": True},
    ]
    jsonl(tmp_path / "in" / f"b.jsonl{suffix}", rows, pack)
    jsonl(tmp_path / "in" / f"a.jsonl{suffix}", [{"text": "zero", "n": 0}], pack)
    store = import_dir(tmp_path / "in", tmp_path / "s", split="train")
    assert store.array("id").tolist() == ["a-000000000", "b-000000000", "b-000000001"]
    assert store.array("text").tolist() == ["zero", "one", "two \u00fc"]
    assert store.array("n").tolist() == [0.0, 1.0, 2.5]
    table = store.take(range(3), ["meta", "tags", "extra", "split"]).to_pydict()
    assert table["meta"] == [None, '{"a": null, "b": [1]}', None]
    assert table["tags"] == [None, ["x", "y"], None]
    assert table["extra"] == [None, None, True]
    assert table["split"] == ["train"] * 3


def test_jsonl_images(tmp_path):
    source = tmp_path / "in"
    rows = [
        {"uid": "a", "image": base64.b64encode(picture(0)).decode(), "caption": "c"},
        {"uid": "b", "image": "pics/1.jpg", "caption": "d"},
    ]
    jsonl(source / "a.jsonl", rows)
    (source / "pics").mkdir()
    (source / "pics" / "1.jpg").write_bytes(picture(1))
    store = import_dir(source, tmp_path / "s", kind="jsonl")
    assert store.columns == ["id", "image", "text"]
    assert store.array("image").tolist() == [picture(0), picture(1)]


def test_jsonl_columns_and_types(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [{"doc": "x", "name": "n1", "v": 1}])
    store = import_dir(
        path, tmp_path / "s", columns={"id": "name", "text": "doc"}, types={"v": "float32"}
    )
    assert store.array("v").dtype == np.float32
    assert store.array("id").tolist() == ["n1"]
    with pytest.raises(DataError, match="no column 'nope'; it has: doc, name, v"):
        import_dir(path, tmp_path / "t", columns={"id": "nope"})
    with pytest.raises(ConfigError, match="'number' of 'v' is not an Arrow type"):
        import_dir(path, tmp_path / "t", types={"v": "number"})


def test_bad_input_jsonl(tmp_path, monkeypatch):
    from understudy.data.importers import jsonl as module

    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "x"}\n\n{"text": \n')
    with pytest.raises(DataError, match=r"a\.jsonl, line 3: not valid JSON"):
        import_dir(path, tmp_path / "s")
    path.write_text("[1]\n")
    with pytest.raises(DataError, match="line 1: expected an object"):
        import_dir(path, tmp_path / "s")
    path.write_text('{"n": 1}\n{"n": "one"}\n')
    with pytest.raises(DataError, match="field 'n': its values are of several types"):
        import_dir(path, tmp_path / "s")
    monkeypatch.setattr(module, "INFER_ROWS", 1)
    with pytest.raises(DataError, match="line 2, field 'n': 'one' is not int64"):
        import_dir(path, tmp_path / "s")
    path.write_text('{"n": 1}\n{"m": 1}\n')
    with pytest.raises(DataError, match="line 2: field 'm' is not in the first"):
        import_dir(path, tmp_path / "s")
    path.write_text('{"id": "a"}\n{"id": "a"}\n')
    with pytest.raises(DataError, match="id 'a' occurs twice"):
        import_dir(path, tmp_path / "s")
    path.write_text('{"id": "a"}\n{"id": null}\n')
    with pytest.raises(DataError, match="row 1: the id is null"):
        import_dir(path, tmp_path / "s")
    path.write_text('{"image": "?"}\n')
    with pytest.raises(DataError, match="line 1: the image is not base64"):
        import_dir(path, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_bad_input_cut_off_jsonl(tmp_path):
    data = gzip.compress("".join(f'{{"text": "line {i * 7919}"}}\n' for i in range(5000)).encode())
    (tmp_path / "a.jsonl.gz").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"a\.jsonl\.gz: damaged or cut off after line"):
        import_dir(tmp_path / "a.jsonl.gz", tmp_path / "s")


def test_parquet_of_img2dataset(tmp_path):
    for n in range(2):
        table = pa.table(
            {
                "key": [f"{n}{i:04d}" for i in range(3)],
                "jpg": pa.array([picture(i) for i in range(3)], pa.large_binary()),
                "caption": pa.array(["a", "b", None]).dictionary_encode(),
                "url": ["u"] * 3,
                "exif": [{"x": 1}, None, {"x": 2}],
                "emb": pa.array([[0.5, 1.0]] * 3, pa.list_(pa.float32(), 2)),
            }
        )
        (tmp_path / "in").mkdir(exist_ok=True)
        pq.write_table(table, tmp_path / "in" / f"{n:05d}.parquet")
    store = import_dir(tmp_path / "in", tmp_path / "s")
    assert store.columns == ["id", "image", "text", "url", "exif", "emb"]
    assert store.array("id").tolist() == [f"{n}{i:04d}" for n in range(2) for i in range(3)]
    assert store.take([0, 2], ["text", "exif"]).to_pydict() == {
        "text": ["a", None],
        "exif": ['{"x": 1}', '{"x": 2}'],
    }
    assert store.array("emb").shape == (6, 2)
    assert store.array("image")[5] == picture(2)


def test_bad_input_parquet(tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    pq.write_table(pa.table({"id": ["a"], "x": [1]}), source / "0.parquet")
    pq.write_table(pa.table({"id": ["b"], "y": [1]}), source / "1.parquet")
    with pytest.raises(DataError, match=r"1\.parquet: its columns differ from those of 0\.parquet"):
        import_dir(source, tmp_path / "s")
    data = (source / "0.parquet").read_bytes()
    (source / "1.parquet").write_bytes(data[:-20])
    with pytest.raises(DataError, match=r"1\.parquet: damaged or cut off .* run it again"):
        import_dir(source, tmp_path / "s")
    (source / "1.parquet").write_bytes(data)
    with pytest.raises(
        DataError, match=r"id 'a' occurs twice: in .*0\.parquet and in .*1\.parquet"
    ):
        import_dir(source, tmp_path / "s")


def test_hugging_face(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "caption": datasets.Value("string"),
        }
    )

    def part(count):
        rows = {
            "image": [{"bytes": picture(i), "path": None} for i in range(count)],
            "label": [i % 2 for i in range(count)],
            "caption": [f"c{i}" for i in range(count)],
        }
        return datasets.Dataset.from_dict(rows, features=features)

    data = datasets.DatasetDict(train=part(3), test=part(2))
    data.save_to_disk(str(tmp_path / "in"))
    assert detect_kind(tmp_path / "in") == "hf"
    store = import_dir(tmp_path / "in", tmp_path / "s")
    assert store.columns == ["id", "image", "label", "text", "split"]
    assert store.array("split").tolist() == ["train"] * 3 + ["test"] * 2
    assert store.array("label").tolist() == [0, 1, 0, 0, 1]
    assert store.meta["classes"] == ["cat", "dog"]
    assert store.array("image")[2] == picture(2)
    assert len(set(store.array("id").tolist())) == 5
    part(2).select([1, 0]).save_to_disk(str(tmp_path / "single"))
    store = import_dir(tmp_path / "single", tmp_path / "t", split="val")
    assert store.array("text").tolist() == ["c1", "c0"]
    assert store.array("split").tolist() == ["val", "val"]


def test_bad_input_hugging_face_folder(tmp_path):
    pytest.importorskip("datasets")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "state.json").write_text("{}")
    with pytest.raises(DataError, match="not a whole `save_to_disk` folder"):
        import_dir(tmp_path / "in", tmp_path / "s")


def test_bad_input_mixed_folder(tmp_path):
    jsonl(tmp_path / "in" / "a.jsonl", [{"text": "x"}])
    write_tar(tmp_path / "in" / "0.tar", [("a", {"txt": b"x"})])
    with pytest.raises(DataError, match=r"several kinds of files: webdataset \(0.tar\), jsonl"):
        import_dir(tmp_path / "in", tmp_path / "s")
    assert import_dir(tmp_path / "in", tmp_path / "s", kind="jsonl").num_rows == 1


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 400), min_size=1, max_size=40), min_size=1, max_size=12),
    st.randoms(),
)
def test_repeated_ids_are_found_wherever_they_are(batches, random):
    seen, known = SeenIds(), {}
    for number, batch in enumerate(batches):
        ids = [f"id{i}" for i in batch]
        double = len(set(ids)) < len(ids) or any(i in known for i in ids)
        if double:
            with pytest.raises(DataError, match="occurs twice: in shard") as caught:
                seen.add(ids, [f"shard{number}"] * len(ids))
            uid = str(caught.value).split("'")[1]
            assert ids.count(uid) > 1 or f"in shard{known[uid]} and in shard{number};" in str(
                caught.value
            )
            return
        seen.add(ids, [f"shard{number}"] * len(ids))
        known.update({i: number for i in ids})


KILL = """
import sys, time
from understudy.data.importers import common, import_dir, tables
common.BATCH_ROWS = 64
real = tables.TableReader._batch
def slow(self, *args):
    print("batch", flush=True)
    time.sleep(0.2)
    return real(self, *args)
tables.TableReader._batch = slow
import_dir(sys.argv[1], sys.argv[2])
"""


def test_killed_import_leaves_nothing_and_succeeds_again(tmp_path):
    source = jsonl(tmp_path / "a.jsonl", [{"text": f"t{i}"} for i in range(3000)])
    target = tmp_path / "out" / "s"
    process = subprocess.Popen(
        [sys.executable, "-c", KILL, str(source), str(target)],
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdout is not None
    for _ in range(3):
        process.stdout.readline()
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not target.exists()
    with pytest.raises(DataError, match="no such store"):
        Store.open(target)
    store = import_dir(source, target)
    assert store.num_rows == 3000
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["s"]
