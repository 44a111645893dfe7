"""Pictures and a COCO annotation file to a store of object masks.

    >>> from understudy.data.coco import coco_store
    >>> coco_store("val.json", "val2017/", "coco.store", split="test")     # doctest: +SKIP

The store has `image`, `mask` (a PNG whose index j + 1 is object j; smaller objects lie on top), and
`objects` (their class numbers), as `understudy.data.dense.MaskSpec(objects="objects")` reads them.
Crowds are ignored (255). Needs pycocotools (extra `dense`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from understudy.core.errors import DataError
from understudy.core.files import read_json
from understudy.core.lazy import require
from understudy.data.dense import IGNORE
from understudy.data.importers.streams import inside
from understudy.data.scenes.pack import png

if TYPE_CHECKING:
    from understudy.data.store import Store

MAX_OBJECTS = IGNORE - 1
_BATCH = 64


def coco_store(
    annotations: str | Path,
    images: str | Path,
    path: str | Path,
    *,
    split: str = "train",
    overwrite: bool = False,
) -> Store:
    """Write a store of the pictures that a COCO file names, in the order of their ids.

    Args:
        annotations: the JSON file.
        images: folder of the pictures.
        path: of the new store.
        split: what its rows belong to.
        overwrite: replace a store that is there.

    Returns:
        the store; `meta["classes"]` has the category names in the order of their ids,
        `meta["mask_classes"]` the same after `background`.

    Raises:
        DataError: a missing or malformed file, a picture that is not there, an unknown category or
            picture, or more than 254 objects in a picture.
        MissingExtraError: pycocotools is not installed.
    """
    from understudy.data.store import Store

    data = read_json(annotations)
    for key in ("images", "annotations", "categories"):
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise DataError(f"{annotations}: no list '{key}'; expected a COCO annotation file.")
    categories = sorted(data["categories"], key=lambda c: c["id"])
    numbers = {c["id"]: i for i, c in enumerate(categories)}
    known = {image["id"] for image in data["images"]}
    objects: dict[Any, list[Mapping[str, Any]]] = {}
    for one in data["annotations"]:
        for key, table in (("image_id", known), ("category_id", numbers)):
            if one.get(key) not in table:
                raise DataError(
                    f"{annotations}: annotation {one.get('id')} has {key} {one.get(key)!r}, which "
                    "the file does not list."
                )
        objects.setdefault(one["image_id"], []).append(one)
    pictures = sorted(data["images"], key=lambda image: image["id"])
    names = [c["name"] for c in categories]
    return Store.create(
        path,
        _batches(pictures, objects, numbers, Path(images), split),
        meta={"classes": names, "mask_classes": ["background", *names]},
        overwrite=overwrite,
    )


def import_coco(
    source: str | Path,
    store: str | Path,
    *,
    images: str | Path | None = None,
    split: str | None = None,
    overwrite: bool = False,
) -> Store:
    """Make a store of a COCO annotation file, for `data import --kind coco`; see `coco_store`.

    Args:
        source: the JSON file.
        store: where the store is written.
        images: folder of the pictures; default the file's own folder.
        split: what its rows belong to; default train.
        overwrite: replace a store that is there.
    """
    folder = Path(source).parent if images is None else Path(images)
    return coco_store(source, folder, store, split=split or "train", overwrite=overwrite)


def _batches(
    pictures: Sequence[Mapping[str, Any]],
    objects: Mapping[Any, Sequence[Mapping[str, Any]]],
    numbers: Mapping[int, int],
    folder: Path,
    split: str,
) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(pictures), _BATCH):
        part = pictures[start : start + _BATCH]
        masks, classes, files = [], [], []
        for picture in part:
            mask, own = object_mask(picture, objects.get(picture["id"], ()), numbers)
            masks.append(png(mask))
            classes.append(own)
            path = inside(folder, str(picture["file_name"]), f"picture {picture['id']}")
            try:
                files.append(path.read_bytes())
            except OSError as error:
                raise DataError(f"{path}: {error.strerror}.") from None
        yield pa.record_batch(
            {
                "id": pa.array([str(picture["id"]) for picture in part], pa.string()),
                "image": pa.array(files, pa.binary()),
                "mask": pa.array(masks, pa.binary()),
                "objects": pa.array(classes, pa.list_(pa.int16())),
                "split": pa.array([split] * len(part), pa.string()),
            }
        )


def object_mask(
    picture: Mapping[str, Any], objects: Sequence[Mapping[str, Any]], numbers: Mapping[int, int]
) -> tuple[np.ndarray, list[int]]:
    """Return (index mask uint8 [H, W], class number of each object) of one COCO picture.

    Args:
        picture: with `height` and `width`.
        objects: annotations with `segmentation`: polygons, or run lengths, packed or not.
        numbers: category id -> class number.

    Raises:
        DataError: more than 254 objects.
    """
    tools = require("pycocotools.mask", "dense", "COCO annotations")
    height, width = int(picture["height"]), int(picture["width"])
    if len(objects) > MAX_OBJECTS:
        raise DataError(
            f"picture {picture['id']}: {len(objects)} objects; an 8-bit mask holds {MAX_OBJECTS}."
        )
    mask = np.zeros((height, width), np.uint8)
    drawn = []
    for one in objects:
        shape = one["segmentation"]
        if isinstance(shape, list):
            shape = tools.merge(tools.frPyObjects(shape, height, width)) if shape else None
        elif isinstance(shape["counts"], list):
            shape = tools.frPyObjects(shape, height, width)
        drawn.append(np.zeros((height, width), bool) if shape is None else tools.decode(shape) > 0)
    order = sorted(range(len(drawn)), key=lambda i: -int(drawn[i].sum()))
    plain = [i for i in range(len(drawn)) if not objects[i].get("iscrowd")]
    index = {i: j + 1 for j, i in enumerate(plain)}
    for i in order:
        mask[drawn[i]] = index.get(i, IGNORE)
    return mask, [numbers[objects[i]["category_id"]] for i in plain]
