"""Which items an update is tried out on, and who embeds them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from understudy.core.errors import ConfigError, DataError
from understudy.core.seeds import rng
from understudy.data.splits import training_filter
from understudy.train.config import TrainConfig
from understudy.update.fit_config import FitConfig
from understudy.update.trained import SIDES

if TYPE_CHECKING:
    from understudy.data.store import Store

TRAIN = "train"
FILES = (".npz", ".parquet")
LINE = re.compile(rf"({TRAIN}|{'|'.join(SIDES)}):(.+)")
"""A line that trains an embedder: what it is for, and the model."""


def _budget() -> TrainConfig:
    return TrainConfig(steps=1000, batch_size=64, lr=1e-3, warmup_steps=50, optimizer="adam")


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """Say which items, and who embeds them.

    Attributes:
        store: items with labels; or a file of pairs to learn maps from.
        test: file of pairs to search, where `store` is a file.
        old: the old embedder, see `understudy.update.source`; not read where `store` is a file.
        new: the new embedder.
        side: side information; empty for none.
        modality: image or text.
        column: payload column; empty takes the one named after the modality.
        labels: column of classes, numbers or words: items of one class are to find each other.
        train_rows: SQL filter of the items to learn from; empty takes the training split.
        test_rows: SQL filter of the items to search; empty takes the split `test`.
        limit: at most so many items of each of the two, drawn by seed; 0 for all.
        old_classes: classes that a trained old model sees, the first ones; 0 for half.
        train: how long and how fast the trained embedders learn.
        smoothing: of their labels.
        augment: transforms of side information's views by name, as in `ViewConfig`.
        shift: largest shift of these views in pixels.
        noise: of these views.
        temperature: of simclr.
        fit: how maps are learned; `kind` and `loss` are set by the recipe.
        metric: l2 or cosine.
        seed: of everything.

    Raises:
        ConfigError: no embedders for a store, or a test file for one.
    """

    store: Path
    test: str = ""
    old: str = ""
    new: str = ""
    side: str = ""
    modality: Literal["image", "text"] = "image"
    column: str = ""
    labels: str = "label"
    train_rows: str = ""
    test_rows: str = ""
    limit: int = 0
    old_classes: int = 0
    train: TrainConfig = field(default_factory=_budget)
    smoothing: float = 0.1
    augment: dict[str, Any] = field(default_factory=dict)
    shift: int = 0
    noise: float = 0.0
    temperature: float = 0.2
    fit: FitConfig = field(default_factory=FitConfig)
    metric: Literal["l2", "cosine"] = "l2"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.is_file != bool(self.test):
            raise ConfigError(
                f"test: '{self.test}' with store {self.store}; a file of pairs to learn from needs "
                "one to search (test), a store none: its rows are split by train_rows and "
                "test_rows."
            )
        if not self.is_file and not (self.old and self.new):
            raise ConfigError(
                "old, new: name both embedders, for example --old efficientnet-lite0 --new "
                "efficientnet-lite2, or --old train:digits-mlp-8 --new train:digits-mlp-32."
            )
        for name in ("old", "new"):
            match = LINE.fullmatch(getattr(self, name))
            if match and match[1] != TRAIN:
                raise ConfigError(
                    f"{name}: '{match[0]}'; {match[1]} makes side information. Use {TRAIN}:MODEL."
                )
        if self.limit < 0 or self.old_classes < 0 or self.seed < 0:
            raise ConfigError(
                f"limit, old_classes, seed: expected at least 0, got {self.limit}, "
                f"{self.old_classes} and {self.seed}."
            )
        trains = any(LINE.fullmatch(line) for line in (self.old, self.new, self.side))
        if trains and self.modality != "image":
            raise ConfigError(
                "old, new, side: only embedders of images are trained here; name text encoders."
            )

    @property
    def is_file(self) -> bool:
        """Whether pairs come from files."""
        return Path(self.store).suffix in FILES

    def lines(self) -> dict[str, str]:
        """Return the embedders' lines by part, those that there are."""
        found = {"old": self.old, "new": self.new, "side": self.side}
        return {part: line for part, line in found.items() if line}


def chosen_rows(store: Store, config: SourceConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows to learn from and the rows to search, both ascending.

    Raises:
        DataError: no rows of one kind, or rows of both.
    """
    where = config.train_rows or training_filter(store)
    other = config.test_rows or ("split = 'test'" if store.has("split") else "")
    if not other:
        raise DataError(
            f"{store.path}: no column 'split'; say which rows are searched (test_rows)."
        )
    found = []
    for name, sql in (("train_rows", where), ("test_rows", other)):
        rows = np.asarray(store.where(sql) if sql else np.arange(store.num_rows), np.int64)
        if not len(rows):
            raise DataError(f"{name}: no row of {store.path} meets {sql!r}.")
        if config.limit and len(rows) > config.limit:
            rows = rng("update rows", name, config.seed).permutation(rows)[: config.limit]
        found.append(np.sort(rows))
    both = np.intersect1d(*found)
    if len(both):
        raise DataError(
            f"train_rows, test_rows: {len(both)} rows are in both, the first is {both[0]}; a map "
            "would be judged on what it learned."
        )
    return found[0], found[1]
