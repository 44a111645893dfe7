"""Box and mask AP as COCO defines it, by pycocotools (extra `dense`).

AP = mean over IoU .50:.05:.95 and classes of the 101-point interpolated precision, with at most 100
detections an image. Detections and truths are plain arrays; no annotation file is needed.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from understudy.core.config import check_choice
from understudy.core.errors import DataError
from understudy.core.lazy import require

MAX_DETECTIONS = 100


@dataclass(frozen=True, kw_only=True)
class Instances:
    """The objects of one image, true or detected.

    Attributes:
        boxes: float [N, 4], left, top, right, bottom in pixels.
        labels: int [N], class numbers from 0.
        scores: float [N], larger is surer; None for the truth.
        masks: bool [N, H, W]; None when boxes alone are compared.
        crowd: bool [N], truths that stand for many objects: they match without counting.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None = None
    masks: np.ndarray | None = None
    crowd: np.ndarray | None = None

    def __post_init__(self) -> None:
        count = len(self.labels)
        if np.shape(self.boxes) != (count, 4):
            raise DataError(
                f"boxes: expected [{count}, 4], one a label; got {list(np.shape(self.boxes))}."
            )
        for name in ("scores", "masks", "crowd"):
            value = getattr(self, name)
            if value is not None and len(value) != count:
                raise DataError(f"{name}: {len(value)} for {count} labels; give one each.")


def average_precision(
    detected: Sequence[Instances],
    truths: Sequence[Instances],
    kind: Literal["box", "mask"] = "box",
) -> dict[str, float]:
    """Return `ap`, `ap50` and `ap75`, in [0, 1].

    Args:
        detected: one a picture, with scores.
        truths: one a picture, in the same order.
        kind: compare boxes or masks.

    Raises:
        DataError: different numbers of pictures, no object in any truth, scores or masks missing.
        MissingExtraError: pycocotools is not installed.
    """
    check_choice(kind, ("box", "mask"), "average_precision")
    if len(detected) != len(truths):
        raise DataError(f"AP: detections of {len(detected)} pictures for {len(truths)} truths.")
    if not any(len(t.labels) for t in truths):
        raise DataError("AP: no picture has an object, so there is nothing to find.")
    coco = require("pycocotools.coco", "dense", "average precision")
    evaluation = require("pycocotools.cocoeval", "dense", "average precision")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        reference = coco.COCO()
        reference.dataset = _dataset(truths, kind)
        reference.createIndex()
        answers = coco.COCO()
        answers.dataset = {**reference.dataset, "annotations": _answers(detected, kind)}
        answers.createIndex()
        run = evaluation.COCOeval(reference, answers, "bbox" if kind == "box" else "segm")
        run.params.maxDets = [1, 10, MAX_DETECTIONS]
        run.evaluate()
        run.accumulate()
    precision = run.eval["precision"][:, :, :, 0, 2]  # IoU, recall, class; all sizes, 100 answers
    return {
        "ap": _mean(precision),
        "ap50": _mean(precision[0]),
        "ap75": _mean(precision[5]),
    }


def _mean(values: np.ndarray) -> float:
    known = values[values > -1]  # classes without a true object are -1
    return float(known.mean()) if len(known) else float("nan")


def _dataset(truths: Sequence[Instances], kind: str) -> dict[str, Any]:
    labels = sorted({int(label) for truth in truths for label in truth.labels})
    annotations = []
    for image, truth in enumerate(truths):
        for i, entry in enumerate(_entries(truth, image, kind)):
            crowd = bool(truth.crowd[i]) if truth.crowd is not None else False
            # ids start at 1: to pycocotools a match with id 0 is no match
            entry |= {"id": len(annotations) + 1, "iscrowd": int(crowd), "ignore": int(crowd)}
            annotations.append(entry)
    return {
        "info": {},
        # sizes are asked for and not used: masks are encoded already
        "images": [{"id": i, "height": 0, "width": 0} for i in range(len(truths))],
        "categories": [{"id": label} for label in labels],
        "annotations": annotations,
    }


def _answers(detected: Sequence[Instances], kind: str) -> list[dict[str, Any]]:
    out = []
    for image, found in enumerate(detected):
        if found.scores is None:
            raise DataError(f"AP: the detections of picture {image} have no scores.")
        for i, entry in enumerate(_entries(found, image, kind)):
            entry |= {"id": len(out) + 1, "score": float(found.scores[i]), "iscrowd": 0}
            out.append(entry)
    return out


def _entries(found: Instances, image: int, kind: str) -> list[dict[str, Any]]:
    boxes = np.asarray(found.boxes, np.float64).reshape(-1, 4)
    out: list[dict[str, Any]] = []
    for box, label in zip(boxes, found.labels, strict=True):
        width, height = box[2] - box[0], box[3] - box[1]
        entry = {
            "image_id": image,
            "category_id": int(label),
            "bbox": [box[0], box[1], width, height],
            "area": float(width * height),
        }
        out.append(entry)
    if kind == "mask":
        if found.masks is None:
            raise DataError(f"AP: picture {image} has no masks; compare boxes, or give masks.")
        tools = require("pycocotools.mask", "dense", "average precision of masks")
        for entry, mask in zip(out, found.masks, strict=True):
            flat = np.asfortranarray(np.asarray(mask, np.uint8))
            entry["segmentation"] = tools.encode(flat)
            entry["area"] = float(flat.sum())
    return out
