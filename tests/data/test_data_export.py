"""Exports are read by independent readers, come back as they were, and survive interruption."""

from __future__ import annotations

import gzip
import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from import_kit import TEACHERS, picture, released, unit_rows

from understudy.core.errors import ConfigError, DataError
from understudy.data.card import Card
from understudy.data.exporters import common, export
from understudy.data.importers import import_dir
from understudy.data.importers.shards import checksum
from understudy.data.interchange import views_from_reference, views_to_reference
from understudy.data.knowledge import embedding_type, encode_embeddings, encode_topk, topk_type
from understudy.data.store import Store
from understudy.data.view_params import pack, unpack
from understudy.data.view_reference import DATACOMPDR, to_reference_list
from understudy.data.views import ViewConfig, ViewPipeline, verify_views


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    folder = tmp_path_factory.mktemp("reinforced")
    return import_dir(released(folder / "in"), folder / "s", teachers=TEACHERS, split="train")


def fill(store: Store, card: Card, values: pa.Array, rows=None) -> None:
    with store.job([card], {card.column: values.type}, rows=rows) as job:
        for unit in job.todo():
            job.write(unit, {card.column: values[unit.start : unit.stop]})


@pytest.mark.parametrize("embeddings", ["npz", "pth.gz"])
def test_webdataset_comes_back(tmp_path, store, embeddings):
    paths = export(store, tmp_path / "out", embeddings=embeddings, rows_per_shard=3)
    assert [p.name for p in paths] == ["00000000.tar", "00000001.tar", "00000002.tar"]
    back = import_dir(tmp_path / "out", tmp_path / "back")
    assert back.columns == store.columns
    assert back.schema == store.schema
    for column in store.columns:
        mine, theirs = (s.take(range(7), [column]).column(0) for s in (store, back))
        if column in ("image", "id", "split") or column.startswith(("view.", "caption.")):
            assert mine.to_pylist() == theirs.to_pylist()
        elif pa.types.is_fixed_size_list(mine.type):
            a, b = (np.array(x.to_pylist(), np.float32) for x in (mine, theirs))
            np.testing.assert_allclose(a, b, atol=0 if embeddings == "npz" else 4e-3)
    for column, card in store.cards.items():
        assert back.card(column).identity() == card.identity()
        assert back.card(column).facts == card.facts
    if embeddings == "npz":
        assert back.content_hash() == store.content_hash()


def test_webdataset_library_reads_it(tmp_path, store):
    wds = pytest.importorskip("webdataset")
    paths = export(store, tmp_path / "out", embeddings="pth.gz", rows_per_shard=4)
    groups = list(wds.WebDataset([str(p) for p in paths], shardshuffle=False))
    assert [g["__key__"] for g in groups] == [f"uid{i:04d}" for i in range(7)]
    group = groups[2]
    assert group["jpg"] == picture(2)
    assert group["txt"] == b"real caption 2"
    assert group["url.txt"] == b"http://example.org/2.jpg"
    assert json.loads(group["syn.json"]) == {"syn_text": ["syn 2 0", "syn 2 1"]}
    lists = json.loads(group["paug.json"])["param_aug"]
    params = [unpack(store.array(f"view.main.{k}", [2]), DATACOMPDR)[0] for k in range(3)]
    assert lists == [to_reference_list(p) for p in params]
    assert all(len(entry) == 2 and len(entry[0]) == 4 and len(entry[1]) == 2 for entry in lists)
    tensors = torch.load(io.BytesIO(gzip.decompress(group["pth.gz"])), weights_only=True)
    assert {k: (list(v.shape), v.dtype) for k, v in tensors.items()} == {
        "image_emb": ([3, 10], torch.bfloat16),
        "text_emb": ([3, 10], torch.bfloat16),
    }
    np.testing.assert_allclose(tensors["image_emb"].float().numpy(), unit_rows(3, 2), atol=6e-3)
    np.testing.assert_allclose(tensors["text_emb"].float().numpy(), unit_rows(3, 1002), atol=6e-3)
    assert json.loads(group["json"])["uid"] == "uid0002"
    assert json.loads(group["json"])["split"] == "train"


