"""A small reinforced store of scenes for tests of students: two teachers, weak and strong views."""

from __future__ import annotations

from pathlib import Path

from understudy import models
from understudy.data import scenes
from understudy.data.store import Store
from understudy.data.view_config import ViewConfig
from understudy.models.text.train_tokenizer import train_words
from understudy.reinforce.config import ReinforceConfig, TeacherSpec
from understudy.reinforce.generate import reinforce
from understudy.reinforce.teachers.own import OwnTeacher
from understudy.train.config import TrainConfig

VIEWS = {"random_resized_crop": {"scale": [0.5, 1.0]}, "rand_augment": {"fill": 230}}
SCALES = {"ta": 20.0, "tb": 30.0}


def teacher_clip(seed: int, name: str = "clip-teacher-a", embed_dim: int = 16):
    """Return a fresh CLIP that knows the words of scenes."""
    words = [f"a {size} {digit} left of above with them" for size in ("small", "large")
             for digit in range(10)]  # fmt: skip
    tokenizer = train_words(words, 64, context_length=16)
    return models.create(name, seed=seed, tokenizer=tokenizer, embed_dim=embed_dim,
                         **{"text.depth": 1, "text.context_length": 16})  # fmt: skip


def pair_store(path: Path, train: int = 40, test: int = 12) -> Store:
    """Return a store of pairs whose rows of split `train` are reinforced by two fresh teachers."""
    store = scenes.to_store(
        "pairs", path, train=train, teacher=0, test=test, seed=1000, num_captions=2, masks=False
    )
    teachers = {
        name: OwnTeacher(name, teacher_clip(seed), logit_scale=scale)
        for seed, (name, scale) in enumerate(SCALES.items())
    }
    config = ReinforceConfig(
        view_set="main",
        num_views=2,
        views=ViewConfig(size=48, transforms=VIEWS),
        teachers=tuple(TeacherSpec(name=name, outputs=("image", "text")) for name in teachers),
        dtype="float32",
        rows="split = 'train'",
    )
    reinforce(store, config, teachers=teachers)
    return Store.open(path)


def digit_store(path: Path, rows: int = 40) -> Store:
    """Return digits whose first student rows hold top-3 probabilities of a fresh classifier."""
    store = scenes.to_store("digits", path, division=0)
    first = store.where("split = 'student'")[:rows]
    names = store.take(first, ["id"]).column(0).to_pylist()
    listed = ", ".join(f"'{name}'" for name in names)
    teacher = OwnTeacher("t", models.create("cnn-tiny", seed=5))
    config = ReinforceConfig(
        view_set="main",
        num_views=2,
        views=ViewConfig(size=32, transforms={"random_resized_crop": {"scale": [0.6, 1.0]}}),
        teachers=(TeacherSpec(name="t", outputs=("topk",)),),
        topk=3,
        rows=f"id in ({listed})",
    )
    reinforce(store, config, teachers={"t": teacher})
    return Store.open(path)


def few_steps(steps: int = 4, **changes) -> TrainConfig:
    """Return a tiny budget."""
    base = {"steps": steps, "batch_size": 8, "lr": 1e-3, "device": "cpu", "log_every": 1}
    return TrainConfig(**{**base, **changes})
