"""The claims of FastVLM at small scale: a fast five-stage tower, and what it buys a small VLM.

Claim A is about latency: towers of equal parameters, timed turn by turn. Claim B trains small
models on questions about canvases of one to four real handwritten digits: a stride-64 tower at 512
and 256 pixels against a ViT of patch 16 at 128 pixels with as many tokens. All arms share steps,
batch, optimiser, decoder and conversations.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from understudy.core.seeds import rng
from understudy.evaluate.claims import (
    Arm,
    AtLeast,
    AtMost,
    Check,
    Claim,
    Context,
    Difference,
    Predicate,
    Results,
)
from understudy.recipes.fastvlm_arms import latencies, make_arm, waiting

SETTINGS: dict[str, Any] = {
    "train": 3_000,
    "test": 300,
    "size": 512,
    "batch": 16,
    "steps": 750,
    "lr": 1e-3,
    "width": 192,
    "depth": 5,
    "resolutions": [128, 256, 512, 768],
    "repeats": 5,
    "inferences": 12,
    "discard": 2,
    "trim": 2,
    "ttft_samples": 15,
}

ARMS = {
    "hybrid-512": "five stages, stride 64, 512 px: 64 tokens",
    "hybrid-256": "the same tower at 256 px: 16 tokens",
    "vit-64": "ViT of patch 16 at 128 px: 64 tokens",
    "vit-16": "the same ViT, squares of 2x2 tokens averaged: 16 tokens",
}


def prepare(seed: int, context: Context) -> dict[str, Any]:
    """Make the seed's canvases, questions and answers."""
    from understudy.data import scenes

    settings, path = context.settings, context.seed_dir / "store"
    scenes.to_store(
        "qa",
        path,
        train=settings["train"],
        test=settings["test"],
        size=settings["size"],
        seed=seed,
    )
    return {"store": str(path)}


def run_arm(arm: str, seed: int, context: Context) -> dict[str, float]:
    """Train one model, ask it the test questions, time its first token beside the reference's."""
    from understudy.data.store import Store
    from understudy.evaluate.vlm import answer_rows, scores
    from understudy.train.config import TrainConfig
    from understudy.train.vlm import train_stage
    from understudy.train.vlm_config import VLMStage

    settings = context.settings
    store = Store.open(context.prepared["store"])
    model = make_arm(arm, seed, settings)
    stage = VLMStage(
        name="all",
        lr=settings["lr"],
        batch_size=settings["batch"],
        steps=settings["steps"],
        warmup=0.1,
        weight_decay=0.05,
    )
    base = TrainConfig(
        steps=1,
        device="cpu",
        log_every=25,
        checkpoint_every=max(settings["steps"] // 3, 1),
        keep_checkpoints=1,
    )
    train_stage(store, model, stage, context.arm_dir, seed=seed, base=base, workers=0)
    model.eval()
    found = scores(answer_rows(model, store, store.where("split = 'test'")))
    found |= waiting(arm, seed, settings)
    return {**found, **latencies(settings)} if arm == "hybrid-512" else found


DRAWS = 2_000
SHARE = 0.05
"""Share of resamples in which a hybrid may be dominated."""


def not_dominated(results: Results) -> tuple[bool, str]:
    """Say whether the hybrids stay in the Pareto plot of accuracy over relative TTFT."""
    from understudy.evaluate.pareto import Point, pareto

    arms = list(ARMS)
    accuracy = np.stack([results[arm]["accuracy"] for arm in arms])
    cost = np.stack([results[arm]["ttft_over_vit"] for arm in arms])
    draw = rng("pareto", 0)
    seeds = accuracy.shape[1]
    lost = dict.fromkeys((a for a in arms if a.startswith("hybrid")), 0)
    for _ in range(DRAWS):
        chosen = draw.integers(seeds, size=seeds)
        points = [
            Point(name=a, cost=float(cost[i, chosen].mean()),
                  score=float(accuracy[i, chosen].mean()), facts={})
            for i, a in enumerate(arms)
        ]  # fmt: skip
        for arm, kept in zip(arms, pareto(points), strict=True):
            if arm in lost and not kept:
                lost[arm] += 1
    shares = {arm: count / DRAWS for arm, count in lost.items()}
    text = ", ".join(f"{arm} dominated in {share:.1%}" for arm, share in shares.items())
    return max(shares.values()) <= SHARE, f"{text} of {DRAWS:,} resamples"


def _latency(rival: str, words: str, required: bool = True) -> tuple[Check, ...]:
    options: dict[str, Any] = {"arm": "hybrid-512", "reduce": "median", "required": required}
    return (
        AtLeast(name=f"A: {words} at 512", metric=f"{rival}_over_ours_512", limit=1.5, **options),
        AtLeast(
            name=f"A: {words}, growth from 128 to 512",
            metric=f"{rival}_growth",
            limit=1.3,
            **options,
        ),
    )


CHECKS: tuple[Check, ...] = (
    Difference(
        name="B: small digits at 64 tokens",
        metric="accuracy_small",
        better="hybrid-512",
        worse="vit-64",
        margin=-0.01,
        ci_above=-0.01,
    ),
    AtMost(
        name="B: first token at 64 tokens",
        metric="ttft_over_vit",
        arm="hybrid-512",
        limit=1.0,
        reduce="median",
    ),
    Difference(
        name="B: 16 tokens against 16 pooled ones",
        metric="accuracy",
        better="hybrid-256",
        worse="vit-16",
    ),
    Predicate(
        name="B: hybrids stay in the Pareto plot",
        statement=(
            "accuracy over relative TTFT: neither hybrid is beaten on both counts in more than "
            f"{SHARE:.0%} of resamples of the seeds"
        ),
        fn=not_dominated,
        reads=tuple(ARMS),
    ),
    *_latency("naive", "naive four stages over ours"),
    *_latency("vit", "ViT-16 over ours"),
    *_latency("four", "MCi2's four stages over ours", required=False),
    AtMost(
        name="B: first token as the paper counts it",
        metric="paper_ttft_over_vit",
        arm="hybrid-512",
        limit=1.0,
        reduce="median",
        required=False,
    ),
)

CLAIM = Claim(
    recipe="fastvlm",
    statement=(
        "A: at equal parameters a five-stage stride-64 tower is at least 1.5 times as fast at 512 "
        "px as naive four stages and as a ViT-16, and the factor grows by 1.3 from 128 px. B: in a "
        "small VLM the stride-64 tower at 512 px answers questions about small digits no worse "
        "than a ViT of as many tokens (within a point) and no later; with 16 tokens it beats "
        "pooled ViT tokens."
    ),
    arms=tuple(Arm(name=name, description=text) for name, text in ARMS.items()),
    seeds=(11, 12, 13),
    metrics=("accuracy_small", "accuracy", "ttft_over_vit"),
    checks=CHECKS,
    budget=(
        "750 steps of 16 canvases of 512 px, each with five or six questions, for every arm; a "
        "decoder of 2.2 M parameters; latencies of folded towers, one thread"
    ),
    failure=(
        "a factor of claim A is missed for one of its two rivals; small digits are read more than "
        "a point worse than by the ViT, or later; the 16-token arms are level; or a hybrid is "
        "dominated in the Pareto plot"
    ),
    run_arm=run_arm,
    prepare=prepare,
    scales={"laptop": SETTINGS},
)
