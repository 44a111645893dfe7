"""Removal of repeated substrings: text that stands word for word elsewhere is cut.

Map: the words, or bytes, of a unit. Plan: memory of a shard, or a refusal. Find: one task a shard
looks for windows that occur before. Apply: pages without the repeated parts.

References:
    Lee et al., arXiv 2107.06499, section 4.1; DataComp-LM, arXiv 2406.11794, section 4.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from understudy.core.errors import ConfigError, DataError
from understudy.curate.dedup.copies import listing, map_units, unit_listing
from understudy.curate.dedup.memory import RESERVED_BYTES, budget_bytes, readable
from understudy.curate.engine.tasks import Task
from understudy.curate.engine.units import GlobalStep, RunTasks, Unit

OVER = ("words", "bytes")
METHODS = ("windows", "suffixes")
BYTES_PER_ELEMENT: Mapping[tuple[str, str], int] = {
    ("words", "windows"): 112,
    ("bytes", "windows"): 88,
    ("bytes", "suffixes"): 80,
}
"""Peak memory of a shard for each word or byte of text, measured and rounded up."""
_TASKS = "understudy.curate.dedup.substring_tasks"


@dataclass(frozen=True, kw_only=True)
class SubstringDedup(GlobalStep):
    """Cut parts of pages that occur before, in (unit, row) order.

    Repeats are found within a shard, so the result depends on the number of shards; it never
    depends on workers or executor, nor on the method.

    Attributes:
        over: `"words"` (Unicode words, white space left out) or `"bytes"` of UTF-8.
        length: words or bytes of the shortest repeat that is cut.
        method: `"windows"` sorts hashes of windows and checks equality; `"suffixes"` builds a
            suffix array with pydivsufsort, for bytes only.
        remove: `"copies"` keeps the first occurrence, `"all"` cuts every one.
        shards: units are dealt to so many independent searches.
        memory_bytes: for all searches at a time; 0 takes what is free.
        matches: write a side table of cuts and where they occur first.
    """

    name = "substring-dedup"
    over: str = "words"
    length: int = 50
    method: str = "windows"
    remove: str = "copies"
    shards: int = 1
    memory_bytes: int = 0
    matches: bool = True

    def __post_init__(self) -> None:
        if self.over not in OVER:
            raise ConfigError(f"over: expected {' or '.join(OVER)}, got '{self.over}'.")
        if self.method not in METHODS:
            raise ConfigError(f"method: expected {' or '.join(METHODS)}, got '{self.method}'.")
        if (self.over, self.method) not in BYTES_PER_ELEMENT:
            raise ConfigError("method: suffixes works over bytes; use windows for words.")
        if self.remove not in ("copies", "all"):
            raise ConfigError(f"remove: expected copies or all, got '{self.remove}'.")
        if self.length < 1 or self.shards < 1 or self.memory_bytes < 0:
            raise ConfigError(
                "length, shards: expected 1 or more, memory_bytes: 0 or more, got "
                f"{self.length}, {self.shards} and {self.memory_bytes}."
            )

    def describe(self) -> dict[str, Any]:
        """Return what decides the result: the configuration without memory and method."""
        left = {k: v for k, v in asdict(self).items() if k not in ("memory_bytes", "method")}
        return {"name": self.name, **left}

    def run(self, units: Sequence[Unit], work: Path, run: RunTasks) -> list[Unit]:
        """Split, plan, find and cut.

        Raises:
            DataError: a shard does not fit the memory.
        """
        call, label = f"{_TASKS}:split", f"{self.name} split"
        maps = map_units(units, work / "elements", run, call, {"over": self.over}, label)
        at_once = self._plan([unit["stats"]["elements"] for unit in maps])
        tasks = []
        for shard in range(self.shards):
            mine = [
                {"unit": number, "folder": unit["folder"], "hash": unit["hash"]}
                for number, unit in enumerate(maps)
                if number % self.shards == shard
            ]
            args = {
                "index": listing(work / f"find-{shard:05d}.json", mine),
                "over": self.over,
                "length": self.length,
                "method": self.method,
                "remove_all": self.remove == "all",
            }
            out = work / "find" / f"shard-{shard:05d}"
            key = f"{self.name} shard {shard}"
            tasks.append(Task(key=key, call=f"{_TASKS}:find", args=args, out=out))
        done: list[dict[str, Any]] = []
        for start in range(0, len(tasks), at_once):
            done += run(tasks[start : start + at_once], f"{self.name} find")
        return self._apply(units, list(zip(tasks, done, strict=True)), work, run)

    def _plan(self, elements: Sequence[int]) -> int:
        """Return how many shards are searched at a time; refuse if one does not fit."""
        cost = BYTES_PER_ELEMENT[self.over, self.method]
        sizes = [sum(elements[shard :: self.shards]) for shard in range(self.shards)]
        most = max(sizes)
        need, free = most * cost, budget_bytes(self.memory_bytes)
        if free is None:
            return 1
        if need > free:
            fits, total = free // cost, sum(elements)
            advice = f"at least {-(-total // fits)} shards" if fits else "more memory"
            if fits and max(elements) > fits:
                advice = f"smaller units (one has {max(elements):,}) or more memory"
            raise DataError(
                f"{self.name}: a shard of {most:,} {self.over} needs {need:,} bytes "
                f"({readable(need)}, {cost} for each of them), but {free:,} bytes "
                f"({readable(free)}) of memory are free, beside {readable(RESERVED_BYTES)} kept "
                f"for the program. At most {fits:,} {self.over} fit: use {advice}."
            )
        return max(1, min(self.shards, free // max(1, need)))

    def _apply(
        self,
        units: Sequence[Unit],
        found: Sequence[tuple[Task, Mapping[str, Any]]],
        work: Path,
        run: RunTasks,
    ) -> list[Unit]:
        index = unit_listing(work, units)
        tasks = []
        for number, unit in enumerate(units):
            task, record = found[number % self.shards]
            args = {
                "unit": number,
                "index": index,
                "found": {"folder": str(task.out), "hash": record["hash"]},
                "over": self.over,
                "matches": self.matches,
            }
            out = work / "pages" / f"unit-{number:05d}"
            call = f"{_TASKS}:cut"
            tasks.append(Task(key=f"{self.name}: {unit.key}", call=call, args=args, out=out))
        records = run(tasks, self.name) if tasks else []
        triples = zip(units, tasks, records, strict=True)
        return [Unit.of(task, record, unit.key) for unit, task, record in triples]
