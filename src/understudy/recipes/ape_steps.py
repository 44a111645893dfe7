"""The first steps of `ape` on a user's store: rows, captions, encoders, caches, ranking."""

from __future__ import annotations

from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.core.errors import ConfigError, DataError
from understudy.core.files import write_text
from understudy.core.seeds import rng
from understudy.curate.keys import caption_key
from understudy.curate.relevance import check_classes
from understudy.data.features import read_features
from understudy.evaluate.alignment import rank_pairs, rank_table
from understudy.recipes.ape_arm_config import TEMPLATES, ArmConfig
from understudy.recipes.ape_arms import Pairing
from understudy.recipes.ape_texts import Texts
from understudy.reinforce.encoder_specs import make_encoder
from understudy.reinforce.features import cache_features, read_inputs

if TYPE_CHECKING:
    from understudy.data.store import Store
    from understudy.recipes.ape import Config

FIT_ROWS = 5000
"""Rows that fitted encoders are fitted to, and pairs that encoders are ranked on, at most."""


class Steps:
    """One run.

    Args:
        config: what is asked for.
        store: open for writing.
    """

    def __init__(self, config: Config, store: Store) -> None:
        self.config, self.store = config, store
        self.chosen = {"image": 0, "text": 0}
        self.model: Any = None
        self.curation: dict[str, Any] = {}
        self.empty: dict[str, int] = {}
        self.texts = Texts(config, store)

    # -- rows and encoders

    def _where(self, given: str, split: str) -> np.ndarray:
        if given:
            return self.store.where(given)
        if "split" in self.store.columns:
            return self.store.where(f"split = '{split}'")
        return np.empty(0, np.int64)

    @cached_property
    def rows(self) -> dict[str, np.ndarray]:
        """Row numbers of `pool`, `val` and `test`, disjoint; empty captions are counted away.

        How many each part lost so is in `empty`.
        """
        config = self.config
        test, val = self._where(config.test_rows, "test"), self._where(config.val_rows, "val")
        pool = self._where(config.train_rows, "train")
        if not len(pool) and not config.train_rows:
            pool = np.arange(self.store.num_rows)
        pool = np.setdiff1d(np.setdiff1d(pool, test), val)
        if not len(val):
            val = np.sort(rng("ape-val", config.seed).permutation(pool)[: len(pool) // 10])
            pool = np.setdiff1d(pool, val)
        found = {"pool": pool, "val": val, "test": np.setdiff1d(test, val)}
        return {name: self._captioned(name, rows) for name, rows in found.items()}

    def _captioned(self, part: str, rows: np.ndarray) -> np.ndarray:
        said = np.array([bool(caption_key(text)) for text in self.texts.of(rows)], dtype=bool)
        self.empty[part] = int((~said).sum())
        return rows[said]

    def counts(self) -> dict[str, Any]:
        """Return pairs by part, and how many were left out because their caption is empty."""
        pairs = {part: len(rows) for part, rows in self.rows.items()}
        return {**pairs, "empty_captions": dict(self.empty)}

    @cached_property
    def encoders(self) -> dict[str, list[Any]]:
        """The encoders of each side."""
        config = self.config
        if not len(self.rows["pool"]):
            raise DataError(f"{self.store.path}: no row with a caption to train on.")
        rows = self.rows["pool"][:FIT_ROWS]

        def inputs(side: str) -> Any:
            if side == "text":
                return lambda: self.texts.of(rows)
            return lambda: read_inputs(self.store, config.image_column, side, rows)

        lines = {"image": config.image_encoders, "text": config.text_encoders}
        for side, some in lines.items():
            if not some:
                raise ConfigError(f"ape: name at least one of {side}_encoders.")
        return {
            side: [make_encoder(line, side, inputs(side)) for line in some]  # type: ignore[arg-type]
            for side, some in lines.items()
        }

    def encoder(self, side: str) -> Any:
        """Return the encoder that was chosen for a side."""
        return self.encoders[side][self.chosen[side]]

    def cache(self) -> list[dict[str, Any]]:
        """Let every encoder look at every row that is used, once."""
        config = self.config
        used = np.sort(np.concatenate(list(self.rows.values())))
        if config.target_rows:
            used = np.union1d(used, self.store.where(config.target_rows))
        columns = {"image": config.image_column, "text": self.texts.write()}
        reports = []
        for side, encoders in self.encoders.items():
            for encoder in encoders:
                report = cache_features(
                    self.store,
                    encoder,
                    side,
                    column=columns[side],
                    kind=side,
                    rows=used,
                    dtype=config.dtype,
                    tokens=encoder.tokens and config.arm == "ape-tokens",
                    batch_size=config.batch_size,
                    overwrite=config.overwrite,
                )
                reports.append(asdict(report))
        return reports

    def features(self, encoder: Any, side: str, rows: np.ndarray) -> np.ndarray:
        """Return cached pooled features."""
        found = read_features(self.store, encoder.name, side, rows, encoder_hash=encoder.hash)
        return found.values

    # -- rank, prompts

    def rank(self) -> list[dict[str, Any]]:
        """Compare all encoder pairs; the best goes on."""
        rows = self.rows["pool"][:FIT_ROWS]
        sides = {
            side: {e.name: self.features(e, side, rows) for e in encoders}
            for side, encoders in self.encoders.items()
        }
        ranks = rank_pairs(sides["image"], sides["text"])
        for side, name in (("image", ranks[0].image), ("text", ranks[0].text)):
            self.chosen[side] = [e.name for e in self.encoders[side]].index(name)
        write_text(self.config.out / "rank.txt", rank_table(ranks) + "\n")
        return [asdict(row) for row in ranks]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the target classes: the configuration's, or the store's if they all differ."""
        stored = tuple(self.store.meta.get("classes", ()))
        return self.config.classes or (stored if len({*stored}) == len(stored) else ())

    def prompts(self) -> tuple[list[str], np.ndarray]:
        """Return all prompts and the class of each.

        The store's own prompts are used where neither classes nor templates are given.
        """
        names = check_classes(self.classes)
        given = self.config.classes or self.config.templates != TEMPLATES
        kept = None if given else self.store.meta.get("prompts")
        groups = kept or [[t.replace("{}", n) for t in self.config.templates] for n in names]
        owner = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
        return [text for group in groups for text in group], owner

    # -- the arm

    @cached_property
    def pairing(self) -> Pairing:
        """The chosen encoders under the arm."""
        config = self.config
        arm = ArmConfig(
            arm=config.arm,
            dim=config.dim,
            image_head=config.image_head,
            text_head=config.text_head,
            l2=config.l2,
            scratch_model=config.scratch_model,
            scratch_size=config.scratch_size,
            vocab_size=config.vocab_size,
        )
        return Pairing(
            self.store,
            self.encoder("image"),
            self.encoder("text"),
            arm,
            image_column=config.image_column,
            text_column=self.texts.column,
            corpus=lambda: self.texts.of(self.rows["pool"]),
            seed=config.seed,
        )

    def training_rows(self) -> np.ndarray:
        """Return the chosen pairs, or the whole pool where none are chosen."""
        config, column = self.config, f"select.{self.config.selection}"
        if not config.total:
            return self.rows["pool"]
        if not self.store.has(column):
            raise DataError(
                f"{self.store.path} has no selection '{config.selection}'; run mode 'curate' first."
            )
        self.curation = self.store.card(column).facts.get("report", {})
        pool = self.rows["pool"]
        return pool[self.store.array(column, pool)]

    def seen_names(self, rows: np.ndarray) -> tuple[str, ...]:
        """Return the target classes that are no longer zero-shot when rows are trained on.

        Those that the configuration names, and those that captions made from labels contain.
        """
        made = self.texts.label_names(rows)
        named = {caption_key(name) for name in self.config.seen_names}
        found = [c for c in self.classes if caption_key(c) in made | named]
        return tuple(dict.fromkeys([*self.config.seen_names, *found]))
