"""What MobileCLIP2's claim trains: captioners, the search, a seed's pairs, every arm's student.

The teachers are the two that ship with this package: CLIPs that learned 20,000 clean scenes of
scans that no student and no test sees.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.evaluate.claims import Context

if TYPE_CHECKING:
    from understudy.data.store import Store

SIGMAS = (1.0, 5.0, 10.0, 20.0, 50.0, 100.0, 300.0)
"""Candidates of the sweep and of the search."""
TEACHERS = ("a", "b")
TUNE_SEED, WEB_SEED, CURATED_SEED = 20, 2, 3
"""Scenes that the scales are tuned on, and those that captioners learn: of no seed of the claim."""
STUDENT = "clip-conv-nano"
"""A convolutional student: a third of the price of MCi-nano a step, and it learns more of these
scenes in 1,500. The towers of arXiv 2508.20691 are compared by their latency."""
CONTEXT = 16
"""Tokens of a text: the longest clean caption has 14 words."""
NANO = {"text.context_length": CONTEXT, "text.variant": "base", "text.depth": 1}
"""Changes of the student: one transformer layer reads its texts."""
SHIFTS = {"random_crop": {"padding": 4, "fill": 230}}
"""Stored views: shifts on the light paper that scenes stand on. A run this short gains nothing from
stronger ones (see the claim of arXiv 2311.17049)."""

SETTINGS: dict[str, Any] = {
    "pairs": 4_000,
    "test": 1_000,
    "retrieval": 200,
    "batch": 64,
    "steps": 1_500,
    "lr": 6e-3,
    "views": 5,
    "sigmas": list(SIGMAS),
    "wrong": 10.0,
    "vocab": 600,
    "web_pairs": 20_000,
    "web_steps": 2_400,
    "web_lr": 2e-3,
    "curated_pairs": 2_000,
    "curated_steps": 600,
    "curated_lr": 1e-3,
    "resolutions": [128, 256, 512],
    "rounds": 3,
    "inferences": 9,
}

ARMS = {
    **{
        f"sigma-{sigma:g}": f"teacher a alone at scale {sigma:g}, both captions" for sigma in SIGMAS
    },
    "single-b": "teacher b alone at its own best scale",
    "ensemble": "both teachers, each at its own best scale",
    "ensemble-wrong": "both teachers at one shared scale, ten times too large",
    "real-only": "both teachers at their own scales, real captions only",
    "weak": "ensemble with captions of a captioner that learned noisy alt text only",
    "aligned": "ensemble with captions of the same captioner, fine-tuned on 2,000 clean captions",
}


def _scenes(path: Path, seed: int, train: int, test: int = 0) -> Store:
    """Return pairs of a seed, made if they are not there."""
    from understudy.data import scenes
    from understudy.data.store import Store

    if path.exists():
        return Store.open(path)
    made: dict[str, Any] = {"train": train, "teacher": 0, "test": test, "num_captions": 1}
    return scenes.to_store("pairs", path, seed=seed, masks=False, **made)


def reinforcement(seed: int, settings: Mapping[str, Any], captioners: Mapping[str, str]) -> Any:
    """Return what a seed's pairs are reinforced with."""
    from understudy.data.view_config import ViewConfig
    from understudy.reinforce.config import ReinforceConfig, TeacherSpec
    from understudy.reinforce.teachers.shipped import shipped

    return ReinforceConfig(
        num_views=settings["views"],
        views=ViewConfig(size=48, transforms=SHIFTS),
        teachers=tuple(
            TeacherSpec(
                name=name, path=str(shipped(f"clip-teacher-{name}")), outputs=("image", "text")
            )
            for name in TEACHERS
        ),
        captioners=tuple(TeacherSpec(name=n, path=path) for n, path in captioners.items()),
        captions=1,
        rows="split = 'train'",
        seed=seed,
    )


def scores(model: Any, store: Store, settings: Mapping[str, Any]) -> dict[str, float]:
    """Score retrieval over 200 test pairs."""
    from understudy.evaluate.held_out import held_out_rows
    from understudy.evaluate.run import evaluate_model

    rows = held_out_rows(store)[: settings["retrieval"]]
    return evaluate_model(model, store, rows=rows, tasks=("retrieval",))


