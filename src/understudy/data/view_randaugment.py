"""RandAugment's fourteen operations on planar 8-bit batches (arXiv 1909.13719).

Operations, magnitudes and centres are torchvision's; pixels are Pillow's: the affine operations use
its 16.16 fixed-point nearest rule, the enhancements its truncating blend, AutoContrast and Equalize
its lookup tables. Arithmetic is on integers, or on float32 values that are exact (magnitudes are
stored as float16: 11 bits times 9 bits fit 24), so results do not depend on machine or threads.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

OPS = (
    "Identity",
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Brightness",
    "Color",
    "Contrast",
    "Sharpness",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
)
"""Operation names; the position is the stored id."""

NUM_OPS = len(OPS)
SIGNED = np.array([1 <= i <= 9 for i in range(NUM_OPS)])


def magnitudes(options: dict, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (magnitude of each operation `float64 [14]`, whether its sign is drawn `bool [14]`).

    Args:
        options: `magnitude` (index) and `num_magnitude_bins`.
        side: side of the view in pixels, for the translations.
    """
    bins, index = options["num_magnitude_bins"], options["magnitude"]
    part = index / (bins - 1)
    table = np.zeros(NUM_OPS)
    table[1:3] = 0.3 * part
    table[3:5] = 150.0 / 331.0 * side * part
    table[5] = 30.0 * part
    table[6:10] = 0.9 * part
    table[10] = 8 - round(index / ((bins - 1) / 4))
    table[11] = 255.0 * (1 - part)
    return table, SIGNED


# --- geometric operations -------------------------------------------------------------------------


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


def _shear(x: np.ndarray, m: np.ndarray, fill: int, vertical: bool) -> np.ndarray:
    # Inverse map of torchvision's shear about the top-left corner: x_in = x + m * y.
    along = x.shape[3] if vertical else x.shape[2]
    slope = _fix(m)[:, None]
    start = _fix(m * 0.5 + 0.5)[:, None]
    shift = (start + slope * np.arange(along)) >> 16
    return (_shift_columns if vertical else shift_rows)(x, shift, fill)


def _translate(x: np.ndarray, pixels: np.ndarray, fill: int, vertical: bool) -> np.ndarray:
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


def _affine_matrices(op: int, m: np.ndarray, height: int, width: int) -> np.ndarray:
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


# --- colour operations ----------------------------------------------------------------------------


def _column(values: np.ndarray, dtype: type) -> np.ndarray:
    return values.astype(dtype)[:, None, None, None]


def gray(x: np.ndarray) -> np.ndarray:
    """Return luma `uint8 [n, H, W]` in Pillow's 16-bit fixed point (ITU-R 601-2)."""
    y = x[:, 0].astype(np.uint32)
    y *= 19595
    y += x[:, 1] * np.uint32(38470)
    y += x[:, 2] * np.uint32(7471)
    y += 0x8000
    y >>= 16
    return y.astype(np.uint8)


def blend(degenerate: np.ndarray, x: np.ndarray, m: np.ndarray) -> np.ndarray:
    """Return degenerate + (1 + m) (x - degenerate), clipped and truncated to 8 bits."""
    out = x.astype(np.float32)
    out -= degenerate
    out *= _column(1.0 + m, np.float32)
    out += degenerate
    np.clip(out, 0, 255, out=out)
    return out.astype(np.uint8)


def _contrast(x: np.ndarray, m: np.ndarray) -> np.ndarray:
    pixels = x.shape[2] * x.shape[3]
    total = gray(x).sum((1, 2), dtype=np.int64)
    mean = (2 * total + pixels) // (2 * pixels)
    return blend(_column(mean, np.float32), x, m)


def smooth(x: np.ndarray) -> np.ndarray:
    """Filter with [[1,1,1],[1,5,1],[1,1,1]] / 13, rounded; the border is copied."""
    out = x.copy()
    if min(x.shape[2:]) < 3:
        return out
    wide = x.astype(np.uint16)
    rows = wide[:, :, :-2] + wide[:, :, 1:-1] + wide[:, :, 2:]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    total += 4 * wide[:, :, 1:-1, 1:-1]
    out[:, :, 1:-1, 1:-1] = (2 * total + 13) // 26
    return out


def _posterize(x: np.ndarray, bits: np.ndarray) -> np.ndarray:
    keep = 8 - np.clip(np.trunc(bits).astype(np.int64), 0, 8)
    return x & _column((0xFF << keep) & 0xFF, np.uint8)


