"""The phases of a run: reading and local steps fused per unit, steps over all units between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from understudy.core.errors import ConfigError, DataError
from understudy.curate.engine.dropped import step_folder
from understudy.curate.engine.executors import Executor
from understudy.curate.engine.inputs import InputUnit, matches
from understudy.curate.engine.pipeline import Built
from understudy.curate.engine.report import FunnelRow
from understudy.curate.engine.stage import Count, Stage
from understudy.curate.engine.tasks import Task, run_tasks
from understudy.curate.engine.units import GlobalStep, RunTasks, Unit, text_lengths
from understudy.curate.engine.workplace import unit_folder

_WORK = "understudy.curate.engine.work"


def phases(built: Sequence[Built]) -> list[list[Built]]:
    """Return the steps in groups that run together: local ones fused, each global one alone.

    The first group is local and may be empty: it reads the inputs. A commit ends a group.
    """
    groups: list[list[Built]] = [[]]
    for one in built:
        if one.stage is None:
            groups.append([])
        elif isinstance(one.stage, GlobalStep):
            groups += [[one], []]
        else:
            groups[-1].append(one)
    return [groups[0], *[group for group in groups[1:] if group]]


@dataclass(kw_only=True)
class Run:
    """A run on its way through the phases.

    Attributes:
        inputs: units of input.
        work: the work folder.
        executor: runs the tasks.
        seed: of the run.
        strict: stop at the first record that cannot be read.
        exclusions: keep dropped pages.
        funnel: rows of the steps so far.
        units: pages of each unit of input after the last phase.
        dropped: (unit, folder of a task) where dropped pages may be.
        reads: records of the first phase's tasks.
        tasks: number of tasks so far.
        resumed: those that were complete before.
        phase: number of phases that are done.
    """

    inputs: list[InputUnit]
    work: Path
    executor: Executor
    seed: int = 0
    strict: bool = True
    exclusions: bool = False
    funnel: list[FunnelRow] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)
    dropped: list[tuple[str, Path]] = field(default_factory=list)
    reads: list[dict[str, Any]] = field(default_factory=list)
    tasks: int = 0
    resumed: int = 0
    phase: int = 0

    def tasks_done(self, tasks: Sequence[Task], label: str) -> list[dict[str, Any]]:
        """Run tasks and keep count of them."""
        self.tasks += len(tasks)
        self.resumed += sum(task.record() is not None for task in tasks)
        return run_tasks(tasks, on=self.executor, label=label)

    def _applies(self, one: Built, number: int) -> bool:
        return one.source is None or matches(self.inputs[number].source, one.source)

    def _local_args(self, steps: Sequence[Built]) -> dict[str, Any]:
        return {
            "steps": [one.step.to_plain() for one in steps],
            "described": [one.described for one in steps],
            "seed": self.seed,
            "exclusions": self.exclusions,
        }

    def read(self, steps: Sequence[Built]) -> None:
        """Read the inputs and run the first local steps."""
        tasks, chosen = [], []
        for number, unit in enumerate(self.inputs):
            mine = [one for one in steps if self._applies(one, number)]
            chosen.append(mine)
            args = {"unit": unit.to_plain(), "strict": self.strict, **self._local_args(mine)}
            out = self.work / "00-read" / unit_folder(unit.key)
            tasks.append(Task(key=unit.key, call=f"{_WORK}:read_unit", args=args, out=out))
        records = self.tasks_done(tasks, _label("read", steps))
        self.reads = records
        self.units = [Unit.of(t, r) for t, r in zip(tasks, records, strict=True)]
        self.dropped += [(task.out.name, task.out) for task in tasks]
        row = FunnelRow(step=0, name="read")
        for record in records:
            row.count.add(record["stats"]["read"])
        self.funnel.append(row)
        self._count(steps, chosen, records)

    def local(self, steps: Sequence[Built]) -> None:
        """Run local steps over the units that they are for."""
        tasks, chosen, numbers = [], [], []
        first = steps[0].step
        for number, unit in enumerate(self.units):
            mine = [one for one in steps if self._applies(one, number)]
            if not mine:
                continue
            args = {"folder": str(unit.folder), "hash": unit.hash, **self._local_args(mine)}
            folder = self.work / step_folder(first.number, first.name)
            out = folder / unit_folder(unit.key)
            tasks.append(Task(key=unit.key, call=f"{_WORK}:run_steps", args=args, out=out))
            chosen.append(mine)
            numbers.append(number)
        records = self.tasks_done(tasks, _label("", steps))
        for number, task, record in zip(numbers, tasks, records, strict=True):
            self.units[number] = Unit.of(task, record)
        self.dropped += [(task.out.name, task.out) for task in tasks]
        self._count(steps, chosen, records)

    def _count(
        self,
        steps: Sequence[Built],
        chosen: Sequence[Sequence[Built]],
        records: Sequence[dict[str, Any]],
    ) -> None:
        rows = {o.step.number: FunnelRow(step=o.step.number, name=o.step.name) for o in steps}
        for mine, record in zip(chosen, records, strict=True):
            for one, count in zip(mine, record["stats"]["counts"], strict=True):
                rows[one.step.number].count.add(count)
        self.funnel += rows.values()

    def over_all(self, one: Built) -> None:
        """Run a step that must see all units that it is for.

        Raises:
            DataError: it returned other units.
        """
        assert isinstance(one.stage, GlobalStep)
        numbers = [i for i in range(len(self.units)) if self._applies(one, i)]
        before = [self.units[i] for i in numbers]
        calls: list[list[dict[str, Any]]] = []

        def run(tasks: Sequence[Task], label: str) -> list[dict[str, Any]]:
            calls.append(self.tasks_done(tasks, f"{one.step.number} {label}"))
            return calls[-1]

        run_one: RunTasks = run
        work = self.work / step_folder(one.step.number, one.step.name)
        try:
            after = one.stage.run(before, work, run_one)
        except ConfigError as error:  # what failed in a task names its unit
            raise ConfigError(f"{one.step.where}: {error}") from error
        if [unit.key for unit in after] != [unit.key for unit in before]:
            raise DataError(f"{one.step.where}: returned other units than it was given.")
        row = FunnelRow(step=one.step.number, name=one.step.name, count=_counted(before, after))
        last = calls[-1] if calls else []
        told = [r["stats"]["count"] for r in last if "count" in r["stats"]]
        if len(told) == len(after):
            row.count = Count()
            for count in told:
                row.count.add(count)
        row.count.seconds = sum(float(r["seconds"]) for records in calls for r in records)
        self.funnel.append(row)
        for number, unit in zip(numbers, after, strict=True):
            self.units[number] = unit
        if self.exclusions:
            self._compare(one, before, after)

    def _compare(self, one: Built, before: Sequence[Unit], after: Sequence[Unit]) -> None:
        folder = self.work / f"{step_folder(one.step.number, one.step.name)}.dropped"
        tasks = [
            Task(
                key=old.key,
                call="understudy.curate.engine.dropped:dropped_between",
                args={
                    "before": str(old.folder),
                    "before_hash": old.hash,
                    "after": str(new.folder),
                    "after_hash": new.hash,
                    "number": one.step.number,
                    "name": one.step.name,
                },
                out=folder / unit_folder(old.key),
            )
            for old, new in zip(before, after, strict=True)
        ]
        self.tasks_done(tasks, f"{one.step.number} dropped pages")
        self.dropped += [(task.out.name, task.out) for task in tasks]

    def all(self, built: Sequence[Built]) -> Iterator[None]:
        """Run all phases; yield after each one."""
        groups = phases(built)
        self.read(groups[0])
        self.phase = 1
        yield
        for group in groups[1:]:
            if isinstance(group[0].stage, Stage):
                self.local(group)
            else:
                self.over_all(group[0])
            self.phase += 1
            yield


def _label(first: str, steps: Sequence[Built]) -> str:
    numbers = [one.step.number for one in steps]
    if not numbers:
        return first
    text = f"step {numbers[0]}" if len(numbers) == 1 else f"steps {numbers[0]}-{numbers[-1]}"
    return f"{first}, {text}" if first else text


def _counted(before: Sequence[Unit], after: Sequence[Unit]) -> Count:
    """Count pages and bytes of units, for a step that does not."""
    size_in, size_out = _size(before), _size(after)
    pages_in, pages_out = sum(u.rows for u in before), sum(u.rows for u in after)
    count = Count(pages_in=pages_in, pages_out=pages_out, bytes_in=size_in, bytes_out=size_out)
    if pages_out < pages_in:
        count.reasons["dropped"] = pages_in - pages_out
    return count


def _size(units: Sequence[Unit]) -> int:
    return sum(int(text_lengths(batch).sum()) for unit in units for batch in unit.batches())
