"""Plain and released reinforced WebDataset tars become stores; every defect is named."""

from __future__ import annotations

import gzip
import io
import json
import tarfile

import numpy as np
import pytest
from import_kit import (
    TEACHERS,
    WIDTH,
    param_lists,
    picture,
    pth_gz,
    released,
    sample,
    unit_rows,
    write_tar,
)

from understudy.core.errors import ConfigError, DataError
from understudy.data.exporters.webdataset import npz_bytes
from understudy.data.importers import common, detect_kind, import_dir
from understudy.data.knowledge import decode_embeddings
from understudy.data.store import Store
from understudy.data.view_params import unpack
from understudy.data.view_reference import DATACOMPDR, from_reference_lists
from understudy.data.views import ViewConfig, verify_views


def embeddings(store: Store, column: str) -> np.ndarray:
    return decode_embeddings(store.array(column), store.card(column).config)


def check_knowledge(store: Store, count: int, tolerance: float, set_name: str = "main") -> None:
    """Compare a store with what `import_kit.sample` wrote, computed anew."""
    at = 0
    for teacher, width in TEACHERS.items():
        part = slice(at, at + width)
        at += width
        for k in range(3):
            want = np.stack([unit_rows(3, i)[k, part] for i in range(count)])
            got = embeddings(store, f"{teacher}.image.{set_name}.{k}")
            np.testing.assert_allclose(got, want, atol=tolerance)
        texts = np.stack([unit_rows(3, 1000 + i)[:, part] for i in range(count)])
        np.testing.assert_allclose(
            embeddings(store, f"{teacher}.text"), texts[:, 0], atol=tolerance
        )
        for s in range(2):
            got = embeddings(store, f"{teacher}.caption.syn.{s}")
            np.testing.assert_allclose(got, texts[:, 1 + s], atol=tolerance)
        assert f"{teacher}.caption.syn.2" not in store.columns
    for k in range(3):
        got = unpack(store.array(f"view.{set_name}.{k}"), DATACOMPDR)
        want = from_reference_lists([param_lists(3, i)[k] for i in range(count)])
        np.testing.assert_array_equal(got, want)
    captions = store.take(range(count), ["caption.syn"]).column(0).to_pylist()
    assert captions == [[f"syn {i} 0", f"syn {i} 1"] for i in range(count)]


@pytest.mark.parametrize(
    ("layout", "tolerance", "dtype"), [("npz", 2e-3, "float16"), ("pth.gz", 4e-3, "bfloat16")]
)
@pytest.mark.parametrize("per_key", [False, True])
def test_reinforced_layouts(tmp_path, layout, tolerance, dtype, per_key):
    source = released(tmp_path / "in", layout=layout, per_key=per_key, nested=not per_key)
    assert detect_kind(source) == "webdataset"
    store = import_dir(source, tmp_path / "s", teachers=TEACHERS)
    check_knowledge(store, 7, tolerance)
    assert store.array("id").tolist() == [f"uid{i:04d}" for i in range(7)]
    assert store.array("text")[3] == "real caption 3"
    assert store.array("url")[0] == "http://example.org/0.jpg"
    assert json.loads(store.array("json")[2])["sha256"].endswith("2")
    assert store.array("image")[6] == picture(6)
    card = store.card("openai.image.main.1")
    assert card.config == {"dtype": dtype, "shape": [6], "set": "main", "k": 1}
    assert card.rows_done == 7
    assert store.card("view.main.2").config["set"] == "main"
    assert store.filled("view.main.2").all()
    assert len(store.versions()) == 1  # rows, cards and facts come in one commit
    assert store.verify() == []
    assert verify_views(store, "main") == []


def test_one_teacher_by_default(tmp_path):
    store = import_dir(released(tmp_path / "in", 2), tmp_path / "s")
    assert embeddings(store, "ensemble.image.main.0").shape == (2, WIDTH)
    assert "openai.text" not in store.columns