def test_npz_is_read_by_numpy(tmp_path, store):
    (path, *_) = export(store, tmp_path / "out", embeddings="npz", rows_per_shard=100)
    with tarfile.open(path) as archive:
        file = archive.extractfile("uid0004.npz")
        assert file is not None
        arrays = np.load(io.BytesIO(file.read()), allow_pickle=False)
    assert arrays["image_emb"].dtype == np.float32
    np.testing.assert_allclose(arrays["image_emb"], unit_rows(3, 4), atol=1e-3)
    np.testing.assert_allclose(arrays["text_emb"], unit_rows(3, 1004), atol=1e-3)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    views, ignored = views_from_reference(config, "x")
    assert views == DATACOMPDR
    assert ignored == []
    lines = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {
        "shard": path.name,
        "num_uids": 7,
        "bytes": path.stat().st_size,
        "crc32": checksum(path),
    }


def test_reading_without_the_description(tmp_path, store):
    # What a reader of the released sets sees: no names, no cards, only the tars.
    export(store, tmp_path / "out", embeddings="npz")
    (tmp_path / "out" / "understudy.json").unlink()
    back = import_dir(tmp_path / "out", tmp_path / "back", teachers=TEACHERS)
    for column in store.cards:
        assert back.take(range(7), [column]) == store.take(range(7), [column])


@pytest.mark.parametrize("rows_per_shard", [2, 100])
def test_parquet_comes_back(tmp_path, store, rows_per_shard):
    paths = export(store, tmp_path / "out", "parquet", rows_per_shard=rows_per_shard)
    assert sum(pq.read_metadata(p).num_rows for p in paths) == 7
    table = pq.read_table(paths[0])
    assert table.column_names == store.columns
    assert np.array(table["openai.text"].to_pylist()).shape[1] == 6
    back = import_dir(tmp_path / "out", tmp_path / "back")
    assert back.schema == store.schema
    assert back.content_hash() == store.content_hash()
    assert back.cards.keys() == store.cards.keys()


def labelled(tmp_path, mixes=False) -> Store:
    """A store with labels, top-K, two captioners, a partly filled score and a dense column."""
    rows = {
        "id": [f"img.{i}/x" for i in range(5)],
        "image": [picture(i, kind="PNG") for i in range(5)],
        "label": pa.array([4, 3, 2, 1, None], pa.int16()),
        "wave": pa.array([[1.0, 2.0]] * 5, pa.list_(pa.float32())),
    }
    store = Store.create(tmp_path / "s", [rows], meta={"classes": list("abcde")})
    transforms: dict = {"random_resized_crop": {}, "random_horizontal_flip": {}, "random_erase": {}}
    if mixes:
        transforms["cutmix"] = {"p": 1.0}
    pipeline = ViewPipeline(ViewConfig(size=16, transforms=transforms))
    for k in range(2):
        partners = (np.array([1, 2, 3, 4, 0]), np.full((5, 2), 40)) if mixes else None
        params = pipeline.sample(np.full((5, 2), 40), range(5 * k, 5 * k + 5), partners)
        config = {**pipeline.config.to_dict(), "set": "easy", "k": k}
        card = Card(
            column=f"view.easy.{k}", writer="views", config=config, backend=pipeline.backend
        )
        data = pa.FixedSizeListArray.from_arrays(
            pa.array(pack(params).reshape(-1)), pipeline.stride
        )
        fill(store, card, data)
        card = Card(column=f"rn.topk.easy.{k}", writer="resnet", fingerprint="f", config={"k": 2})
        values = np.tile(np.float32([[0.7, 0.1 * k]]), (5, 1))
        fill(store, card, encode_topk(values, np.tile([[9, 60_000]], (5, 1))))
    for name, count in (("short", 1), ("long", 2)):
        texts = pa.array([[f"{name} {i}"] * count for i in range(5)], pa.list_(pa.string()))
        fill(store, Card(column=f"caption.{name}", writer=name), texts)
    config = {"dtype": "float16", "shape": [8]}
    for s in range(2):
        card = Card(column=f"clip.caption.long.{s}", writer="clip", config=config)
        fill(store, card, encode_embeddings(np.eye(5, 8, s, dtype=np.float32)))
    scores = pa.array([0.5, 1.5, 2.5, None, None], pa.float32())
    fill(store, Card(column="score.fine", writer="judge"), scores, rows=[0, 1, 2])
    return store


