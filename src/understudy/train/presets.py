"""Published training settings, as configurations to start from.

>>> from understudy.train.presets import PRESETS, mobileclip_ablation
>>> mobileclip_ablation().train.steps
30000

`PRESETS` names them for the command line: `understudy train STORE --preset mobileclip-large`.
Released records are of views of 224 px, one drawn for each row; students of another input size
replay them rescaled. Settings of classifiers evaluate as published too: ImageNet resized to 256 and
cropped to 224 (`preprocess.crop` 0.875).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from understudy.core.config import check_choice
from understudy.train.classifier_config import ClassifierStudentConfig
from understudy.train.config import TrainConfig
from understudy.train.presets_classifier import (
    IMAGENET_IMAGES,
    imagenet_mci,
    imagenet_online,
    imagenet_plain,
    imagenet_reinforced,
    rescaled,
    small_set_plain,
    small_set_reinforced,
    steps_of,
)
from understudy.train.presets_mobileclip2 import mobileclip2_ablation, mobileclip2_large
from understudy.train.student_config import StudentConfig

__all__ = [
    "IMAGENET_IMAGES",
    "PRESETS",
    "imagenet_mci",
    "imagenet_online",
    "imagenet_plain",
    "imagenet_reinforced",
    "mobileclip2_ablation",
    "mobileclip2_large",
    "mobileclip_ablation",
    "mobileclip_large",
    "mobileclip_longer",
    "preset",
    "small_set_plain",
    "small_set_reinforced",
    "steps_of",
]


def _mobileclip(model: str, lam: float | None, **budget: Any) -> StudentConfig:
    published = 0.75 if model.endswith("-b") else 1.0
    return StudentConfig(
        model=model,
        lam=published if lam is None else lam,
        pick="random",
        view_set="main",
        view_order="random",
        rescale=rescaled(model),
        range_augment=True,
        train=TrainConfig(
            lr=1e-3,
            min_lr=1e-6,
            weight_decay=0.2,
            betas=(0.9, 0.95),
            clip_norm=1.0,
            precision="bf16",
            checkpoint_every=1_000,
            **budget,
        ),
    )


def mobileclip_ablation(model: str = "mobileclip-b", lam: float = 1.0) -> StudentConfig:
    """Return the run on 12.8 M pairs: 30k steps of 8,192 (arXiv 2311.17049)."""
    return _mobileclip(model, lam, steps=30_000, batch_size=8_192, warmup_steps=1_000)


def mobileclip_large(model: str = "mobileclip-s0", lam: float | None = None) -> StudentConfig:
    """Return the run on 1.28 B pairs: 200k steps of 65,536 (arXiv 2311.17049).

    Args:
        model: which student.
        lam: weight of distillation; None takes the published 0.75 for B, 1.0 for the S models. The
            warm-up is the paper's 2,000 steps; its scripts have 1,000.
    """
    return _mobileclip(
        model, lam, steps=200_000, batch_size=65_536, warmup_steps=2_000, ema_decay=0.9995
    )


def mobileclip_longer(model: str = "mobileclip-b", lam: float | None = None) -> StudentConfig:
    """Return the longer run, B (LT): 300k constant and 300k cosine steps (arXiv 2311.17049).

    Args:
        model: which student; published for B.
        lam: see `mobileclip_large`.
    """
    return _mobileclip(
        model,
        lam,
        steps=600_000,
        batch_size=65_536,
        warmup_steps=2_000,
        schedule="constant-cosine",
        decay_start=300_000,
        ema_decay=0.9995,
    )


FLOWERS: dict[str, Any] = {"images": 1_020, "epochs": 10_000}
FOOD: dict[str, Any] = {"images": 75_750}

PRESETS: Mapping[str, Callable[..., StudentConfig | ClassifierStudentConfig]] = MappingProxyType(
    {
        "mobileclip-ablation": mobileclip_ablation,
        "mobileclip-large": mobileclip_large,
        "mobileclip-longer": mobileclip_longer,
        "mobileclip2-large": mobileclip2_large,
        "mobileclip2-ablation": mobileclip2_ablation,
        "imagenet-mci": imagenet_mci,
        "imagenet-reinforced": imagenet_reinforced,
        "imagenet-plain": imagenet_plain,
        "imagenet-online": imagenet_online,
        "cifar100-reinforced": partial(small_set_reinforced, cifar=True),
        "cifar100-plain": partial(small_set_plain, cifar=True),
        "food101-reinforced": partial(small_set_reinforced, **FOOD),
        "food101-plain": partial(small_set_plain, **FOOD),
        "flowers102-reinforced": partial(small_set_reinforced, **FLOWERS),
        "flowers102-plain": partial(small_set_plain, **FLOWERS),
    }
)
"""Published settings by name; each takes another `model` than its own."""


def preset(name: str, model: str | None = None) -> StudentConfig | ClassifierStudentConfig:
    """Return a published setting.

    Args:
        name: a key of `PRESETS`.
        model: another student than the published one.

    Raises:
        ConfigError: no such setting; the message lists them.
    """
    check_choice(name, PRESETS, "preset")
    return PRESETS[name](**({} if model is None else {"model": model}))
