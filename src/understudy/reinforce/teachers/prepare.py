"""The same views to each teacher's own input: resize if it wants a smaller one, normalise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from understudy.core.errors import DataError
from understudy.models.preprocess import Preprocess, fit, normalise
from understudy.reinforce.teachers.base import Images


def planar(images: Images, config: Preprocess) -> torch.Tensor:
    """Return levels `[B, 3, size, size]`, uint8 or float32, in planar memory."""
    size = config.size
    if isinstance(images, np.ndarray):
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype not in (np.uint8, np.float32):
            raise DataError(
                "images: expected uint8 or float32 [B, H, W, 3], got "
                f"{images.dtype} {list(images.shape)}."
            )
        if images.shape[1:3] == (size, size):
            return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        if images.dtype == np.float32:
            return _resize_levels(images, config)
    elif not isinstance(images, Sequence):
        raise DataError(
            f"images: expected an array or a list of images, got {type(images).__name__}."
        )
    if not len(images):
        return torch.empty(0, 3, size, size, dtype=torch.uint8)
    batch = np.stack([fit(np.asarray(image), config) for image in images])
    return torch.from_numpy(np.ascontiguousarray(batch.transpose(0, 3, 1, 2)))


def _resize_levels(images: np.ndarray, config: Preprocess) -> torch.Tensor:
    """Resize mixed views, which are not 8-bit, with antialiasing; they are square."""
    planar = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    out = torch.nn.functional.interpolate(
        planar, size=(config.size, config.size), mode=config.interpolation, antialias=True
    )
    return out.clamp_(0, 255)


def to_input(images: Images, config: Preprocess, device: torch.device) -> torch.Tensor:
    """Return a model's input float32 `[B, 3, size, size]` on `device`.

    Args:
        images: a list of uint8 [H, W, 3] of any sizes, uint8 [B, H, W, 3], or float32
            [B, H, W, 3] in levels 0 to 255 (mixed views).
        config: the model's preprocessing.
        device: where to.

    Raises:
        DataError: something else was given.
    """
    pixels = planar(images, config).to(device)
    if pixels.dtype == torch.float32:
        pixels = pixels.clone()  # views are shared by all teachers; `normalise` works in place
    return normalise(pixels, config)