@pytest.mark.parametrize("mixes", [False, True])
@pytest.mark.parametrize("embeddings", ["npz", "pth.gz"])
def test_other_views_topk_captioners_and_facts_come_back(tmp_path, mixes, embeddings, caplog):
    store = labelled(tmp_path, mixes)
    export(store, tmp_path / "out", embeddings=embeddings, rows_per_shard=2)
    assert "no place in WebDataset tars for: wave" in caplog.text
    back = import_dir(tmp_path / "out", tmp_path / "back")
    assert set(back.columns) == set(store.columns) - {"wave"}
    for column in back.columns:
        mine, theirs = (s.take(range(5), [column]).column(0) for s in (store, back))
        assert mine.to_pylist() == theirs.to_pylist(), column
        assert mine.type == theirs.type, column
    assert back.meta["classes"] == list("abcde")
    assert back.filled("score.fine").tolist() == [True] * 3 + [False] * 2
    assert {c: k.identity() for c, k in back.cards.items()} == {
        c: k.identity() for c, k in store.cards.items()
    }
    assert back.card("view.easy.0").backend == store.card("view.easy.0").backend
    # Keys of a tar must not hold dots or slashes; the ids are in the json.
    with tarfile.open(tmp_path / "out" / "00000000.tar") as archive:
        names = archive.getnames()
    assert names[0] == "000000000.png"
    assert "000000000.cls" in names


def test_view_checksums_come_along_while_rows_stay(tmp_path, store):
    (path,) = export(store, tmp_path / "out", embeddings="npz")
    facts = {"crc": {"0": 1}, "thumb": {"0": "00"}}
    description = tmp_path / "out" / "understudy.json"
    data = json.loads(description.read_text())
    data["cards"]["view.main.0"]["facts"] = facts
    description.write_text(json.dumps(data))
    assert import_dir(tmp_path / "out", tmp_path / "back").card("view.main.0").facts == facts
    # Without the first sample every row has another number.
    (tmp_path / "out" / "manifest.jsonl").unlink()
    with tarfile.open(path) as archive:
        members = [m for m in archive.getmembers() if m.name != "uid0000.jpg"]
        files = [(m, archive.extractfile(m).read()) for m in members]  # type: ignore[union-attr]
    with tarfile.open(path, "w") as archive:
        for member, content in files:
            archive.addfile(member, io.BytesIO(content))
    back = import_dir(tmp_path / "out", tmp_path / "less", on_missing="skip")
    assert back.num_rows == 6
    assert back.card("view.main.0").facts != facts
    assert verify_views(back, "main") == []


def test_bad_input_description(tmp_path, store):
    export(store, tmp_path / "out")
    description = tmp_path / "out" / "understudy.json"
    data = json.loads(description.read_text())
    description.write_text(json.dumps({k: v for k, v in data.items() if k != "teachers"}))
    with pytest.raises(DataError, match=r"understudy\.json: 'teachers' is missing"):
        import_dir(tmp_path / "out", tmp_path / "back")
    description.write_text(json.dumps({**data, "version": 2}))
    with pytest.raises(DataError, match="description of version 2, this code reads version 1"):
        import_dir(tmp_path / "out", tmp_path / "back")


def test_choice_of_teachers(tmp_path, store):
    export(store, tmp_path / "out", embeddings="npz", teachers=["datacomp"], captioners=[])
    back = import_dir(tmp_path / "out", tmp_path / "back")
    assert not any(c.startswith(("openai", "caption")) for c in back.columns)
    np.testing.assert_array_equal(back.array("datacomp.text"), store.array("datacomp.text"))


def test_plain_store(tmp_path):
    store = Store.create(tmp_path / "s", [{"id": ["a", "b"], "text": ["x", None]}])
    (path,) = export(store, tmp_path / "out")
    with tarfile.open(path) as archive:
        assert archive.getnames() == ["a.txt", "a.json", "b.json"]
    assert not (tmp_path / "out" / "config.json").exists()


def test_interrupted_export_goes_on(tmp_path, store, monkeypatch):
    whole = export(store, tmp_path / "whole", rows_per_shard=2)
    real, calls = common.add_shard, []

    def stop(folder, entry):
        calls.append(entry["shard"])
        if len(calls) == 3:  # the shard is in place, its line is not
            raise KeyboardInterrupt
        real(folder, entry)

    monkeypatch.setattr(common, "add_shard", stop)
    with pytest.raises(KeyboardInterrupt):
        export(store, tmp_path / "out", rows_per_shard=2)
    # A killed process can also leave half a line and a temporary file.
    with open(tmp_path / "out" / "manifest.jsonl", "a") as file:
        file.write('{"shard": "000')
    (tmp_path / "out" / ".00000003.tar.x.tmp").write_bytes(b"half")
    first = (tmp_path / "out" / "00000000.tar").stat()
    again = export(store, tmp_path / "out", rows_per_shard=2)
    assert calls == [f"{n:08d}.tar" for n in (0, 1, 2, 2, 3)]
    assert (tmp_path / "out" / "00000000.tar").stat().st_mtime_ns == first.st_mtime_ns
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in whole]
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {p.name for p in (tmp_path / "whole").iterdir()}
    manifest = (tmp_path / "out" / "manifest.jsonl").read_text()
    assert manifest == (tmp_path / "whole" / "manifest.jsonl").read_text()