def test_names_and_dtype_are_options(tmp_path):
    store = import_dir(
        released(tmp_path / "in", 3),
        tmp_path / "s",
        teachers=TEACHERS,
        view_set="released",
        captioner="coca",
        dtype="float32",
        split="train",
    )
    want = unit_rows(3, 2)[1, :6]
    np.testing.assert_array_equal(embeddings(store, "openai.image.released.1")[2], want)
    assert store.array("split").tolist() == ["train"] * 3
    assert "openai.caption.coca.1" in store.columns


def test_several_captioners(tmp_path):
    files = sample(0)
    files["syn.json"] = json.dumps({"syn_text": ["a"], "syn_text_long": ["b", "c"]}).encode()
    files["npz"] = npz_bytes(
        {
            "image_emb": unit_rows(3, 0),
            "text_emb": unit_rows(1, 1),
            "syn_text_emb": unit_rows(1, 2),
            "syn_text_long_emb": unit_rows(2, 3),
        }
    )
    store = import_dir(
        write_tar(tmp_path / "a.tar", [("x", files)]), tmp_path / "s", teachers=TEACHERS
    )
    assert store.take([0], ["caption.long"]).column(0).to_pylist() == [["b", "c"]]
    assert "datacomp.caption.syn.1" not in store.columns
    for s in range(2):
        got = embeddings(store, f"datacomp.caption.long.{s}")[0]
        np.testing.assert_allclose(got, unit_rows(2, 3)[s, 6:], atol=2e-3)


def test_augmentation_of_config_json(tmp_path):
    source = tmp_path / "in"
    files = sample(0)
    files["paug.json"] = json.dumps({"param_aug": [[[1, 2, 9, 9], True]] * 3}).encode()
    write_tar(source / "0.tar", [("x", files)])
    augmentation = {
        "random_resized_crop": {"size": 48, "interpolation": "bicubic"},
        "random_horizontal_flip": {"enable": True},
        "rand_augment": {"enable": False},
        "random_resize_crop": {"size": 3},
        "to_rgb": {"enable": True},
    }
    (source / "config.json").write_text(
        json.dumps({"reinforce": {"image_augmentation": augmentation}})
    )
    store = import_dir(source, tmp_path / "s")
    config = store.card("view.main.0").config
    assert config["size"] == 48
    assert list(config["transforms"]) == ["random_horizontal_flip", "random_resized_crop"]
    views = {"size": 48, "transforms": {"random_resized_crop": {}, "random_horizontal_flip": {}}}
    params = unpack(store.array("view.main.0"), ViewConfig.from_dict(views))
    assert params["flip"].tolist() == [1]


def test_plain_tars(tmp_path):
    files = [
        ("a/000", {"png": picture(0, kind="PNG"), "txt": b"zero", "cls": b"3"}),
        ("a/001", {"webp": picture(1, kind="WEBP"), "txt": b"one", "cls": b"5", "json": b"{}"}),
        ("a/002", {"jpg": picture(2), "txt": "zwei \u00fc".encode(), "cls": b"0"}),
    ]
    write_tar(tmp_path / "in" / "0.tar", files)
    store = import_dir(tmp_path / "in", tmp_path / "s")
    assert store.columns == ["id", "image", "text", "label", "json"]
    assert store.array("id").tolist() == ["a/000", "a/001", "a/002"]
    assert store.array("label").tolist() == [3, 5, 0]
    assert store.array("text")[2] == "zwei \u00fc"
    assert store.cards == {}


def test_compressed_tars_and_order(tmp_path):
    for name in ("b", "a"):
        path = write_tar(
            tmp_path / "x.tar", [(f"{name}{i}", {"txt": name.encode()}) for i in (1, 0)]
        )
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{name}.tar.gz").write_bytes(gzip.compress(path.read_bytes()))
    store = import_dir(tmp_path / "in", tmp_path / "s")
    assert store.array("id").tolist() == ["a1", "a0", "b1", "b0"]


