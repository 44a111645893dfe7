"""Go on with a stream: the last checkpoint and a new period, the state kept beside the runs."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.core.config import from_dict
from understudy.core.errors import ConfigError
from understudy.core.files import read_json, write_json
from understudy.data.periods_stream import Stream, StreamRule, TimeStep
from understudy.data.sampler_replay import ReplayMix
from understudy.evaluate.plans import Plan, training_flop
from understudy.models import io
from understudy.models.runs import weights_path
from understudy.train.checkpoint import same_run
from understudy.train.student_config import StudentConfig
from understudy.update.continual import Score, StepRecord, first_mean, folder_name, mix_of
from understudy.update.continual_advance import STEP, advance, step_facts
from understudy.update.continual_config import ContinualConfig
from understudy.update.continual_methods import budget, compute
from understudy.update.continual_start import fresh_model, trained_model
from understudy.update.continual_state import FILE, StreamState, assumed, learned

if TYPE_CHECKING:
    from understudy.data.store import Store


@dataclass(frozen=True, kw_only=True)
class Next:
    """A step that is about to be taken.

    Attributes:
        store: holds the rows.
        stream: of the store.
        run: the last checkpoint.
        out: folder of the new one.
        config: the method.
        state: before the step.
        seen: the steps before it, and itself last.
        mix: what it learns from.
        iterations: its budget.
    """

    store: Store
    stream: Stream
    run: Path
    out: Path
    config: ContinualConfig
    state: StreamState
    seen: tuple[TimeStep, ...]
    mix: ReplayMix
    iterations: int

    @property
    def number(self) -> int:
        """Of the step, from 1."""
        return len(self.seen)

    @property
    def last(self) -> Path | None:
        """The run that it begins from; None for methods of fresh weights."""
        return None if self.config.how.start == "fresh" else self.run

    @property
    def sets(self) -> dict[str, Any]:
        """Evaluation rows of the steps seen so far, where there are any."""
        return {step.name: step.eval_rows for step in self.seen if len(step.eval_rows)}


def student_of(run: Path) -> StudentConfig:
    """Return what a run learned by, from its record; defaults of a plain student without one."""
    for path in (run / "config.json", run / "trained" / "config.json"):
        if path.is_file():
            found = read_json(path).get("context", {}).get("student")
            if found is not None:
                return from_dict(StudentConfig, found, str(path))
    return StudentConfig(captions="real", lam=0.0)


def next_step(
    store: Store,
    run: str | Path,
    period: str,
    config: ContinualConfig,
    *,
    rule: StreamRule | None = None,
    out: str | Path | None = None,
    factor: float = 1.0,
) -> Next:
    """Work out what a step would learn from; trains and writes nothing.

    Args:
        store: with the new period's rows.
        run: the last checkpoint: the folder of a run.
        period: name of the new period.
        config: the method; `student.train.steps` are the iterations of one C.
        rule: how rows become time steps; None takes the state's, or the defaults.
        out: folder of the new run; None takes one beside `run`.
        factor: of the budget, for steps that are worth more.

    Raises:
        ConfigError: no such period, one that is not after the last one, `run` not the newest of its
            stream, other periods than before, or a method that must know the end.
        DataError: `run` has no finished weights, rows of old periods are others now, or too few
            rows in the new one.
    """
    run = Path(run)
    weights_path(run, "final" if run.is_dir() else "auto")  # it is there, and finished
    if config.method == "cumulative-all-star":
        raise ConfigError(
            "method cumulative-all-star: its budgets depend on how many steps will follow; take "
            "cumulative-all and --budget 1.5, 2 or 3 for the last ones."
        )
    if not factor > 0:
        raise ConfigError(f"budget: expected more than 0 times C, got {factor}.")
    known = StreamState.read(run.parent)
    if known is not None and rule is not None and not rule.extends(known.rule):
        raise ConfigError(
            f"{run.parent / FILE}: this stream divides rows in another way; to go on with it leave "
            "the options of periods out, or add periods at the end of merge."
        )
    rule = rule or (known.rule if known is not None else StreamRule())
    stream = Stream.of(store, rule)
    number = stream.index(period)
    if known is not None:
        state = replace(known.up_to(run, run.parent), store=store.path, rule=rule)
    else:
        state = assumed(stream, store.path, rule, run, number)
    folder = (
        Path(out) if out is not None else run.parent / folder_name(len(state.steps) + 1, period)
    )
    _check_order(stream, state, known, period, folder, run)
    seen = (*state.seen(stream), stream[number])
    kept = None if config.buffer == "archive" else state.kept()
    mix = mix_of(config, seen, kept)
    factor = factor * budget(config.method, len(seen), len(seen))
    Stream(steps=(seen[-1],)).check_steps(config.student.train.batch_size, evaluated=False)
    if config.how.patch and not all(len(step.held_rows) for step in seen):
        raise ConfigError(
            "patching: every step needs held rows to choose alpha on; give the store a split "
            "'val', or set held_share."
        )
    return Next(
        store=store,
        stream=stream,
        run=run,
        out=folder,
        config=config,
        state=state,
        seen=seen,
        mix=mix,
        iterations=max(round(factor * config.student.train.steps), 1),
    )


def _check_order(
    stream: Stream,
    state: StreamState,
    known: StreamState | None,
    period: str,
    out: Path,
    run: Path,
) -> None:
    names = [step.name for step in state.steps]
    if names and stream.index(period) <= max(stream.index(name) for name in names):
        raise ConfigError(
            f"--period {period}: the stream has learned {', '.join(names)} already; give a later "
            f"period ({', '.join(stream.names[stream.index(names[-1]) + 1 :]) or 'none is left'})."
        )
    if known is None or out.parent.resolve() != run.parent.resolve():
        return
    later = known.steps[len(names) :]
    if later and (out.parent / later[0].run).resolve() != out.resolve():
        raise ConfigError(
            f"{run}: the stream went on from it with '{later[0].name}' ({later[0].run}); give its "
            f"newest run, {known.steps[-1].run}, or --out in another folder to branch off."
        )


def cost(task: Next) -> Plan:
    """Count what a step would take; trains and writes nothing."""
    from understudy.models.count import count_towers, parameters

    made = Plan(recipe=f"update continue, {task.config.method}", scale=task.seen[-1].name)
    model = trained_model(task.run, task.config.student)
    towers = count_towers(model.config)
    macs = towers["image"].macs + towers["text"].macs
    batch = task.config.student.train.batch_size
    seen = task.iterations * batch
    old = sum(task.mix.counts.values())
    made.add("model", model.config.name, formula=f"{parameters(model):,} parameters")
    made.add("begins with", "fresh weights" if task.last is None else str(task.run))
    made.add("rows of the period", len(task.mix.current), "rows")
    shares = ", ".join(f"{name} {count:,}" for name, count in task.mix.counts.items())
    made.add("rows replayed", old, "rows", formula=shares)
    plan = task.config.plan()
    capacity = plan.samples([len(step.rows) for step in task.seen])
    if capacity is not None:
        made.add("capacity for old rows", capacity, "rows", formula=f"buffer {plan.buffer}")
    made.add("iterations", task.iterations, "", formula=f"of {batch:,} pairs")
    made.add("passes", seen / max(len(task.mix.rows), 1), "", formula="over new and replayed rows")
    extra = compute(task.config.method, task.number, task.number) / budget(
        task.config.method, task.number, task.number
    )
    made.add("forward pass of a pair", macs, "MAC")
    made.add(
        "training",
        extra * training_flop(macs, seen),
        "FLOP",
        formula=f"6 x MAC x pairs x {extra:g}",
    )
    made.add("warm-up", task.config.rewarm_steps if task.last is not None else "as configured")
    reset = "the optimiser begins anew" if task.config.new_run else "the optimiser is taken over"
    made.notes.append(f"{reset}; weights and logit scale are taken over.")
    made.notes.append(f"it would go to {task.out}; nothing has been written.")
    return made


def take_step(task: Next, score: Score) -> StepRecord:
    """Take a step, and write down that it was taken; killed and called again it goes on.

    Raises:
        ConfigError: `out` holds another step.
    """
    now, out = task.seen[-1], task.out
    facts = step_facts(task.config, task.number, now.name, task.iterations, task.mix, task.last)
    if (out / STEP).exists():
        found = read_json(out / STEP)
        same_run(found["facts"], facts, out)
        record = StepRecord(**found["record"])
    else:
        record = _train(task, score)
        write_json(out / STEP, {"record": asdict(record), "facts": facts})
    kept = _kept(task)
    base = task.config.student.train.steps
    entry = learned(now, os.path.relpath(out, out.parent), task.config.method, kept, base)
    state = replace(task.state, steps=(*_moved(task), entry))
    state.write(out.parent)
    return record


def _moved(task: Next) -> Sequence[Any]:
    """Return the entries of the past with their runs as seen from the new state's folder."""
    here, there = task.run.parent, task.out.parent
    if here.resolve() == there.resolve():
        return task.state.steps
    return [
        replace(step, run=os.path.relpath((here / step.run).resolve(), there.resolve()))
        for step in task.state.steps
    ]


