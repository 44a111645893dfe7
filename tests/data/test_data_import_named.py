"""Shards by `info.json` and by patterns; reinforced samples in JSON lines; names by content."""

from __future__ import annotations

import base64
import gzip
import json
import pickle

import numpy as np
import pytest
from import_kit import TEACHERS, WIDTH, param_lists, picture, released, unit_rows

from understudy.core.errors import ConfigError, DataError
from understudy.data.exporters import export
from understudy.data.importers import detect_kind, import_dir
from understudy.data.importers.sources import expand_braces
from understudy.data.knowledge import decode_embeddings


def packed(array) -> str:
    """Return what the released generator writes: base64 of a gzipped pickle of float32."""
    return base64.b64encode(gzip.compress(pickle.dumps(np.asarray(array, np.float32)))).decode()


def line(index: int, views: int = 3, captions: int = 2, pack=packed) -> dict:
    texts = unit_rows(1 + captions, 1000 + index)
    return {
        "uid": f"uid{index:04d}",
        "url": f"http://example.org/{index}.jpg",
        "image": base64.b64encode(picture(index)).decode(),
        "text": f"real caption {index}",
        "syn_text": [f"syn {index} {s}" for s in range(captions)],
        "param_aug": param_lists(views, index),
        "image_emb": pack(unit_rows(views, index)),
        "text_emb": pack(texts[:1]),
        "syn_text_emb": pack(texts[1:]),
        "clip_score": 0.25 + index,
    }


def write_lines(path, lines, compress=lambda data: data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(compress("".join(json.dumps(x) + "\n" for x in lines).encode()))
    return path


# -- names


def test_braces():
    assert expand_braces("a/{008..011}.tar") == [f"a/{n:03d}.tar" for n in range(8, 12)]
    assert expand_braces("{x,y}/{0..1}.tar") == ["x/0.tar", "x/1.tar", "y/0.tar", "y/1.tar"]
    assert expand_braces("plain.tar") == ["plain.tar"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{3..1}.tar", "the range '{3..1}' is empty"),
        ("{a..c}.tar", "neither a range such as"),
        ("{a,}.tar", "neither a range such as"),
        ("{0..99999}{0..99999}.tar", "stands for more than 1,000,000 names"),
    ],
)
def test_bad_input_braces(pattern, message):
    with pytest.raises(DataError, match=message):
        expand_braces(pattern)


def test_a_pattern_names_shards(tmp_path):
    folder = released(tmp_path / "in", count=11, per_shard=4)
    store = import_dir(f"{folder}/{{00000001..00000002}}.tar", tmp_path / "s", teachers=TEACHERS)
    assert store.array("id").tolist() == [f"uid{i:04d}" for i in range(4, 11)]
    with pytest.raises(DataError, match="there is no file '.*00000003.tar'"):
        import_dir(f"{folder}/{{00000002..00000003}}.tar", tmp_path / "t", teachers=TEACHERS)


def test_info_json_names_shards_and_their_counts(tmp_path):
    folder = released(tmp_path / "in", count=7, per_shard=4)
    info = folder / "info.json"
    lengths = {str(folder / "00000001.tar"): "3", "00000000.tar": 4}
    info.write_text(json.dumps({"name": "x", "lengths": lengths, "totalLength": "7"}))
    assert detect_kind(info) == "webdataset"
    store = import_dir(info, tmp_path / "s", teachers=TEACHERS)
    assert store.array("id").tolist() == [f"uid{i:04d}" for i in (4, 5, 6, 0, 1, 2, 3)]
    info.write_text(json.dumps({"lengths": {"00000001.tar": 4}}))
    with pytest.raises(DataError, match="3 samples, the manifest says 4"):
        import_dir(info, tmp_path / "t", teachers=TEACHERS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "expected {'lengths'"),
        ({"lengths": {"s3://bucket/0.tar": 4}}, "is not on this machine; copy the shards here"),
        ({"lengths": {"0.tar": 4}}, "there is no file"),
        ({"lengths": {"00000000.tar": "four"}}, "the count of '00000000.tar' is 'four', no number"),
        ({"lengths": {"00000000.tar": 4, "./00000000.tar": 4}}, "'./00000000.tar' comes twice"),
    ],
)
def test_bad_input_info_json(tmp_path, content, message):
    folder = released(tmp_path / "in", count=4)
    (folder / "info.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        import_dir(folder / "info.json", tmp_path / "s", teachers=TEACHERS)


# -- reinforced JSON lines


@pytest.mark.parametrize(
    ("suffix", "compress"), [("jsonl", lambda data: data), ("jsonl.gz", gzip.compress)]
)
def test_reinforced_lines(tmp_path, suffix, compress):
    folder = tmp_path / "in"
    for shard in range(2):
        lines = [line(i) for i in range(shard * 3, shard * 3 + 3)]
        write_lines(folder / f"{shard:08d}.{suffix}", lines, compress)
    assert detect_kind(folder) == "webdataset"
    store = import_dir(folder, tmp_path / "s", teachers=TEACHERS, dtype="float32")
    assert store.num_rows == 6
    rows = store.take(range(6), ["id", "text", "url", "caption.syn"]).to_pylist()
    assert rows[4] == {
        "id": "uid0004",
        "text": "real caption 4",
        "url": "http://example.org/4.jpg",
        "caption.syn": ["syn 4 0", "syn 4 1"],
    }
    assert store.take([4], ["image"]).column(0).to_pylist()[0] == picture(4)
    at = 0
    for teacher, width in TEACHERS.items():
        for column, wanted in (
            (f"{teacher}.image.main.2", unit_rows(3, 4)[2]),
            (f"{teacher}.text", unit_rows(3, 1004)[0]),
            (f"{teacher}.caption.syn.1", unit_rows(3, 1004)[2]),
        ):
            found = decode_embeddings(store.array(column, [4]), store.card(column).config)[0]
            assert np.abs(found - wanted[at : at + width]).max() < 1e-6
        at += width
    assert store.has("view.main.2")
    assert at == WIDTH


def test_unpacked_lists_and_manifests(tmp_path):
    folder = tmp_path / "in"
    lines = [line(i, pack=lambda array: array.tolist()) for i in range(3)]
    write_lines(folder / "00000000.jsonl", lines)
    (folder / "manifest.jsonl").write_text('{"shard": "00000000", "num_uids": 3}\n')
    assert import_dir(folder, tmp_path / "s", teachers=TEACHERS).num_rows == 3
    (folder / "manifest.jsonl").write_text('{"shard": "00000000", "num_uids": 4}\n')
    with pytest.raises(DataError, match="3 samples, the manifest says 4"):
        import_dir(folder, tmp_path / "t", teachers=TEACHERS)


def test_plain_lines_are_still_plain(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"id": "a", "text": "x"}])
    assert detect_kind(path) == "jsonl"
    path.write_text("no json")
    assert detect_kind(path) == "jsonl"


