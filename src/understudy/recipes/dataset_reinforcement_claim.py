"""The claim of dataset reinforcement at small scale: 300 handwritten digits, teachers with 900.

scikit-learn's digits (1,797 real scans) at 32x32, in one of three fixed divisions by seed: 300 for
students, 600 that only teachers see besides those, 897 for the test. Arms differ in targets and
replay only; steps, batch, optimiser, views' distribution and initial weights are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from understudy.core.seeds import seed_for
from understudy.evaluate.claims import Arm, AtMost, Check, Claim, Context, Difference, Within

STUDENT, TINY, TEACHER = "cnn-small", "cnn-tiny", "cnn-teacher"
VIEWS: dict[str, dict[str, Any]] = {
    "random_resized_crop": {"scale": [0.25, 1.0]},
    "rand_augment": {},
    "random_erase": {"p": 0.25},
}
"""RA/RE views of all students, not mirrored (digits), with a crop that keeps some of the digit."""

TEACHER_VIEWS: dict[str, dict[str, Any]] = {
    "random_resized_crop": {"scale": [0.6, 1.0]},
    "rand_augment": {"magnitude": 5},
    "random_erase": {"p": 0.25, "scale": [0.02, 0.15]},
}
"""Milder views that the teachers are trained on."""

SETTINGS: dict[str, Any] = {
    "rows": 300,
    "batch": 30,
    "steps": 1_200,
    "lr": 0.1,
    "views": 50,
    "kept": 5,
    "teachers": 4,
    "teacher_steps": 700,
    "timing_rounds": 40,
}
"""120 passes over 300 images in batches of 30."""

ARMS = {
    "erm": "labels smoothed by 0.1, fresh views of the same kind",
    "online-kd": "the teachers' probabilities of fresh views, asked at every step",
    "dr": "stored views and stored top-5 probabilities, p 0.99",
    "dr-shuffled": "stored views with another image's probabilities (control)",
    "dr-broken": "stored probabilities with freshly drawn views (control)",
    "erm-tiny": "as erm, a student of 1,000 parameters",
    "dr-tiny": "as dr, a student of 1,000 parameters",
}


def _budget(settings: Mapping[str, Any], steps: int, **changes: Any) -> Any:
    from understudy.train.config import TrainConfig

    return TrainConfig(
        **{
            "steps": steps,
            "batch_size": settings["batch"],
            "optimizer": "sgd",
            "lr": settings["lr"],
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "warmup_steps": steps // 20,
            "device": "cpu",
            "log_every": 50,
            **changes,
        }
    )


def _teacher(seed: int, k: int, store: Any, folder: Path, settings: Mapping[str, Any]) -> Path:
    """Train one teacher on the 900 images that the test does not use."""
    from understudy.train.classifier_config import ClassifierStudentConfig
    from understudy.train.classifier_student import train_classifier

    config = ClassifierStudentConfig(
        model=TEACHER,
        learn="labels",
        augment=TEACHER_VIEWS,
        smoothing=0.0,
        rows="split != 'test'",
        train=_budget(settings, settings["teacher_steps"], batch_size=64),
        seed=seed_for("teacher", seed, k) % 2**31,
        workers=0,
    )
    return train_classifier(store, None, config, folder / f"teacher-{k}").path


def prepare(seed: int, context: Context) -> dict[str, Any]:
    """Make the division's store, train the teachers, reinforce the student's images once."""
    from understudy.data import scenes
    from understudy.data.store import Store
    from understudy.data.view_config import ViewConfig
    from understudy.models.runs import weights_path
    from understudy.reinforce.config import ReinforceConfig, TeacherSpec
    from understudy.reinforce.generate import reinforce

    settings, path = context.settings, context.seed_dir / "store"
    store = (
        Store.open(path) if path.exists() else scenes.to_store("digits", path, division=seed % 3)
    )
    runs = [
        _teacher(seed, k, store, context.seed_dir, settings) for k in range(settings["teachers"])
    ]
    config = ReinforceConfig(
        view_set="main",
        num_views=settings["views"],
        views=ViewConfig(size=32, transforms=VIEWS),
        teachers=tuple(
            TeacherSpec(name=f"t{k}", path=str(weights_path(run)), outputs=("topk",))
            for k, run in enumerate(runs)
        ),
        topk=settings["kept"],
        rows="split = 'student'",
        seed=seed,
    )
    report = reinforce(store, config)
    return {
        "store": str(path),
        "teachers": [str(weights_path(run)) for run in runs],
        "reinforce_seconds": report.wall_seconds,
    }


def student(arm: str, seed: int, settings: Mapping[str, Any]) -> Any:
    """Return the configuration of an arm's student."""
    from understudy.train.classifier_config import ClassifierStudentConfig

    config = ClassifierStudentConfig(
        model=TINY if arm.endswith("-tiny") else STUDENT,
        learn="topk",
        view_set="main",
        p=0.99,
        augment={"random_resized_crop": VIEWS["random_resized_crop"]},
        rows="split = 'student'",
        train=_budget(settings, settings["steps"]),
        seed=seed,
        workers=0,
    )
    if arm.startswith("erm"):
        return replace(config, learn="labels", view_set="", augment=VIEWS, smoothing=0.1)
    if arm == "online-kd":
        return replace(config, learn="online", view_set="", augment=VIEWS)
    if arm == "dr-shuffled":
        return replace(config, shuffle_targets=True)
    return replace(config, replay="fresh") if arm == "dr-broken" else config


