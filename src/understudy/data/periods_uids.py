"""128-bit sample ids: hexadecimal text, two 64-bit halves, time splits as sorted `.npy` files.

A time split is what the released benchmarks use to say which samples a period has: one structured
array of dtype `u8,u8`, sorted and without doubles, in `<year>.npy` or `<year>/<yyyymm>.npy`
(arXiv 2310.16226, dataset scripts). The halves keep the order of the text.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from understudy.core.errors import DataError
from understudy.core.files import atomic_path, read_json

UID = np.dtype("u8,u8")
DIGITS = 32
SIZES = "sizes.json"
_HEX = frozenset("0123456789abcdef")
_SHOWN = 3


def check_uid(text: str, where: str) -> str:
    """Return `text` if it is 32 lower-case hexadecimal digits.

    Raises:
        DataError: it is something else; `where` and what is wrong are named.
    """
    if len(text) == DIGITS and set(text) <= _HEX:
        return text
    if len(text) != DIGITS:
        wrong = f"{len(text)} characters"
    elif set(text.lower()) <= _HEX:
        wrong = "upper-case letters"
    else:
        wrong = f"the character {min(set(text) - _HEX)!r}"
    raise DataError(f"{where}: {text!r} has {wrong}; expected {DIGITS} hex digits in lower case.")


def pack_uids(uids: Sequence[str], where: str = "uids", first: int = 1) -> np.ndarray:
    """Turn hexadecimal ids into their two halves.

    Args:
        uids: 32 lower-case hex digits each.
        where: a file's name, for messages.
        first: number of the first line.

    Returns:
        dtype `u8,u8` [N], in the given order; comparing halves is comparing texts.

    Raises:
        DataError: one is malformed, or is there twice; its line is named.
    """
    out = np.empty(len(uids), UID)
    seen: dict[str, int] = {}
    for i, uid in enumerate(uids):
        line = first + i
        check_uid(uid, f"{where}, line {line}")
        if uid in seen:
            raise DataError(
                f"{where}, line {line}: uid {uid} is on line {seen[uid]} already; expected "
                f"{DIGITS} hex digits, different on every line."
            )
        seen[uid] = line
        out[i] = int(uid[:16], 16), int(uid[16:], 16)
    return out


def unpack_uids(halves: np.ndarray) -> list[str]:
    """Return the hexadecimal texts of dtype `u8,u8` [N]."""
    high, low = halves["f0"].tolist(), halves["f1"].tolist()
    return [f"{a:016x}{b:016x}" for a, b in zip(high, low, strict=True)]


def read_uid_text(path: str | Path) -> np.ndarray:
    """Read ids, one a line; empty lines are left out.

    Raises:
        DataError: no such file, or a line that is malformed or doubled.
    """
    try:
        lines = Path(path).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as lines of ids ({error}).") from None
    # Lines keep their numbers in messages: the whole file is packed, less what is empty at its end.
    while lines and not lines[-1].strip():
        lines.pop()
    return pack_uids([line.strip() for line in lines], str(path))


def sort_uids(halves: np.ndarray) -> np.ndarray:
    """Return ids in ascending order."""
    return halves[np.lexsort((halves["f1"], halves["f0"]))]


def write_split(path: str | Path, halves: np.ndarray) -> Path:
    """Write a time split: sorted, atomically.

    Raises:
        DataError: not dtype `u8,u8`, or an id that is there twice.
    """
    if halves.dtype != UID or halves.ndim != 1:
        raise DataError(f"{path}: expected dtype u8,u8 [N], got {halves.dtype} {halves.shape}.")
    ordered = sort_uids(halves)
    _check_ascending(ordered, path)
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.save(file, ordered, allow_pickle=False)
    return Path(path)


def read_split(path: str | Path) -> np.ndarray:
    """Read a time split, dtype `u8,u8` [N].

    Raises:
        DataError: missing, of another dtype, not sorted, or with doubles.
    """
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not an array file ({error}).") from None
    if found.dtype != UID or found.ndim != 1:
        raise DataError(
            f"{path}: expected a structured array of dtype u8,u8 [N], got {found.dtype} "
            f"{list(found.shape)}."
        )
    _check_ascending(found, path)
    return found


def _check_ascending(halves: np.ndarray, path: str | Path) -> None:
    high, low = halves["f0"], halves["f1"]
    less = (high[1:] < high[:-1]) | ((high[1:] == high[:-1]) & (low[1:] < low[:-1]))
    same = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
    for wrong, what in ((same, "is there twice"), (less, "is smaller than the one before it")):
        if wrong.any():
            place = int(np.argmax(wrong)) + 1
            uid = unpack_uids(halves[place : place + 1])[0]
            raise DataError(
                f"{path}: entry {place}, uid {uid}, {what}; a time split is sorted and has every "
                "id once."
            )


def read_period(path: str | Path) -> np.ndarray:
    """Read the ids of a period: one `.npy` file, or a folder of them (months of a year), joined.

    Raises:
        DataError: nothing there, or an id in two of the files.
    """
    path = Path(path)
    if not path.is_dir():
        return read_split(path)
    files = sorted(path.glob("*.npy"))
    if not files:
        raise DataError(f"{path}: no time split (.npy) in this folder.")
    joined = sort_uids(np.concatenate([read_split(file) for file in files]))
    _check_ascending(joined, path)
    return joined


def members(halves: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Say which of `halves` [N] are in `of` [M]: bool [N]; neither needs to be sorted."""
    if not len(halves) or not len(of):
        return np.zeros(len(halves), bool)
    joined = np.concatenate([halves, of])
    _, number = np.unique(joined, return_inverse=True)
    return np.isin(number[: len(halves)], number[len(halves) :])


