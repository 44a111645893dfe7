"""The record of one view: a fixed-stride structure that packs to bytes without conversion.

Every number is rounded to its stored precision *before* the view is made, so that replay from the
record gives the view that the teacher saw (arXiv 2303.08983 stores parameters for the same reason).
"""

from __future__ import annotations

import numpy as np

from understudy.core.errors import CardError, DataError
from understudy.data.view_config import ViewConfig

NO_OP = 255
"""`ra_op` of a view on which RandAugment was skipped."""
MIXED_UP, CUT = 1, 2
"""Bits of `mix`."""
MAX_SIDE = 32767
"""Largest image side that a stored crop box can address, in pixels."""


def _image_fields(config: ViewConfig, suffix: str) -> list[tuple]:
    fields: list[tuple] = []
    if "random_crop" in config.transforms:
        fields.append((f"rc{suffix}", "<i2", (2,)))
    if "random_resized_crop" in config.transforms:
        fields.append((f"rrc{suffix}", "<i2", (4,)))
    if "random_horizontal_flip" in config.transforms:
        fields.append((f"flip{suffix}", "u1"))
    if "rand_augment" in config.transforms:
        n = config.transforms["rand_augment"]["num_ops"]
        fields += [(f"ra_op{suffix}", "u1", (n,)), (f"ra_mag{suffix}", "<f2", (n,))]
    if "random_erase" in config.transforms:
        fields.append((f"re{suffix}", "<i2", (4,)))
    return fields


def params_dtype(config: ViewConfig) -> np.dtype:
    """Return the record's structured dtype.

    Fields, present when their transform is configured: `rc` (top, left in the padded image), `rrc`
    (top, left, height, width in source pixels), `flip`, `ra_op` and `ra_mag` (`NO_OP` when
    skipped), `re` (top, left, height, width in view pixels; zeros for none). Mixing adds the same
    fields of the partner with suffix `2`, then `mix` (bits `MIXED_UP`, `CUT`), `id2` (partner's row
    number, -1 for none), `mixup_lam`, `cutmix_lam` and `box` (top, left, bottom, right).
    """
    fields = _image_fields(config, "")
    if config.mixes:
        fields += _image_fields(config, "2")
        fields += [
            ("mix", "u1"),
            ("id2", "<i8"),
            ("mixup_lam", "<f2"),
            ("cutmix_lam", "<f2"),
            ("box", "<i2", (4,)),
        ]
    if not fields:
        # A deterministic view still needs a non-empty column.
        fields.append(("none", "u1"))
    return np.dtype(fields)


def empty_params(config: ViewConfig, count: int) -> np.ndarray:
    """Return `count` records of undisturbed, unmixed views (crop boxes are zero)."""
    params = np.zeros(count, params_dtype(config))
    names = params.dtype.names or ()
    for name in ("ra_op", "ra_op2"):
        if name in names:
            params[name] = NO_OP
    if "id2" in names:
        params["id2"] = -1
    return params


def pack(params: np.ndarray) -> np.ndarray:
    """Return the records as `uint8 [B, stride]`."""
    params = np.ascontiguousarray(params)
    return params.view(np.uint8).reshape(len(params), params.dtype.itemsize)


def unpack(data: np.ndarray, config: ViewConfig) -> np.ndarray:
    """Return the structured records in `data` (`uint8 [B, stride]` or `void [B]`).

    Raises:
        CardError: the stride is not the configuration's: another order, version or set of
            transforms wrote them.
        DataError: a record holds a value that no transform draws.
    """
    dtype = params_dtype(config)
    data = np.ascontiguousarray(data)
    stride = data.shape[1] * data.itemsize if data.ndim == 2 else data.dtype.itemsize
    if data.ndim not in (1, 2) or stride != dtype.itemsize:
        raise CardError(
            f"view records of {stride} bytes, the configuration's have {dtype.itemsize}: they were "
            "written with other transforms, another order or another version; use the view "
            "configuration of their card."
        )
    params = data.reshape(-1).view(dtype)
    check_params(params)
    return params


def check_params(params: np.ndarray) -> None:
    """Raise `DataError` naming the first record that holds an impossible value."""
    names = params.dtype.names or ()
    bad = np.zeros(len(params), bool)
    for suffix in ("", "2"):
        if f"ra_op{suffix}" in names:
            ops = params[f"ra_op{suffix}"]
            bad |= ((ops > 13) & (ops != NO_OP)).any(-1)
            bad |= ~np.isfinite(params[f"ra_mag{suffix}"]).all(-1)
        if f"flip{suffix}" in names:
            bad |= params[f"flip{suffix}"] > 1
        for box in ("rc", "rrc", "re"):
            if f"{box}{suffix}" in names:
                bad |= (params[f"{box}{suffix}"] < 0).any(-1)
    if "mix" in names:
        bad |= params["mix"] > (MIXED_UP | CUT)
        bad |= (params["mix"] > 0) & (params["id2"] < 0)
        for lam in ("mixup_lam", "cutmix_lam"):
            bad |= ~((params[lam] >= 0) & (params[lam] <= 1))
    if bad.any():
        i = int(np.argmax(bad))
        raise DataError(
            f"view record {i} holds values that no transform draws ({params[i]}): the column is "
            "damaged or was written with another configuration."
        )


def rescale_params(params: np.ndarray, ratio: float) -> np.ndarray:
    """Scale what is stored in view pixels by `ratio` = new size / stored size.

    Erased boxes and CutMix boxes keep their edges on the nearest pixel. Crop boxes are in source
    pixels and stay. RandAugment's translations are scaled where they are applied, in full
    precision, and `random_crop`'s offsets in the geometry, beside their padding.
    """
    params = params.copy()
    names = params.dtype.names or ()
    for name in ("re", "re2"):
        if name in names:
            box = params[name].astype(np.float64)
            ends = np.rint((box[:, :2] + box[:, 2:]) * ratio)
            params[name][:, :2] = np.rint(box[:, :2] * ratio)
            params[name][:, 2:] = ends - params[name][:, :2]
    if "box" in names:
        params["box"] = np.rint(params["box"].astype(np.float64) * ratio)
    return params
