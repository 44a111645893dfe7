"""Flip, erase, MixUp and CutMix on planar batches.

Random erasing: arXiv 1708.04896; MixUp: arXiv 1710.09412; CutMix: arXiv 1905.04899.
"""

from __future__ import annotations

import numpy as np

from understudy.data.view_params import CUT, MIXED_UP


def flip(x: np.ndarray, flags: np.ndarray) -> None:
    """Mirror the flagged images (`bool`-like `[n]`) left to right, in place."""
    where = np.flatnonzero(flags)
    if len(where):
        x[where] = x[where][..., ::-1]


def erase(x: np.ndarray, boxes: np.ndarray, value: float) -> None:
    """Fill boxes `int [n, 4]` (top, left, height, width; zeros for none), in place.

    Args:
        x: `uint8 [n, 3, H, W]`.
        boxes: in view pixels.
        value: 0 (black) to 1, as before normalisation.
    """
    level = np.uint8(round(value * 255))
    for i in np.flatnonzero(boxes[:, 2] > 0):
        top, left, height, width = boxes[i].tolist()
        x[i, :, top : top + height, left : left + width] = level


def mix_views(x: np.ndarray, partners: np.ndarray, params: np.ndarray, rounded: bool) -> np.ndarray:
    """Return the mixed batch: MixUp first, then CutMix, as drawn; both can hit.

    Args:
        x: `uint8 [B, 3, S, S]`, the first images' views.
        partners: `uint8 [M, 3, S, S]`, the views of the M partners of the mixed records, in order.
        params: the records.
        rounded: return 8-bit levels instead of float32.

    Returns:
        `float32 [B, 3, S, S]`, levels 0 to 255 (`uint8` when `rounded`): lam * x1 + (1 - lam) * x2.
        lam is a float16 and 1 - lam is exact in float32, so lam = 1 is the identity and lam = 0 the
        partner.
    """
    out = x.astype(np.float32)
    for j, i in enumerate(np.flatnonzero(params["mix"])):
        second = partners[j].astype(np.float32)
        record = params[i]
        if record["mix"] & MIXED_UP:
            lam = np.float32(record["mixup_lam"])
            out[i] = lam * out[i] + (np.float32(1) - lam) * second
        if record["mix"] & CUT:
            top, left, bottom, right = record["box"].tolist()
            out[i, :, top:bottom, left:right] = second[:, top:bottom, left:right]
    return np.rint(out).astype(np.uint8) if rounded else out


def label_weights(params: np.ndarray, size: int) -> np.ndarray:
    """Return the first image's share `float64 [B]` of each view, for mixing labels.

    MixUp's share is lam; CutMix replaces the box's share of the area.
    """
    if "mix" not in (params.dtype.names or ()):
        return np.ones(len(params))
    mixed_up = (params["mix"] & MIXED_UP) > 0
    share = np.where(mixed_up, params["mixup_lam"].astype(np.float64), 1.0)
    box = params["box"].astype(np.float64)
    cut = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) / (size * size)
    return np.where((params["mix"] & CUT) > 0, share * (1 - cut), share)
