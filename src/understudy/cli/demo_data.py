"""The two demos step by step; every step goes on where an earlier run stopped."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.core.files import read_json

if TYPE_CHECKING:
    from understudy.data.store import Store
    from understudy.reinforce.config import ReinforceConfig

Say = Callable[[str], None]
MARKER = ".understudy-demo"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One demo.

    Attributes:
        name: for people.
        pairs: training pairs, about.
        num_views: stored views a pair.
        model: the students.
        lr: peak learning rate of both students.
        headline: the metric that decides.
        prepare: makes the store.
        asks: makes the reinforcement, training teachers first where there are none.
        extra: scores a student beyond what the recipe does, by name of the table's row.
        facts: what is said on the page.
    """

    name: str
    pairs: int
    num_views: int
    model: str
    lr: float
    headline: str
    prepare: Callable[[Path, int], Store]
    asks: Callable[[Path, Store, Plan, int, Say], ReinforceConfig]
    extra: Callable[[Any, Store], Mapping[str, float]]
    facts: str

    def describe(self, folder: Path, steps: int) -> str:
        """Return what a run would do, in words."""
        stored = self.num_views * 2 * 64 * 2 + 2 * 64 * 2 * 2
        return (
            f"{self.name}: about {self.pairs:,} pairs x {self.num_views} stored views x 2 teachers "
            f"({self.pairs * self.num_views * 2:,} teacher calls, about "
            f"{self.pairs * stored / 1e6:.0f} MB), then two students of {steps:,} steps each.\n"
            f"everything goes to {folder}"
        )


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


# -- scenes


def _scenes_store(path: Path, seed: int) -> Store:
    from understudy.data.scenes import to_store

    made = {"train": 4000, "teacher": 0, "test": 1000, "num_captions": 2, "masks": False}
    return to_store("pairs", path, seed=seed, **made)


def _scenes_asks(folder: Path, store: Store, plan: Plan, seed: int, say: Say) -> ReinforceConfig:
    from understudy.data.view_config import ViewConfig
    from understudy.recipes.mobileclip_claim import VIEWS
    from understudy.reinforce.config import ReinforceConfig, TeacherSpec
    from understudy.reinforce.teachers.shipped import NAMES, shipped

    return ReinforceConfig(
        num_views=plan.num_views,
        views=ViewConfig(size=48, transforms=VIEWS["weak"]),
        teachers=tuple(
            TeacherSpec(name=name, path=str(shipped(name)), logit_scale=30.0) for name in NAMES
        ),
        rows="split = 'train'",
        seed=seed,
    )


def _scenes_extra(model: Any, store: Store) -> Mapping[str, float]:
    from understudy.data.scenes.pair_words import CLASSES
    from understudy.evaluate.held_out import held_out_rows
    from understudy.evaluate.run import evaluate_model
    from understudy.recipes.mobileclip_claim import digit_pair_prompts

    rows = held_out_rows(store)
    pairs = rows[store.array("label", rows) >= 0]
    names = [f"{a} and {b}" for a, b in CLASSES]
    prompts = {name: digit_pair_prompts(name) for name in names}
    found = evaluate_model(
        model, store, rows=pairs, tasks=("zeroshot",), classes=names, prompts=prompts
    )
    few = evaluate_model(model, store, rows=rows[:200], tasks=("retrieval",))
    return {
        "R@1 among 200 unseen scenes": few["retrieval.mean_r1"],
        "zero-shot digit pairs, top-1": found["zeroshot.top1"],
        "zero-shot digit pairs, top-5": found["zeroshot.top5"],
    }


SCENES = Plan(
    name="scenes of real handwritten digits",
    pairs=4000,
    num_views=5,
    model="clip-conv-nano",
    lr=3e-3,
    headline="retrieval.mean_r1",
    prepare=_scenes_store,
    asks=_scenes_asks,
    extra=_scenes_extra,
    facts=(
        "4,000 scenes of two or three real handwritten digits with unreliable alt text. Two "
        "teachers that never saw these scans; a plain and a reinforced student at equal steps."
    ),
)


# -- emoji


def _emoji_store(path: Path, seed: int) -> Store:
    from understudy.data.fetch import to_store
    from understudy.data.fetch_emoji import write_captions

    store = to_store("emoji", path, skin_tones=False)
    return write_captions(store)


