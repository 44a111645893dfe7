"""Resize and crop: the part of a view that runs image by image, in Pillow.

Pillow resamples 8-bit images in fixed point with antialiasing, which gives the same pixels on every
machine and for any number of threads; its version is part of a view set's back end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from understudy.core.errors import DataError
from understudy.data.view_config import ViewConfig

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_BACKGROUND = {"resize", "center_crop", "random_crop"}


def shorter_side(sizes: np.ndarray, target: int) -> np.ndarray:
    """Return the sizes `int64 [B, 2]` after the shorter side becomes `target` pixels."""
    short = sizes.min(1, keepdims=True)
    # Truncation of the longer side, as torchvision's Resize does.
    return np.where(sizes == short, target, (target * sizes) // short)


def _resized(options: dict, sizes: np.ndarray) -> np.ndarray:
    if options["mode"] == "squash":
        return np.full_like(sizes, options["size"])
    return shorter_side(sizes, options["size"])


def image_name(names: Sequence[str] | None, i: int) -> str:
    """Return what errors call the i-th image."""
    return f"image {i}" if names is None else names[i]


def chain_sizes(
    config: ViewConfig, sizes: np.ndarray, names: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Follow image sizes down the fixed order of transforms.

    Returns:
        (sizes of the padded images that `random_crop` crops, sizes that `random_resized_crop`
        sees), both `int64 [B, 2]`.

    Raises:
        DataError: an image is smaller than a crop that the configuration fixes.
    """
    transforms = config.transforms
    if "resize" in transforms:
        sizes = _resized(transforms["resize"], sizes)
    if "center_crop" in transforms:
        side = transforms["center_crop"]["size"]
        _refuse_small(sizes, side, "center_crop", names)
        sizes = np.full_like(sizes, side)
    padded = sizes
    if "random_crop" in transforms:
        options = transforms["random_crop"]
        if options["resize"] and "resize" not in transforms:
            sizes = shorter_side(sizes, config.size)
        padded = sizes + 2 * options["padding"]
        _refuse_small(padded, config.size, "random_crop", names)
        sizes = np.full_like(sizes, config.size)
    return padded, sizes


def _refuse_small(
    sizes: np.ndarray, side: int, transform: str, names: Sequence[str] | None
) -> None:
    small = (sizes < side).any(1)
    if small.any():
        i = int(np.argmax(small))
        raise DataError(
            f"{image_name(names, i)} is {sizes[i, 0]}x{sizes[i, 1]} pixels before {transform}, "
            f"smaller than its {side}x{side} box: add resize before it or lower the size."
        )


def check_boxes(sizes: np.ndarray, boxes: np.ndarray, names: Sequence[str]) -> None:
    """Refuse images that are smaller than their stored crop box.

    Args:
        sizes: `int [B, 2]` (height, width) of the images that the boxes address.
        boxes: `int [B, 4]` (top, left, height, width).
        names: what to call each image.

    Raises:
        DataError: a box is empty or reaches outside its image.
    """
    boxes = boxes.astype(np.int64)
    empty = (boxes[:, 2:] < 1).any(1)
    outside = (boxes[:, :2] + boxes[:, 2:] > sizes).any(1)
    if not (empty | outside).any():
        return
    i = int(np.argmax(empty | outside))
    if empty[i]:
        raise DataError(
            f"{names[i]}: the stored crop box {boxes[i].tolist()} is empty; reinforce that row "
            "again."
        )
    raise DataError(
        f"{names[i]} is {sizes[i, 0]}x{sizes[i, 1]} pixels (height x width), too small for its "
        f"stored crop box {boxes[i].tolist()} (top, left, height, width): the image was resized "
        "after reinforcement; refused. Restore the original file or reinforce again."
    )


def _pillow_resize(array: np.ndarray, height: int, width: int, interpolation: str) -> np.ndarray:
    if array.shape[:2] == (height, width):
        return array
    image = Image.fromarray(np.ascontiguousarray(array))
    return np.asarray(image.resize((width, height), FILTERS[interpolation]))


def _pad(array: np.ndarray, padding: int, fill: int) -> np.ndarray:
    height, width, _ = array.shape
    out = np.full((height + 2 * padding, width + 2 * padding, 3), fill, np.uint8)
    out[padding : padding + height, padding : padding + width] = array
    return out