def captioner(name: str, context: Context, start: str = "") -> str:
    """Train the captioner on noisy alt text, or fine-tune it on clean captions; return its run."""
    from understudy.train.budgets import claim_budget
    from understudy.train.captioner import CaptionerConfig, train_captioner

    settings, folder = context.settings, context.shared_dir
    kind = "curated" if start else "web"
    seed = CURATED_SEED if start else WEB_SEED
    store = _scenes(folder / kind, seed, settings[f"{kind}_pairs"])
    config = CaptionerConfig(
        model=start or "coca-nano",
        changes={} if start else {"text.context_length": CONTEXT},
        captioner="template" if start else "",
        augment=SHIFTS,
        vocab_size=settings["vocab"],
        train=claim_budget(settings[f"{kind}_steps"], settings["batch"], settings[f"{kind}_lr"]),
        seed=seed,
        workers=0,
    )
    return str(train_captioner(store, None, config, folder / f"captioner-{name}").path)


def setup(context: Context) -> dict[str, Any]:
    """Train both captioners; find each teacher's scale on pairs of their own."""
    from understudy.reinforce.generate import reinforce
    from understudy.train.scale_search import SearchConfig, search_scales

    settings, folder = context.settings, context.shared_dir
    web = captioner("weak", context)
    aligned = captioner("aligned", context, web)
    store = _scenes(folder / "tune", TUNE_SEED, settings["pairs"], settings["test"])
    reinforce(store, reinforcement(TUNE_SEED, settings, {}))
    search = SearchConfig(
        scales=tuple(settings["sigmas"]),
        teachers=TEACHERS,
        student=student("single-b", TUNE_SEED, settings, {"b": 1.0}),
        seeds=(TUNE_SEED,),
    )
    curves = search_scales(
        store, search, folder / "search", lambda model: scores(model, store, settings)
    )
    found = {name: f"{path}/model.safetensors" for name, path in
             (("weak", web), ("aligned", aligned))}  # fmt: skip
    return {"captioners": found, "scales": {curve.teacher: curve.best for curve in curves}}


def prepare(seed: int, context: Context) -> dict[str, Any]:
    """Make the seed's pairs, caption and reinforce them."""
    from understudy.reinforce.generate import reinforce

    settings = context.settings
    store = _scenes(context.seed_dir / "store", seed, settings["pairs"], settings["test"])
    report = reinforce(store, reinforcement(seed, settings, context.shared["captioners"]))
    return {"store": str(store.path), "reinforce_seconds": report.wall_seconds}


def wrong_scale(scales: Mapping[str, float], factor: float) -> float:
    """Return the shared scale of the wrong ensemble: a factor of the geometric mean of the best."""
    product = 1.0
    for scale in scales.values():
        product *= scale
    return factor * product ** (1 / len(scales))


def student(arm: str, seed: int, settings: Mapping[str, Any], scales: Mapping[str, float]) -> Any:
    """Return the configuration of an arm's student.

    Args:
        arm: its name.
        seed: of weights and order.
        settings: of the claim.
        scales: each teacher's own best scale.
    """
    from understudy.train.budgets import claim_budget
    from understudy.train.student_config import StudentConfig

    config = StudentConfig(
        model=STUDENT,
        changes=dict(NANO),
        captioner="template",
        captions="both",
        pick="random",
        lam=1.0,
        view_set="main",
        vocab_size=settings["vocab"],
        rows="split = 'train'",
        train=claim_budget(settings["steps"], settings["batch"], settings["lr"]),
        seed=seed,
        workers=0,
    )
    if arm.startswith("sigma-"):
        return replace(config, teachers=("a",), scales=(float(arm.removeprefix("sigma-")),))
    if arm == "single-b":
        return replace(config, teachers=("b",), scales=(scales["b"],))
    own = tuple(scales[name] for name in TEACHERS)
    if arm == "ensemble-wrong":
        own = (wrong_scale(scales, settings["wrong"]),) * len(TEACHERS)
    config = replace(config, teachers=TEACHERS, scales=own)
    if arm == "real-only":
        return replace(config, captions="real")
    return replace(config, captioner=arm) if arm in ("weak", "aligned") else config


def latencies(settings: Mapping[str, Any]) -> dict[str, float]:
    """Time a five-stage tower and one of four stages with as many parameters, turn by turn.

    Returns:
        `latency_ratio_R`: time of four stages over time of five at R pixels.
    """
    from understudy import models
    from understudy.compress.race import check_equal_size, factor, race
    from understudy.compress.timing import LatencyConfig

    towers = {}
    for name, key in {"five": "mci-nano5", "four": "mci-nano4"}.items():
        folded: Any = models.create(key, seed=0).eval().fold("branches")
        towers[name] = folded.image
    check_equal_size(towers)
    sides = settings["resolutions"]
    timing = LatencyConfig(
        rounds=settings["rounds"], inferences=settings["inferences"], discard=1, trim=1
    )
    times = race(towers, sides, timing)
    return {f"latency_ratio_{side}": factor(times, "four", "five", side) for side in sides}