def _solarize(x: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    first = np.clip(np.ceil(threshold), 0, 256).astype(np.int64)
    inverted = x >= _column(np.minimum(first, 255), np.uint8)
    inverted &= _column(first < 256, np.bool_)
    # 255 - v is v with all bits flipped.
    return x ^ np.negative(inverted.view(np.uint8))


def apply_tables(x: np.ndarray, tables: np.ndarray) -> np.ndarray:
    """Map each plane through its own table (`uint8 [n, c, 256]`).

    `bytes.translate` a plane measured 2.5 times as fast as `numpy.take`, which widens its index to
    eight bytes a pixel.
    """
    out = np.empty_like(x)
    for i in range(x.shape[0]):
        for k in range(x.shape[1]):
            mapped = x[i, k].tobytes().translate(tables[i, k].tobytes())
            out[i, k] = np.frombuffer(mapped, np.uint8).reshape(x.shape[2:])
    return out


def _autocontrast(x: np.ndarray) -> np.ndarray:
    low = x.min((2, 3)).astype(np.float64)[..., None]
    high = x.max((2, 3)).astype(np.float64)[..., None]
    span = np.where(high > low, high - low, 1.0)
    scale = 255.0 / span
    ramp = np.arange(256, dtype=np.float64)
    table = np.clip(np.trunc(ramp * scale + -low * scale), 0, 255)
    return apply_tables(x, np.where(high > low, table, ramp).astype(np.uint8))


def histogram(x: np.ndarray) -> np.ndarray:
    """Return counts `int64 [n, c, 256]` of each plane."""
    n, c, height, width = x.shape
    counts = np.empty((n, c, 256), np.int64)
    for i in range(n):
        for k in range(c):
            plane = np.ascontiguousarray(x[i, k])
            image = Image.frombuffer("L", (width, height), plane, "raw", "L", 0, 1)
            counts[i, k] = image.histogram()
    return counts


def _equalize(x: np.ndarray) -> np.ndarray:
    counts = histogram(x)
    pixels = x.shape[2] * x.shape[3]
    last = 255 - np.argmax(counts[..., ::-1] > 0, axis=-1)
    at_last = np.take_along_axis(counts, last[..., None], -1)[..., 0]
    step = (pixels - at_last) // 255
    before = np.cumsum(counts, -1) - counts
    safe = np.maximum(step, 1)[..., None]
    table = np.minimum((safe // 2 + before) // safe, 255)
    plain = ((counts > 0).sum(-1) <= 1) | (step == 0)
    table = np.where(plain[..., None], np.arange(256), table)
    return apply_tables(x, table.astype(np.uint8))


def apply_op(
    op: int, x: np.ndarray, m: np.ndarray, ratio: float, fill: int, interpolation: str
) -> np.ndarray:
    """Apply one operation to a group of images.

    Args:
        op: 0 to 13, an index of `OPS`.
        x: `uint8 [n, 3, H, W]`.
        m: `float64 [n]` signed magnitudes as stored.
        ratio: view size / stored view size, for the translations, which are in pixels.
        fill: value outside the image, 0 to 255.
        interpolation: "nearest" or "bilinear", of the geometric operations.
    """
    if op in (3, 4):
        m = m * ratio
    if 1 <= op <= 5 and interpolation == "bilinear" and op not in (3, 4):
        return affine_bilinear(x, _affine_matrices(op, m, *x.shape[2:]), fill)
    if op in (1, 2):
        return _shear(x, m, fill, vertical=op == 2)
    if op in (3, 4):
        return _translate(x, m, fill, vertical=op == 4)
    if op == 5:
        return rotate(x, m, fill)
    if op == 6:
        return blend(np.float32(0), x, m)
    if op == 7:
        return blend(gray(x)[:, None], x, m)
    if op == 8:
        return _contrast(x, m)
    if op == 9:
        return blend(smooth(x), x, m)
    if op == 10:
        return _posterize(x, m)
    if op == 11:
        return _solarize(x, m)
    if op == 12:
        return _autocontrast(x)
    return _equalize(x) if op == 13 else x


def apply_rand_augment(
    x: np.ndarray, ops: np.ndarray, mags: np.ndarray, ratio: float, options: dict
) -> None:
    """Apply every image's operations in turn, in place; images with the same operation together.

    Args:
        x: `uint8 [n, 3, H, W]`.
        ops: `uint8 [n, num_ops]`.
        mags: `float16 [n, num_ops]`.
        ratio: view size / stored view size.
        options: RandAugment's options.
    """
    fill, interpolation = options["fill"], options["interpolation"]
    for slot in range(ops.shape[1]):
        column = ops[:, slot]
        for op in np.unique(column).tolist():
            if not 0 < op < NUM_OPS:
                continue
            where = np.flatnonzero(column == op)
            m = mags[where, slot].astype(np.float64)
            x[where] = apply_op(op, x[where], m, ratio, fill, interpolation)
