"""Reference reinforcement files (arXiv 2303.08983) become views and top-K columns."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
import zlib

import numpy as np
import pytest
import torch
from import_kit import picture

from understudy.core.errors import ConfigError, DataError
from understudy.data.importers import detect_kind, import_dir
from understudy.data.importers import reference as module
from understudy.data.knowledge import decode_topk
from understudy.data.store import Store
from understudy.data.view_params import unpack
from understudy.data.view_reference import from_reference_list
from understudy.data.views import ViewConfig

CONFIG = {
    "num_classes": 12,
    "teacher": {"name": "a,b"},
    "reinforce": {
        "num_samples": 2,
        "topk": 3,
        "image_augmentation": {
            "uint8": {"enable": True},
            "random_resized_crop": {"enable": True, "size": 32},
            "random_horizontal_flip": {"enable": True, "p": 0.5},
            "rand_augment": {"enable": True, "p": 1.0},
            "to_tensor": {"enable": True},
            "random_erase": {"enable": True, "p": 0.25},
            "normalize": {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]},
        },
    },
}
VIEWS = ViewConfig(
    size=32,
    transforms={
        "uint8": {},
        "random_resized_crop": {},
        "random_horizontal_flip": {},
        "rand_augment": {},
        "to_tensor": {},
        "random_erase": {},
        "normalize": {"mean": [0.5] * 3, "std": [0.2] * 3},
    },
)
# Position i of the reinforced data set, and the store's own order.
KEYS = ["cat/0", "cat/1", "dog/0", "dog/1"]
ORDER = [2, 0, 3, 1]


def reinforcement(index: int, j: int) -> dict:
    rng = np.random.default_rng(100 * index + j)
    box = (int(rng.integers(8)), int(rng.integers(8)), 20, 21)
    erase = None if j else (1, 2, 3, 4)
    params = [box, bool(j), [(5, -9.0), (11, 178.5)], erase]
    ids = rng.permutation(12)[:3].tolist()
    return {"params": params, "prob": ([0.125, 0.5, 0.25], ids)}


def write_record(path, index, items, how="torch"):
    if how == "torch":
        torch.save((index, items), path, pickle_protocol=4)
    elif how == "pickle":
        path.write_bytes(pickle.dumps((index, items), 4))
    else:
        path.write_bytes(zlib.compress(pickle.dumps((index, items), 4)))


def part(folder, first=0, how="torch", config=CONFIG, count=4):
    folder.mkdir(parents=True)
    for index in range(count):
        items = [reinforcement(index, first + j) for j in range(2)]
        write_record(folder / f"{index}.pth.tar", index, items, how)
    if config is not None:
        torch.save(config, folder / "config.pth.tar")
    return folder


@pytest.fixture
def store(tmp_path):
    rows = [{"id": KEYS[i], "image": picture(i)} for i in ORDER]
    batch = {"id": [r["id"] for r in rows], "image": [r["image"] for r in rows]}
    return Store.create(tmp_path / "s", [batch]).path


def check(store: Store, columns=(0, 1), offset=0) -> None:
    for column, j in enumerate(columns):
        params = unpack(store.array(f"view.main.{column}"), VIEWS)
        values, ids = decode_topk(store.array(f"teacher.topk.main.{column}"))
        for row, index in enumerate(ORDER):
            item = reinforcement(index, offset + j)
            np.testing.assert_array_equal(
                params[row], from_reference_list(item["params"], VIEWS)[0]
            )
            assert values[row].tolist() == [0.5, 0.25, 0.125]
            a, b, c = item["prob"][1]
            assert ids[row].tolist() == [b, c, a]


@pytest.mark.parametrize("how", ["torch", "pickle", "joblib"])
def test_folder_of_records(tmp_path, store, how):
    source = part(tmp_path / "in", how=how)
    assert detect_kind(source) == "dr-reference"
    (tmp_path / "keys.json").write_text(json.dumps(KEYS))
    found = import_dir(source, store, keys=tmp_path / "keys.json")
    check(found)
    card = found.card("teacher.topk.main.1")
    assert card.writer == "a,b"
    assert card.config == {"k": 3, "classes": 12, "set": "main", "view": 1}
    assert found.card("view.main.0").config["size"] == 32
    assert found.verify() == []
    # Once more changes nothing.
    version = found.version
    again = import_dir(source, store, keys=KEYS)
    assert again.content_hash() == found.content_hash()
    assert len([v for v in again.versions() if v["version"] > version]) <= 1


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_archive_of_records(tmp_path, store, suffix):
    folder = part(tmp_path / "in")
    path = tmp_path / f"part{suffix}"
    with tarfile.open(path, "w:gz" if suffix.endswith("gz") else "w") as archive:
        archive.add(folder, "reinforced_data")
    assert detect_kind(path) == "dr-reference"
    check(import_dir(path, store, keys=KEYS))
    left = [p.name for p in tmp_path.iterdir() if p.name.startswith(".understudy")]
    assert left == []


def test_parts_side_by_side(tmp_path, store):
    part(tmp_path / "in" / "p0", 0)
    part(tmp_path / "in" / "p1", 2)
    found = import_dir(tmp_path / "in", store, keys=KEYS, view_set="main", teacher="teacher")
    check(found, columns=(0, 1, 2, 3))
    # nothing is left out and nothing is imported twice
    assert [c for c in found.columns if c.startswith("view.")] == [
        f"view.main.{k}" for k in range(4)
    ]
    assert found.verify() == []


def test_parameters_that_were_not_compressed(tmp_path, store):
    folder = tmp_path / "in"
    folder.mkdir()
    torch.save(CONFIG, folder / "config.pth.tar")
    for index in range(4):
        items = [reinforcement(index, j) for j in range(2)]
        for item in items:
            box, flip, ops, erase = item["params"]
            named = [({5: "Rotate", 11: "Solarize"}[op], m) for op, m in ops]
            item["params"] = {
                "random_resized_crop": (box, box),
                "random_horizontal_flip": (flip, flip),
                "rand_augment": (named, named),
                "random_erase": (erase, None),
            }
        write_record(folder / f"{index}.pth.tar", index, items)
    found = import_dir(folder, store, keys=KEYS)
    check(found)
    assert found.card("view.main.0").config["transforms"] == VIEWS.to_dict()["transforms"]
    assert found.verify() == []


def mixing(store, tmp_path, partner):
    config = json.loads(json.dumps(CONFIG))
    augment = config["reinforce"]["image_augmentation"]
    for name in ("rand_augment", "random_erase", "normalize"):
        del augment[name]
    augment["cutmix"] = {"enable": True, "alpha": 1.0, "p": 0.5}
    folder = tmp_path / "in"
    folder.mkdir()
    torch.save(config, folder / "config.pth.tar")
    boxes = [(0, 0, 9, 9), (1, 1, 8, 8)]
    for index in range(4):
        mixed = [partner(index), boxes, [True, False], [0.5, 1, 2, 3, 4]]
        items = [
            {"params": mixed, "prob": ([0.5, 0.1, 0.1], [0, 1, 2])},
            {"params": [None, (0, 0, 5, 5), False, None], "prob": ([0.5, 0.1, 0.1], [0, 1, 2])},
        ]
        write_record(folder / f"{index}.pth.tar", index, items)
    return import_dir(folder, store, keys=KEYS)


def test_partners_become_row_numbers(tmp_path, store):
    found = mixing(store, tmp_path, lambda index: (index + 1) % 4)
    views = ViewConfig.from_dict(
        {k: v for k, v in found.card("view.main.0").config.items() if k not in ("set", "k")}
    )
    params = unpack(found.array("view.main.0"), views)
    assert params["id2"].tolist() == [ORDER.index((i + 1) % 4) for i in ORDER]
    assert params["rrc2"][0].tolist() == [1, 1, 8, 8]
    assert unpack(found.array("view.main.1"), views)["id2"].tolist() == [-1] * 4


def test_bad_input_partner_is_missing(tmp_path, store):
    with pytest.raises(
        DataError, match=r"key 'cat/1'\), reinforcement 0: its partner \(id2\) is index 9"
    ):
        mixing(store, tmp_path, lambda index: 9 if index == 1 else 0)


def test_bad_input_keys_are_required(tmp_path, store):
    with pytest.raises(ConfigError, match="keys= is needed"):
        import_dir(part(tmp_path / "in"), store)


def test_bad_input_length_mismatch_names_first_key(tmp_path, store):
    source = part(tmp_path / "in")
    with pytest.raises(DataError, match="3 keys, but there is a record of index 3"):
        import_dir(source, store, keys=KEYS[:3])
    (source / "2.pth.tar").unlink()
    with pytest.raises(
        DataError, match="3 records, 4 keys; the first key without a record is 'dog/0'"
    ):
        import_dir(source, store, keys=KEYS)
    found = import_dir(source, store, keys=KEYS, on_missing="skip")
    assert found.filled("view.main.0").tolist() == [i != 2 for i in ORDER]
    assert found.meta["reference_import"]["skipped"] == {"no record": 1}


def test_bad_input_key_without_a_row(tmp_path, store):
    source = part(tmp_path / "in")
    with pytest.raises(DataError, match="first key without a row is 'cow/0' \\(index 1\\)"):
        import_dir(source, store, keys=["cat/0", "cow/0", "dog/0", "dog/1"])


def test_bad_input_row_without_a_key(tmp_path, store):
    source = part(tmp_path / "in", count=3)
    with pytest.raises(DataError, match="3 keys, 4 rows; the first row without a key is 'dog/1'"):
        import_dir(source, store, keys=KEYS[:3])


def test_bad_input_index_mismatch_names_the_key(tmp_path, store):
    source = part(tmp_path / "in")
    a, b = source / "1.pth.tar", source / "2.pth.tar"
    data = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(data)
    with pytest.raises(
        DataError, match=r"2\.pth\.tar: it holds index 1, its name says 2 \(key 'dog/0'\)"
    ):
        import_dir(source, store, keys=KEYS)


def test_bad_input_partial_record(tmp_path, store):
    source = part(tmp_path / "in")
    write_record(source / "3.pth.tar", 3, [reinforcement(3, 0)])
    with pytest.raises(DataError, match=r"'dog/1'\): 1 reinforcements, .* have 2: .* run it again"):
        import_dir(source, store, keys=KEYS)


def test_bad_input_damaged_record(tmp_path, store):
    source = part(tmp_path / "in")
    data = (source / "3.pth.tar").read_bytes()
    (source / "3.pth.tar").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"3\.pth\.tar: damaged or cut off .*fetch the file again"):
        import_dir(source, store, keys=KEYS)


def test_bad_input_parts_cover_other_indices(tmp_path, store):
    part(tmp_path / "in" / "p0", 0)
    part(tmp_path / "in" / "p1", 2)
    (tmp_path / "in" / "p1" / "2.pth.tar").unlink()
    with pytest.raises(DataError, match="p1: index 2 is missing, the other parts have it"):
        import_dir(tmp_path / "in", store, keys=KEYS)


@pytest.mark.parametrize(
    ("prob", "message"),
    [
        (([0.5, 0.5, 0.5], [0, 1, 2]), "are not probabilities"),
        (([0.5, float("nan"), 0.1], [0, 1, 2]), "are not probabilities"),
        (([0.5, 0.2, 0.1], [0, 1, 12]), "not different numbers below 12"),
        (([0.5, 0.2, 0.1], [0, 1, 1]), "not different numbers below 12"),
        (([0.5, 0.2], [0, 1]), "2 classes kept, the others keep 3"),
    ],
)
def test_bad_input_probabilities(tmp_path, store, prob, message):
    source = part(tmp_path / "in")
    items = [reinforcement(3, 0), {**reinforcement(3, 1), "prob": prob}]
    write_record(source / "3.pth.tar", 3, items)
    with pytest.raises(DataError, match=f"'dog/1'\\), reinforcement 1.*{message}"):
        import_dir(source, store, keys=KEYS)


def test_bad_input_other_images(tmp_path):
    batch = {"id": KEYS, "image": [picture(i, 20, 20) for i in range(4)]}
    path = Store.create(tmp_path / "s", [batch]).path
    with pytest.raises(
        DataError, match=r"key 'cat/0'\): the image is 20 x 20 .* resized or replaced"
    ):
        import_dir(part(tmp_path / "in"), path, keys=KEYS)


def test_bad_input_no_configuration(tmp_path, store):
    source = part(tmp_path / "in", config=None)
    with pytest.raises(DataError, match="say how the views were made with views="):
        import_dir(source, store, keys=KEYS)
    check(import_dir(source, store, keys=KEYS, views=VIEWS))


def test_malicious_record_does_not_run(tmp_path, store):
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    source = part(tmp_path / "in")
    write_record(source / "1.pth.tar", 1, [Hostile()], "pickle")
    with pytest.raises(DataError, match=r"1\.pth\.tar: refused or damaged pickle"):
        import_dir(source, store, keys=KEYS)
    torch.save({"reinforce": Hostile()}, source / "config.pth.tar")
    with pytest.raises(DataError, match=r"config\.pth\.tar: refused or damaged pickle"):
        import_dir(source, store, keys=KEYS)
    assert not (tmp_path / "ran").exists()


def test_interrupted_import_goes_on(tmp_path, store, monkeypatch):
    source = part(tmp_path / "in")
    real, calls = module._read_rows, []

    def stop_at_second(parts, forms, names, indices):
        calls.append(indices.tolist())
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(parts, forms, names, indices)

    monkeypatch.setattr(module, "_read_rows", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        import_dir(source, store, keys=KEYS, unit_rows=2)
    found = import_dir(source, store, keys=KEYS, unit_rows=2)
    assert calls == [ORDER[:2], ORDER[2:], ORDER[2:]]
    check(found)


def test_misspelled_transform_is_passed_over_as_the_reference_did(tmp_path, store, caplog):
    config = json.loads(json.dumps(CONFIG))
    augment = config["reinforce"]["image_augmentation"]
    augment["random_resize_crop"] = augment.pop("random_resized_crop")
    folder = tmp_path / "in"
    folder.mkdir()
    torch.save(config, folder / "config.pth.tar")
    for index in range(4):
        items = [reinforcement(index, j) for j in range(2)]
        for item in items:
            del item["params"][0]
        write_record(folder / f"{index}.pth.tar", index, items)
    found = import_dir(folder, store, keys=KEYS)
    assert "random_resized_crop" not in found.card("view.main.0").config["transforms"]
    assert "random_resize_crop" in caplog.text


def test_records_as_numpy_arrays(tmp_path, store):
    folder = part(tmp_path / "in")
    for index in range(4):
        items = []
        for j in range(2):
            item = reinforcement(index, j)
            values, ids = item["prob"]
            item["prob"] = (np.array(values, np.float32), np.array(ids))
            items.append(item)
        out = io.BytesIO()
        pickle.dump((index, items), out, 4)
        (folder / f"{index}.pth.tar").write_bytes(out.getvalue())
    found = import_dir(folder, store, keys=KEYS)
    check(found)
    assert found.card("teacher.topk.main.0").config["k"] == 3
    assert found.verify() == []
