"""Train what an update is about: an old model, a new one, side information, a compatible one.

Thin: each function is one run of a trainer of `understudy.train` with what updates have in common,
classes in the order in which they came.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.core.config import check_choice, to_dict
from understudy.core.errors import ConfigError, DataError
from understudy.core.hashing import hash_data
from understudy.data.spaces import Space
from understudy.train.config import TrainConfig

if TYPE_CHECKING:
    from understudy.data.store import Store
    from understudy.models.image.classifier import Classifier

SIDES = ("simclr", "reconstruct", "supervised")
_BATCH = 256


def _budget() -> TrainConfig:
    return TrainConfig(steps=1000, batch_size=64, lr=1e-3, warmup_steps=50, optimizer="adam")


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedderConfig:
    """Say how one embedder is trained.

    Attributes:
        model: a key of `understudy.models.MODELS`, or weights to start from.
        changes: values of its configuration to replace, by dotted key.
        epochs: passes over its rows; with it `train.steps` is not read. 0 leaves `train` alone.
        train: how long and how fast.
        smoothing: of labels.
        augment: transforms of its pictures by name, as in `ViewConfig`.
        temperature: of `simclr`.
        projection: see `SelfSupervisedConfig`.
        shift: see there.
        noise: see there.
    """

    model: str
    changes: dict[str, Any] = field(default_factory=dict)
    epochs: int = 0
    train: TrainConfig = field(default_factory=_budget)
    smoothing: float = 0.1
    augment: dict[str, Any] = field(default_factory=dict)
    temperature: float = 0.5
    projection: int = 0
    shift: int = 0
    noise: float = 0.0

    def budget(self, rows: int) -> TrainConfig:
        """Return the budget on so many rows.

        Raises:
            ConfigError: fewer rows than a batch.
        """
        if not self.epochs:
            return self.train
        batch = self.train.batch_size
        if not 0 < batch <= rows:
            raise ConfigError(
                f"train.batch_size: {batch} pictures of {rows} rows; an epoch has no step. Lower "
                "it, or give more rows."
            )
        steps = self.epochs * (rows // batch)
        return replace(
            self.train, steps=steps, warmup_steps=min(self.train.warmup_steps, steps // 10)
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Which rows and labels an embedder learns from.

    Attributes:
        store: where.
        where: SQL filter.
        labels: column of class numbers.
        num_classes: classes among these rows: 0 to num_classes - 1.
        column: payload column of pictures.
    """

    store: Store
    where: str
    labels: str = "label"
    num_classes: int = 0
    column: str = "image"

    def first(self, classes: int) -> Rows:
        """Return the rows of the first classes alone: what an old model saw.

        Raises:
            ConfigError: not fewer than there are.
        """
        if not 0 < classes < self.num_classes:
            raise ConfigError(
                f"old_classes: {classes} of {self.num_classes} classes; an old model knows some of "
                "them, from 1 on, and not all."
            )
        own = f"{self.labels} < {classes}"
        where = f"({self.where}) AND {own}" if self.where else own
        return replace(self, where=where, num_classes=classes)

    def count(self) -> int:
        """Return how many rows there are.

        Raises:
            DataError: none.
        """
        found = len(self.store.where(self.where)) if self.where else self.store.num_rows
        if not found:
            raise DataError(f"{self.store.path}: no row to train on (rows = {self.where!r}).")
        return found


def train_labelled(config: EmbedderConfig, rows: Rows, out: Path, seed: int) -> Classifier:
    """Train a classifier on labels; its features are the embedding."""
    from understudy.train.classifier_config import ClassifierStudentConfig
    from understudy.train.classifier_student import train_classifier

    student = ClassifierStudentConfig(learn="labels", **_labelled(config, rows, seed))
    train_classifier(rows.store, None, student, out)
    return _load(out)


def train_compatible(
    config: EmbedderConfig,
    rows: Rows,
    old: Classifier,
    out: Path,
    seed: int,
    *,
    weight: float = 1.0,
    refresh: float = 0.0,
) -> Classifier:
    """Train a classifier whose embeddings the old classifier understands, of the old width.

    Args:
        config: of the new model; the width of its embedding is changed to the old one's.
        rows: of the new model.
        old: frozen.
        out: the run's folder.
        seed: of the run.
        weight: of the old classifier's term.
        refresh: of the hot-refresh term.
    """
    from understudy.train.backward import BackwardConfig, train_backward

    width: int = old.image.head.in_features  # type: ignore[assignment, union-attr]
    changed = replace(config, changes={**config.changes, "image.embed_dim": width})
    student = BackwardConfig(weight=weight, refresh=refresh, **_labelled(changed, rows, seed))
    train_backward(rows.store, old, student, out)
    return _load(out)


def _labelled(config: EmbedderConfig, rows: Rows, seed: int) -> dict[str, Any]:
    return {
        "model": config.model,
        "changes": dict(config.changes),
        "augment": dict(config.augment),
        "smoothing": config.smoothing,
        "rows": rows.where,
        "label_column": rows.labels,
        "image_column": rows.column,
        "num_classes": rows.num_classes,
        "train": config.budget(rows.count()),
        "seed": seed,
        "workers": 0,
    }


def train_side(kind: str, config: EmbedderConfig, rows: Rows, out: Path, seed: int) -> Classifier:
    """Train side information on what the old model could see.

    Args:
        kind: `simclr` (two views agree), `reconstruct` (an auto-encoder) or `supervised` (a second
            classifier of the old classes).
        config: of the embedder.
        rows: of the old model.
        out: the run's folder.
        seed: of the run.
    """
    from understudy.train.simclr import SelfSupervisedConfig, train_selfsupervised

    check_choice(kind, SIDES, "side information")
    if kind == "supervised":
        return train_labelled(config, rows, out, seed)
    student = SelfSupervisedConfig(
        model=config.model,
        changes=dict(config.changes),
        learn=kind,  # type: ignore[arg-type]
        augment=dict(config.augment),
        temperature=config.temperature,
        projection=config.projection,
        shift=config.shift,
        noise=config.noise,
        rows=rows.where,
        image_column=rows.column,
        train=config.budget(rows.count()),
        seed=seed,
        workers=0,
    )
    train_selfsupervised(rows.store, None, student, out)
    return _load(out)


def _load(out: Path) -> Classifier:
    from understudy.models.runs import load_run

    return load_run(out, "final")  # type: ignore[return-value]


def embed(model: Classifier, store: Store, rows: np.ndarray, column: str = "image") -> np.ndarray:
    """Return a model's embeddings float32 [N, d] of rows, in their order."""
    import torch

    from understudy.data.decode import decode

    parts = []
    with torch.inference_mode():
        for start in range(0, len(rows), _BATCH):
            some = rows[start : start + _BATCH]
            table = store.take(some, ["id", column])
            named = zip(table["id"].to_pylist(), table[column].to_pylist(), strict=True)
            pixels = model.preprocess_images([decode(data, name=name) for name, data in named])
            parts.append(model.features(pixels).float().numpy())
    return np.concatenate(parts)


def space_of_model(model: Classifier) -> Space:
    """Return the space of a model's embeddings."""
    from understudy.models.io import weights_hash

    return Space(
        model=model.config.name,
        fingerprint=weights_hash(model),
        preprocess=hash_data(to_dict(model.preprocess)),
        dim=model.config.image.width,
    )
