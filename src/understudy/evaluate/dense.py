"""Score a dense model on a store's masks or depth maps: single scale, whole or by sliding window.

>>> from understudy.evaluate.dense import evaluate_dense
>>> evaluate_dense(model, store, masks=spec, split="test")["miou"]       # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from understudy.core.errors import ConfigError, DataError
from understudy.data.decode import decode
from understudy.data.dense import (
    DepthSpec,
    MaskSpec,
    check_same_classes,
    check_sizes,
    decode_depth,
    decode_mask,
    semantic,
)
from understudy.data.loader_dense import instances_of
from understudy.evaluate.dense_metrics import confusion, depth_scores, depth_sums, iou_scores
from understudy.evaluate.detection import Instances, average_precision
from understudy.evaluate.images import evaluating
from understudy.evaluate.rows import select_rows
from understudy.models.dense.model import DenseModel
from understudy.models.preprocess import normalise

if TYPE_CHECKING:
    from understudy.data.store import Store

ALL_ROWS = Sequence[int] | np.ndarray | None


@dataclass(frozen=True, kw_only=True)
class Window:
    """How a picture is cut for a model.

    Attributes:
        side: of the square windows in pixels; 0 takes the whole picture at once.
        step: pixels from window to window; 0 takes two thirds of `side`.
    """

    side: int = 0
    step: int = 0

    def __post_init__(self) -> None:
        if self.side < 0 or self.step < 0 or self.step > max(self.side, 0):
            raise ConfigError(
                f"sliding window: expected 0 <= step <= side, got side {self.side} and step "
                f"{self.step}."
            )

    def starts(self, length: int) -> list[int]:
        """Return where windows begin along a side, so that all of it is covered."""
        if not self.side or length <= self.side:
            return [0]
        step = self.step or max(1, self.side * 2 // 3)
        found = list(range(0, length - self.side, step))
        return [*found, length - self.side]


WHOLE = Window()


def predict(model: DenseModel, images: Tensor, window: Window = WHOLE) -> Tensor:
    """Return logits [B, C, H, W] or depth [B, H, W]; overlapping windows are averaged.

    Args:
        model: a seg or depth model, in eval mode.
        images: normalised [B, 3, H, W].
        window: how pictures are cut.
    """
    key = "logits" if model.config.head.task == "seg" else "depth"
    height, width = images.shape[-2:]
    tops, lefts = window.starts(height), window.starts(width)
    if len(tops) == len(lefts) == 1:
        return model(images)[key]
    parts = [
        ((..., slice(top, top + window.side), slice(left, left + window.side)))
        for top in tops
        for left in lefts
    ]
    seen = images.new_zeros(height, width)
    total = images.new_zeros(())
    for i, at in enumerate(parts):
        found = model(images[at])[key].float()
        if i == 0:
            total = found.new_zeros(*found.shape[:-2], height, width)
        total[at] += found
        seen[at] += 1
    return total / seen


def evaluate_dense(
    model: DenseModel,
    store: Store,
    *,
    masks: MaskSpec | None = None,
    depth: DepthSpec | None = None,
    rows: ALL_ROWS = None,
    split: str | None = None,
    image: str = "image",
    window: Window = WHOLE,
    batch_size: int = 16,
) -> dict[str, float]:
    """Score a dense model, at each picture's own size.

    Args:
        model: seg, depth or det.
        store: pictures with labels.
        masks: of seg and det; the classes must be the head's, in its order.
        depth: of depth.
        rows: only these; not together with `split`.
        split: only rows of this split.
        image: column of encoded pictures.
        window: how pictures are cut; detection takes whole pictures.
        batch_size: pictures at once, if neighbours have one size.

    Returns:
        seg: `miou`, `macc`, `pixel_acc` of one global confusion matrix; depth: see `depth_scores`;
        det: `box_ap`, `box_ap50`, `box_ap75` and the same for masks.

    Raises:
        ConfigError: no labels named for the task.
        DataError: classes in another order than the head's, labels that do not fit, no rows.
    """
    task = model.config.head.task
    run = _Run(
        model=model,
        store=store,
        rows=select_rows(store, split, rows),
        masks=masks,
        depth=depth,
        image=image,
        batch_size=batch_size,
    )
    if task == "depth":
        if depth is None:
            raise ConfigError("evaluate depth: say where the depth maps are (depth).")
        return run.depth_scores(window)
    if masks is None:
        raise ConfigError(f"evaluate {task}: say where the masks are (masks).")
    known = masks.classes[1:] if task == "det" else masks.classes
    check_same_classes(model.config.head.classes, known)
    if task == "seg":
        return run.segmentation(window)
    if window.side:
        raise ConfigError("evaluate det: objects are found in whole pictures; leave the window out")
    return run.detection()


def dense_scorer(
    store: Store, rows: np.ndarray, **options: Any
) -> Callable[[np.ndarray | None], Callable[[DenseModel], Mapping[str, float]]]:
    """Return what `understudy.train.transfer.transfer` calls to make its scorers.

    Args:
        store: labelled pictures.
        rows: the test set.
        **options: `masks`, `depth`, `image`, `window`, `batch_size` of `evaluate_dense`.
    """

    def make(chosen: np.ndarray | None) -> Callable[[DenseModel], Mapping[str, float]]:
        scored = rows if chosen is None else chosen
        return lambda model: evaluate_dense(model, store, rows=scored, **options)

    return make


@dataclass(frozen=True, kw_only=True)
class _Run:
    model: DenseModel
    store: Store
    rows: np.ndarray
    masks: MaskSpec | None
    depth: DepthSpec | None
    image: str
    batch_size: int

    def batches(self) -> Iterator[tuple[Tensor, list[Any], list[str]]]:
        """Yield (normalised pictures of one size, their labels, their names)."""
        spec = self.depth if self.model.config.head.task == "depth" else self.masks
        assert spec is not None
        columns = [self.image, *spec.columns]
        for column in columns:
            if not self.store.has(column):
                raise DataError(
                    f"{self.store.path}: no column '{column}'; it has "
                    f"{', '.join(self.store.columns)}."
                )
        for start in range(0, len(self.rows), self.batch_size):
            part = self.rows[start : start + self.batch_size]
            table = self.store.take(part, columns)
            values = [table.column(name).to_pylist() for name in columns]
            names = [f"{self.store.path}, row {row}" for row in part.tolist()]
            items = [
                (decode(data, name=name), rest, name)
                for data, name, *rest in zip(values[0], names, *values[1:], strict=True)
            ]
            while items:
                shape = items[0][0].shape
                count = next((i for i, x in enumerate(items) if x[0].shape != shape), len(items))
                yield self._tensors(items[:count])
                items = items[count:]

    def _tensors(self, items: list[Any]) -> tuple[Tensor, list[Any], list[str]]:
        pixels = torch.from_numpy(np.stack([x[0] for x in items]).transpose(0, 3, 1, 2).copy())
        first = next(self.model.parameters())
        images = normalise(pixels, self.model.preprocess).to(first.device, first.dtype)
        labels = [self._label(image, rest, name) for image, rest, name in items]
        return images, labels, [name for _, _, name in items]

    def _label(self, image: np.ndarray, values: Sequence[Any], name: str) -> Any:
        if self.model.config.head.task == "depth":
            assert self.depth is not None
            found = decode_depth(values[0], self.depth, f"{name}, {self.depth.column}")
            check_sizes(image, found[0], name, "depth map")
            return found
        assert self.masks is not None
        where = f"{name}, {self.masks.column}"
        mask = decode_mask(values[0], where)
        check_sizes(image, mask, name, "mask")
        objects = values[1] if self.masks.objects else None
        classes = semantic(mask, self.masks, objects, where)
        if self.model.config.head.task == "seg":
            return classes
        return instances_of(mask, objects or (), self.masks.ignore)

    def segmentation(self, window: Window) -> dict[str, float]:
        assert self.masks is not None
        count = len(self.masks.classes)
        total = np.zeros((count, count), np.int64)
        with evaluating(self.model):  # type: ignore[arg-type]
            for images, labels, _ in self.batches():
                guess = predict(self.model, images, window).argmax(1).cpu()
                truth = np.stack(labels)
                total += confusion(guess, truth, count, self.masks.ignore)
        return iou_scores(total)

    def depth_scores(self, window: Window) -> dict[str, float]:
        sums = []
        with evaluating(self.model):  # type: ignore[arg-type]
            for images, labels, _ in self.batches():
                guess = predict(self.model, images, window).float().cpu().numpy()
                for own, (truth, valid) in zip(guess, labels, strict=True):
                    sums.append(depth_sums(own, np.where(valid, truth, 1.0), valid))
        return depth_scores(sums)

    def detection(self) -> dict[str, float]:
        detected, truths = [], []
        with evaluating(self.model):  # type: ignore[arg-type]
            for images, labels, _ in self.batches():
                for found in self.model(images)["detections"]:
                    own = {k: v.cpu().numpy() for k, v in found.items()}
                    detected.append(_instances(own, own["scores"]))
                truths += [_instances(label, None) for label in labels]
        out = {}
        for kind in ("box", "mask"):
            scores = average_precision(detected, truths, kind)
            out |= {f"{kind}_{name}": value for name, value in scores.items()}
        return out


def _instances(found: Mapping[str, np.ndarray], scores: np.ndarray | None) -> Instances:
    return Instances(
        boxes=found["boxes"], labels=found["labels"], masks=found["instances"], scores=scores
    )
