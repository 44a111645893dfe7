"""What an image goes through before a tower: resize, centre crop, [0, 1], normalise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.core.config import LATER, check_choice
from understudy.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    import torch

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Channel statistics of the original CLIP (arXiv 2103.00020); most CLIP teachers use them."""
RESIZES = ("shorter-side", "squash", "pad")


@dataclass(frozen=True, kw_only=True, slots=True)
class Preprocess:
    """Describe a model's input.

    Attributes:
        size: side of the square input, in pixels.
        mean: subtracted per channel after scaling to [0, 1].
        std: divided by per channel, after the mean.
        interpolation: `"bilinear"` or `"bicubic"`.
        resize: `"shorter-side"` keeps the aspect ratio and crops the centre; `"squash"` does not;
            `"pad"` first makes the image square with bars of the colour `mean` (black if it is 0)
            on both sides of the centre, so that nothing is cut off.
        crop: share of the resized shorter side that the centre crop keeps, above 0 and at most 1:
            the image is resized to int(size / crop) pixels first. 0.875 at 224 px is "resize 256,
            centre crop 224", the usual evaluation on ImageNet.
    """

    size: int
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    interpolation: str = "bilinear"
    resize: str = "shorter-side"
    crop: float = field(default=1.0, metadata=LATER)

    def __post_init__(self) -> None:
        check_choice(self.interpolation, ("bilinear", "bicubic"), "Preprocess.interpolation")
        check_choice(self.resize, RESIZES, "Preprocess.resize")
        if self.size < 1:
            raise ConfigError(f"Preprocess.size: expected at least 1 pixel, got {self.size}.")
        if not 0 < self.crop <= 1:
            raise ConfigError(
                f"Preprocess.crop: expected a share above 0 and at most 1, got {self.crop}."
            )
        if min(self.std) <= 0:
            raise ConfigError(f"Preprocess.std: expected positive values, got {self.std}.")


def pad_to_square(image: np.ndarray, colour: Sequence[float]) -> np.ndarray:
    """Return a uint8 image [H, W, 3] in the middle of a square of its longer side.

    Args:
        image: uint8 [H, W, 3].
        colour: of the bars, per channel in [0, 1]; cut to whole levels of 255.
    """
    height, width = image.shape[:2]
    side = max(height, width)
    out = np.empty((side, side, 3), np.uint8)
    out[:] = np.array([int(255 * value) for value in colour], np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    out[top : top + height, left : left + width] = image
    return out


def fit(image: np.ndarray, config: Preprocess) -> np.ndarray:
    """Resize and crop one uint8 image [H, W, 3] to uint8 [size, size, 3].

    The shorter side becomes `size` (int(size / crop) before a smaller crop), the longer one is
    truncated to an integer, and the crop starts at the rounded half of the excess, as in
    torchvision's `Resize` and `CenterCrop`.

    Raises:
        DataError: not uint8 [H, W, 3].
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise DataError(
            f"image: expected uint8 [height, width, 3], got {image.dtype} {list(image.shape)}."
        )
    size = config.size
    if config.resize == "pad" and image.shape[0] != image.shape[1]:
        image = pad_to_square(image, config.mean)
    height, width = image.shape[:2]
    side = int(size / config.crop)
    if (height, width) == (size, size) == (side, side):
        return image
    from PIL import Image

    if config.resize == "squash":
        new_width, new_height = side, side
    elif width <= height:
        new_width, new_height = side, int(side * height / width)
    else:
        new_width, new_height = int(side * width / height), side
    method = getattr(Image.Resampling, config.interpolation.upper())
    if (new_width, new_height) != (width, height):
        image = np.asarray(Image.fromarray(image).resize((new_width, new_height), method))
    top, left = round((new_height - size) / 2), round((new_width - size) / 2)
    return image[top : top + size, left : left + size]


def to_tensor(images: Any, config: Preprocess) -> torch.Tensor:
    """Turn images into a model's input.

    Args:
        images: uint8 [B, H, W, 3] (NumPy or torch), or a sequence of uint8 [H, W, 3] of any sizes.
        config: the model's preprocessing.

    Returns:
        float32 [B, 3, size, size].

    Raises:
        DataError: an image is not uint8 with three channels.
    """
    import torch

    if isinstance(images, torch.Tensor):
        images = images.cpu().numpy()
    if not isinstance(images, np.ndarray | Sequence):
        raise DataError(
            f"images: expected uint8 [B, H, W, 3] or a list of images, got {type(images).__name__}."
        )
    if isinstance(images, np.ndarray) and images.ndim != 4:
        raise DataError(f"images: expected uint8 [B, H, W, 3], got shape {list(images.shape)}.")
    if len(images) == 0:
        return torch.empty(0, 3, config.size, config.size)
    batch = np.stack([fit(np.asarray(image), config) for image in images])
    pixels = torch.from_numpy(np.ascontiguousarray(batch.transpose(0, 3, 1, 2)))
    return normalise(pixels, config)


def normalise(pixels: torch.Tensor, config: Preprocess) -> torch.Tensor:
    """Scale uint8 [B, 3, H, W] to [0, 1] and normalise; float32 out."""
    import torch

    out = pixels.to(torch.float32).div_(255.0)
    if any(config.mean):
        out.sub_(torch.tensor(config.mean, device=out.device).reshape(3, 1, 1))
    if any(s != 1.0 for s in config.std):
        out.div_(torch.tensor(config.std, device=out.device).reshape(3, 1, 1))
    return out
