"""The loader's field of dense samples: a picture and its labels, cropped and mirrored together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError, DataError
from understudy.data.decode import decode
from understudy.data.dense import (
    DepthSpec,
    MaskSpec,
    check_sizes,
    decode_depth,
    decode_mask,
    semantic,
)
from understudy.data.dense_augment import DenseAugment, Placed, draws, recolour
from understudy.data.loader_images import normalise
from understudy.data.loader_plan import Binding, Plan, RowNames, Want
from understudy.data.loader_read import Cells

Task = Literal["seg", "depth", "det"]
TASKS = ("seg", "depth", "det")


@dataclass(frozen=True, kw_only=True)
class DenseSamples:
    """Normalised crops with their labels.

    The batch gets `images` float32 [B, 3, size, size] and, by task: `masks` int64 [B, size, size];
    `depth` float32 and `valid` bool [B, size, size]; or, for detection, lists of one tensor an
    image: `boxes` float32 [N, 4] (left, top, right, bottom), `labels` int64 [N] (class numbers) and
    `instances` bool [N, size, size].

    Attributes:
        task: seg, depth or det.
        column: payload column of encoded images.
        size: side of the crop in pixels.
        mean: subtracted per channel after scaling to [0, 1].
        std: divided by per channel after that.
        masks: of seg and det; detection needs masks of objects (`MaskSpec.objects`).
        depth: of depth.
        augment: drawn from (seed, epoch, row).
    """

    task: Task
    size: int
    column: str = "image"
    mean: Sequence[float] = (0.0, 0.0, 0.0)
    std: Sequence[float] = (1.0, 1.0, 1.0)
    masks: MaskSpec | None = None
    depth: DepthSpec | None = None
    augment: DenseAugment = field(default_factory=DenseAugment)

    def __post_init__(self) -> None:
        check_choice(self.task, TASKS, "dense samples, task")
        if self.size < 1:
            raise ConfigError(f"dense samples: size must be at least 1, got {self.size}.")
        if (self.depth if self.task == "depth" else self.masks) is None:
            what = "depth" if self.task == "depth" else "masks"
            raise ConfigError(f"dense samples: the task {self.task} needs {what}.")
        if self.task == "depth" and self.augment.scale != (1.0, 1.0):
            raise ConfigError(
                "augment.scale: zooming a picture changes the depths in it; leave it at (1, 1) for "
                "depth."
            )
        if self.task == "det" and self.masks is not None and not self.masks.objects:
            raise ConfigError(
                "dense samples: detection needs masks of objects and the column with their classes "
                "(objects)."
            )

    def bind(self, binding: Binding) -> DenseReader:
        """Check that the columns are there and return the reader."""
        return DenseReader(self, binding)


class DenseReader:
    """`DenseSamples`, bound to a store."""

    def __init__(self, field: DenseSamples, binding: Binding) -> None:
        self.field, self.store = field, binding.store
        spec = field.depth if field.task == "depth" else field.masks
        assert spec is not None
        self.columns: tuple[str, ...] = (field.column, *spec.columns)
        for column in self.columns:
            if not self.store.has(column):
                raise DataError(
                    f"{self.store.path}: no column '{column}' for the task {field.task}; it has "
                    f"{', '.join(self.store.columns)}."
                )
        labels = {
            "seg": ("masks",),
            "depth": ("depth", "valid"),
            "det": ("boxes", "labels", "instances"),
        }
        self.keys: tuple[str, ...] = ("images", *labels[field.task])

    def wants(self, plan: Plan) -> list[Want]:
        """Ask for images and labels."""
        return [Want(column) for column in self.columns]

    def make(self, plan: Plan, got: list[Cells]) -> dict[str, Any]:
        """Decode, check, crop, mirror, recolour and normalise."""
        field, size = self.field, plan.size or self.field.size
        names = RowNames(self.store, plan.rows)
        numbers = draws(plan.draws("dense"))
        pixels = np.empty((len(names), 3, size, size), np.float32)
        outside = np.zeros((len(names), size, size), bool)
        labels: list[dict[str, Any]] = []
        for i, values in enumerate(zip(*(cells.to_pylist() for cells in got), strict=True)):
            image = decode(values[0], name=names[i])
            placed = Placed(image.shape[:2], size, field.augment, numbers[i])
            cut = recolour(placed.apply(image, 0, True), field.augment, numbers[i])
            pixels[i] = cut.transpose(2, 0, 1)
            inside = placed.apply(np.ones(image.shape[:2], bool), False, False)
            outside[i] = ~inside
            labels.append(self._label(image, values[1:], placed, names[i]))
        normalise(pixels, field.mean, field.std)
        # what lies outside of a picture is the mean colour, whatever the jitter did
        pixels.transpose(0, 2, 3, 1)[outside] = 0.0
        out: dict[str, Any] = {"images": pixels}
        for key in self.keys[1:]:
            column = [label[key] for label in labels]
            out[key] = column if field.task == "det" else np.stack(column)
        return out

    def _label(
        self, image: np.ndarray, values: Sequence[Any], placed: Placed, name: Any
    ) -> dict[str, Any]:
        field = self.field
        if field.task == "depth":
            assert field.depth is not None
            depth, valid = decode_depth(values[0], field.depth, f"{name}, {field.depth.column}")
            check_sizes(image, depth, str(name), "depth map")
            valid = placed.apply(valid, False, False)
            depth = np.where(valid, placed.apply(depth, 1.0, False), np.float32(1.0))
            return {"depth": depth.astype(np.float32), "valid": valid}
        spec = field.masks
        assert spec is not None
        where = f"{name}, {spec.column}"
        mask, objects = decode_mask(values[0], where), values[1] if spec.objects else None
        check_sizes(image, mask, str(name), "mask")
        classes = semantic(mask, spec, objects, where)
        if field.task == "seg":
            return {"masks": placed.apply(classes, spec.ignore, False)}
        return instances_of(placed.apply(mask, 0, False), objects or (), spec.ignore)

    def describe(self) -> dict[str, Any]:
        """Return the field's settings."""
        field = self.field
        spec = field.depth if field.task == "depth" else field.masks
        assert spec is not None
        return {
            "dense": field.task,
            "images": field.column,
            "size": field.size,
            "mean": list(field.mean),
            "std": list(field.std),
            "labels": _plain(asdict(spec)),
            "augment": _plain(asdict(field.augment)),
        }


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in data.items()}


def instances_of(
    mask: np.ndarray, objects: Sequence[int], ignore: int = 255
) -> dict[str, np.ndarray]:
    """Return the objects of an index mask that have at least one pixel.

    Args:
        mask: int64 [H, W]; 0 is background, j + 1 is object j.
        objects: class number of each object.
        ignore: index that is no object.

    Returns:
        `boxes` float32 [N, 4] (left, top, right, bottom; the right and lower edges lie outside the
        object), `labels` int64 [N], `instances` bool [N, H, W].
    """
    boxes, labels, parts = [], [], []
    for j, label in enumerate(objects):
        own = (mask == j + 1) & (mask != ignore)
        if not own.any():
            continue
        rows, columns = np.flatnonzero(own.any(1)), np.flatnonzero(own.any(0))
        boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
        labels.append(int(label))
        parts.append(own)
    return {
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "labels": np.array(labels, np.int64),
        "instances": np.array(parts, bool).reshape(-1, *mask.shape),
    }