def test_join_images_by_uid(tmp_path):
    source = released(tmp_path / "in", 6, image=False)
    # Image tars in another order, with keys of their own; one image is gone.
    rows = [(f"{n:09d}", i) for n, i in enumerate([5, 3, 0, 1, 4])]
    groups = [
        (key, {"jpg": picture(i), "txt": b"", "json": json.dumps({"uid": f"uid{i:04d}"}).encode()})
        for key, i in rows
    ]
    write_tar(tmp_path / "images" / "00000.tar", groups[:3])
    write_tar(tmp_path / "images" / "00001.tar", groups[3:])
    store = import_dir(source, tmp_path / "s", images=tmp_path / "images", teachers=TEACHERS)
    assert store.array("id").tolist() == [f"uid{i:04d}" for i in (0, 1, 3, 4, 5)]
    assert store.array("image")[2] == picture(3)
    assert store.meta["import"]["skipped"] == {"no image to join": 1}
    with pytest.raises(DataError, match="no image has the uid 'uid0002'"):
        import_dir(source, tmp_path / "t", images=tmp_path / "images", on_missing="error")


@pytest.mark.parametrize("part", ["syn.json", "paug.json", "npz"])
def test_bad_input_missing_part(tmp_path, part):
    groups = [(f"uid{i:04d}", sample(i)) for i in range(4)]
    del groups[2][1][part]
    source = write_tar(tmp_path / "in" / "0.tar", groups)
    name = "npz or pth.gz" if part == "npz" else part
    with pytest.raises(DataError, match=f"uid 'uid0002': {name} is missing"):
        import_dir(source, tmp_path / "s", teachers=TEACHERS)
    assert {p.name for p in tmp_path.iterdir()} == {"in"}
    store = import_dir(source, tmp_path / "s", teachers=TEACHERS, on_missing="skip")
    assert store.num_rows == 3
    assert store.meta["import"]["skipped"] == {f"missing {name}": 1}
    assert "uid0002" in store.meta["import"]["first_skipped"][f"missing {name}"]


def test_parts_of_a_set_without_embeddings(tmp_path):
    groups = [("a", {k: v for k, v in sample(0).items() if k in ("jpg", "txt", "syn.json")})]
    source = write_tar(tmp_path / "0.tar", groups)
    with pytest.raises(DataError, match=r"parts=\['captions'"):
        import_dir(source, tmp_path / "s")
    store = import_dir(source, tmp_path / "s", parts=["captions"])
    assert list(store.cards) == ["caption.syn"]


def broken(tmp_path, **arrays):
    files = sample(0)
    files["npz"] = npz_bytes({"image_emb": unit_rows(3, 0), "text_emb": unit_rows(3, 1), **arrays})
    return write_tar(tmp_path / "0.tar", [("uid0000", files)])


def test_bad_input_rows_and_augmentations_differ(tmp_path):
    source = broken(tmp_path, image_emb=unit_rows(2, 0))
    with pytest.raises(DataError, match="uid 'uid0000': image_emb has 2 rows for 3 augmentations"):
        import_dir(source, tmp_path / "s", teachers=TEACHERS)


def test_bad_input_width_is_not_the_sum_of_teachers(tmp_path):
    source = broken(tmp_path)
    with pytest.raises(DataError, match=r"10 wide, .* add up to 11 \(openai=6, datacomp=5\)"):
        import_dir(source, tmp_path / "s", teachers={"openai": 6, "datacomp": 5})


def test_bad_input_unnormalised_embeddings(tmp_path):
    values = unit_rows(3, 0)
    values[1, 6:] *= 1.5
    source = broken(tmp_path, image_emb=values)
    with pytest.raises(DataError, match="image_emb: row 1 of teacher 'datacomp' has norm 1.5"):
        import_dir(source, tmp_path / "s", teachers=TEACHERS)
    store = import_dir(source, tmp_path / "s", teachers=TEACHERS, normalize=True)
    got = embeddings(store, "datacomp.image.main.1")[0]
    np.testing.assert_allclose(got, unit_rows(3, 0)[1, 6:], atol=2e-3)


def test_bad_input_unnormalised_single_teacher(tmp_path):
    with pytest.raises(DataError, match="teacher 'ensemble' has norm"):
        import_dir(broken(tmp_path, image_emb=unit_rows(3, 0) * 0.8), tmp_path / "s")


