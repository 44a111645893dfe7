"""COCO annotation files as stores of object masks."""

from __future__ import annotations

import json

import numpy as np
import pytest

from understudy.core.errors import DataError
from understudy.data.coco import coco_store, object_mask
from understudy.data.dense import MaskSpec, masks_of, present_classes
from understudy.data.scenes.pack import png

mask_tools = pytest.importorskip("pycocotools.mask")


def square(left, top, side):
    right, bottom = left + side, top + side
    return [[left, top, right, top, right, bottom, left, bottom]]


def runs(mask):
    """Return uncompressed run lengths, column by column, zeros first."""
    flat = mask.astype(int).flatten(order="F")
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [1 - flat[-1]]])))
    return {"counts": np.diff([0, *edges.tolist()]).tolist(), "size": list(mask.shape)}


@pytest.fixture
def files(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "images" / name).write_bytes(png(np.zeros((20, 30, 3), np.uint8)))
    patch = np.zeros((20, 30), bool)
    patch[2:6, 20:25] = True
    data = {
        "images": [
            {"id": 7, "file_name": "b.png", "height": 20, "width": 30},
            {"id": 3, "file_name": "a.png", "height": 20, "width": 30},
        ],
        "categories": [{"id": 9, "name": "ball"}, {"id": 2, "name": "box"}],
        "annotations": [
            {"id": 1, "image_id": 3, "category_id": 9, "segmentation": square(4, 5, 3)},
            {"id": 2, "image_id": 3, "category_id": 2, "segmentation": square(2, 3, 10)},
            {"id": 3, "image_id": 3, "category_id": 2, "iscrowd": 1, "segmentation": runs(patch)},
        ],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(data))
    return path, tmp_path / "images", data, patch


def test_a_store_of_objects(files, tmp_path):
    path, images, _, patch = files
    store = coco_store(path, images, tmp_path / "store", split="test")
    assert store.meta["mask_classes"] == ["background", "box", "ball"]
    table = store.take([0, 1], ["id", "objects", "split"])
    assert table["id"].to_pylist() == ["3", "7"]
    assert table["objects"].to_pylist() == [[1, 0], []]
    spec = MaskSpec(objects="objects", classes=tuple(store.meta["mask_classes"]))
    (_, first), (_, second) = masks_of(store, spec, np.array([0, 1]))
    assert (first[5:8, 4:7] == 2).all()  # the ball lies on the box, which is larger
    assert (first[3:13, 2:12] > 0).all()
    assert (first == 255).sum() == patch.sum()
    assert not second.any()
    assert present_classes(store, spec, np.array([0])).tolist() == [
        600 - 100 - int(patch.sum()), 91, 9,
    ]  # fmt: skip


def test_packed_runs_and_empty_shapes():
    patch = np.zeros((6, 5), np.uint8)
    patch[1:3, 2:4] = 1
    packed = mask_tools.encode(np.asfortranarray(patch))
    shapes = ({"segmentation": packed, "category_id": 1}, {"segmentation": [], "category_id": 1})
    mask, classes = object_mask({"id": 0, "height": 6, "width": 5}, shapes, {1: 4})
    assert np.array_equal(mask, patch)
    assert classes == [4, 4]


def test_bad_input(files, tmp_path):
    path, images, data, _ = files

    def changed(**parts):
        path.write_text(json.dumps({**data, **parts}))
        return coco_store(path, images, tmp_path / "x")

    with pytest.raises(DataError, match="no list 'categories'"):
        changed(categories={})
    wrong = {**data["annotations"][0], "category_id": 5}
    with pytest.raises(DataError, match="annotation 1 has category_id 5"):
        changed(annotations=[wrong])
    with pytest.raises(DataError, match="annotation 1 has image_id 99"):
        changed(annotations=[{**data["annotations"][0], "image_id": 99}])
    with pytest.raises(DataError, match=r"c\.png: No such file"):
        changed(images=[*data["images"], {"id": 9, "file_name": "c.png", "height": 2, "width": 2}])
    with pytest.raises(DataError, match="255 objects; an 8-bit mask holds 254"):
        object_mask({"id": 0, "height": 2, "width": 2}, [{}] * 255, {})


def test_the_command_imports_it(files, tmp_path, capsys):
    from understudy.cli import main

    path, images, data, _ = files
    words = ["data", "import", path, tmp_path / "store", "--kind", "coco", "--images", images]
    assert main([str(w) for w in words]) == 0
    assert "2 rows" in capsys.readouterr().out
    data["images"][0]["file_name"] = "../../secret.png"
    path.write_text(json.dumps(data))
    assert main([str(w) for w in (*words, "--overwrite")]) == 2
    assert "leads out of" in capsys.readouterr().err
