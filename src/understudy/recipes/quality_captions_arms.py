"""How the claim's students learn: who teaches, who scores captions, what each arm reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from understudy.data.dense_augment import DenseAugment
from understudy.evaluate.claims import Context
from understudy.models.dense.config import HeadConfig
from understudy.recipes.quality_captions_scenes import CAPTIONER, CLASSES, MASKS, make_store
from understudy.train.budgets import claim_budget
from understudy.train.caption_arm import parse_arm
from understudy.train.dense_config import FineTuneConfig, TransferConfig
from understudy.train.student_config import StudentConfig

CONTEXT = 20
"""Tokens of a text: the longest clean caption has 12 words, and noise adds a few."""
NANO = {
    "image.layer_scale": 0.1,
    "text.layer_scale": 0.1,
    "text.context_length": CONTEXT,
}
"""Changes of the student: the published 1e-5 is meant for 200,000 steps, not for some hundred."""
VIEW = {"random_crop": {"padding": 4, "fill": 128}}
"""Shifts alone: a mirrored scene would have its captions' places wrong."""
TEACHER = {"model": "clip-teacher-a", "changes": {"image.channels": [24, 48, 48, 96, 96]}}
SCORER = {"model": "clip-teacher-b", "changes": {"image.channels": [32, 48, 64, 96]}}
"""Two CLIPs that see clean pairs of their own scans and photographs: one teaches the distilled
arms, the other scores captions and teaches nobody."""

EXPRESSIONS = {
    "noisy": "text.noisy",
    "medium": "text.medium",
    "mild": "text.mild",
    "clean": f"caption.{CAPTIONER}",
    "noisy-distil": "text.noisy",
    "clean-distil": f"caption.{CAPTIONER}",
    "noisy-shuffled": "text.noisy-shuffled",
    "clean-shuffled": "text.clean-shuffled",
}
"""Arm -> which captions it learns from."""


def big_model(kind: Mapping[str, Any], seed: int, settings: Mapping[str, Any]) -> StudentConfig:
    """Return the configuration of the teacher or of the scorer."""
    return StudentConfig(
        model=kind["model"],
        changes={
            **kind["changes"],
            "image.image_size": settings["size"],
            "text.context_length": CONTEXT,
        },
        captions="real",
        text_column="text.clean",
        lam=0.0,
        augment=VIEW,
        vocab_size=settings["vocab"],
        rows="split = 'teacher'",
        train=claim_budget(settings["teacher_steps"], settings["batch"], settings["teacher_lr"]),
        seed=seed,
        workers=0,
    )


def setup(context: Context) -> dict[str, Any]:
    """Train the teacher and the scorer on clean pairs that no student sees."""
    from understudy.models.runs import weights_path
    from understudy.train.student import train_clip

    settings = context.settings
    store = make_store(
        context.shared_dir / "scenes", 1, settings, teacher=settings["teacher_pairs"]
    )
    found = {}
    for seed, (name, kind) in enumerate({"teacher": TEACHER, "scorer": SCORER}.items()):
        config = big_model(kind, seed, settings)
        run = train_clip(store, None, config, context.shared_dir / name)
        found[name] = str(weights_path(run.path))
    return found


def prepare(seed: int, context: Context) -> dict[str, Any]:
    """Make the seed's scenes and captions, score the captions, and ask the teacher once."""
    from understudy.data.view_config import ViewConfig
    from understudy.evaluate.captions import Nouns, check_held_out, score_captions
    from understudy.models.runs import load_run
    from understudy.recipes.quality_captions_scenes import LEVELS, LEXICON, SHUFFLED
    from understudy.reinforce.config import ReinforceConfig, TeacherSpec
    from understudy.reinforce.generate import reinforce
    from understudy.reinforce.held_out import fingerprints

    settings, path = context.settings, context.seed_dir / "store"
    store = make_store(path, seed, settings, train=settings["pairs"], test=settings["test"])
    config = ReinforceConfig(
        view_set="weak",
        num_views=settings["views"],
        views=ViewConfig(size=settings["size"], transforms=VIEW),
        teachers=(
            TeacherSpec(
                name="t",
                path=context.shared["teacher"],
                outputs=("image", "text"),
                logit_scale=settings["sigma"],
            ),
        ),
        text_column="text.noisy",
        caption_columns=CAPTIONER,
        rows="split = 'train'",
        seed=seed,
    )
    seconds = reinforce(store, config).wall_seconds
    store.refresh()
    scorer = load_run(context.shared["scorer"])
    check_held_out(fingerprints(scorer), store)
    scored = score_captions(
        scorer,
        store,
        {name: f"text.{name}" for name in (*LEVELS, *SHUFFLED)},
        rows=store.where("split = 'train'")[: settings["scored"]],
        nouns=Nouns(lexicon=LEXICON, facts="digits"),
        seed=seed,
    )
    return {"store": str(path), "reinforce_seconds": seconds, "captions": scored}


def student(arm: str, seed: int, settings: Mapping[str, Any]) -> StudentConfig:
    """Return what an arm's student learns from; all share tower, budget, views and seed."""
    distils = arm.endswith("-distil")
    config = StudentConfig(
        model="mobileclip-nano",
        changes={**NANO, "image.image_size": settings["size"]},
        captions="real",
        view_set="weak",
        teachers=("t",) if distils else (),
        lam=settings["lam"] if distils else 0.0,
        vocab_size=settings["vocab"],
        rows="split = 'train'",
        train=claim_budget(settings["steps"], settings["batch"], settings["lr"]),
        seed=seed,
        workers=0,
    )
    return parse_arm(f"{arm}={EXPRESSIONS[arm]}").student(config)


def shared_start(seed: int, settings: Mapping[str, Any]) -> StudentConfig:
    """Return the student whose weights and tokenizer every arm starts from."""
    both = parse_arm(f"all=text.noisy & caption.{CAPTIONER}")
    return both.student(replace(student("noisy", seed, settings), captions="real"))


def labels_of(arm: str, settings: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the label counts of an arm: the whole curve where label efficiency is read."""
    whole = arm in ("noisy", "clean")
    return tuple(settings["curve"] if whole else settings["compared"])


def transfer_config(arm: str, seed: int, settings: Mapping[str, Any]) -> TransferConfig:
    """Return the fine-tuning: Semantic FPN-nano, end to end, equal for all arms."""
    tune = FineTuneConfig(
        head=HeadConfig(
            classes=CLASSES,
            width=settings["head_width"],
            hidden=settings["head_width"],
        ),
        masks=MASKS,
        size=settings["size"],
        # mirrored digits would be other signs
        augment=DenseAugment(flip=0.0, jitter=settings["jitter"]),
        train=claim_budget(
            settings["tune_steps"],
            settings["tune_batch"],
            max(settings["tune_lrs"]),
            weight_decay=0.05,
            checkpoint_every=0,
        ),
        seed=seed,
        workers=0,
    )
    return TransferConfig(
        tune=tune,
        labels=labels_of(arm, settings),
        lrs=tuple(settings["tune_lrs"]),
        validation=settings["validation"],
        search_labels=settings["search_labels"],
        rows="split = 'train'",
    )