def test_bad_input_not_finite_embeddings(tmp_path):
    values = unit_rows(3, 0)
    values[2, 0] = np.nan
    with pytest.raises(DataError, match="row 2 of teacher 'openai' has norm nan"):
        import_dir(
            broken(tmp_path, image_emb=values), tmp_path / "s", teachers=TEACHERS, normalize=True
        )


def test_bad_input_wrong_number_of_text_embeddings(tmp_path):
    source = broken(tmp_path, text_emb=unit_rows(5, 0))
    with pytest.raises(DataError, match="text_emb has 5 rows, expected 3"):
        import_dir(source, tmp_path / "s", teachers=TEACHERS)


def test_bad_input_other_number_of_views(tmp_path):
    source = write_tar(tmp_path / "0.tar", [("a", sample(0)), ("b", sample(1, views=2))])
    with pytest.raises(DataError, match="uid 'uid0001': views is 2, in the samples before it 3"):
        import_dir(source, tmp_path / "s")


def test_bad_input_damaged_image(tmp_path):
    groups = [(f"k{i}", {"jpg": picture(i), "txt": b"t"}) for i in range(3)]
    groups[1][1]["jpg"] = b"\xff\xd8\xff" + bytes(40)
    source = write_tar(tmp_path / "0.tar", groups)
    with pytest.raises(DataError, match="0.tar, 'k1'"):
        import_dir(source, tmp_path / "s")
    store = import_dir(source, tmp_path / "s", on_missing="skip")
    assert store.meta["import"]["skipped"] == {"damaged image": 1}
    assert import_dir(source, tmp_path / "t", check_images="none").num_rows == 3


def test_bad_input_truncated_image_needs_decoding(tmp_path):
    groups = [("k0", {"png": picture(0, kind="PNG")[:-300]})]
    source = write_tar(tmp_path / "0.tar", groups)
    assert import_dir(source, tmp_path / "s", check_images="header").num_rows == 1
    with pytest.raises(DataError, match="'k0'"):
        import_dir(source, tmp_path / "t")


def test_bad_input_image_smaller_than_crop_box(tmp_path):
    files = sample(0)
    files["jpg"] = picture(0, 12, 12)
    source = write_tar(tmp_path / "0.tar", [("a", files)])
    with pytest.raises(
        DataError, match="uid 'uid0000': the image is 12 x 12 .* resized or replaced"
    ):
        import_dir(source, tmp_path / "s")


def test_bad_input_duplicate_id_names_both_places(tmp_path):
    write_tar(tmp_path / "in" / "0.tar", [("a", {"txt": b"x"}), ("b", {"txt": b"x"})])
    write_tar(tmp_path / "in" / "1.tar", [("c", {"txt": b"x"}), ("a", {"txt": b"x"})])
    with pytest.raises(DataError, match=r"id 'a' occurs twice: in .*0\.tar and in .*1\.tar"):
        import_dir(tmp_path / "in", tmp_path / "s")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]
    store = import_dir(tmp_path / "in", tmp_path / "s", ids="shard-key")
    assert store.array("id").tolist() == ["0/a", "0/b", "1/c", "1/a"]


def test_bad_input_cut_off_shard(tmp_path):
    source = released(tmp_path / "in", 4)
    shard = source / "00000000.tar"
    whole = shard.read_bytes()
    with tarfile.open(shard) as archive:
        between_samples = archive.getmember("uid0003.jpg").offset
    for size in (len(whole) // 2, len(whole) // 2 // 512 * 512, between_samples):
        shard.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"00000000.tar: .*run it again, then this import"):
            import_dir(source, tmp_path / "s")
        assert not (tmp_path / "s").exists()
    shard.write_bytes(whole)
    assert import_dir(source, tmp_path / "s").num_rows == 4


@pytest.mark.parametrize("fault", ["count", "crc", "size", "missing"])
def test_bad_input_manifest_differs(tmp_path, fault):
    source = released(tmp_path / "in", 4)
    shard = source / "00000000.tar"
    entry = {"shard": shard.name, "num_uids": 4, "bytes": shard.stat().st_size}
    entry.update(
        {"count": {"num_uids": 5}, "crc": {"crc32": 1}, "size": {"bytes": 9}}.get(fault, {})
    )
    (source / "manifest.jsonl").write_text(json.dumps(entry) + "\n")
    if fault == "missing":
        shard.rename(source / "other.tar")
    with pytest.raises(DataError, match=r"00000000.tar.*run it again, then this import"):
        import_dir(source, tmp_path / "s")


