"""MinHash deduplication: near copies, found by banded signatures, leave one page.

Map: signatures and band keys of a unit, each band sorted by key. Shuffle: a reducer takes some
bands, and a range of keys, of all units. Reduce: documents that share a key are candidates.
Optionally their Jaccard similarity is computed exactly. Union-find turns pairs into clusters, and
one document of each stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from understudy.core.errors import ConfigError
from understudy.curate.dedup.copies import apply_verdicts, listing, map_units
from understudy.curate.engine.tasks import Task
from understudy.curate.engine.units import GlobalStep, RunTasks, Unit

PRESETS: Mapping[str, tuple[int, int]] = {"93x15": (93, 15), "14x8": (14, 8)}
"""Bands and rows: 93x15 finds pairs above Jaccard 0.8 (it emulates 450x20), 14x8 those above about
0.72, with 12 times fewer hash functions."""
KEEPS = ("first", "longest", "none")
REDUCERS = 8
"""Tasks that the bands are dealt to."""
ROWS_PER_PART = 8_000_000
"""Documents of a band that a reducer holds at a time: about 0.5 GB."""


@dataclass(frozen=True, kw_only=True)
class MinHashDedup(GlobalStep):
    """Drop near copies of pages.

    Attributes:
        preset: bands and rows by name, `"93x15"` or `"14x8"`; not used where `bands` is given.
        bands: groups of hash functions; 0 takes the preset's.
        rows: hash functions in a group; 0 takes the preset's.
        ngram: words in a shingle.
        letters: shingles ignore case and words without a letter or digit.
        keep: `"first"` in (unit, row) order, `"longest"` text (the first of equals), or `"none"`.
        verify: keep only candidate pairs whose exact Jaccard similarity reaches `jaccard`.
        jaccard: threshold of `verify`.
        seed: of the hash functions.
        matches: write a side table of each copy and what it is a copy of.
    """

    name = "minhash-dedup"
    preset: str = "93x15"
    bands: int = 0
    rows: int = 0
    ngram: int = 5
    letters: bool = True
    keep: str = "first"
    verify: bool = False
    jaccard: float = 0.8
    seed: int = 0
    matches: bool = True

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ConfigError(f"preset: expected {' or '.join(PRESETS)}, got '{self.preset}'.")
        if (self.bands > 0) != (self.rows > 0) or min(self.bands, self.rows) < 0:
            raise ConfigError(
                "bands, rows: expected both above 0, or both 0 for the preset's, got "
                f"{self.bands} and {self.rows}."
            )
        if self.ngram < 1:
            raise ConfigError(f"ngram: expected 1 or more words, got {self.ngram}.")
        if self.keep not in KEEPS:
            raise ConfigError(f"keep: expected one of {', '.join(KEEPS)}, got '{self.keep}'.")
        if not 0 < self.jaccard <= 1:
            raise ConfigError(f"jaccard: expected a number in (0, 1], got {self.jaccard}.")

    @property
    def shape(self) -> tuple[int, int]:
        """Bands and rows."""
        return (self.bands, self.rows) if self.bands else PRESETS[self.preset]

    def describe(self) -> dict[str, Any]:
        """Return the configuration."""
        bands, rows = self.shape
        return {"name": self.name, **asdict(self), "bands": bands, "rows": rows}

    def run(self, units: Sequence[Unit], work: Path, run: RunTasks) -> list[Unit]:
        """Sign, match, cluster and drop."""
        bands, rows = self.shape
        args = {"ngram": self.ngram, "letters": self.letters, "bands": bands, "rows": rows}
        args |= {"seed": self.seed, "sets": self.verify}
        call = "understudy.curate.dedup.minhash_tasks:sign"
        maps = map_units(units, work / "signatures", run, call, args, f"{self.name} signatures")
        index = listing(work / "signatures.json", maps)
        pairs = _listed(work / "pairs.json", self._match(index, units, work, run))
        if self.verify:
            pairs = _listed(work / "verified.json", self._verify(index, pairs, work, run))
        task = Task(
            key=f"{self.name} clusters",
            call="understudy.curate.dedup.minhash_tasks:cluster",
            args={"index": index, "pairs": pairs, "longest": self.keep == "longest"},
            out=work / "clusters",
        )
        verdict = {"folder": str(task.out), "hash": run([task], task.key)[0]["hash"]}
        return apply_verdicts(
            units, work, run, [verdict], name=self.name, keep=self.keep, matches=self.matches
        )

    def _match(
        self, index: dict[str, str], units: Sequence[Unit], work: Path, run: RunTasks
    ) -> list[tuple[Task, dict[str, Any]]]:
        bands = self.shape[0]
        reducers = min(REDUCERS, bands)
        parts = max(1, -(-sum(u.rows for u in units) // ROWS_PER_PART))
        tasks = [
            Task(
                key=f"{self.name} pairs {group}.{part}",
                call="understudy.curate.dedup.minhash_tasks:match",
                args={
                    "index": index,
                    "bands": list(range(group, bands, reducers)),
                    "part": part,
                    "parts": parts,
                    "all_pairs": self.verify,
                },
                out=work / "pairs" / f"part-{group:03d}-{part:05d}",
            )
            for group in range(reducers)
            for part in range(parts)
        ]
        return list(zip(tasks, run(tasks, f"{self.name} pairs"), strict=True))

    def _verify(
        self, index: dict[str, str], pairs: dict[str, str], work: Path, run: RunTasks
    ) -> list[tuple[Task, dict[str, Any]]]:
        tasks = [
            Task(
                key=f"{self.name} verify {part}",
                call="understudy.curate.dedup.minhash_tasks:verify",
                args={
                    "index": index,
                    "pairs": pairs,
                    "part": part,
                    "parts": REDUCERS,
                    "jaccard": self.jaccard,
                },
                out=work / "verified" / f"part-{part:03d}",
            )
            for part in range(REDUCERS)
        ]
        return list(zip(tasks, run(tasks, f"{self.name} verify"), strict=True))


def _listed(path: Path, done: Sequence[tuple[Task, Mapping[str, Any]]]) -> dict[str, str]:
    entries = [{"folder": str(task.out), "hash": record["hash"]} for task, record in done]
    return listing(path, entries)