def _emoji_asks(folder: Path, store: Store, plan: Plan, seed: int, say: Say) -> ReinforceConfig:
    from dataclasses import replace

    from understudy.data.fetch import fetch
    from understudy.data.view_config import ViewConfig
    from understudy.recipes import RECIPES
    from understudy.reinforce.config import ReinforceConfig, TeacherSpec
    from understudy.reinforce.encoder_specs import parse_encoder

    def part(line: str) -> dict[str, Any]:
        spec, _ = parse_encoder(line)
        return {"kind": spec.kind, "model": spec.model, "path": spec.path, "options": spec.options}

    ape = RECIPES.load("ape")
    fetch("minilm")
    specs = []
    for net in ("lite0", "lite1"):
        out = folder / f"teacher-{net}"
        encoder = f"{net}=asset:efficientnet-{net}?size=128"
        fetch(f"efficientnet-{net}")
        if not (out / "result.json").exists():
            say(f"aligning EfficientNet-{net} with MiniLM on names of the training subcategories")
            config = ape.preset(ape.Config(store=Path(store.path), out=out, preset="emoji"))
            ape.run(replace(config, preset="", image_encoders=(encoder,)))
        specs.append(
            TeacherSpec(
                name=f"{net}-minilm",
                kind="aligned",
                path=str(out / "aligner.safetensors"),
                logit_scale=30.0,
                upscale=True,
                options={"image": part(encoder), "text": part("minilm=asset:minilm")},
            )
        )
    return ReinforceConfig(
        num_views=plan.num_views,
        views=ViewConfig(
            size=64,
            transforms={
                "random_resized_crop": {"scale": [0.5, 1.0], "interpolation": "bicubic"},
                "random_horizontal_flip": {},
                "rand_augment": {"fill": 255},
            },
        ),
        teachers=tuple(specs),
        rows="split = 'train'",
        seed=seed,
    )


def _emoji_extra(model: Any, store: Store) -> Mapping[str, float]:
    from understudy.evaluate.run import evaluate_model

    found = {}
    for split, words in (
        ("test", "held-out subcategories"),
        ("vendor-test", "held-out, unseen vendor's drawings"),
        ("vendor", "known names, unseen vendor's drawings"),
    ):
        scores = evaluate_model(model, store, split=split, tasks=("retrieval",))
        for k in (1, 10):
            mean = (scores[f"retrieval.i2t_r{k}"] + scores[f"retrieval.t2i_r{k}"]) / 2
            found[f"R@{k}, {words} ({int(scores['rows']):,})"] = mean
    return found


EMOJI = Plan(
    name="emoji",
    pairs=1300,
    num_views=3,
    model="clip-conv-nano",
    lr=2e-3,
    headline="retrieval.mean_r1",
    prepare=_emoji_store,
    asks=_emoji_asks,
    extra=_emoji_extra,
    facts=(
        "Real emoji and their names. The teachers are EfficientNet-Lite and MiniLM, which never "
        "met, aligned by small heads on the training subcategories. Students are scored on "
        "subcategories that nobody saw, and on another vendor's drawings."
    ),
)


# -- both


def run(plan: Plan, folder: Path, *, steps: int, seed: int, say: Say) -> Made:
    """Run a demo to its report.

    Args:
        plan: which.
        folder: of everything.
        steps: of each student.
        seed: of data, views and students.
        say: told what begins.
    """
    from understudy import models
    from understudy.compress.export import export_model
    from understudy.core.files import write_text
    from understudy.data.store import Store
    from understudy.models.runs import load_run
    from understudy.recipes import RECIPES
    from understudy.reinforce.generate import reinforce
    from understudy.report.results import report_of
    from understudy.report.students import write_students

    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / MARKER, "made by understudy demo\n")
    say(f"data: {plan.name}")
    store = plan.prepare(folder / "store", seed)
    config = plan.asks(folder, store, plan, seed, say)
    names = ", ".join(spec.name for spec in config.teachers)
    say(f"asking {names} about {config.num_views} views of every pair, once")
    report = reinforce(store, config)
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
        latency=_latency(models, best),
        checks={f"{name}: {m}": v for name, found in scores.items() for m, v in found.items()},
        reinforce=report.to_dict() if report.computed else None,
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
    return replace(base, train=train, size=0 if plan is SCENES else 64, vocab_size=600)


def _latency(models: Any, run: Path) -> list[list[Any]]:
    """Return a table: the student folded and not, image and text tower."""
    from understudy.compress.latency import measure
    from understudy.compress.timing import LatencyConfig
    from understudy.models.runs import load_run

    rows: list[list[Any]] = [["model", "tower", "folded", "mean ms", "p95 ms", "parameters"]]
    for fold in ("no", "all"):
        timed = LatencyConfig(rounds=5, inferences=30, threads=1, fold=fold)
        for found in measure(load_run(run), timed, name="reinforced student"):
            rows.append(
                [found.name, found.tower, fold, found.mean_ms, found.p95_ms, found.parameters]
            )
    return rows
