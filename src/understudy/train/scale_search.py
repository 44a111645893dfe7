"""Find each teacher's logit scale for distillation (arXiv 2508.20691, sec. 4).

The scale that a teacher learned is not the one to distil it with: the target student is trained
once for every candidate, one teacher at a time, on the same rows, from the same weights and for
equally many steps. An ensemble then keeps its members' own best scales; searching jointly was not
worth it. Finished students are kept, so a stopped search goes on where it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.core.config import to_dict
from understudy.core.errors import ConfigError, DataError
from understudy.core.files import write_json
from understudy.objectives.checks import teacher_scales
from understudy.train.student_config import StudentConfig
from understudy.train.student_run import Evaluate

if TYPE_CHECKING:
    from understudy.data.store import Store

SEARCH = "search.json"
CANDIDATES = (10.0, 20.0, 35.0, 50.0, 60.0, 70.0, 85.0, 100.0)
"""The range in which the published optima lie (50 to 90), and some way around it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchConfig:
    """Say which scales are tried, for whom, and with which student.

    Attributes:
        scales: candidates, the same for every teacher; at least two.
        teachers: whose scale is searched; empty for all that know the student's view set.
        student: the target student and its budget; its `teachers` and `scales` are set here.
        metric: what decides, larger is better.
        seeds: every candidate is trained with each; two or more give a standard error.
    """

    scales: tuple[float, ...] = CANDIDATES
    teachers: tuple[str, ...] = ()
    student: StudentConfig = field(default_factory=lambda: StudentConfig(view_set="main"))
    metric: str = "retrieval.mean_r1"
    seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        teacher_scales(self.scales, len(self.scales))
        if len(set(self.scales)) < 2 or len(set(self.scales)) < len(self.scales):
            raise ConfigError(
                f"scales: expected at least two different candidates, got {list(self.scales)}."
            )
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"seeds: expected different ones, got {list(self.seeds)}.")
        if self.student.lam <= 0 or self.student.online:
            raise ConfigError(
                "student: a search needs distillation from stored embeddings (lam above 0, and no "
                "online teachers): nothing else depends on the scale."
            )


@dataclass(frozen=True, kw_only=True)
class Curve:
    """What one teacher's scales came to.

    Attributes:
        teacher: its name.
        scales: candidates, increasing.
        values: metric by scale and seed, float64 [scales, seeds].
        rows: rows that it was scored on, for the error of a single seed.
    """

    teacher: str
    scales: tuple[float, ...]
    values: np.ndarray
    rows: int

    @property
    def means(self) -> np.ndarray:
        """Mean over seeds, by scale."""
        return self.values.mean(axis=1)

    @property
    def errors(self) -> np.ndarray:
        """Standard error by scale: over seeds, or of a share of `rows` where there is one seed."""
        count = self.values.shape[1]
        if count > 1:
            return self.values.std(axis=1, ddof=1) / math.sqrt(count)
        share = np.clip(self.means, 0, 1)
        return np.sqrt(share * (1 - share) / max(self.rows, 1))

    @property
    def place(self) -> int:
        """Which scale is best; of equal ones the smallest."""
        return int(np.argmax(self.means))

    @property
    def best(self) -> float:
        """The best scale."""
        return self.scales[self.place]

    @property
    def flat(self) -> tuple[float, ...]:
        """The run of scales around the best that are within one standard error of it."""
        least = self.means[self.place] - self.errors[self.place]
        first = last = self.place
        while first > 0 and self.means[first - 1] >= least:
            first -= 1
        while last < len(self.scales) - 1 and self.means[last + 1] >= least:
            last += 1
        return self.scales[first : last + 1]

    @property
    def interior(self) -> bool:
        """Whether scales on both sides of the best were tried."""
        return 0 < self.place < len(self.scales) - 1

    def note(self) -> str:
        """Return what the curve says, in a sentence."""
        text = f"{self.teacher}: best {self.best:g} ({self.means[self.place]:.4g})"
        if len(self.flat) > 1:
            text += f", flat from {self.flat[0]:g} to {self.flat[-1]:g} (one standard error)"
        if not self.interior:
            side = "below" if self.place == 0 else "above"
            text += f"; it is the last candidate on its side: try scales {side} it too"
        return text

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "teacher": self.teacher,
            "best": self.best,
            "flat": list(self.flat),
            "interior": self.interior,
            "note": self.note(),
            "scales": list(self.scales),
            "means": self.means.tolist(),
            "errors": self.errors.tolist(),
            "values": self.values.tolist(),
        }


@dataclass(frozen=True, kw_only=True)
class _Run:
    teacher: str
    scale: float
    seed: int
    out: Path
    config: StudentConfig


