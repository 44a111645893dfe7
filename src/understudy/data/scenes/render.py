"""Put handwritten digits on canvases: many scenes at once, occlusion in drawing order.

Each object is a scan that is enlarged, rotated, slanted, thickened or thinned and drawn with its
own ink. Objects of one side length are drawn together over all scenes, so the cost is a few array
operations per size, not one per object.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from understudy.data.scenes.scans import enlarge, load

_TEXTURE = 32  # pixels to which scans are enlarged before they are sampled
VISIBLE = 0.5  # ink above this belongs to an object's mask


@dataclass(frozen=True, kw_only=True)
class Objects:
    """What stands where in N scenes of up to M objects; object j is drawn before object j + 1.

    Attributes:
        counts: int [N], objects of each scene.
        scans: int [N, M], row of the scan.
        top: int [N, M], first row of the object's square.
        left: int [N, M], first column of it.
        sides: int [N, M], its side in pixels.
        colours: float [N, M, 3], RGB of the ink, 0 to 255.
        angles: float [N, M], rotation in radians.
        slants: float [N, M], horizontal shear.
        weights: float [N, M], exponent of the ink: below 1 is a thicker pen.
    """

    counts: np.ndarray
    scans: np.ndarray
    top: np.ndarray
    left: np.ndarray
    sides: np.ndarray
    colours: np.ndarray
    angles: np.ndarray
    slants: np.ndarray
    weights: np.ndarray


_textures: np.ndarray | None = None


def textures() -> np.ndarray:
    """Return all scans enlarged to 32x32, float32 [1797, 32, 32]."""
    global _textures
    if _textures is None:
        _textures = enlarge(load().images, _TEXTURE).astype(np.float32)
    return _textures


def ink(
    scans: np.ndarray, side: int, angles: np.ndarray, slants: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return the ink of objects of one side length, float32 `[n, side, side]` in [0, 1].

    Each pixel reads the enlarged scan at the inversely rotated and slanted place, bilinearly;
    places outside are empty.
    """
    n, size = len(scans), _TEXTURE
    axis = ((np.arange(side) + 0.5) / side * 2 - 1).astype(np.float32)
    y, x = axis[:, None], axis[None, :]
    cos = np.cos(angles).astype(np.float32)[:, None, None]
    sin = np.sin(angles).astype(np.float32)[:, None, None]
    slant = slants.astype(np.float32)[:, None, None]
    v = -sin * x + cos * y
    u = cos * x + sin * y + slant * v
    rows = (v + 1) * (size / 2) - 0.5
    columns = (u + 1) * (size / 2) - 0.5
    r0, c0 = np.floor(rows), np.floor(columns)
    fr, fc = rows - r0, columns - c0
    padded = np.pad(textures()[scans], ((0, 0), (1, 1), (1, 1)))
    flat = padded.reshape(-1)
    width = size + 2
    r = np.clip(r0.astype(np.int32) + 1, 0, size)
    c = np.clip(c0.astype(np.int32) + 1, 0, size)
    outside = (rows < -1) | (rows > size) | (columns < -1) | (columns > size)
    base = (np.arange(n, dtype=np.int32) * width * width)[:, None, None] + r * width + c
    value = (flat[base] * (1 - fc) + flat[base + 1] * fc) * (1 - fr)
    value += (flat[base + width] * (1 - fc) + flat[base + width + 1] * fc) * fr
    value[outside] = 0
    return np.clip(value, 0, 1) ** weights.astype(np.float32)[:, None, None]


def draw(canvas: np.ndarray, objects: Objects) -> np.ndarray:
    """Draw the objects on `canvas` float32 `[N, S, S, 3]` in place and return who is visible where.

    Returns:
        uint8 `[N, S, S]`: 0 where the background is seen, j + 1 where object j is.
    """
    count, size = canvas.shape[:2]
    owner = np.zeros((count, size, size), np.uint8)
    for j in range(objects.scans.shape[1]):
        present = np.flatnonzero(objects.counts > j)
        sides = objects.sides[present, j]
        for side in np.unique(sides):
            rows = present[sides == side]
            alpha = ink(
                objects.scans[rows, j],
                int(side),
                objects.angles[rows, j],
                objects.slants[rows, j],
                objects.weights[rows, j],
            )
            step = np.arange(side)
            where = (
                rows[:, None, None],
                objects.top[rows, j][:, None, None] + step[None, :, None],
                objects.left[rows, j][:, None, None] + step[None, None, :],
            )
            under, paint = canvas[where], objects.colours[rows, j][:, None, None, :]
            canvas[where] = under + alpha[..., None] * (paint - under)
            seen = owner[where]
            seen[alpha > VISIBLE] = j + 1
            owner[where] = seen
    return owner


def boxes(owner: np.ndarray, num_objects: int) -> np.ndarray:
    """Return the tight boxes (top, left, height, width) of visible pixels, int16 `[N, M, 4]`.

    An object of which nothing is visible has the box (0, 0, 0, 0).
    """
    count, size = owner.shape[:2]
    out = np.zeros((count, num_objects, 4), np.int16)
    for j in range(num_objects):
        mine = owner == j + 1
        for axis, where in ((2, 0), (1, 1)):
            line = mine.any(axis=axis)
            first = np.argmax(line, axis=1)
            last = size - 1 - np.argmax(line[:, ::-1], axis=1)
            some = line.any(axis=1)
            out[:, j, where] = np.where(some, first, 0)
            out[:, j, where + 2] = np.where(some, last - first + 1, 0)
    return out


def to_uint8(canvas: np.ndarray) -> np.ndarray:
    """Round a float canvas to uint8."""
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
