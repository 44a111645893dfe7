"""The steps of `ape` on a user's store: cache, rank, train, evaluate; curation is beside it."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.core.config import to_dict
from understudy.core.errors import ConfigError, DataError
from understudy.core.files import write_json, write_text
from understudy.core.seeds import rng
from understudy.curate.alignment import caption_key
from understudy.curate.relevance import check_classes
from understudy.data.features import read_features, token_column
from understudy.data.sampler_distinct import group_ids
from understudy.evaluate.alignment import rank_pairs, rank_table
from understudy.evaluate.plans import Plan
from understudy.evaluate.retrieval import retrieval_metrics
from understudy.evaluate.zeroshot import average_prompts, zeroshot_metrics
from understudy.models.multimodal.aligner import Aligner, load_aligner, save_aligner
from understudy.recipes.ape_arms import CLOSED, ArmConfig, Pairing
from understudy.recipes.ape_plan import add_budget, budget_of
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
        self.empty = 0

    # -- rows and encoders

    def _where(self, given: str, split: str) -> np.ndarray:
        if given:
            return self.store.where(given)
        if "split" in self.store.columns:
            return self.store.where(f"split = '{split}'")
        return np.empty(0, np.int64)

    @cached_property
    def rows(self) -> dict[str, np.ndarray]:
        """Row numbers of `pool`, `val` and `test`, disjoint; empty captions are counted away."""
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
        return {name: self._captioned(rows) for name, rows in found.items()}

    def _captioned(self, rows: np.ndarray) -> np.ndarray:
        if not len(rows):
            return rows
        texts = self.store.take(rows, [self.config.text_column])[self.config.text_column]
        said = np.array([bool(caption_key(text)) for text in texts.to_pylist()])
        self.empty += int((~said).sum())
        return rows[said]

    @cached_property
    def encoders(self) -> dict[str, list[Any]]:
        """The encoders of each side."""
        config = self.config
        columns = {"image": config.image_column, "text": config.text_column}
        if not len(self.rows["pool"]):
            raise DataError(f"{self.store.path}: no row with a caption to train on.")

        def inputs(side: str) -> Any:
            rows = self.rows["pool"][:FIT_ROWS]
            return lambda: read_inputs(self.store, columns[side], side, rows)

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
        columns = {"image": config.image_column, "text": config.text_column}
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
        """Return all prompts and the class of each."""
        names = check_classes(self.classes)
        kept = self.store.meta.get("prompts") if not self.config.classes else None
        groups = kept or [[t.replace("{}", n) for t in self.config.templates] for n in names]
        owner = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
        return [text for group in groups for text in group], owner

    # -- train, evaluate

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
        )
        return Pairing(
            self.store,
            self.encoder("image"),
            self.encoder("text"),
            arm,
            image_column=config.image_column,
            text_column=config.text_column,
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

    def _budget(self, rows: np.ndarray) -> None:
        text = self.encoder("text")
        column = token_column(text.name, "text")
        tokens = self.pairing.tokens and self.store.card(column).config["shape"][0]
        size = 4 if self.config.dtype == "float32" else 2
        budget = budget_of(
            self.pairing.modalities(), self.pairing.dim, self.config.train, len(rows), tokens, size
        )
        plan = Plan(recipe="ape", scale="this run")
        add_budget(plan, budget)
        write_text(self.config.out / "budget.txt", plan.text() + "\n")
        write_json(self.config.out / "budget.json", plan.to_dict())

    def train(self) -> dict[str, Any]:
        """Train the arm and write `aligner.safetensors`."""
        config, rows = self.config, self.training_rows()
        start = time.perf_counter()
        facts: dict[str, Any] = {"arm": config.arm, "pairs": len(rows)}
        if config.arm in CLOSED:
            self.model = self.pairing.closed_form(rows)
        else:
            self._budget(rows)
            self.model, done = self.pairing.train(
                rows,
                replace(config.train, seed=config.seed),
                config.out / "run",
                held_out=self.rows["val"],
                patience=config.patience,
                duplicates=config.duplicates,
                chunk=config.chunk,
            )
            batch = min(config.train.batch_size or len(rows), len(rows))
            facts |= {
                "trainable": done.trainable,
                "steps": done.steps,
                "pairs_seen": done.steps * batch,
                "best_recall@1": done.best,
                "best_step": done.best_step,
                "stopped_early": done.stopped_early,
                "curve": [[step, found["recall@1"]] for step, found in done.curve],
            }
        facts["seconds"] = round(time.perf_counter() - start, 2)
        aligner = self.model if isinstance(self.model, Aligner) else self.model.aligner
        manifest = {
            "inputs": "features",
            "arm": config.arm,
            "curation": self.curation,
            "training": {k: v for k, v in facts.items() if k != "curve"},
            "encoders": {
                "image": list(config.image_encoders)[self.chosen["image"]],
                "text": list(config.text_encoders)[self.chosen["text"]],
            },
        }
        save_aligner(aligner, config.out / "aligner.safetensors", manifest)
        if aligner is not self.model:
            from safetensors.torch import save_file

            save_file(self.model.state_dict(), config.out / "towers.safetensors")
        return facts

    def _load(self) -> Any:
        if self.config.arm in ("lit", "scratch"):
            from safetensors.torch import load_file

            model = self.pairing.model()
            model.load_state_dict(load_file(self.config.out / "towers.safetensors"))
            return model.eval()
        return load_aligner(self.config.out / "aligner.safetensors")

    def evaluate(self) -> dict[str, Any]:
        """Score retrieval on `test`, and zero-shot where there are classes and labels."""
        config, rows = self.config, self.rows["test"]
        if not len(rows):
            raise DataError(f"{self.store.path}: no test pairs; give --test-rows, an SQL filter.")
        model = self.model if self.model is not None else self._load()
        pairing = self.pairing
        sides = {m: pairing.side(m, rows) for m in ("image", "text")}
        images, texts = (pairing.embed(model, m, s) for m, s in sides.items())
        ids = group_ids(pairing.captions(rows))
        found: dict[str, Any] = {"pairs": len(rows)}
        found |= retrieval_metrics(images, texts, ids, image_ids=ids)
        train = self.training_rows()
        few = train[: len(rows)]
        found["recall_gap"] = pairing.recall(model, few) - pairing.recall(model, rows[: len(few)])
        if self.classes and config.labels in self.store.columns:
            prompts, owner = self.prompts()
            vectors = pairing.embed(model, "text", pairing.text_side(prompts))
            weights = average_prompts(vectors, np.bincount(owner).tolist())
            labels = self.store.array(config.labels, rows)
            known = (labels >= 0) & (labels < len(self.classes))
            if known.any():
                found["zeroshot"] = zeroshot_metrics(
                    images[np.flatnonzero(known)], labels[known], weights
                )
        return to_dict(found)
