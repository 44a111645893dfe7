"""A small stream of drifting digits and students that train for a few steps on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from understudy.data import scenes
from understudy.data.periods_stream import Stream, StreamRule
from understudy.data.store import Store
from understudy.train.config import TrainConfig
from understudy.train.student_config import StudentConfig
from understudy.update.continual_config import ContinualConfig

CHANGES = {
    "embed_dim": 8,
    "image.image_size": 8,
    "image.channels": [4, 8],
    "image.strides": [2, 2],
    "image.grid": 1,
    "text.variant": "base",
    "text.width": 16,
    "text.depth": 1,
    "text.num_heads": 2,
    "text.context_length": 12,
}


def make_store(path: Path, steps: int = 3, train: int = 30, **options: Any) -> Store:
    return scenes.to_store(
        "drifting-digits", path, steps=steps, train=train, test=6, size=8, **options
    )


def stream_of(store: Store, **options: Any) -> Stream:
    return Stream.of(store, StreamRule(**{"held_share": 0.2, **options}))


def config_of(method: str = "sequential", iterations: int = 3, **options: Any) -> ContinualConfig:
    train = {
        "steps": iterations,
        "batch_size": 8,
        "lr": 3e-3,
        "device": "cpu",
        "log_every": 50,
        "checkpoint_every": 2,
        **options.pop("train", {}),
    }
    student = StudentConfig(
        model="clip-conv-nano",
        changes={**CHANGES, **options.pop("changes", {})},
        vocab_size=520,
        captions="real",
        lam=0.0,
        train=TrainConfig(**train),
        workers=0,
        seed=options.pop("seed", 0),
    )
    return ContinualConfig(method=method, student=student, **options)


def score(model: Any, sets: Any) -> dict[str, dict[str, float]]:
    """Score a model by a number that its weights alone decide."""
    value = float(model.logit_scale.detach()) + float(model.text.head.weight.detach().sum())
    return {"toy": {name: value + 0.01 * i for i, name in enumerate(sets)}}


def states_equal(a: Any, b: Any) -> bool:
    return all(
        np.array_equal(x.numpy(), y.numpy())
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )
