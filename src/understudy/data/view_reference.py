"""Records of the released data sets: position-coded lists to and from our structured records.

Dataset reinforcement (arXiv 2303.08983) stores `[rrc, flip, ra, re]`: an entry for every configured
transform that has parameters, in the fixed order. With mixing the list starts with the partner's
index (or null), every per-image entry of a mixed record is a pair, and MixUp's weight and CutMix'
`[lam, x1, y1, x2, y2]` end it; x counts rows there. DataCompDR (arXiv 2311.17049) stores
`[[top, left, height, width], [[op, magnitude], [op, magnitude]]]`, the same coding for its two
transforms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from understudy.core.errors import ConfigError, DataError
from understudy.data.view_config import ViewConfig
from understudy.data.view_params import CUT, MIXED_UP, NO_OP, check_params, empty_params

PER_IMAGE = (
    "random_crop",
    "random_resized_crop",
    "random_horizontal_flip",
    "rand_augment",
    "random_erase",
)
DATACOMPDR = ViewConfig(
    size=224,
    transforms={"random_resized_crop": {"interpolation": "bicubic"}, "rand_augment": {}},
)
"""The view set of the released DataCompDR data (arXiv 2311.17049, sec. 3)."""


def _numbers(value: Any, counts: tuple[int, ...], where: str) -> list[float]:
    if not isinstance(value, list | tuple) or len(value) not in counts:
        wanted = " or ".join(map(str, counts))
        raise DataError(f"{where}: expected {wanted} numbers, got {value!r}.")
    try:
        return [float(v) for v in value]
    except (TypeError, ValueError):
        raise DataError(f"{where}: expected numbers, got {value!r}.") from None


def _put(record: np.ndarray, name: str, suffix: str, entry: Any, where: str) -> None:
    """Write one image's entry of one transform into a record."""
    where = f"{where}, {name}"
    if name == "random_horizontal_flip":
        if entry not in (None, True, False, 0, 1):
            raise DataError(f"{where}: expected true or false, got {entry!r}.")
        record[f"flip{suffix}"] = bool(entry)
    elif name == "random_crop":
        record[f"rc{suffix}"] = _numbers(entry, (2, 4), where)[:2]
    elif name == "random_resized_crop":
        box = _numbers(entry, (4,), where)
        if min(box) < 0 or max(box) > 32767 or min(box[2:]) < 1:
            raise DataError(f"{where}: not a crop box (top, left, height, width): {entry!r}.")
        record[f"rrc{suffix}"] = box
    elif name == "random_erase":
        box = [0, 0, 0, 0] if entry is None else _numbers(entry, (4,), where)
        # torchvision's fallback after ten misses returns a negative or empty box: nothing erased.
        record[f"re{suffix}"] = box if min(box) >= 0 else [0, 0, 0, 0]
    elif name == "rand_augment" and entry is not None:
        ops = record[f"ra_op{suffix}"]
        if not isinstance(entry, list | tuple) or len(entry) != len(ops):
            raise DataError(f"{where}: expected {len(ops)} [op, magnitude] pairs, got {entry!r}.")
        for j, pair in enumerate(entry):
            op, magnitude = _numbers(pair, (2,), where)
            if op != int(op) or not 0 <= op <= 13:
                raise DataError(f"{where}: operation {op:g} is not one of 0 to 13.")
            record[f"ra_op{suffix}"][j] = int(op)
            record[f"ra_mag{suffix}"][j] = magnitude


def _layout(config: ViewConfig, given: int, mixed: bool) -> list[str]:
    """Return the transforms whose entries a list of `given` elements holds, in order.

    The reference writes resize's size too when resize is configured, and may leave the entries of
    mixing out of records that are not mixed.
    """
    names = [n for n in PER_IMAGE if n in config.transforms]
    mixing = [n for n in ("mixup", "cutmix") if n in config.transforms]
    for head in ([], ["resize"] if "resize" in config.transforms else []):
        for tail in (mixing, [] if not mixed else mixing):
            if len(head) + len(names) + len(tail) == given:
                return [*head, *names, *tail]
    raise DataError(
        f"{given} entries in the list, expected one for each of {', '.join([*names, *mixing])}"
    )