def _modules(paths: list[str]) -> list[Any]:
    from understudy import models

    return [models.load(path) for path in paths]


def run_arm(arm: str, seed: int, context: Context) -> dict[str, float]:
    """Train one student and score it on the 897 test images."""
    from understudy.data.store import Store
    from understudy.evaluate.run import evaluate_model
    from understudy.train.classifier_student import train_classifier

    store = Store.open(context.prepared["store"])
    asked = _modules(context.prepared["teachers"]) if arm == "online-kd" else []
    result = train_classifier(
        store,
        None,
        student(arm, seed, context.settings),
        context.arm_dir,
        lambda model: evaluate_model(model, store, split="test", tasks=("classify",)),
        teachers=asked,
    )
    found = result.weights["final"]
    scores = {name: found[f"classify.{name}"] for name in ("top1", "ece", "nll")}
    return {**scores, **price(store, seed, context)} if arm == "dr" else scores


def price(store: Any, seed: int, context: Context) -> dict[str, float]:
    """Time whole steps of three arms turn by turn, and score the teachers."""
    from understudy.evaluate.run import evaluate_model
    from understudy.train.classifier_student import (
        classifier_loader,
        classifier_step,
        make_classifier,
    )
    from understudy.train.step_timing import interleave, make_step, ratio

    rounds = context.settings["timing_rounds"]
    steps, teachers = {}, _modules(context.prepared["teachers"])
    for arm in ("erm", "online-kd", "dr"):
        config = student(arm, seed, context.settings)
        model = make_classifier(store, config)
        objective = classifier_step(config, 10, teachers if arm == "online-kd" else ())
        batches = classifier_loader(store, model, config)(0, rounds + 3)
        steps[arm] = make_step(model, objective, batches, config.train)
    seconds = interleave(steps, rounds)
    best = [evaluate_model(t, store, split="test", tasks=("classify",)) for t in teachers]
    return {
        "step_over_erm": ratio(seconds, "dr", "erm"),
        "step_over_online": ratio(seconds, "dr", "online-kd"),
        "teacher_top1": max(found["classify.top1"] for found in best),
    }


CHECKS: tuple[Check, ...] = (
    Difference(name="reinforced beats plain", metric="top1", better="dr", worse="erm", margin=0.01),
    Within(name="as good as online", metric="top1", a="dr", b="online-kd", num_se=2.0),
    AtMost(name="price of a step", metric="step_over_erm", arm="dr", limit=1.15, reduce="median"),
    Difference(
        name="better calibrated",
        metric="ece",
        better="dr",
        worse="erm",
        lower_is_better=True,
        ci_above=None,
    ),
    Difference(name="targets matter", metric="top1", better="dr", worse="dr-shuffled", margin=0.01),
    Difference(name="replay matters", metric="top1", better="dr", worse="dr-broken"),
    Within(
        name="a tiny student gains nothing",
        metric="top1",
        a="dr-tiny",
        b="erm-tiny",
        num_se=2.0,
        floor=0.01,
        required=False,
    ),
    AtMost(
        name="cheaper than online",
        metric="step_over_online",
        arm="dr",
        limit=1.0,
        reduce="median",
        required=False,
    ),
)

CLAIM = Claim(
    recipe="dataset-reinforcement",
    statement=(
        "A student trained on 50 stored views an image and their stored top-5 probabilities beats "
        "the same student trained on labels by at least a point, is as good as one whose teachers "
        "are asked at every step, is better calibrated, and its steps cost at most 1.15 times as "
        "much."
    ),
    arms=tuple(Arm(name=name, description=text) for name, text in ARMS.items()),
    seeds=(11, 12, 13, 14, 15),
    metrics=("top1", "ece"),
    checks=CHECKS,
    budget=(
        "1,200 steps of 30 images (120 passes over 300) for every student; SGD, cosine; four "
        "teachers of 198 k parameters, trained once a seed on 900 images"
    ),
    failure=(
        "the 95% interval of reinforced - plain touches 0 or its mean is below a point; a step "
        "costs more than 1.15 plain ones; calibration is no better; shuffled targets or broken "
        "replay are as good as exact replay"
    ),
    run_arm=run_arm,
    prepare=prepare,
    scales={"laptop": SETTINGS},
)