class Evil:
    """Pickles into a call."""

    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (base64.b64encode(gzip.compress(pickle.dumps(Evil()))).decode(), "print"),
        ("not base64!", "line 2, image_emb: it is not base64"),
        (base64.b64encode(b"plain").decode(), "the compressed data are damaged"),
        (base64.b64encode(gzip.compress(b"x" * 5000)).decode(), "image_emb"),
        (5, "expected base64 text, got int"),
        (packed([])[:-8], "line 2, image_emb"),
    ],
    ids=["pickle", "text", "plain", "long", "number", "cut"],  # compressed data hold the time
)
def test_bad_input_packed_arrays(tmp_path, capsys, value, message):
    bad = {**line(1), "image_emb": value}
    write_lines(tmp_path / "in" / "0.jsonl", [line(0), bad])
    with pytest.raises(DataError, match=message):
        import_dir(tmp_path / "in", tmp_path / "s", kind="webdataset", teachers=TEACHERS)
    assert "executed" not in capsys.readouterr().out


def test_bad_input_a_uid_in_two_shards_names_both(tmp_path):
    folder = tmp_path / "in"
    write_lines(folder / "0.jsonl", [line(0), line(1)])
    write_lines(folder / "1.jsonl", [line(2), line(1)])
    with pytest.raises(DataError, match=r"uid0001.*(0|1)\.jsonl.*(0|1)\.jsonl"):
        import_dir(folder, tmp_path / "s", teachers=TEACHERS)


def test_records_without_embeddings_are_refused_or_counted(tmp_path):
    # the released generator leaves records that failed in the shard, without embeddings
    failed = {k: v for k, v in line(1).items() if not k.endswith("_emb")}
    write_lines(tmp_path / "in" / "0.jsonl", [line(0), failed, line(2)])
    with pytest.raises(DataError, match="uid 'uid0001': npz or pth.gz is missing"):
        import_dir(tmp_path / "in", tmp_path / "s", teachers=TEACHERS)
    store = import_dir(tmp_path / "in", tmp_path / "s", teachers=TEACHERS, on_missing="skip")
    assert store.num_rows == 2
    skipped = store.meta["import"]["skipped"]
    assert skipped == {"missing npz or pth.gz": 1}


def test_a_shard_of_failed_records_alone_is_an_error_with_its_cause(tmp_path):
    # the released generator crashed on a batch of nothing but bad images
    bad = {**line(0), "image": base64.b64encode(b"no image").decode()}
    write_lines(tmp_path / "in" / "0.jsonl", [bad, {**bad, "uid": "other"}])
    with pytest.raises(DataError, match="none of 2 samples can be used; the first: "):
        import_dir(tmp_path / "in", tmp_path / "s", teachers=TEACHERS, on_missing="skip")


# -- names by content


def test_names_by_content_cannot_collide(tmp_path):
    stores = [
        import_dir(released(tmp_path / f"in{i}", count=7, views=2 + i % 2), tmp_path / f"s{i}",
                   teachers=TEACHERS)
        for i in range(3)
    ]  # fmt: skip
    names = [
        [p.name for p in export(s, tmp_path / f"out{i}", rows_per_shard=3, names="content")]
        for i, s in enumerate(stores)
    ]
    assert names[0] == names[2]  # equal content, equal names
    assert not set(names[0]) & set(names[1])
    assert [n[:9] for n in names[0]] == ["00000000-", "00000001-", "00000002-"]
    other = export(stores[0], tmp_path / "other", names="content", embeddings="pth.gz")
    assert other[0].name not in names[0]
    # an export that is there is not written again
    before = (tmp_path / "out0" / names[0][0]).stat().st_mtime_ns
    export(stores[0], tmp_path / "out0", rows_per_shard=3, names="content")
    assert (tmp_path / "out0" / names[0][0]).stat().st_mtime_ns == before
    again = import_dir(tmp_path / "out0", tmp_path / "back")
    assert again.content_hash() == stores[0].content_hash()
    with pytest.raises(ConfigError, match="'hash' is not one of number, content"):
        export(stores[0], tmp_path / "x", names="hash")
