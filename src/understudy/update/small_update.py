"""A small update of real data, end to end: digits, five classes before it and ten after it.

The old model (64-32-8) saw the digits 0 to 4, the new one (64-128-32) all ten; side information
(64-128-16) was learned without labels from the digits 0 to 4. Query set and gallery are the 719
scans of the test, each item left out of its own ranking.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.core.seeds import rng
from understudy.train.config import TrainConfig
from understudy.update.fit_config import FitConfig
from understudy.update.sample import Sample, sample_of_file
from understudy.update.trained import (
    EmbedderConfig,
    Rows,
    embed,
    space_of_model,
    train_compatible,
    train_labelled,
    train_side,
)

if TYPE_CHECKING:
    from understudy.data.store import Store
    from understudy.models.image.classifier import Classifier

CLASSES = 10
SETTINGS: dict[str, Any] = {
    "old_classes": 5,
    "lr": 1e-2,
    "side_lr": 3e-3,
    "batch": 64,
    "old_epochs": 20,
    "new_epochs": 40,
    "side_epochs": 60,
    "inner": 256,
    "map_epochs": 80,
    "map_batch": 64,
}
"""Epochs, widths and the map's settings are given; learning rates were chosen on other seeds."""


def embedder(model: str, epochs: int, lr: float, batch: int, **changes: Any) -> EmbedderConfig:
    """Return how one of the small models is trained: Adam at a constant rate, on the processor."""
    train = TrainConfig(
        steps=1,
        batch_size=batch,
        lr=lr,
        optimizer="adam",
        betas=(0.9, 0.999),
        schedule="constant",
        device="cpu",
        log_every=50,
    )
    return EmbedderConfig(model=model, epochs=epochs, train=train, **changes)


def map_config(settings: Mapping[str, Any], seed: int, loss: str = "l2") -> FitConfig:
    """Return how the small maps are learned: Adam 5e-4, half of the epochs in eval mode."""
    return FitConfig(
        loss=loss,  # type: ignore[arg-type]
        inner=settings["inner"],
        epochs=settings["map_epochs"],
        warmup_epochs=min(5, settings["map_epochs"] - 1),
        batch_size=settings["map_batch"],
        held_out=0.0,
        evaluations=0,
        checkpoints=0,
        seed=seed,
        device="cpu",
    )


class SmallUpdate:
    """The models of one seed and their vectors.

    Args:
        folder: for runs and files; what is there already is not made again.
        seed: of the split and of all weights.
        settings: see `SETTINGS`.
    """

    def __init__(self, folder: Path, seed: int, settings: Mapping[str, Any]) -> None:
        from understudy.data import scenes

        self.folder, self.seed, self.settings = folder, seed, settings
        self.store: Store = scenes.to_store("scans", folder / "scans", seed=seed)
        self.rows = Rows(store=self.store, where="split = 'train'", num_classes=CLASSES)
        self.old_rows = self.rows.first(settings["old_classes"])

    def _config(self, model: str, kind: str, **changes: Any) -> EmbedderConfig:
        settings = self.settings
        lr = settings["side_lr" if kind == "side" else "lr"]
        return embedder(model, settings[f"{kind}_epochs"], lr, settings["batch"], **changes)

    def train(self, *, keep: float = 1.0, minority: int = 0) -> dict[str, Classifier]:
        """Train the old model, the new model and the side information.

        Args:
            keep: share of the minority's scans that the old model sees.
            minority: the class that it sees less of.
        """
        rows = self.old_rows if keep == 1 else self._biased(keep, minority)
        name = "old" if keep == 1 else f"old-{minority}-{keep:g}"
        return {
            "old": train_labelled(
                self._config("digits-mlp-8", "old"), rows, self.folder / name, self.seed
            ),
            "new": self.new(),
            "side": self.side("simclr", self.folder / "side"),
        }

    def side(self, kind: str, out: Path) -> Classifier:
        """Train side information: shifts by a pixel and noise of 0.15, temperature 0.2."""
        config = self._config("digits-mlp-16", "side", temperature=0.2, shift=1, noise=0.15)
        return train_side(kind, config, self.old_rows, out, self.seed)

    def new(self) -> Classifier:
        """Train the new model, or load it."""
        config = self._config("digits-mlp-32", "new")
        return train_labelled(config, self.rows, self.folder / "new", self.seed)

    def compatible(self, out: Path, *, refresh: float = 0.0) -> Classifier:
        """Train the new model as one that the old classifier understands, of the old width.

        Args:
            out: the run's folder.
            refresh: weight of the hot-refresh term.
        """
        from understudy.models.runs import load_run

        old: Any = load_run(self.folder / "old", folded=False)
        config = self._config("digits-mlp-32", "new")
        return train_compatible(config, self.rows, old, out, self.seed, refresh=refresh)

    def _biased(self, keep: float, minority: int) -> Rows:
        """Return the old model's rows with a share of one class."""
        table = self.store.take(self.store.where(self.old_rows.where), ["id", "label"])
        labels, ids = table["label"].to_numpy(), np.asarray(table["id"].to_pylist())
        mine = ids[labels == minority]
        count = max(round(keep * len(mine)), 1)
        gone = rng("minority", self.seed, minority).permutation(mine)[count:]
        listed = ", ".join(f"'{name}'" for name in gone)
        return replace(self.old_rows, where=f"({self.old_rows.where}) AND id NOT IN ({listed})")

    def sample(self, models: Mapping[str, Classifier], split: str) -> Sample:
        """Return the vectors of a split by all models."""
        rows = self.store.where(f"split = '{split}'")
        table = self.store.take(rows, ["id", "label"])
        return Sample(
            ids=np.asarray(table["id"].to_pylist(), object),
            vectors={part: embed(model, self.store, rows) for part, model in models.items()},
            spaces={part: space_of_model(model) for part, model in models.items()},
            labels=table["label"].to_numpy(),
            num_classes=CLASSES,
            name=f"digits, {split}",
        )

    def write(self, models: Mapping[str, Classifier], name: str = "") -> dict[str, str]:
        """Write the vectors of both splits and return their files and the new classifier's."""
        found = {}
        for split in ("train", "test"):
            path = self.folder / f"{split}{name}.npz"
            found[split] = str(self.sample(models, split).save(path))
        return {**found, "head": f"{self.folder / 'new' / 'model.safetensors'}:image.head"}


def read_samples(files: Mapping[str, str]) -> tuple[Sample, Sample]:
    """Return the training and the test sample that `SmallUpdate.write` wrote."""
    return (
        sample_of_file(files["train"], CLASSES),
        sample_of_file(files["test"], CLASSES),
    )
