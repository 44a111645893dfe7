"""Samples of a time split, out of WebDataset shards into shards of their own.

References:
    arXiv 2310.16226, resharder scripts: tars, `meta.json`, `<shard>_stats.json`, `sizes.json`.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from understudy.core.errors import ConfigError, DataError
from understudy.core.files import atomic_path, read_json, write_json
from understudy.core.hashing import hash_data
from understudy.core.progress import Bar, bar
from understudy.data.importers.shards import Counted, Sample, find_shards
from understudy.data.periods_uids import (
    SIZES,
    UID,
    check_sizes,
    check_uid,
    pack_uids,
    read_period,
    read_uid_text,
)

META = "meta.json"
STATS = "_stats.json"
Place = tuple[int, int]
"""A sample: number of its shard, number in the shard."""


@dataclass(frozen=True, kw_only=True)
class Resharded:
    """What came out.

    Attributes:
        sizes: samples of each tar, by name, as in `sizes.json`.
        seen: samples read by this run.
        missing: ids of the split that no shard holds, in 16 + 16 hex digits; None if the run went
            on where another one stopped and has not seen them all.
    """

    sizes: dict[str, int]
    seen: int
    missing: int | None


def read_ids(path: str | Path) -> np.ndarray:
    """Read a time split (`.npy`, or a folder of months) or ids in text, one a line: dtype `u8,u8`.

    Raises:
        DataError: missing, unsorted, doubled or malformed.
    """
    path = Path(path)
    if path.is_dir() or path.suffix == ".npy":
        return read_period(path)
    return read_uid_text(path)


def reshard(
    source: str | Path,
    destination: str | Path,
    uids: np.ndarray,
    *,
    exclude: np.ndarray | None = None,
    rows_per_shard: int = 10_000,
) -> Resharded:
    """Write the samples with given ids to new tars; a killed run goes on where it stopped.

    A sample's id is `uid` of its `json`, else its key: 32 lower-case hexadecimal digits. Files keep
    their bytes and their order.

    Args:
        source: a tar or a folder of tars; a `sizes.json` beside them must agree with them.
        destination: a folder: tars, `sizes.json`, `meta.json` and statistics of each tar.
        uids: ids to keep, dtype `u8,u8` [N].
        exclude: ids to leave out although they are in `uids` (those that are evaluated on).
        rows_per_shard: samples a tar.

    Raises:
        DataError: a shard is damaged or disagrees with `sizes.json`, an id is malformed, nothing
            is kept, or the folder holds something else.
        ConfigError: `rows_per_shard` below 1.
    """
    if rows_per_shard < 1:
        raise ConfigError(f"rows_per_shard: expected at least 1, got {rows_per_shard}.")
    source, folder = Path(source), Path(destination)
    shards = find_shards(source)
    for home in sorted({shard.parent for shard in shards}):
        if (home / SIZES).exists():
            check_sizes(home)
    wanted = _packed(uids) - (_packed(exclude) if exclude is not None else set())
    listed = [[path.name, path.stat().st_size] for path in shards]
    identity = hash_data([listed, sorted(wanted), rows_per_shard])
    sizes, start = _begun(folder, identity)
    seen = 0
    found: set[tuple[int, int]] = set()
    waiting: list[Sample] = []
    with bar("shards", len(shards), "shards", done=start[0]) as shown:
        for place, sample in _samples(source, shards, start, shown):
            seen += 1
            key = _uid(sample)
            if key in wanted:
                found.add(key)
                waiting.append(sample)
            if len(waiting) == rows_per_shard:
                _write(folder, waiting, sizes, (place[0], place[1] + 1))
                waiting = []
    if waiting:
        _write(folder, waiting, sizes, (len(shards), 0))
    if not sizes:
        raise DataError(f"{source}: none of {seen} samples has one of the {len(wanted)} ids.")
    write_json(folder / SIZES, sizes)
    whole = start == (0, 0)
    missing = len(wanted - found) if whole else None
    facts = {"identity": identity, "source": str(source), "samples": sum(sizes.values())}
    write_json(folder / META, {**facts, "shards": len(sizes), "finished": True})
    return Resharded(sizes=sizes, seen=seen, missing=missing)


def _packed(halves: np.ndarray) -> set[tuple[int, int]]:
    if halves.dtype != UID:
        raise DataError(f"uids: expected dtype u8,u8, got {halves.dtype}.")
    return set(zip(halves["f0"].tolist(), halves["f1"].tolist(), strict=True))


def _uid(sample: Sample) -> tuple[int, int]:
    text = Path(sample.key).name
    if "json" in sample.parts:
        try:
            text = str(json.loads(sample.parts["json"]).get("uid", text))
        except (ValueError, AttributeError):
            raise DataError(f"{sample.place}: its json is not a JSON object.") from None
    halves = pack_uids([check_uid(text, sample.place)])[0]
    return int(halves["f0"]), int(halves["f1"])


def _begun(folder: Path, identity: str) -> tuple[dict[str, int], Place]:
    """Return the tars that an interrupted run has finished, and where it goes on."""
    if not folder.exists() or not any(folder.iterdir()):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / META, {"identity": identity, "finished": False})
        return {}, (0, 0)
    there = read_json(folder / META) if (folder / META).exists() else {}
    if there.get("identity") != identity:
        raise DataError(
            f"{folder}: holds other files, or a subset of another source, ids or size of shards; "
            "choose an empty or a new folder."
        )
    sizes: dict[str, int] = {}
    place: Place = (0, 0)
    while (stats := folder / _stats_name(len(sizes))).exists():
        facts = read_json(stats)
        sizes[facts["shard"]] = facts["successes"]
        place = (facts["next"][0], facts["next"][1])
    return sizes, place


def _samples(
    source: Path, shards: list[Path], start: Place, shown: Bar
) -> Iterator[tuple[Place, Sample]]:
    counted = Counted(source)
    for number in range(start[0], len(shards)):
        for index, sample in enumerate(counted.read(shards[number])):
            if (number, index) >= start:
                yield (number, index), sample
        shown.advance()


def _stats_name(number: int) -> str:
    return f"{number:08d}{STATS}"


def _write(folder: Path, samples: list[Sample], sizes: dict[str, int], following: Place) -> None:
    """Write a tar, then its statistics: a tar without them does not count."""
    number = len(sizes)
    name = f"{number:08d}.tar"
    with atomic_path(folder / name) as temporary:
        with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as archive:
            for sample in samples:
                for suffix, data in sample.parts.items():
                    info = tarfile.TarInfo(f"{sample.key}.{suffix}")
                    info.size, info.mode = len(data), 0o444
                    archive.addfile(info, io.BytesIO(data))
    sizes[name] = len(samples)
    write_json(
        folder / _stats_name(number),
        {
            "shard": name,
            "successes": len(samples),
            "bytes": (folder / name).stat().st_size,
            "next": list(following),
        },
    )
