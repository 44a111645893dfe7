"""Pairs of files, by id: one file with both vectors, or one file for each space.

    pairs = pairs_of_file("features.npz")                       # ids, old, new, side, labels
    pairs = pairs_of_files("old.parquet", "new.parquet")        # one space a file

Nothing is ever paired by position: files of other ids, or of the same ids in another order, are
refused with the first that differs. What is in files is read into memory.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from understudy.core.errors import DataError
from understudy.core.hashing import hash_bytes
from understudy.data.spaces import Space
from understudy.update.pairs import ArrayVectors, Pairs, whole_numbers
from understudy.update.vector_files import VectorFile, open_vectors

FIELDS = ("old", "new", "side")


def _undeclared(name: str, path: Path, values: np.ndarray) -> Space:
    """Return the space of vectors of which nobody says where they come from: known by content."""
    content = hash_bytes(np.ascontiguousarray(values).tobytes())
    return Space(
        model=f"{path.stem}:{name}", fingerprint=f"undeclared-{content}", dim=values.shape[1]
    )


def is_undeclared(space: Space) -> bool:
    """Say whether a space is that of a file that named none."""
    return space.fingerprint.startswith("undeclared-")


def _read(file: VectorFile) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray | None]:
    if not file.has_ids:
        raise DataError(
            f"{file.path}: no ids; vectors are never paired by position, so give a .npz or "
            ".parquet file with ids."
        )
    batches = list(file.batches())
    if not batches:
        raise DataError(f"{file.path}: no rows.")
    ids = np.concatenate([np.asarray(b.ids, str).astype(object) for b in batches])
    unique, first = np.unique(ids.astype(str), return_index=True)
    if len(unique) < len(ids):
        odd = np.setdiff1d(np.arange(len(ids)), first)[0]
        raise DataError(f"{file.path}: id '{ids[odd]}' is there twice, again in row {odd}.")
    fields = {n: np.concatenate([b.fields[n] for b in batches]) for n in file.widths}
    labels = [b.labels for b in batches if b.labels is not None]
    joined = np.concatenate(labels) if len(labels) == len(batches) else None
    return ids, fields, None if joined is None else whole_numbers(joined, str(file.path))


def _in_memory(
    ids: np.ndarray,
    fields: dict[str, np.ndarray],
    labels: np.ndarray | None,
    spaces: dict[str, Space],
    columns: dict[str, str],
    source: str,
) -> Pairs:
    return Pairs(
        old=ArrayVectors(fields["old"]),
        new=ArrayVectors(fields["new"]),
        side=ArrayVectors(fields["side"]) if "side" in fields else None,
        labels=labels,
        count=len(ids),
        names=lambda items: [str(i) for i in ids[items]],
        spaces=spaces,
        columns=columns,
        source=source,
    )


def pairs_of_file(path: str | Path) -> Pairs:
    """Return the pairs of one file with fields `old`, `new` and, if any, `side`.

    Raises:
        DataError: fields or ids are missing, or an id is there twice.
    """
    file = open_vectors(path)
    missing = [name for name in ("old", "new") if name not in file.widths]
    if missing:
        raise DataError(
            f"{path}: no field '{missing[0]}' (it has {', '.join(file.widths)}); a file of pairs "
            "has 'old', 'new' and perhaps 'side', or give one file for each."
        )
    ids, fields, labels = _read(file)
    kept = {name: values for name, values in fields.items() if name in FIELDS}
    spaces = {n: file.spaces.get(n) or _undeclared(n, file.path, v) for n, v in kept.items()}
    columns = {name: f"{file.path.name}:{name}" for name in kept}
    return _in_memory(ids, kept, labels, spaces, columns, str(path))


def pairs_of_files(
    old: str | Path, new: str | Path, side: str | Path = "", *, join: bool = False
) -> Pairs:
    """Return the pairs of a file for each space, whose ids must be the same in the same order.

    Args:
        old: file of old vectors.
        new: file of new vectors, perhaps with labels.
        side: file of side information; empty for none.
        join: pair by id whatever the order, and leave out items that not all files have.

    Raises:
        DataError: other ids, another order or another length; the first difference is named.
    """
    paths = {"old": old, "new": new, **({"side": side} if side else {})}
    files = {name: open_vectors(path) for name, path in paths.items()}
    read = {name: _read(file) for name, file in files.items()}
    ids = read["old"][0]
    places = {name: np.arange(len(ids)) for name in files}
    if join:
        shared = ids
        for found, _, _ in read.values():
            shared = shared[np.isin(shared.astype(str), found.astype(str))]
        if not len(shared):
            raise DataError(f"{old}, {new}: no id is in all files.")
        for name, (found, _, _) in read.items():
            order = np.argsort(found.astype(str))
            at = np.searchsorted(found.astype(str)[order], shared.astype(str))
            places[name] = order[at]
        ids = shared
    else:
        for name, (found, _, _) in read.items():
            _check_same_ids(ids, found, files["old"].path, files[name].path)
    fields = {n: read[n][1][f.only_field()][places[n]] for n, f in files.items()}
    spaces = {
        n: f.spaces.get(f.only_field()) or _undeclared(n, f.path, fields[n])
        for n, f in files.items()
    }
    labels = None
    for name, (_, _, found) in read.items():
        labels = found[places[name]] if labels is None and found is not None else labels
    columns = {name: file.path.name for name, file in files.items()}
    return _in_memory(ids, fields, labels, spaces, columns, f"{old}, {new}")


def _check_same_ids(first: np.ndarray, second: np.ndarray, here: Path, there: Path) -> None:
    hint = "pair by id instead (join), or write both files in one order."
    shared = min(len(first), len(second))
    differ = np.flatnonzero(first[:shared] != second[:shared])
    if len(differ):
        i = int(differ[0])
        raise DataError(
            f"{here} and {there}: row {i} is item '{first[i]}' in one and '{second[i]}' in the "
            f"other; vectors are never paired by position: {hint}"
        )
    if len(first) != len(second):
        longer, path = (first, here) if len(first) > shared else (second, there)
        raise DataError(
            f"{here} and {there}: {len(first):,} and {len(second):,} rows; item '{longer[shared]}' "
            f"is in {path} only: {hint}"
        )
