"""AP equals a second computation from the definition: matching, precision, 101 recalls."""

from __future__ import annotations

import builtins

import numpy as np
import pytest

from understudy.core.errors import DataError, MissingExtraError
from understudy.evaluate.detection import Instances, average_precision

pytest.importorskip("pycocotools")
SIDE = 40


def area(box):
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def box_iou(a, b):
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = area([*low, *high]) if (high > low).all() else 0.0
    return shared / (area(a) + area(b) - shared)


def mask_iou(a, b):
    return (a & b).sum() / (a | b).sum()


def brute_force(detected, truths, kind, thresholds=tuple(0.5 + 0.05 * i for i in range(10))):
    """Return mean over thresholds and classes of the interpolated precision at 101 recalls."""
    overlap = box_iou if kind == "box" else mask_iou
    shapes = (lambda x: x.boxes) if kind == "box" else (lambda x: x.masks)
    classes = sorted({int(c) for t in truths for c in t.labels})
    found = []
    for threshold in thresholds:
        for c in classes:
            hits, total = [], 0
            for d, t in zip(detected, truths, strict=True):
                mine = [shapes(t)[i] for i in range(len(t.labels)) if t.labels[i] == c]
                total += len(mine)
                order = np.argsort(-d.scores, kind="stable")
                order = [i for i in order if d.labels[i] == c][:100]
                taken: set[int] = set()
                for i in order:
                    best, place = min(threshold, 1 - 1e-10), -1
                    for j, shape in enumerate(mine):
                        value = overlap(shapes(d)[i], shape)
                        if j not in taken and value >= best:
                            best, place = value, j
                    if place >= 0:
                        taken.add(place)
                    hits.append((float(d.scores[i]), place >= 0))
            hits.sort(key=lambda x: -x[0])
            flags = np.array([h for _, h in hits], float)
            recall = np.cumsum(flags) / total
            precision = np.cumsum(flags) / np.arange(1, len(flags) + 1)
            envelope = np.maximum.accumulate(precision[::-1])[::-1]
            values = []
            for r in np.linspace(0, 1, 101):
                place = np.searchsorted(recall, r, side="left")
                values.append(envelope[place] if place < len(envelope) else 0.0)
            found.append(np.mean(values))
    return float(np.mean(found))


def instances(draw, count, classes, scores):
    corner = draw.integers(0, SIDE - 12, (count, 2))
    size = draw.integers(3, 12, (count, 2))
    boxes = np.concatenate([corner, corner + size], 1).astype(float)
    masks = np.zeros((count, SIDE, SIDE), bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes.astype(int), strict=True):
        mask[top:bottom, left:right] = draw.random((bottom - top, right - left)) < 0.8
        mask[top, left] = True
    return Instances(
        boxes=boxes,
        labels=draw.integers(0, classes, count),
        masks=masks,
        # scores are all different, so that the order of equals cannot matter
        scores=draw.permutation(count) / count + draw.random() / 1000 if scores else None,
    )


def near(draw, truth):
    """Return detections that are shifted truths, some of another class, and a few strangers."""
    shift = draw.integers(-2, 3, (len(truth.labels), 4)).astype(float)
    boxes = truth.boxes + shift
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    labels = np.where(draw.random(len(truth.labels)) < 0.2, 0, truth.labels)
    masks = truth.masks ^ (draw.random(truth.masks.shape) < 0.004)
    extra = instances(draw, 2, 3, True)
    count = len(labels) + 2
    return Instances(
        boxes=np.concatenate([boxes, extra.boxes]),
        labels=np.concatenate([labels, extra.labels]),
        masks=np.concatenate([masks, extra.masks]),
        scores=draw.permutation(count) / count + draw.random() / 1000,
    )


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["box", "mask"])
def test_ap_equals_the_definition(seed, kind):
    draw = np.random.default_rng(seed)
    truths = [instances(draw, int(draw.integers(1, 5)), 3, False) for _ in range(4)]
    detected = [near(draw, truth) for truth in truths]
    found = average_precision(detected, truths, kind)
    assert found["ap"] == pytest.approx(brute_force(detected, truths, kind), abs=1e-6)
    assert found["ap50"] == pytest.approx(brute_force(detected, truths, kind, (0.5,)), abs=1e-6)
    assert found["ap75"] == pytest.approx(brute_force(detected, truths, kind, (0.75,)), abs=1e-6)
    assert 0 < found["ap"] < 1


def test_the_ends():
    draw = np.random.default_rng(9)
    truths = [instances(draw, 3, 2, False), instances(draw, 0, 2, False)]
    same = [
        Instances(boxes=t.boxes, labels=t.labels, masks=t.masks, scores=np.ones(len(t.labels)))
        for t in truths
    ]
    assert average_precision(same, truths, "box")["ap"] == pytest.approx(1.0)
    assert average_precision(same, truths, "mask")["ap"] == pytest.approx(1.0)
    nothing = [instances(draw, 0, 2, True) for _ in truths]
    assert average_precision(nothing, truths)["ap"] == 0.0


def test_only_a_hundred_detections_count():
    truth = Instances(boxes=np.array([[0.0, 0, 10, 10]]), labels=np.array([0]))
    boxes = np.tile([20.0, 20, 30, 30], (101, 1))
    boxes[100] = [0, 0, 10, 10]
    late = Instances(boxes=boxes, labels=np.zeros(101, int), scores=np.linspace(1, 0.1, 101))
    assert average_precision([late], [truth])["ap"] == 0.0


def test_a_crowd_matches_without_counting():
    truth = Instances(
        boxes=np.array([[0.0, 0, 10, 10], [20, 20, 40, 40]]),
        labels=np.array([0, 0]),
        crowd=np.array([False, True]),
    )
    found = Instances(
        boxes=np.array([[0.0, 0, 10, 10], [22, 22, 30, 30], [30, 30, 38, 38]]),
        labels=np.zeros(3, int),
        scores=np.array([0.5, 0.9, 0.8]),
    )
    assert average_precision([found], [truth])["ap"] == pytest.approx(1.0)


def test_bad_input(monkeypatch):
    one = Instances(boxes=np.zeros((1, 4)), labels=np.zeros(1, int))
    with pytest.raises(DataError, match="1 pictures for 2 truths"):
        average_precision([one], [one, one])
    empty = Instances(boxes=np.zeros((0, 4)), labels=np.zeros(0, int))
    with pytest.raises(DataError, match="nothing to find"):
        average_precision([empty], [empty])
    with pytest.raises(DataError, match="have no scores"):
        average_precision([one], [one])
    with pytest.raises(DataError, match="has no masks"):
        average_precision([one], [one], "mask")
    with pytest.raises(DataError, match=r"boxes: expected \[2, 4\]"):
        Instances(boxes=np.zeros((1, 4)), labels=np.zeros(2, int))
    with pytest.raises(DataError, match="scores: 3 for 1 labels"):
        Instances(boxes=np.zeros((1, 4)), labels=np.zeros(1, int), scores=np.zeros(3))
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("pycocotools"):
            raise ModuleNotFoundError(name="pycocotools")
        return real(name, *args, **kwargs)

    monkeypatch.setattr("importlib.import_module", without)
    with pytest.raises(MissingExtraError, match=r'pip install "understudy\[dense\]"'):
        average_precision([one], [one])
