"""The two demos step by step; every step goes on where an earlier run stopped."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.cli.demo_plans import EMOJI, SCENES, Plan, Say
from understudy.core.files import read_json

if TYPE_CHECKING:
    from understudy.data.store import Store

__all__ = ["EMOJI", "MARKER", "SCENES", "Made", "forget", "run"]

MARKER = ".understudy-demo"


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a demo came to."""

    students: tuple[str, ...]
    scores: dict[str, list[float | None]]
    verdict: str
    held: bool
    report: Path
    export: Path
    files: Sequence[Path] = field(default_factory=tuple)


def forget(folder: Path) -> None:
    """Delete a demo's folder, if it is one."""
    if (folder / MARKER).exists():
        shutil.rmtree(folder)


def run(plan: Plan, folder: Path, *, steps: int, seed: int, say: Say) -> Made:
    """Run a demo to its report.

    Args:
        plan: which.
        folder: of everything.
        steps: of each student.
        seed: of data, views and students.
        say: told what begins.
    """
    from understudy.compress.export import export_model
    from understudy.core.files import write_text
    from understudy.data.store import Store
    from understudy.models.runs import load_run
    from understudy.recipes import RECIPES
    from understudy.reinforce.generate import reinforce
    from understudy.report.latency import latency_rows
    from understudy.report.results import report_of
    from understudy.report.students import write_students

    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / MARKER, "made by understudy demo\n")
    say(f"data: {plan.name}")
    store = plan.prepare(folder / "store", seed)
    config = plan.asks(folder, store, plan, seed, say)
    names = ", ".join(spec.name for spec in config.teachers)
    say(f"asking {names} about {config.num_views} views of every pair, once")
    reinforce(store, config)
    store = Store.open(store.path)
    say(f"training a plain and a reinforced student, {steps:,} steps each")
    recipe = RECIPES.load("mobileclip")
    students = folder / "students"
    recipe.run(_student_config(recipe, plan, store, students, steps, seed))
    result = read_json(students / "result.json")
    scores: dict[str, dict[str, float]] = {}
    for name, student in result["students"].items():
        found = student["weights"].get("ema") or student["weights"]["final"]
        shown = {f"{plan.headline} ({int(found['rows']):,} rows)": found[plan.headline]}
        scores[name] = {**shown, **plan.extra(load_run(Path(student["run"])), store)}
    say("folding, exporting to ONNX, timing")
    best = Path(result["students"]["reinforced"]["run"])
    export = folder / "export"
    files = export_model(best, export)
    page = report_of(
        students,
        title=f"Understudy: {plan.name}",
        lead=plan.facts,
        store=store,
        headline=plan.headline,
        latency=latency_rows(best, "reinforced student"),
        checks={f"{name}: {m}": v for name, found in scores.items() for m, v in found.items()},
    )
    path = write_students(page, folder / "report.html")
    rows = {m: [found[m] for found in scores.values()] for m in next(iter(scores.values()))}
    return Made(
        students=tuple(scores),
        scores=rows,
        verdict=page.verdict,
        held=page.held,
        report=path,
        export=export,
        files=files,
    )


def _student_config(recipe: Any, plan: Plan, store: Store, out: Path, steps: int, seed: int) -> Any:
    from dataclasses import replace

    base = recipe.Config(store=Path(store.path), out=out, model=plan.model, seed=seed)
    train = replace(
        base.train,
        steps=steps,
        lr=plan.lr,
        warmup_steps=max(steps // 15, 1),
        eval_every=max(steps // 5, 1),
        checkpoint_every=max(steps // 5, 1),
        log_every=max(steps // 60, 1),
    )
    return replace(base, train=train, size=plan.size, vocab_size=600)