def check_disjoint(train: np.ndarray, held: np.ndarray, where: str = "training split") -> None:
    """Refuse evaluation ids among training ids.

    Args:
        train: ids of dtype `u8,u8`, or texts.
        held: ids that are evaluated on, of the same kind.
        where: the training split, for the message.

    Raises:
        DataError: how many there are, and the first ones.
    """
    if train.dtype == UID:
        inside = train[members(train, held)]
        names: Iterable[str] = unpack_uids(sort_uids(inside)[:_SHOWN])
    else:
        inside = np.intersect1d(train, held)
        names = [str(name) for name in inside[:_SHOWN]]
    if len(inside):
        raise DataError(
            f"{where}: {len(inside)} evaluation ids are inside it, first {', '.join(names)}; leave "
            "them out of training: a model must not be scored on what it learned from."
        )


def count_samples(path: str | Path) -> int:
    """Return how many samples a WebDataset tar has: different member names before the first dot.

    Raises:
        DataError: not a tar file.
    """
    keys = set()
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.isfile():
                    folder, _, name = member.name.rpartition("/")
                    keys.add((folder, name.split(".", 1)[0]))
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{path}: not a tar file ({error}).") from None
    return len(keys)


def read_sizes(folder: str | Path) -> Mapping[str, int]:
    """Read `sizes.json` ({tar: samples}).

    Raises:
        DataError: missing, or something else.
    """
    path = Path(folder) / SIZES
    said = read_json(path)
    if not isinstance(said, dict) or not all(isinstance(n, int) for n in said.values()):
        raise DataError(f"{path}: expected a mapping of tar names to whole numbers.")
    return said


def wrong_size(path: Path, said: int, count: int) -> str:
    """Return what to say of a shard with another number of samples than `sizes.json` has."""
    return (
        f"{path}: {SIZES} says {said} samples, the tar has {count}; write {SIZES} anew, or fetch "
        "the shard again."
    )


def check_sizes(folder: str | Path) -> Mapping[str, int]:
    """Compare `sizes.json` ({tar: samples}) with the tars beside it; return it.

    Raises:
        DataError: a shard that only one of both has, or with another count; both are named.
    """
    folder = Path(folder)
    said = read_sizes(folder)
    for name in sorted({*said, *(path.name for path in folder.glob("*.tar"))}):
        here = folder / name
        if name not in said:
            raise DataError(
                f"{here}: {count_samples(here)} samples, but {SIZES} does not list this shard."
            )
        if not here.exists():
            raise DataError(f"{folder / SIZES}: {name} has {said[name]} samples, but is missing.")
        count = count_samples(here)
        if count != said[name]:
            raise DataError(wrong_size(here, said[name], count))
    return said
