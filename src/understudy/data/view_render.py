"""Pixels of a batch of records: decode, place, flip, RandAugment, erase; a chunk at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from understudy.core.errors import ConfigError, DataError
from understudy.data.decode import decode, image_size
from understudy.data.view_config import ViewConfig
from understudy.data.view_geometry import place, reduced_minimum
from understudy.data.view_mix import erase, flip
from understudy.data.view_randaugment import apply_rand_augment

CHUNK_BYTES = 1 << 19
"""Pixels worked on together: a chunk and its intermediates stay in the processor's cache."""

Image = np.ndarray | bytes


def render(
    config: ViewConfig,
    images: Sequence[Image],
    params: np.ndarray,
    suffix: str,
    size: int,
    ratio: float,
    names: Sequence[str],
) -> np.ndarray:
    """Return the unmixed views of one image of each record, `uint8 [B, 3, S, S]`.

    Args:
        config: the view set.
        images: `uint8 [h, w, 3]` arrays, or encoded files.
        params: the records.
        suffix: `"2"` to use the partner's fields.
        size: side of the result in pixels.
        ratio: `size` / stored size.
        names: what to call each image in errors.
    """
    out = np.empty((len(params), 3, size, size), np.uint8)
    chunk = max(1, CHUNK_BYTES // (3 * size * size))
    for start in range(0, len(params), chunk):
        part = slice(start, start + chunk)
        _render_chunk(config, images[part], params[part], out[part], suffix, ratio, names[part])
    return out


def _render_chunk(
    config: ViewConfig,
    images: Sequence[Image],
    params: np.ndarray,
    out: np.ndarray,
    suffix: str,
    ratio: float,
    names: Sequence[str],
) -> None:
    transforms = config.transforms
    arrays, sources = _decode(config, images, params, suffix, out.shape[-1], names)
    place(arrays, params, out, config, suffix=suffix, ratio=ratio, sources=sources, names=names)
    if "random_horizontal_flip" in transforms:
        flip(out, params[f"flip{suffix}"])
    if "rand_augment" in transforms:
        ops, mags = params[f"ra_op{suffix}"], params[f"ra_mag{suffix}"]
        apply_rand_augment(out, ops, mags, ratio, transforms["rand_augment"])
    if "random_erase" in transforms:
        erase(out, params[f"re{suffix}"], transforms["random_erase"]["value"])


def _decode(
    config: ViewConfig,
    images: Sequence[Image],
    params: np.ndarray,
    suffix: str,
    size: int,
    names: Sequence[str],
) -> tuple[list[np.ndarray], list[tuple[int, int]]]:
    """Return pixel arrays and the sizes of the full-scale images."""
    reduced = config.reduced_decode and not (
        {"resize", "center_crop", "random_crop"} & set(config.transforms)
    )
    arrays: list[np.ndarray] = []
    sources: list[tuple[int, int]] = []
    for i, image in enumerate(images):
        if image is None:
            raise DataError(
                f"{names[i]}: there is no image; restore the file or leave the row out."
            )
        if isinstance(image, np.ndarray):
            if config.reduced_decode:
                raise ConfigError(
                    "views.reduced_decode: pass the encoded files, since decoded arrays are "
                    "at full scale and would give other pixels."
                )
            if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
                raise DataError(
                    f"{names[i]}: expected uint8 [h, w, 3], got {image.dtype} {list(image.shape)}."
                )
            array, source = image, image.shape[:2]
        elif reduced:
            source = image_size(image, names[i])
            least = reduced_minimum(source, params[f"rrc{suffix}"][i], size)
            array = decode(image, name=names[i], min_height=least[0], min_width=least[1])
        else:
            array = decode(image, name=names[i])
            source = array.shape[:2]
        arrays.append(array)
        sources.append((int(source[0]), int(source[1])))
    return arrays, sources
