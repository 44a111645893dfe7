"""What MobileCLIP's claim trains: teachers, a seed's reinforced pairs, the student of every arm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from understudy.evaluate.claims import Context

STUDENT = "mobileclip-nano"
TEACHERS: dict[str, dict[str, Any]] = {
    "a": {"model": "clip-teacher-a", "channels": [24, 48, 48, 96, 96]},
    "b": {"model": "clip-teacher-b", "channels": [32, 48, 64, 96]},
}
CONTEXT = 16
"""Tokens of a text: the longest clean caption has 14 words."""
NANO = {"image.layer_scale": 0.1, "text.layer_scale": 0.1, "text.context_length": CONTEXT}
"""Changes of the student: the published 1e-5 is meant for 200,000 steps, not for 1,500."""
PAPER = 230
"""Level of the light paper that scenes stand on: what lies outside of a shifted view."""
VIEWS: dict[str, dict[str, Any]] = {
    "weak": {"random_crop": {"padding": 4, "fill": PAPER}},
    "strong": {
        "random_resized_crop": {"scale": [0.8, 1.0], "interpolation": "bicubic"},
        "rand_augment": {"magnitude": 5, "fill": PAPER},
    },
}
"""Shifts, and the published kind of view, as mild as small digits and a short run ask for."""

SETTINGS: dict[str, Any] = {
    "pairs": 4_000,
    "teacher_pairs": 20_000,
    "test": 1_000,
    "retrieval": 200,
    "batch": 64,
    "steps": 1_500,
    "lr": 6e-3,
    "teacher_steps": 2_500,
    "teacher_lr": 2e-3,
    "views": 10,
    "sigma": 30.0,
    "vocab": 600,
    "timing_rounds": 20,
}

ARMS = {
    "clip": "CLIP loss, real captions, shifts",
    "clip-syn": "CLIP loss on the real and on the synthetic captions",
    "distil-real": "imitation of one teacher, real captions only",
    "distil-syn": "imitation of one teacher, synthetic captions only",
    "distil-both": "imitation of one teacher, two losses: real and synthetic captions",
    "strong": "distil-both on replayed strong views",
    "full": "strong with two teachers: the whole recipe",
    "broken": "full with fresh strong views but the stored embeddings (control)",
}


def _budget(settings: Mapping[str, Any], steps: int, lr: float) -> Any:
    from understudy.train.config import TrainConfig

    return TrainConfig(
        steps=steps,
        batch_size=settings["batch"],
        lr=lr,
        warmup_steps=steps // 15,
        weight_decay=0.1,
        clip_norm=1.0,
        device="cpu",
        log_every=50,
        checkpoint_every=max(steps // 3, 1),
        keep_checkpoints=1,
    )


def setup(context: Context) -> dict[str, Any]:
    """Train the two teachers on clean pairs."""
    from understudy.data import scenes
    from understudy.data.store import Store
    from understudy.models.runs import weights_path
    from understudy.train.student import train_clip
    from understudy.train.student_config import StudentConfig

    settings, path = context.settings, context.shared_dir / "pairs"
    made = {"train": 0, "teacher": settings["teacher_pairs"], "test": 0, "num_captions": 1}
    store = (
        Store.open(path)
        if path.exists()
        else scenes.to_store("pairs", path, seed=1, masks=False, **made)
    )
    found = {}
    for k, (name, teacher) in enumerate(TEACHERS.items()):
        config = StudentConfig(
            model=teacher["model"],
            changes={"image.channels": teacher["channels"], "text.context_length": CONTEXT},
            captions="real",
            lam=0.0,
            augment=VIEWS["weak"],
            vocab_size=settings["vocab"],
            rows="split = 'teacher'",
            train=_budget(settings, settings["teacher_steps"], settings["teacher_lr"]),
            seed=k,
            workers=0,
        )
        run = train_clip(store, None, config, context.shared_dir / f"teacher-{name}")
        found[name] = str(weights_path(run.path))
    return {"teachers": found}


def prepare(seed: int, context: Context) -> dict[str, Any]:
    """Make the seed's pairs and reinforce them: weak views by teacher a, strong ones by both."""
    from understudy.data import scenes
    from understudy.data.store import Store
    from understudy.data.view_config import ViewConfig
    from understudy.reinforce.config import ReinforceConfig, TeacherSpec
    from understudy.reinforce.generate import reinforce

    settings, path = context.settings, context.seed_dir / "store"
    made = {"train": settings["pairs"], "teacher": 0, "test": settings["test"], "num_captions": 1}
    store = (
        Store.open(path)
        if path.exists()
        else scenes.to_store("pairs", path, seed=seed, masks=False, **made)
    )
    specs = tuple(
        TeacherSpec(name=name, path=file, outputs=("image", "text"), logit_scale=settings["sigma"])
        for name, file in context.shared["teachers"].items()
    )
    seconds = 0.0
    for kind, teachers in (("weak", specs[:1]), ("strong", specs)):
        config = ReinforceConfig(
            view_set=kind,
            num_views=settings["views"],
            views=ViewConfig(size=48, transforms=VIEWS[kind]),
            teachers=teachers,
            rows="split = 'train'",
            seed=seed,
        )
        seconds += reinforce(store, config).wall_seconds
    return {"store": str(path), "reinforce_seconds": seconds}


def student(arm: str, seed: int, settings: Mapping[str, Any]) -> Any:
    """Return the configuration of an arm's student."""
    from understudy.train.student_config import StudentConfig

    config = StudentConfig(
        model=STUDENT,
        changes=dict(NANO),
        captions="both",
        pick="random",
        lam=1.0,
        view_set="weak",
        teachers=("a",),
        vocab_size=settings["vocab"],
        rows="split = 'train'",
        train=_budget(settings, settings["steps"], settings["lr"]),
        seed=seed,
        workers=0,
    )
    if arm.startswith("clip"):
        captions = "both" if arm == "clip-syn" else "real"
        return replace(config, lam=0.0, teachers=(), captions=captions)
    if arm in ("distil-real", "distil-syn"):
        return replace(config, captions=arm.removeprefix("distil-"))
    if arm == "distil-both":
        return config
    config = replace(config, view_set="strong")
    if arm == "strong":
        return config
    return replace(config, teachers=("a", "b"), replay="fresh" if arm == "broken" else "stored")
