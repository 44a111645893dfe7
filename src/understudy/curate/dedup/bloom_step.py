"""Bloom-filter deduplication of paragraphs and documents at once ("old-both" of DataComp-LM).

Map: the 13-gram hashes of a unit's paragraphs, in parallel. Plan: filters of the exact number of
n-grams, or a refusal. Pass: one task a shard compares its documents, in (unit, row) order, with all
that stayed before them. Apply: pages without removed paragraphs.

References:
    DataComp-LM, arXiv 2406.11794, appendix L; mlfoundations/dclm, dedup/bff (old-both mode).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from understudy.core.errors import ConfigError, DataError
from understudy.core.hashing import hash_data
from understudy.curate.dedup.bloom import max_items, num_bits
from understudy.curate.dedup.copies import listing, map_units
from understudy.curate.dedup.memory import RESERVED_BYTES, budget_bytes, readable
from understudy.curate.engine.tasks import Task
from understudy.curate.engine.units import GlobalStep, RunTasks, Unit

SHARD_BY = ("unit", "document")
_TASKS = "understudy.curate.dedup.bloom_tasks"


@dataclass(frozen=True, kw_only=True)
class BloomDedup(GlobalStep):
    """Drop paragraphs and documents whose n-grams were mostly seen before.

    The first copy wins, so the result depends on the order of units and, since each shard has a
    filter of its own, on the number of shards; it never depends on workers or executor.

    Attributes:
        max_ngram: tokens of an n-gram; white space is no token.
        min_ngram: shorter paragraphs are always kept; those below `max_ngram` are one n-gram.
        threshold: share of seen n-grams above which a paragraph, or document, is removed.
        eps: rate of false positives of one n-gram.
        shards: independent filters; more of them need less memory each and keep more text.
        shard_by: `"unit"` deals whole units to shards in turn, `"document"` deals by hash of id.
        expected_ngrams: n-grams a shard that the filter is made for; 0 takes the exact number that
            the first pass counts, with repetitions.
        memory_bytes: for all filters held at a time; 0 takes what is free.
        matches: write a side table of removed paragraphs.
    """

    name = "bloom-dedup"
    max_ngram: int = 13
    min_ngram: int = 13
    threshold: float = 0.8
    eps: float = 0.01
    shards: int = 1
    shard_by: str = "unit"
    expected_ngrams: int = 0
    memory_bytes: int = 0
    matches: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.min_ngram <= self.max_ngram:
            raise ConfigError(
                "min_ngram, max_ngram: expected 1 <= min_ngram <= max_ngram, got "
                f"{self.min_ngram} and {self.max_ngram}."
            )
        if not 0 < self.eps < 1:
            raise ConfigError(f"eps: expected a rate in (0, 1), got {self.eps}.")
        if not 0 <= self.threshold <= 1:
            raise ConfigError(f"threshold: expected a share in [0, 1], got {self.threshold}.")
        if self.shards < 1:
            raise ConfigError(f"shards: expected 1 or more, got {self.shards}.")
        if self.shard_by not in SHARD_BY:
            raise ConfigError(f"shard_by: expected {' or '.join(SHARD_BY)}, got '{self.shard_by}'.")
        if min(self.expected_ngrams, self.memory_bytes) < 0:
            raise ConfigError("expected_ngrams, memory_bytes: expected 0 or more.")

    def describe(self) -> dict[str, Any]:
        """Return what decides the result: the configuration without the memory."""
        return {
            "name": self.name,
            **{k: v for k, v in asdict(self).items() if k != "memory_bytes"},
        }

    def run(self, units: Sequence[Unit], work: Path, run: RunTasks) -> list[Unit]:
        """Hash, plan, pass and apply.

        Raises:
            DataError: a filter does not fit the memory, or more n-grams came than were expected.
        """
        args = {"min_ngram": self.min_ngram, "max_ngram": self.max_ngram}
        args["shards"] = self.shards if self.shard_by == "document" else 1
        call, label = f"{_TASKS}:hash_paragraphs", f"{self.name} n-grams"
        maps = map_units(units, work / "ngrams", run, call, args, label)
        ngrams = self._count(maps)
        at_once = self._plan(ngrams)
        tasks = self._passes(maps, ngrams, work)
        done: list[dict[str, Any]] = []
        for start in range(0, len(tasks), at_once):
            done += run(tasks[start : start + at_once], f"{self.name} pass")
        return self._apply(units, maps, list(zip(tasks, done, strict=True)), work, run)

    def _count(self, maps: Sequence[Mapping[str, Any]]) -> list[int]:
        """Return how many n-grams each shard's filter is made for."""
        ngrams = [0] * self.shards
        for number, unit in enumerate(maps):
            for part, count in enumerate(unit["stats"]["ngrams"]):
                shard = part if self.shard_by == "document" else number % self.shards
                ngrams[shard] += count
        most = max(ngrams)
        if not self.expected_ngrams:
            return ngrams
        if most > self.expected_ngrams:
            raise DataError(
                f"expected_ngrams: {self.expected_ngrams:,} a shard were given, but a shard has "
                f"{most:,}; the filter would remove text that is new. Give at least {most:,}, or 0 "
                "to take the exact number."
            )
        return [self.expected_ngrams] * self.shards

    def _plan(self, ngrams: Sequence[int]) -> int:
        """Return how many filters are held at a time; refuse if one does not fit."""
        most = max(ngrams)
        need = num_bits(most, self.eps) // 8 + 1
        free = budget_bytes(self.memory_bytes)
        if free is None:
            return 1
        if need > free:
            fits = max_items(max(0, free - 1) * 8, self.eps)
            total = sum(ngrams)
            enough = -(-total // fits) if fits > 0 else 0
            advice = f"at least {enough} shards" if enough else "a machine with more memory"
            raise DataError(
                f"{self.name}: the filter of {most:,} n-grams at eps {self.eps} needs {need:,} "
                f"bytes ({readable(need)}), but {free:,} bytes ({readable(free)}) of memory are "
                f"free{_reserve(self.memory_bytes)}. At most {fits:,} n-grams fit: use {advice}, "
                "a larger eps, or more memory. Nothing was made smaller."
            )
        return max(1, min(self.shards, free // need))

    def _passes(
        self, maps: Sequence[Mapping[str, Any]], ngrams: Sequence[int], work: Path
    ) -> list[Task]:
        tasks = []
        for shard in range(self.shards):
            by_unit = self.shard_by == "unit"
            mine = [
                {"unit": number, "folder": unit["folder"], "hash": unit["hash"]}
                for number, unit in enumerate(maps)
                if not by_unit or number % self.shards == shard
            ]
            index = listing(work / f"pass-{shard:05d}.json", mine)
            args = {
                "index": index,
                "part": -1 if by_unit else shard,
                "items": ngrams[shard],
                "eps": self.eps,
                "threshold": self.threshold,
            }
            state = work / "state" / hash_data(args)
            tasks.append(
                Task(
                    key=f"{self.name} shard {shard}",
                    call=f"{_TASKS}:pass_shard",
                    args={**args, "state": str(state)},
                    out=work / "pass" / f"shard-{shard:05d}",
                )
            )
        return tasks

    def _apply(
        self,
        units: Sequence[Unit],
        maps: Sequence[Mapping[str, Any]],
        passes: Sequence[tuple[Task, Mapping[str, Any]]],
        work: Path,
        run: RunTasks,
    ) -> list[Unit]:
        decided = [{"folder": str(task.out), "hash": done["hash"]} for task, done in passes]
        tasks = [
            Task(
                key=f"{self.name}: {unit.key}",
                call=f"{_TASKS}:drop_paragraphs",
                args={
                    "folder": str(unit.folder),
                    "hash": unit.hash,
                    "unit": number,
                    "ngrams": {"folder": maps[number]["folder"], "hash": maps[number]["hash"]},
                    "decided": decided
                    if self.shard_by == "document"
                    else [decided[number % self.shards]],
                    "by_document": self.shard_by == "document",
                    "name": self.name,
                    "threshold": self.threshold,
                    "matches": self.matches,
                },
                out=work / "pages" / f"unit-{number:05d}",
            )
            for number, unit in enumerate(units)
        ]
        records = run(tasks, self.name) if tasks else []
        triples = zip(units, tasks, records, strict=True)
        return [Unit.of(task, record, unit.key) for unit, task, record in triples]


def _reserve(given: int) -> str:
    return "" if given else f" (beside {readable(RESERVED_BYTES)} kept for the program)"
