"""A few pictures with masks and depth, some of them wrong on purpose."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from understudy.data.scenes.pack import png
from understudy.data.store import Store

CLASSES = ("ground", "box", "ball")


def picture(seed: int, height: int = 12, width: int = 16) -> np.ndarray:
    """Return uint8 [H, W, 3] whose red channel is ten times the class and blue the column."""
    mask = classes(seed, height, width)
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.where(mask == 255, 200, mask * 10)
    image[..., 2] = np.arange(width)
    return image


def classes(seed: int, height: int = 12, width: int = 16) -> np.ndarray:
    """Return class numbers uint8 [H, W], some of them 255."""
    draw = np.random.default_rng(seed)
    mask = draw.integers(0, len(CLASSES), (height, width)).astype(np.uint8)
    mask[draw.random((height, width)) < 0.1] = 255
    return mask


def depth_m(seed: int, height: int = 12, width: int = 16) -> np.ndarray:
    """Return depth in metres, float32 [H, W], with holes of 0."""
    draw = np.random.default_rng(seed)
    out = draw.uniform(0.5, 4, (height, width)).astype(np.float32)
    out[draw.random((height, width)) < 0.1] = 0
    return out


def npy(values: np.ndarray) -> bytes:
    """Return a `.npy` file."""
    out = io.BytesIO()
    np.save(out, values)
    return out.getvalue()


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    """Return an image file."""
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def dense_store(path: Path, rows: int = 12, **changed: list[bytes]) -> Store:
    """Return a store of pictures; `changed` replaces columns."""
    data = {
        "id": [f"d{i}" for i in range(rows)],
        "image": [png(picture(i)) for i in range(rows)],
        "mask": [png(classes(i)) for i in range(rows)],
        "depth": [png((depth_m(i) * 1000).astype(np.uint16)) for i in range(rows)],
        "split": ["test" if i % 4 == 0 else "train" for i in range(rows)],
    }
    return Store.create(path, [{**data, **changed}], meta={"mask_classes": list(CLASSES)})
