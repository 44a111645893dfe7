"""A small store of pairs and encoders that need no download, for tests of the recipe ape."""

from __future__ import annotations

from pathlib import Path

import torch

from understudy.data.scenes import to_store
from understudy.models.multimodal.heads import HeadConfig
from understudy.recipes.ape import Config
from understudy.train.config import TrainConfig

IMAGE, TEXT = ("eye=random-conv?dim=16&filters=16&grid=2",), ("words=tfidf-svd?dim=24",)
HEAD = HeadConfig(hidden=16, dropout=0.2)
TRAIN = TrainConfig(steps=20, batch_size=24, lr=3e-3, eval_every=5, device="cpu")


def make_store(path: Path) -> Path:
    """Make 120 training pairs, a pool of 80 and 40 test pairs."""
    torch.set_num_threads(1)
    to_store("ape-pairs", path, train=120, pool=80, test=40, size=16)
    return path


def config(store: Path, out: Path, **changes) -> Config:
    """Return a small run."""
    common = {
        "image_encoders": IMAGE,
        "text_encoders": TEXT,
        "text_head": HEAD,
        "train": TRAIN,
        "templates": ("a picture of {}", "{}"),
    }
    return Config(store=store, out=out, **{**common, **changes})