def test_damaged_shard_is_written_again(tmp_path, store):
    paths = export(store, tmp_path / "out", rows_per_shard=4)
    data = paths[1].read_bytes()
    paths[1].write_bytes(data[:100])
    export(store, tmp_path / "out", rows_per_shard=4)
    assert paths[1].read_bytes() == data


def test_no_shard_is_visible_when_the_disk_is_full(tmp_path, store, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tarfile.TarFile, "addfile", full)
    with pytest.raises(DataError, match=r"00000000\.tar: could not be written \(No space left"):
        export(store, tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").glob("*.tar")] == []


def test_bad_input_folder_of_another_export(tmp_path, store):
    export(store, tmp_path / "out", rows_per_shard=4)
    with pytest.raises(DataError, match="holds an export of another store, version or choice"):
        export(store, tmp_path / "out", rows_per_shard=3)
    paths = export(store, tmp_path / "out", rows_per_shard=3, overwrite=True)
    assert len(list((tmp_path / "out").glob("*.tar"))) == len(paths) == 3
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("x")
    with pytest.raises(DataError, match="holds other files"):
        export(store, tmp_path / "mine", overwrite=True)


def test_bad_input_export_options(tmp_path, store):
    with pytest.raises(ConfigError, match="format: 'tar' is not one of webdataset, parquet"):
        export(store, tmp_path / "out", "tar")
    with pytest.raises(ConfigError, match="unknown key 'embedding'. Did you mean 'embeddings'"):
        export(store, tmp_path / "out", embedding="npz")
    with pytest.raises(ConfigError, match="embeddings: 'pt' is not one of npz, pth.gz"):
        export(store, tmp_path / "out", embeddings="pt")
    with pytest.raises(ConfigError, match="rows_per_shard: expected at least 1, got 0"):
        export(store, tmp_path / "out", rows_per_shard=0)
    with pytest.raises(
        DataError, match="teachers: 'clip' is not in the store; it has: openai, data"
    ):
        export(store, tmp_path / "out", teachers=["clip"])
    with pytest.raises(DataError, match="view_set: 'other' is not in the store"):
        export(store, tmp_path / "out", view_set="other")
    with pytest.raises(DataError, match="columns: 'id' must be among them"):
        export(store, tmp_path / "out", "parquet", columns=["text"])


def test_bad_input_incomplete_teacher(tmp_path):
    store = labelled(tmp_path)
    vectors = np.eye(5, 4, dtype=np.float32)
    config = {"dtype": "float32", "shape": [4]}
    for column in ("a.image.easy.0", "a.image.easy.1", "b.image.easy.0"):
        card = Card(column=column, writer="x", config=config)
        fill(store, card, encode_embeddings(vectors, "float32"))
    with pytest.raises(DataError, match="teacher 'b' has no column 'b.image.easy.1'"):
        export(store, tmp_path / "out", teachers=["a", "b"])


def test_bad_input_unfilled_rows(tmp_path):
    store = Store.create(tmp_path / "s", [{"id": ["a", "b"], "text": ["x", "y"]}])
    card = Card(column="t.text", writer="t", config={"dtype": "float16", "shape": [4]})
    values = encode_embeddings(np.eye(2, 4, dtype=np.float32))
    fill(store, card, values, rows=[0])
    with pytest.raises(DataError, match="'t.text' is not filled in row 1"):
        export(store, tmp_path / "out")
    assert embedding_type([4]) == values.type
    assert topk_type(2).list_size == 8


@settings(max_examples=25, deadline=None)
@given(
    size=st.integers(8, 300),
    names=st.sets(
        st.sampled_from(
            [
                "random_resized_crop",
                "random_horizontal_flip",
                "rand_augment",
                "random_erase",
                "mixup",
            ]
        )
    ),
)
def test_augmentations_survive_the_reference_form(size, names):
    transforms = {name: {} for name in names}
    if not names & {"random_resized_crop"}:
        transforms["resize"] = {"size": size}
    config = ViewConfig(size=size, transforms=transforms)
    found, ignored = views_from_reference(json.loads(json.dumps(views_to_reference(config))), "x")
    assert found == config
    assert ignored == []
