"""Exact deduplication: the first of pages with equal text stays.

Map: 128-bit hashes of a unit's texts, sorted. Shuffle: each reducer reads one range of hashes from
every unit. Reduce: equal hashes form a group, whose first document in (unit, row) order stands for
the others. Apply: pages without copies.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from understudy.core.errors import ConfigError
from understudy.core.files import read_json
from understudy.curate.dedup.copies import (
    apply_verdicts,
    listing,
    map_units,
    texts_of,
    weights_of,
    write_verdicts,
)
from understudy.curate.engine.tasks import Task
from understudy.curate.engine.units import GlobalStep, RunTasks, Unit, read_pages

TEXTS = ("raw", "spaces", "letters")
KEEPS = ("first", "none")
ROWS_PER_PART = 8_000_000
"""Documents whose hashes a reducer holds at a time: about 0.5 GB."""

_NOT_LETTERS = re.compile(r"[\W_]+")


def comparable(text: str, how: str) -> str:
    """Return what is compared of a text.

    Args:
        text: the text.
        how: `"raw"`: as it is; `"spaces"`: runs of white space are one space, none at the ends;
            `"letters"`: NFKC, case folded, runs of anything but letters and digits are one space.
    """
    if how == "raw":
        return text
    if how == "spaces":
        return " ".join(text.split())
    return _NOT_LETTERS.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


@dataclass(frozen=True, kw_only=True)
class ExactDedup(GlobalStep):
    """Drop pages whose text was seen before.

    Attributes:
        text: what is compared: `"raw"`, `"spaces"` or `"letters"`, see `comparable`.
        keep: `"first"` keeps the first copy in (unit, row) order, `"none"` drops all copies.
        matches: write a side table of each copy and what it is a copy of.
    """

    name = "exact-dedup"
    text: str = "raw"
    keep: str = "first"
    matches: bool = True

    def __post_init__(self) -> None:
        if self.text not in TEXTS:
            raise ConfigError(f"text: expected one of {', '.join(TEXTS)}, got '{self.text}'.")
        if self.keep not in KEEPS:
            raise ConfigError(f"keep: expected one of {', '.join(KEEPS)}, got '{self.keep}'.")

    def describe(self) -> dict[str, Any]:
        """Return the configuration."""
        return {"name": self.name, **asdict(self)}

    def run(self, units: Sequence[Unit], work: Path, run: RunTasks) -> list[Unit]:
        """Hash, group and drop."""
        call, args = f"{__name__}:hash_texts", {"text": self.text}
        maps = map_units(units, work / "hashes", run, call, args, f"{self.name} hashes")
        index = listing(work / "hashes.json", maps)
        parts = max(1, -(-sum(u.rows for u in units) // ROWS_PER_PART))
        tasks = [
            Task(
                key=f"{self.name} groups {part}",
                call=f"{__name__}:group_hashes",
                args={"index": index, "part": part, "parts": parts},
                out=work / "groups" / f"part-{part:05d}",
            )
            for part in range(parts)
        ]
        records = run(tasks, f"{self.name} groups")
        verdicts = [
            {"folder": str(task.out), "hash": record["hash"]}
            for task, record in zip(tasks, records, strict=True)
        ]
        return apply_verdicts(
            units, work, run, verdicts, name=self.name, keep=self.keep, matches=self.matches
        )


def hash_texts(out: Path, folder: str, hash: str, text: str) -> dict[str, Any]:
    """Write the sorted hashes of a unit's texts (a task)."""
    digests, weights = bytearray(), []
    for batch in read_pages(folder):
        weights.append(weights_of(batch))
        for page in texts_of(batch):
            data = comparable(page, text).encode("utf-8", "surrogatepass")
            digests += hashlib.blake2b(data, digest_size=16).digest()
    keys = np.frombuffer(bytes(digests), ">u8").astype(np.uint64).reshape(-1, 2)
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    np.save(out / "keys.npy", keys[order])
    np.save(out / "rows.npy", order.astype(np.uint32))
    np.save(out / "weights.npy", np.concatenate([*weights, np.zeros(0, np.int64)])[order])
    return {"rows": len(keys)}


def prefix_range(keys: np.ndarray, part: int, parts: int) -> slice:
    """Return where the keys of one of `parts` equal ranges lie among ascending uint64 keys."""
    bounds = [(part * (1 << 64)) // parts, ((part + 1) * (1 << 64)) // parts - 1]
    low = int(np.searchsorted(keys, np.uint64(bounds[0]), "left"))
    return slice(low, int(np.searchsorted(keys, np.uint64(bounds[1]), "right")))


def group_hashes(out: Path, index: Mapping[str, str], part: int, parts: int) -> dict[str, Any]:
    """Write the verdict on all documents whose hash lies in a range (a task)."""
    keys, rows, weights = [np.zeros((0, 2), np.uint64)], [np.zeros(0, np.int64)], []
    for entry in read_json(index["path"]):
        folder = Path(entry["folder"])
        found = np.load(folder / "keys.npy", mmap_mode="r")
        here = prefix_range(found[:, 0], part, parts)
        keys.append(np.array(found[here]))
        rows.append(np.load(folder / "rows.npy", mmap_mode="r")[here] + np.int64(entry["start"]))
        weights.append(np.array(np.load(folder / "weights.npy", mmap_mode="r")[here]))
    key, row = np.concatenate(keys), np.concatenate(rows)
    weight = np.concatenate([*weights, np.zeros(0, np.int64)])
    order = np.lexsort((row, key[:, 1], key[:, 0]))
    key, row, weight = key[order], row[order], weight[order]
    new = np.ones(len(row), bool)
    new[1:] = (key[1:] != key[:-1]).any(1)
    group = np.cumsum(new) - 1
    size = np.bincount(group, minlength=1)
    total = np.bincount(group, weights=weight, minlength=1).astype(np.int64)
    heads = row[np.flatnonzero(new)]
    copied = size[group] > 1 if len(row) else np.zeros(0, bool)
    group = group[copied]
    write_verdicts(out, row[copied], heads[group], total[group])
    return {"documents": len(row), "groups": int((size > 1).sum())}
