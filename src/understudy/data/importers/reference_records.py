"""One record of the reference, `(index, [{params, prob: (values, ids)} x NS])`, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from understudy.core.errors import DataError
from understudy.data.importers.safe_arrays import load_torch
from understudy.data.importers.safe_pickle import as_array
from understudy.data.importers.streams import RESUME
from understudy.data.view_config import ViewConfig
from understudy.data.view_params import empty_params
from understudy.data.view_reference import PER_IMAGE, from_reference_list

OPERATIONS = (
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


@dataclass(frozen=True)
class RecordForm:
    """What a part's records hold.

    Attributes:
        views: the transforms.
        count: reinforcements a record.
        k: kept classes.
        classes: number of classes; 0 when it is not known.
        rows: row number of each index, -1 for indices without a row.
    """

    views: ViewConfig
    count: int
    k: int
    classes: int
    rows: np.ndarray


def open_record(data: bytes, name: str) -> tuple[int, list[Any]]:
    """Read a record without running anything in it.

    Raises:
        DataError: it is not a pair of an index and a list.
    """
    found = load_torch(data, name, limit=1 << 28)
    good = isinstance(found, tuple | list) and len(found) == 2 and isinstance(found[1], list)
    if not good or not isinstance(found[0], int):
        raise DataError(f"{name}: expected (index, list of reinforcements).")
    return found[0], found[1]


def parse_record(
    data: bytes, index: int, key: str, form: RecordForm, name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return one record's views `[NS]`, probabilities `[NS, K]` and class ids `[NS, K]`.

    Classes are ordered by falling probability. Partners become row numbers.

    Raises:
        DataError: another index, another number of reinforcements or classes, values that are not
            probabilities, or a partner that has no row.
    """
    stored, items = open_record(data, name)
    if stored != index:
        raise DataError(
            f"{name}: it holds index {stored}, its name says {index} (key '{key}'): the files were "
            "renamed or mixed up."
        )
    if len(items) != form.count:
        raise DataError(
            f"{name} (key '{key}'): {len(items)} reinforcements, the others have {form.count}: "
            f"it is not whole; {RESUME}."
        )
    params = empty_params(form.views, len(items))
    values = np.zeros((len(items), form.k), np.float32)
    ids = np.zeros((len(items), form.k), np.int64)
    for j, item in enumerate(items):
        where = f"{name} (key '{key}'), reinforcement {j}"
        if not isinstance(item, Mapping) or not {"params", "prob"} <= set(item):
            raise DataError(f"{where}: expected 'params' and 'prob'.")
        listed = item["params"]
        if isinstance(listed, Mapping):
            listed = params_list(listed, form.views, where)
        params[j] = from_reference_list(_plain(listed), form.views, name=where)[0]
        values[j], ids[j] = _top(item["prob"], form, where)
    if "id2" in (params.dtype.names or ()):
        _partners(params, form, f"{name} (key '{key}')")
    return params, values, ids


def _partners(params: np.ndarray, form: RecordForm, where: str) -> None:
    """Replace partners' indices by their row numbers."""
    mixed = np.flatnonzero(params["mix"])
    for j in mixed:
        index = int(params["id2"][j])
        row = int(form.rows[index]) if 0 <= index < len(form.rows) else -1
        if row < 0:
            raise DataError(
                f"{where}, reinforcement {j}: its partner (id2) is index {index}, which has no row "
                "in the store: give keys for the whole data set and import all its images."
            )
        params["id2"][j] = row
    params["id2"][params["mix"] == 0] = -1


def _top(prob: Any, form: RecordForm, where: str) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(prob, tuple | list) or len(prob) != 2:
        raise DataError(f"{where}: prob is not a pair of probabilities and class ids.")
    values = as_array(prob[0], f"{where}, prob").astype(np.float64).reshape(-1)
    ids = as_array(prob[1], f"{where}, prob").astype(np.int64).reshape(-1)
    if len(values) != form.k or len(ids) != form.k:
        raise DataError(f"{where}: {len(values)} classes kept, the others keep {form.k}.")
    if not np.isfinite(values).all() or values.min() < 0 or values.sum() > 1.01:
        raise DataError(f"{where}: {values.tolist()} are not probabilities.")
    limit = form.classes or 65_536
    if ids.min() < 0 or ids.max() >= limit or len(np.unique(ids)) < len(ids):
        raise DataError(
            f"{where}: class ids {ids.tolist()} are not different numbers below {limit}."
        )
    order = np.argsort(-values, kind="stable")
    return values[order].astype(np.float32), ids[order]


def _plain(value: Any) -> Any:
    """Return nested tuples as lists and arrays as numbers."""
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return as_array(value, "params").tolist()


def params_list(params: Mapping[str, Any], config: ViewConfig, where: str) -> list[Any]:
    """Return parameters that were not compressed, `{transform: value or pair}`, as the list.

    Raises:
        DataError: a transform is missing.
    """
    mixes = [n for n in ("mixup", "cutmix") if n in config.transforms]
    mixed = any(params.get(n) is not None for n in mixes)
    out: list[Any] = [params.get("id2") if mixed else None] if mixes else []
    for name in PER_IMAGE:
        if name not in config.transforms:
            continue
        if name not in params:
            raise DataError(f"{where}: no parameters of '{name}'.")
        pair = params[name]
        entries = [_numbered(name, p) for p in (pair if isinstance(pair, tuple | list) else [pair])]
        out.append(entries[:2] if mixed else (entries[0] if entries else None))
    for name in mixes:
        value = params.get(name)
        if name == "cutmix" and value is not None:
            value = [value[0], *value[1]]
        out.append(value)
    return out


def _numbered(name: str, value: Any) -> Any:
    """Return RandAugment's operations by number."""
    if name != "rand_augment" or value is None:
        return value
    return [
        [OPERATIONS.index(op) if op in OPERATIONS else op, magnitude] for op, magnitude in value
    ]
