"""`understudy update continue RUN STORE --period NAME ...`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from understudy.cli.common import note, parse_config, table, take_flag
from understudy.core.errors import ConfigError

if TYPE_CHECKING:
    from understudy.data.periods_stream import StreamRule
    from understudy.update.continual_config import ContinualConfig
    from understudy.update.continual_next import Next

PERIODS = ("column", "kind", "grain", "merge", "unknown")


@dataclass(frozen=True, kw_only=True, slots=True)
class ContinueConfig:
    """Describe the next step of a stream.

    Attributes:
        period: name of the new period.
        method: oracle, restart, sequential, cumulative-all, cumulative-exp, cumulative-equal,
            patching or lwf.
        memory: capacity for old pairs, in mean sizes of the periods seen so far.
        capacity: the same in pairs; 0 takes `memory`.
        buffer: `streaming`: what was dropped cannot return; `archive` draws anew.
        replacement: draw pairs with replacement.
        out: folder of the new run; none takes one beside RUN.
        steps: iterations of one C; 0 takes those of the stream, or of RUN.
        batch_size: pairs a step; 0 takes RUN's.
        lr: peak learning rate; 0 takes RUN's.
        budget: factor of the iterations, for a step that is worth more.
        rewarm_steps: warm-up steps; 0 goes on at the peak.
        keep_optimizer: take over the optimiser's moments too, instead of weights alone.
        lwf_weight: of the divergence from the last checkpoint, method lwf.
        tau: temperature of that divergence.
        tasks: scores on every period seen so far: retrieval, zeroshot.
        column: with the times; these options describe the stream at its first step. Later only
            `merge` may change, by more periods at its end.
        kind: auto, date, version or number.
        grain: of dates: year, month or day.
        merge: periods in order, FIRST..LAST or NAME=FIRST..LAST each.
        unknown: rows without a possible time: drop or bucket.
        train: SQL filter of the rows to learn from.
        test: SQL filter of the rows to score on.
        held: SQL filter of the rows to choose on.
        test_share: without rows for the test, their share of each period.
        held_share: without rows to choose on, their share of each period.
    """

    period: str
    method: str = "cumulative-exp"
    memory: float = 2.0
    capacity: int = 0
    buffer: Literal["streaming", "archive"] = "streaming"
    replacement: bool = False
    out: Path | None = None
    steps: int = 0
    batch_size: int = 0
    lr: float = 0.0
    budget: float = 1.0
    rewarm_steps: int = 0
    keep_optimizer: bool = False
    lwf_weight: float = 1.0
    tau: float = 1.0
    tasks: tuple[Literal["retrieval", "zeroshot"], ...] = ("retrieval",)
    column: str = "time"
    kind: Literal["auto", "date", "version", "number"] = "auto"
    grain: Literal["year", "month", "day"] = "year"
    merge: tuple[str, ...] = ()
    unknown: Literal["drop", "bucket"] = "drop"
    train: str = ""
    test: str = ""
    held: str = ""
    test_share: float = 0.2
    held_share: float = 0.0


def continue_(argv: Sequence[str], prog: str) -> None:
    """Take the last checkpoint and a new period of the store, and train the next model.

    RUN is the folder of the last run, STORE has the rows and a column of times. The state of the
    stream (`stream.json`) lies beside the runs: which periods were learned, from which rows, and
    what the replay buffer still holds. `--dry-run` prints what it would cost; `--json` prints JSON.
    Stopped and started again it goes on.
    """
    from understudy.data.store import Store
    from understudy.evaluate.transfer_tasks import step_scores
    from understudy.update.continual_next import cost, next_step, take_step

    dry, rest = take_flag(argv, "--dry-run")
    as_json, rest = take_flag(rest, "--json")
    helps = bool({"-h", "--help"} & set(rest))
    if not helps and (len(rest) < 2 or rest[0].startswith("-") or rest[1].startswith("-")):
        raise ConfigError(
            f"{prog}: name the last run and the store first, for example "
            f"'{prog} runs/2021 pairs.store --period 2022'."
        )
    run, path = ("", "") if helps else (rest[0], rest[1])
    usage = f"{prog} RUN STORE [--dry-run] [--json]"
    config = parse_config(ContinueConfig, rest if helps else rest[2:], usage)
    store = Store.open(path)
    task = next_step(
        store,
        run,
        config.period,
        _method(config, Path(run)),
        rule=_rule(config, Path(run)),
        out=config.out,
        factor=config.budget,
    )
    _say(task)
    if dry:
        made = cost(task)
        print(json.dumps(made.to_dict(), indent=2) if as_json else made.text())
        return

    def score(model: Any, sets: Any) -> Any:
        text = task.config.student.text_column
        return step_scores(model, store, sets, tasks=config.tasks, text=text)

    record = take_step(task, score)
    if as_json:
        print(json.dumps({"path": str(task.out), **asdict(record)}, indent=2))
        return
    for name, scores in record.scores.items():
        print(table([(period, value) for period, value in scores.items()], ("period", name)))
    print(f"written: {task.out}")
    print(f"state:   {task.out.parent / 'stream.json'}")


def _say(task: Next) -> None:
    periods = task.stream.periods
    if periods is not None and periods.note():
        note(periods.note())
    late = {
        now.name: len(now.rows) - len(then.rows)
        for then in task.seen[:-1]
        for now in [task.stream[task.stream.index(then.name)]]
        if len(now.rows) > len(then.rows)
    }
    if late:
        shown = ", ".join(f"{name} ({count})" for name, count in late.items())
        note(f"rows that came after their period was learned are not used: {shown}.")


def _method(config: ContinueConfig, run: Path) -> ContinualConfig:
    """Return the method, with what RUN learned by where nothing else is asked for."""
    from understudy.update.continual_config import ContinualConfig
    from understudy.update.continual_next import student_of
    from understudy.update.continual_state import StreamState

    student = student_of(run)
    state = StreamState.read(run.parent)
    base = state.steps[-1].base_steps if state is not None and state.steps else 0
    train = replace(
        student.train,
        steps=config.steps or base or student.train.steps,
        batch_size=config.batch_size or student.train.batch_size,
        lr=config.lr or student.train.lr,
        warmup_steps=0
        if config.method not in ("oracle", "restart")
        else student.train.warmup_steps,
        checkpoint_every=student.train.checkpoint_every or 100,
        eval_every=0,
        best=None,
    )
    return ContinualConfig(
        method=config.method,
        memory=config.memory,
        capacity=config.capacity,
        buffer=config.buffer,
        replacement=config.replacement,
        student=replace(student, train=train),
        rewarm_steps=config.rewarm_steps,
        new_run=not config.keep_optimizer,
        lwf_weight=config.lwf_weight,
        tau=config.tau,
    )


def _rule(config: ContinueConfig, run: Path) -> StreamRule:
    """Return how rows become time steps: as the state says, changed by what options say."""
    from understudy.data.periods_stream import StreamRule
    from understudy.update.continual_state import StreamState

    state = StreamState.read(run.parent)
    rule = StreamRule() if state is None else state.rule
    usual = ContinueConfig(period="")
    names = (*PERIODS, "train", "test", "held", "test_share", "held_share")
    pairs = ((name, getattr(config, name), getattr(usual, name)) for name in names)
    given: dict[str, Any] = {name: value for name, value, known in pairs if value != known}
    times = {name: given.pop(name) for name in PERIODS if name in given}
    return replace(rule, periods=replace(rule.periods, **times), **given)
