"""Published settings of arXiv 2508.20691; see `understudy.train.presets`."""

from __future__ import annotations

from typing import Any

from understudy.train.config import TrainConfig
from understudy.train.presets_classifier import rescaled
from understudy.train.student_config import StudentConfig

SCALES = (70.0, 60.0)
"""Logit scales of the two teachers, DFN2B ViT-L/14 and its longer training (s39b)."""
WIDE = {"batch_size": 114_688, "warmup_steps": 2_000, "min_lr": 0.0}
LARGE: dict[str, dict[str, Any]] = {
    "mobileclip2-s0": {"batch_size": 65_536, "warmup_steps": 10_000, "min_lr": 1e-6},
    "mobileclip2-s2": {"batch_size": 65_536, "warmup_steps": 10_000, "min_lr": 1e-6},
    "mobileclip2-b": {"batch_size": 65_536, "warmup_steps": 2_000, "min_lr": 1e-6},
    "mobileclip2-s3": WIDE,
    "mobileclip2-s4": WIDE,
}
"""What differs between the students of the large run (table of hyperparameters)."""


def _student(model: str, **budget: Any) -> StudentConfig:
    return StudentConfig(
        model=model,
        lam=1.0,
        scales=SCALES,
        pick="random",
        view_set="main",
        view_order="random",
        rescale=rescaled(model),
        train=TrainConfig(
            lr=1e-3,
            weight_decay=0.2,
            betas=(0.9, 0.95),
            clip_norm=1.0,
            precision="bf16",
            checkpoint_every=1_000,
            **budget,
        ),
    )


def mobileclip2_large(model: str = "mobileclip2-s0") -> StudentConfig:
    """Return the run on 1.9 B pairs: 200k steps of 65,536, or of 114,688 for S3 and S4.

    Another student takes the settings of S0. The store's teachers must be the published two, in
    order, for their scales 70 and 60.
    """
    return _student(model, steps=200_000, **LARGE.get(model, LARGE["mobileclip2-s0"]))


def mobileclip2_ablation(model: str = "mobileclip2-b") -> StudentConfig:
    """Return the run on 12.8 M pairs: 30k steps of 8,192, about 20 passes."""
    return _student(model, steps=30_000, batch_size=8_192, warmup_steps=1_000)