def _background(
    array: np.ndarray, config: ViewConfig, record: np.void, suffix: str, ratio: float, name: str
) -> np.ndarray:
    """Run resize, center_crop and random_crop on one image; `ratio` is new / stored view size."""
    transforms = config.transforms
    size = np.array([array.shape[:2]], np.int64)
    scale = 1.0 if "random_resized_crop" in transforms else ratio
    if "resize" in transforms:
        options = transforms["resize"]
        options = {**options, "size": max(1, round(options["size"] * scale))}
        height, width = _resized(options, size)[0]
        array = _pillow_resize(array, int(height), int(width), options["interpolation"])
    if "center_crop" in transforms:
        side = max(1, round(transforms["center_crop"]["size"] * scale))
        height, width, _ = array.shape
        _refuse_small(np.array([[height, width]]), side, "center_crop", [name])
        top, left = round((height - side) / 2), round((width - side) / 2)
        array = array[top : top + side, left : left + side]
    if "random_crop" in transforms:
        options = transforms["random_crop"]
        side = max(1, round(config.size * scale))
        if options["resize"] and "resize" not in transforms:
            height, width = shorter_side(np.array([array.shape[:2]]), side)[0]
            array = _pillow_resize(array, int(height), int(width), options["interpolation"])
        array = _pad(array, round(options["padding"] * scale), options["fill"])
        offsets = np.rint(record[f"rc{suffix}"].astype(np.float64) * scale).astype(np.int64)
        free = np.array(array.shape[:2]) - side
        if (free < 0).any():
            _refuse_small(np.array([array.shape[:2]]), side, "random_crop", [name])
        top, left = np.minimum(offsets, free)
        array = array[top : top + side, left : left + side]
    return array


def _reduced_crop(
    array: np.ndarray, box: Sequence[int], source: tuple[int, int], size: int, interpolation: str
) -> np.ndarray:
    """Crop and resize an image that was decoded at a reduced scale; `box` is in source pixels."""
    top, left, height, width = (int(v) for v in box)
    fy, fx = array.shape[0] / source[0], array.shape[1] / source[1]
    y0, x0, y1, x1 = top * fy, left * fx, (top + height) * fy, (left + width) * fx
    iy0, ix0 = math.floor(y0), math.floor(x0)
    iy1 = min(math.ceil(y1), array.shape[0])
    ix1 = min(math.ceil(x1), array.shape[1])
    image = Image.fromarray(np.ascontiguousarray(array[iy0:iy1, ix0:ix1]))
    inner = (x0 - ix0, y0 - iy0, min(x1 - ix0, ix1 - ix0), min(y1 - iy0, iy1 - iy0))
    return np.asarray(image.resize((size, size), FILTERS[interpolation], box=inner))


def reduced_minimum(source: tuple[int, int], box: np.ndarray, size: int) -> tuple[int, int]:
    """Return the least (height, width) to decode to: the crop must still cover `size` pixels."""
    height, width = int(box[2]), int(box[3])
    return (
        min(source[0], math.ceil(source[0] * size / max(height, 1))),
        min(source[1], math.ceil(source[1] * size / max(width, 1))),
    )


def place(
    images: Sequence[np.ndarray],
    params: np.ndarray,
    out: np.ndarray,
    config: ViewConfig,
    *,
    suffix: str,
    ratio: float,
    sources: Sequence[tuple[int, int]],
    names: Sequence[str],
) -> None:
    """Resize and crop each image into `out` (`uint8 [B, 3, S, S]`, planar).

    Args:
        images: `uint8 [h, w, 3]` each; decoded at a reduced scale where `sources` says larger.
        params: the records.
        out: where the square views go.
        config: the view set.
        suffix: `"2"` to use the partner's fields.
        ratio: output size / stored size.
        sources: (height, width) of each image at full scale.
        names: what to call each image in errors.
    """
    size = out.shape[-1]
    cropped = "random_resized_crop" in config.transforms
    background = bool(_BACKGROUND & set(config.transforms))
    options = config.transforms.get("random_resized_crop", {})
    for i, array in enumerate(images):
        if background:
            array = _background(array, config, params[i], suffix, ratio, names[i])
        if cropped:
            box = params[f"rrc{suffix}"][i]
            full = array.shape[:2] if background else sources[i]
            check_boxes(np.array([full]), box[None], names[i : i + 1])
            if array.shape[:2] == full:
                top, left, height, width = (int(v) for v in box)
                array = array[top : top + height, left : left + width]
                array = _pillow_resize(array, size, size, options["interpolation"])
            else:
                array = _reduced_crop(array, box, full, size, options["interpolation"])
        elif ratio != 1.0 and not background:
            array = _pillow_resize(array, size, size, "bilinear")
        if array.shape[:2] != (size, size):
            raise DataError(
                f"{names[i]} is {array.shape[0]}x{array.shape[1]} pixels after the configured "
                f"transforms, expected {size}x{size}: add resize (mode: squash), center_crop or "
                "random_resized_crop to the views."
            )
        out[i] = array.transpose(2, 0, 1)