def test_bad_input_not_json(tmp_path):
    source = write_tar(tmp_path / "0.tar", [("a", {**sample(0), "syn.json": b"{"})])
    with pytest.raises(DataError, match="uid 'uid0000', syn.json: not valid JSON"):
        import_dir(source, tmp_path / "s")


def test_bad_input_every_sample_is_skipped(tmp_path):
    source = write_tar(tmp_path / "0.tar", [("a", {"jpg": b"no", "txt": b"x"})])
    with pytest.raises(DataError, match="none of 1 samples can be used"):
        import_dir(source, tmp_path / "s", on_missing="skip")
    assert [p.name for p in tmp_path.iterdir()] == ["0.tar"]


def test_bad_input_options(tmp_path):
    source = write_tar(tmp_path / "0.tar", [("a", {"txt": b"x"})])
    with pytest.raises(ConfigError, match="unknown key 'teacher'. Did you mean 'teachers'"):
        import_dir(source, tmp_path / "s", teacher="x")
    with pytest.raises(ConfigError, match="kind: 'tar' is not one of webdataset"):
        import_dir(source, tmp_path / "s", kind="tar")
    with pytest.raises(ConfigError, match="on_missing: 'drop' is not one of error, skip"):
        import_dir(source, tmp_path / "s", on_missing="drop")
    with pytest.raises(DataError, match="no such file or folder"):
        import_dir(tmp_path / "nowhere", tmp_path / "s")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="nothing in it that can be imported"):
        import_dir(tmp_path / "empty", tmp_path / "s")


def test_existing_store_is_kept(tmp_path):
    source = write_tar(tmp_path / "0.tar", [("a", {"txt": b"x"})])
    import_dir(source, tmp_path / "s")
    with pytest.raises(DataError, match="there is a store already; pass overwrite=True"):
        import_dir(source, tmp_path / "s")
    write_tar(tmp_path / "0.tar", [("b", {"txt": b"y"})])
    store = import_dir(source, tmp_path / "s", overwrite=True)
    assert store.array("id").tolist() == ["b"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("mine")
    with pytest.raises(DataError):
        import_dir(source, tmp_path / "other", overwrite=True)
    assert (tmp_path / "other" / "file").read_text() == "mine"


def test_failed_import_leaves_nothing_at_the_last_moment(tmp_path, monkeypatch):
    def fail(*_):
        assert any((tmp_path / ".s.importing" / "data").iterdir())  # all rows are written
        raise OSError("no more")

    source = released(tmp_path / "in", 2)
    monkeypatch.setattr(common, "_knowledge", fail)
    with pytest.raises(OSError, match="no more"):
        import_dir(source, tmp_path / "s")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_samples_of_the_released_generator(tmp_path):
    # Its released version writes the key with its f-string unformatted.
    files = sample(0, per_key=True)
    arrays = {
        "image_emb{self.tag_suffix}": unit_rows(3, 0),
        "text_emb": unit_rows(1, 1),
        "syn_text_emb": unit_rows(2, 2),
    }
    del files["npz"]
    files["pth.gz"] = pth_gz(arrays)
    source = write_tar(tmp_path / "0.tar", [("a", files)])
    store = import_dir(source, tmp_path / "s", teachers=TEACHERS)
    got = embeddings(store, "openai.image.main.2")[0]
    np.testing.assert_allclose(got, unit_rows(3, 0)[2, :6], atol=4e-3)


def test_hidden_files_belong_to_no_sample(tmp_path):
    path = tmp_path / "0.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("._a.txt", "__MACOSX/a.txt", "README", "a.txt"):
            info = tarfile.TarInfo(name)
            info.size = 1
            archive.addfile(info, io.BytesIO(b"x"))
    assert import_dir(path, tmp_path / "s").array("id").tolist() == ["a"]