def from_reference_list(
    entries: Sequence[Any], config: ViewConfig = DATACOMPDR, *, name: str = "record"
) -> np.ndarray:
    """Read one compressed list.

    Args:
        entries: the list as JSON or unpickled plain data gives it.
        config: the view set that wrote it; its configured transforms give the positions their
            meaning. The default reads DataCompDR's `paug.json` entries.
        name: what to call the record in errors.

    Returns:
        A structured array of shape `[1]` of the configuration's dtype.

    Raises:
        DataError: the list does not have the configuration's form; the message names the record
            and the transform.
    """
    if not isinstance(entries, list | tuple):
        raise DataError(f"{name}: expected a list of parameters, got {entries!r}.")
    params = empty_params(config, 1)
    record = params[0]
    rest, id2 = list(entries), None
    if config.mixes:
        if not rest or not (rest[0] is None or isinstance(rest[0], int | np.integer)):
            raise DataError(f"{name}: expected the partner's index or null first, got {entries!r}.")
        id2, rest = rest[0], rest[1:]
        record["id2"] = -1 if id2 is None else int(id2)
    try:
        layout = _layout(config, len(rest), id2 is not None)
    except DataError as error:
        raise DataError(f"{name}: {error}, got {entries!r}.") from None
    for transform, entry in zip(layout, rest, strict=True):
        if transform == "resize":
            continue
        if transform == "mixup":
            if entry is not None:
                record["mix"] |= MIXED_UP
                record["mixup_lam"] = _numbers([entry], (1,), f"{name}, mixup")[0]
        elif transform == "cutmix":
            if entry is not None:
                lam, *box = _numbers(entry, (5,), f"{name}, cutmix")
                record["mix"] |= CUT
                record["cutmix_lam"], record["box"] = lam, box
        elif id2 is None:
            _put(record, transform, "", entry, name)
        else:
            if not isinstance(entry, list | tuple) or len(entry) != 2:
                raise DataError(f"{name}, {transform}: expected a pair (mixed), got {entry!r}.")
            _put(record, transform, "", entry[0], name)
            _put(record, transform, "2", entry[1], name)
    if config.mixes and id2 is not None and not record["mix"]:
        raise DataError(f"{name}: it names partner {id2} but is neither mixed nor cut.")
    check_params(params)
    return params


def from_reference_lists(
    lists: Sequence[Sequence[Any]],
    config: ViewConfig = DATACOMPDR,
    *,
    name: str | Callable[[int], str] = "record",
) -> np.ndarray:
    """Read many compressed lists into a structured array `[N]`; see `from_reference_list`."""
    out = empty_params(config, len(lists))
    for i, entries in enumerate(lists):
        label = name(i) if callable(name) else f"{name} {i}"
        out[i] = from_reference_list(entries, config, name=label)[0]
    return out


def _shortest(value: np.floating) -> float:
    """Return the shortest decimal that rounds to this stored number (0.27, not 0.27001953125)."""
    return float(str(value))


def _get(record: np.void, name: str, suffix: str) -> Any:
    if name == "random_horizontal_flip":
        return bool(record[f"flip{suffix}"])
    if name == "random_crop":
        return record[f"rc{suffix}"].tolist()
    if name == "random_resized_crop":
        return record[f"rrc{suffix}"].tolist()
    if name == "random_erase":
        box = record[f"re{suffix}"].tolist()
        return box if box[2] > 0 else None
    ops, mags = record[f"ra_op{suffix}"], record[f"ra_mag{suffix}"]
    if NO_OP in ops:
        return None
    return [[int(o), _shortest(m)] for o, m in zip(ops, mags, strict=True)]


def to_reference_list(record: np.void | np.ndarray, config: ViewConfig = DATACOMPDR) -> list[Any]:
    """Write one record as the compressed list that `from_reference_list` reads.

    Args:
        record: one structured record (or an array of one).
        config: its view set.
    """
    if isinstance(record, np.ndarray) and record.ndim:
        if len(record) != 1:
            raise ConfigError(f"expected one record, got {len(record)}: call it for each.")
        record = record[0]
    names = [n for n in PER_IMAGE if n in config.transforms]
    if not config.mixes:
        return [_get(record, n, "") for n in names]
    mixed = bool(record["mix"])
    out: list[Any] = [int(record["id2"]) if mixed else None]
    for name in names:
        first = _get(record, name, "")
        out.append([first, _get(record, name, "2")] if mixed else first)
    if "mixup" in config.transforms:
        out.append(_shortest(record["mixup_lam"]) if record["mix"] & MIXED_UP else None)
    if "cutmix" in config.transforms:
        cut = [_shortest(record["cutmix_lam"]), *record["box"].tolist()]
        out.append(cut if record["mix"] & CUT else None)
    return out