def _kept(task: Next) -> dict[str, int]:
    """Return what the buffer holds after the step."""
    if task.config.buffer == "archive":
        counts: Mapping[str, int] = {step.name: len(step.rows) for step in task.seen[:-1]}
    else:
        counts = task.mix.counts
    return {**counts, task.seen[-1].name: len(task.mix.current)}


def _train(task: Next, score: Score) -> StepRecord:
    begun = time.perf_counter()
    held = {step.name: step.held_rows for step in task.seen}
    student = task.config.student
    made = advance(
        task.store,
        task.config,
        task.seen[-1].name,
        task.mix,
        task.iterations,
        task.out,
        task.last,
        fresh=lambda: fresh_model(task.store, student, task.seen[0].rows),
        choose=lambda model: first_mean(score(model, held)),
    )
    return StepRecord(
        name=task.seen[-1].name,
        run=str(task.out),
        iterations=task.iterations,
        compute=task.iterations
        / student.train.steps
        * compute(task.config.method, task.number, task.number)
        / budget(task.config.method, task.number, task.number),
        rows=len(task.mix.current),
        replayed=task.mix.counts,
        scores={k: dict(v) for k, v in score(made.model, task.sets).items()} if task.sets else {},
        weights=io.weights_hash(made.model),
        seconds=time.perf_counter() - begun,
        alpha=made.alpha,
        alphas=made.alphas,
    )