def _runs(teachers: Sequence[str], config: SearchConfig, out: Path) -> Iterator[_Run]:
    for teacher in teachers:
        for scale in sorted(config.scales):
            for seed in config.seeds:
                yield _Run(
                    teacher=teacher,
                    scale=scale,
                    seed=seed,
                    out=out / teacher / f"scale-{scale:g}" / f"seed-{seed}",
                    config=replace(
                        config.student, teachers=(teacher,), scales=(float(scale),), seed=seed
                    ),
                )


def find_searched(store: Store, config: SearchConfig) -> tuple[str, ...]:
    """Return the teachers whose scales are searched.

    Raises:
        CardError: one has no embeddings of the student's view set.
    """
    from understudy.train.student_lookup import find_teachers

    return find_teachers(store, replace(config.student, teachers=config.teachers, scales=()))


def search_plan(store: Store, config: SearchConfig, out: str | Path) -> dict[str, Any]:
    """Return what a search would train, and an estimate of how long; nothing is written.

    Three steps are taken on this machine to time one.

    Returns:
        `teachers`, `scales`, `students` (and how many are `done`), `steps`, `samples_seen`,
        `step_seconds`, `seconds_left`.
    """
    from understudy.train.step_timing import interleave, make_step
    from understudy.train.student import clip_loader, clip_step, make_student

    teachers = find_searched(store, config)
    runs = list(_runs(teachers, config, Path(out)))
    done = sum((run.out / "record.json").is_file() for run in runs)
    student, settings = make_student(store, runs[0].config), config.student.train
    batches = clip_loader(store, student, runs[0].config)(0, 3)
    step = make_step(student, clip_step(store, runs[0].config), batches, settings)
    seconds = min(interleave({"step": step}, rounds=2, warmup=1)["step"])
    return {
        "teachers": list(teachers),
        "scales": sorted(config.scales),
        "students": len(runs),
        "done": done,
        "steps": len(runs) * settings.steps,
        "samples_seen": len(runs) * settings.samples_seen,
        "step_seconds": round(seconds, 4),
        "seconds_left": round((len(runs) - done) * settings.steps * seconds, 1),
    }


def search_scales(
    store: Store,
    config: SearchConfig,
    out: str | Path,
    evaluate: Evaluate,
    *,
    on_done: Callable[[str, float, int, float], None] | None = None,
) -> list[Curve]:
    """Train the student for every teacher, candidate and seed; write `<out>/search.json`.

    Args:
        store: reinforced by the teachers.
        config: candidates, teachers, student, metric.
        out: folder of the students; call again with it to go on.
        evaluate: `evaluate(model) -> metrics`, on rows that no student learns from.
        on_done: told (teacher, scale, seed, value) after each student.

    Returns:
        a curve a teacher; `curve.best` is its scale.

    Raises:
        CardError: a teacher has no embeddings of the view set.
        DataError: the evaluation has no such metric, or it is not finite.
    """
    from understudy.train.student import train_clip

    teachers = find_searched(store, config)
    values: dict[tuple[str, float, int], float] = {}
    rows = 0
    for run in _runs(teachers, config, Path(out)):
        result = train_clip(store, None, run.config, run.out, evaluate)
        found = result.weights.get("ema") or result.weights.get("final") or {}
        value = found.get(config.metric, float("nan"))
        if not math.isfinite(value):
            raise DataError(
                f"{run.out}: no finite '{config.metric}' (metrics: {', '.join(found) or 'none'}); "
                "choose another metric, or finish the run."
            )
        values[run.teacher, run.scale, run.seed] = value
        rows = int(found.get("rows", 0))
        if on_done is not None:
            on_done(run.teacher, run.scale, run.seed, value)
    ordered = tuple(sorted(float(s) for s in config.scales))
    curves = [
        Curve(
            teacher=teacher,
            scales=ordered,
            values=np.array([[values[teacher, s, seed] for seed in config.seeds] for s in ordered]),
            rows=rows,
        )
        for teacher in teachers
    ]
    write_json(Path(out) / SEARCH, _record(store, config, curves))
    return curves


def _record(store: Store, config: SearchConfig, curves: Sequence[Curve]) -> Mapping[str, Any]:
    return {
        "store": str(store.path),
        "metric": config.metric,
        "seeds": list(config.seeds),
        "best": {curve.teacher: curve.best for curve in curves},
        "curves": [curve.to_dict() for curve in curves],
        "student": to_dict(config.student),
    }


def best_scales(curves: Sequence[Curve]) -> tuple[float, ...]:
    """Return each teacher's best scale, in the order of the curves."""
    return tuple(curve.best for curve in curves)
