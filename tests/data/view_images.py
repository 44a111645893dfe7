"""Pictures for the view tests."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from understudy.data.views import ViewPipeline


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return a smooth gradient with noise and a few saturated and flat patches."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width].astype(float)
    waves = [np.sin(x / (2 + i) + seed) + np.cos(y / (3 + i) + i) for i in range(3)]
    out = 128 + 50 * np.stack(waves, -1) + draw.normal(0, 12, (height, width, 3))
    out = np.clip(out, 0, 255).astype(np.uint8)
    out[: height // 4, : width // 4] = (255, 0, 128)
    return out


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return uniform noise: every level, no structure."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def encoded(array: np.ndarray, kind: str = "png", **options: object) -> bytes:
    """Return an image file's bytes."""
    out = io.BytesIO()
    Image.fromarray(array).save(out, kind, **options)
    return out.getvalue()


def planar(images: list[np.ndarray]) -> np.ndarray:
    """Return `uint8 [n, 3, H, W]`."""
    return np.stack(images).transpose(0, 3, 1, 2).copy()


def sample(
    pipeline: ViewPipeline, images: list[np.ndarray], seeds: list[int]
) -> tuple[np.ndarray, list[np.ndarray | None] | None]:
    """Draw the records of a batch whose partners come from the same batch, and the partners."""
    sizes = [image.shape[:2] for image in images]
    if not pipeline.config.mixes:
        return pipeline.sample(sizes, seeds), None
    rows = pipeline.draw_partners(seeds, len(images), np.arange(len(images)))
    partner_sizes = [sizes[r] for r in rows]
    params = pipeline.sample(sizes, seeds, (rows, partner_sizes))
    partners = [images[r] if m else None for r, m in zip(rows, params["mix"], strict=True)]
    return params, partners
