"""RandAugment's geometric operations on planar 8-bit batches, in Pillow's 16.16 fixed point."""

from __future__ import annotations

import math

import numpy as np


def _fix(value: np.ndarray) -> np.ndarray:
    """Round to 16.16 fixed point."""
    return np.floor(value * 65536.0 + 0.5).astype(np.int64)


def shift_rows(x: np.ndarray, shift: np.ndarray, fill: int) -> np.ndarray:
    """Return `out[n, c, y, i] = x[n, c, y, i + shift[n, y]]`, `fill` outside the image.

    One copy of contiguous bytes a row, through a window view of the padded rows.
    """
    n, c, height, width = x.shape
    shift = np.clip(shift, -width, width)
    reach = int(np.abs(shift).max(initial=0))
    if reach == 0:
        return x
    padded = np.full((n, c, height, width + 2 * reach), fill, np.uint8)
    padded[..., reach : reach + width] = x
    windows = np.lib.stride_tricks.sliding_window_view(padded, width, axis=-1)
    rows = np.arange(height)
    return windows[
        np.arange(n)[:, None, None],
        np.arange(c)[None, :, None],
        rows[None, None, :],
        (shift + reach)[:, None, :],
    ]


def _shift_columns(x: np.ndarray, shift: np.ndarray, fill: int) -> np.ndarray:
    turned = np.ascontiguousarray(x.swapaxes(2, 3))
    return shift_rows(turned, shift, fill).swapaxes(2, 3)


def shear(x: np.ndarray, m: np.ndarray, fill: int, vertical: bool) -> np.ndarray:
    """Shear about the top-left corner by `m` pixels a pixel, nearest pixel."""
    # Inverse map of torchvision's shear about the top-left corner: x_in = x + m * y.
    along = x.shape[3] if vertical else x.shape[2]
    slope = _fix(m)[:, None]
    start = _fix(m * 0.5 + 0.5)[:, None]
    shift = (start + slope * np.arange(along)) >> 16
    return (_shift_columns if vertical else shift_rows)(x, shift, fill)


def translate(x: np.ndarray, pixels: np.ndarray, fill: int, vertical: bool) -> np.ndarray:
    """Move right (or down) by whole pixels."""
    # torchvision truncates to whole pixels; a positive magnitude moves the picture right or down.
    shift = -np.trunc(pixels).astype(np.int64)[:, None]
    if not vertical:
        return shift_rows(x, np.broadcast_to(shift, (len(x), x.shape[2])), fill)
    height = x.shape[2]
    source = np.arange(height) + shift
    inside = (source >= 0) & (source < height)
    by_row = x.transpose(0, 2, 1, 3)[np.arange(len(x))[:, None], np.clip(source, 0, height - 1)]
    by_row[~inside] = fill
    return by_row.transpose(0, 2, 1, 3)


def _inverse_rotation(degrees: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return `float64 [n, 6]`, Pillow's output-to-input map of a rotation about the centre."""
    out = np.empty((len(degrees), 6))
    for i, degree in enumerate(degrees.tolist()):
        angle = -math.radians(degree % 360.0)
        cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
        cx, cy = width / 2, height / 2
        out[i, :2], out[i, 3:5] = (cos, sin), (-sin, cos)
        out[i, 2] = cos * -cx + sin * -cy + 0.0 + cx
        out[i, 5] = -sin * -cx + cos * -cy + 0.0 + cy
    return out


def rotate(x: np.ndarray, degrees: np.ndarray, fill: int) -> np.ndarray:
    """Rotate counter-clockwise about the centre, nearest pixel, same size."""
    n, c, height, width = x.shape
    m = _inverse_rotation(degrees, height, width)
    a0, a1, a3, a4 = (_fix(m[:, k])[:, None, None] for k in (0, 1, 3, 4))
    a2 = _fix(m[:, 2] + m[:, 0] * 0.5 + m[:, 1] * 0.5)[:, None, None]
    a5 = _fix(m[:, 5] + m[:, 3] * 0.5 + m[:, 4] * 0.5)[:, None, None]
    ys, xs = np.arange(height)[:, None], np.arange(width)
    x_in = (a2 + a0 * xs + a1 * ys) >> 16
    y_in = (a5 + a3 * xs + a4 * ys) >> 16
    inside = (x_in >= 0) & (x_in < width) & (y_in >= 0) & (y_in < height)
    flat = np.where(inside, y_in * width + x_in, 0)
    planes = np.arange(n * c).reshape(n, c, 1, 1) * (height * width)
    out = np.take(x.reshape(-1), flat[:, None] + planes)
    return np.where(inside[:, None], out, np.uint8(fill))


def affine_matrices(op: int, m: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return `float64 [n, 6]`, the output-to-input maps of an operation (ids 1 to 5)."""
    out = np.zeros((len(m), 6))
    out[:, 0] = out[:, 4] = 1.0
    if op == 1:
        out[:, 1] = m
    elif op == 2:
        out[:, 3] = m
    elif op in (3, 4):
        out[:, 2 if op == 3 else 5] = -np.trunc(m)
    else:
        out = _inverse_rotation(m, height, width)
    return out


def affine_bilinear(x: np.ndarray, m: np.ndarray, fill: int) -> np.ndarray:
    """Sample at `m` (`float64 [n, 6]`, output to input) with 8-bit fixed-point bilinear weights.

    As in Pillow, a point is filled when it lies outside the image, and neighbours that lie outside
    repeat the edge.
    """
    n, c, height, width = x.shape
    a = [_fix(m[:, k])[:, None, None] for k in range(6)]
    ys, xs = np.arange(height)[:, None], np.arange(width)
    half = 1 << 15
    x_in = a[2] + a[0] * xs + a[1] * ys + ((a[0] + a[1]) >> 1)
    y_in = a[5] + a[3] * xs + a[4] * ys + ((a[3] + a[4]) >> 1)
    inside = (x_in >= 0) & (x_in < width << 16) & (y_in >= 0) & (y_in < height << 16)
    x_in, y_in = x_in - half, y_in - half
    wx, wy = (x_in & 0xFFFF) >> 8, (y_in & 0xFFFF) >> 8
    x0, x1 = np.clip(x_in >> 16, 0, width - 1), np.clip((x_in >> 16) + 1, 0, width - 1)
    y0, y1 = np.clip(y_in >> 16, 0, height - 1), np.clip((y_in >> 16) + 1, 0, height - 1)
    planes = np.arange(n * c).reshape(n, c, 1, 1) * (height * width)
    flat = x.reshape(-1)

    def at(yy: np.ndarray, xx: np.ndarray) -> np.ndarray:
        return np.take(flat, (yy * width + xx)[:, None] + planes).astype(np.int32)

    wx, wy = wx[:, None].astype(np.int32), wy[:, None].astype(np.int32)
    upper = at(y0, x0) * (256 - wx) + at(y0, x1) * wx
    lower = at(y1, x0) * (256 - wx) + at(y1, x1) * wx
    out = (upper * (256 - wy) + lower * wy + (1 << 15)) >> 16
    return np.where(inside[:, None], out, fill).astype(np.uint8)
