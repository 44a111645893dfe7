"""One student's run, whatever it learns from: train it, score it, write what it came to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from torch import nn

from understudy.core.config import to_dict
from understudy.core.files import write_json
from understudy.models.base import Model
from understudy.models.runs import WEIGHTS
from understudy.train.student_base import StudentBase

if TYPE_CHECKING:
    from understudy.data.loader import Loader
    from understudy.data.store import Store
    from understudy.train.online import OnlineTeachers
    from understudy.train.result import RunResult
    from understudy.train.stepper import Objective

Evaluate = Callable[[Any], Mapping[str, float]]
"""What a caller gives to score a student: `evaluate(model) -> metrics`."""

ConfigT = TypeVar("ConfigT", bound=StudentBase)


@dataclass(frozen=True, kw_only=True)
class StudentResult:
    """What training a student gave.

    Attributes:
        path: the run's folder.
        steps: optimiser steps done.
        weights: metrics of the evaluation by weights: `final`, `ema` (if averaged) and `best` (if
            an evaluation metric was watched); empty without an evaluation. Where `best` was chosen
            on the very rows that it is scored on, its score is too good; `facts` says which.
        train: means over the last logged steps.
        seconds: wall seconds by part, see `RunResult`.
        finished: False if the time limit ended it.
        facts: samples seen, passes over the data, texts that were cut, parameters, and
            `best_chosen_on`: the split whose scores chose `best`, as far as the scorer names one.
    """

    path: Path
    steps: int
    weights: dict[str, dict[str, float]]
    train: dict[str, float]
    seconds: dict[str, float]
    finished: bool = True
    facts: dict[str, Any] = field(default_factory=dict)


def settle(config: ConfigT, model: Any) -> ConfigT:
    """Return a configuration that names the model, if it is a name, and seeds the loop.

    Raises:
        ConfigError: `train.seed` is another seed than the student's.
    """
    if isinstance(model, str):
        config = replace(config, model=model)
    return replace(config, train=config.train.seeded(config.seed))


def run_student(
    store: Store,
    student: Model,
    step: Objective,
    loader: Loader | OnlineTeachers,
    config: StudentBase,
    out: str | Path,
    evaluate: Evaluate | None,
    *,
    learned: Mapping[str, Any],
    trained: nn.Module | None = None,
    watch: Evaluate | None = None,
    resume: bool = True,
    context: Mapping[str, Any] | None = None,
) -> StudentResult:
    """Train a student and write `student.json`.

    Args:
        store: what it learns from.
        student: the model.
        step: its objective.
        loader: its batches.
        config: settled, see `settle`.
        out: the run's folder.
        evaluate: scores the student at the end; and at `train.eval_every`, if nothing else watches.
        learned: what of the objective a resumed run must find unchanged.
        trained: what surrounds the student while it learns, with the student as `saved`.
        watch: scores the student at `train.eval_every` and chooses the best weights, on other rows
            than `evaluate`; None leaves both to `evaluate`.
        resume: go on from the newest checkpoint in `out`.
        context: facts for the run's record.
    """
    from understudy.train.loop import fit

    watched = watch or evaluate

    def during(model: nn.Module, _: int) -> Mapping[str, float]:
        assert watched is not None
        return watched(getattr(model, "saved", model))

    run = fit(
        student if trained is None else trained,
        step,
        loader,
        config.train,
        out,
        evaluate=None if watched is None else during,
        resume=resume,
        context={"student": to_dict(config), "store": store.path, **(context or {})},
        data={"loader": loader.describe(), "objective": dict(learned)},
    )
    seen, rows = run.steps * config.train.batch_size, int(loader.sampler.count)  # type: ignore[attr-defined]
    facts = {
        "samples_seen": seen,
        "rows": rows,
        "passes": round(seen / rows, 3),
        "truncated_texts": dict(loader.stats.truncated),
    }
    if config.train.best is not None and watched is not None:
        facts["best_chosen_on"] = getattr(watched, "split", "")
    return _finish(run, student, facts, config, evaluate, apart=watch is not None)


def _finish(
    run: RunResult,
    student: Model,
    facts: Mapping[str, Any],
    config: StudentBase,
    evaluate: Evaluate | None,
    apart: bool,
) -> StudentResult:
    from understudy.models.count import parameters

    scores = {k: v for k, v in run.metrics.items() if not k.startswith("train/")}
    weights = {}
    if evaluate is not None and run.finished:
        device = next(student.parameters()).device
        weights = _by_weights(run.path, {} if apart else scores, device, config, evaluate)
    result = StudentResult(
        path=run.path,
        steps=run.steps,
        weights=weights,
        train={k.removeprefix("train/"): v for k, v in run.metrics.items() if k not in scores},
        seconds=run.seconds,
        finished=run.finished,
        facts={**facts, "parameters": parameters(student)},
    )
    if run.finished:
        names = ("steps", "weights", "train", "seconds", "facts")
        write_json(run.path / "student.json", {name: getattr(result, name) for name in names})
    return result


def _by_weights(
    path: Path,
    scores: Mapping[str, float],
    device: Any,
    config: StudentBase,
    evaluate: Evaluate,
) -> dict[str, dict[str, float]]:
    """Return metrics of the final, the averaged and the best weights, as far as there are any.

    Args:
        path: the run's folder.
        scores: what `evaluate` found of the final and the averaged weights at the last step; empty
            if something else watched the run.
        device: to score on.
        config: the student's.
        evaluate: scores a student.
    """
    from understudy.models import load

    def score(file: Path) -> dict[str, float]:
        return {k: float(v) for k, v in evaluate(load(file).to(device)).items()}

    best = path / WEIGHTS["best"][0]
    if scores:
        weights = {"final": {k: v for k, v in scores.items() if not k.startswith("ema_")}}
        averaged = {k.removeprefix("ema_"): v for k, v in scores.items() if k.startswith("ema_")}
        if averaged:
            weights["ema"] = averaged
    else:
        files = {name: path / WEIGHTS[name][0] for name in ("final", "ema")}
        weights = {name: score(file) for name, file in files.items() if file.is_file()}
    if config.train.best is not None and best.is_file():
        weights["best"] = score(best)
    return weights
