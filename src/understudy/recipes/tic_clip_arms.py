"""The claim's arms: one method each through six steps of drifting digits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from understudy.data.periods_stream import StreamRule
from understudy.data.scenes.drifting_digits import PROMPTS
from understudy.evaluate.claims import Context
from understudy.train.budgets import claim_budget
from understudy.train.student_config import StudentConfig
from understudy.update.continual_config import ContinualConfig

MODEL = "clip-conv-nano"
AUGMENT = {"random_resized_crop": {"scale": [0.9, 1.0], "interpolation": "bicubic"}}
"""OpenCLIP's usual one."""
HALF = "-small"
"""What the name of an arm ends with whose memory is one step's size instead of two."""


def changes_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the towers: three convolutions; two layers of a transformer, nearly by character."""
    return {
        "embed_dim": 64,
        "image.image_size": settings["size"],
        "image.channels": [16, 32, 64],
        "image.strides": [1, 2, 2],
        "image.grid": 2,
        "text.variant": "base",
        "text.width": 64,
        "text.depth": 2,
        "text.num_heads": 4,
        "text.context_length": settings["context"],
    }


def method_config(arm: str, seed: int, settings: Mapping[str, Any]) -> ContinualConfig:
    """Return how an arm goes through the stream; arms differ in method and memory alone."""
    small = arm.endswith(HALF)
    train = claim_budget(
        settings["iterations"],
        settings["batch"],
        settings["lr"],
        warmup_steps=settings["warmup"],
        # AdamW as published: OpenCLIP's, without clipping
        betas=(0.9, 0.98),
        eps=1e-6,
        weight_decay=0.2,
        clip_norm=None,
        checkpoint_every=settings["iterations"],
    )
    return ContinualConfig(
        method=arm.removesuffix(HALF),
        memory=1.0 if small else 2.0,
        student=StudentConfig(
            model=MODEL,
            changes=changes_of(settings),
            vocab_size=settings["vocab"],
            captions="real",
            lam=0.0,
            augment=AUGMENT,
            train=train,
            seed=seed,
            workers=0,
        ),
        lwf_weight=settings["lwf_weight"],
    )


def rule_of(settings: Mapping[str, Any], seed: int) -> StreamRule:
    """Return how the store is divided: `time` is the step; a tenth is held for patching's choice.

    All arms leave the held rows out of training, so that they learn from equal data.
    """
    return StreamRule(held_share=settings["held_share"], seed=seed)


def prepare(seed: int, context: Context) -> dict[str, Any]:
    """Make the seed's digits."""
    from understudy.data import scenes

    settings = context.settings
    store = scenes.to_store(
        "drifting-digits",
        context.seed_dir / "store",
        seed=seed,
        steps=settings["steps"],
        train=settings["train"],
        test=settings["test"],
        size=settings["size"],
    )
    return {"store": store.path}


def run_arm(arm: str, seed: int, context: Context) -> dict[str, float]:
    """Go through the stream with one method and return its transfer."""
    from understudy.data.periods_stream import Stream
    from understudy.data.store import Store
    from understudy.evaluate.transfer_tasks import step_scores
    from understudy.update.continual import run_stream

    settings = context.settings
    store = Store.open(context.prepared["store"])
    stream = Stream.of(store, rule_of(settings, seed))

    def score(model: Any, sets: Any) -> Any:
        return step_scores(model, store, sets, tasks=("zeroshot",), prompts=PROMPTS)

    found = run_stream(
        store, stream, method_config(arm, seed, settings), context.arm_dir / "stream", score
    )
    summary = found.matrix("zeroshot").summary()
    metrics = {key: float(value) for key, value in summary.items() if value is not None}
    return {**metrics, "compute": found.compute}
