"""The arms of APE: what each side is given, what is trained on top, how it is scored.

| arm | image tower | text tower | heads |
| --- | --- | --- | --- |
| `ape` | frozen, cached | frozen, cached | MLP on the pooled vectors |
| `ape-tokens` | frozen, cached | frozen, cached tokens | one MLP on every token, then the mean |
| `linear` | frozen, cached | frozen, cached | linear on both |
| `ridge`, `cca`, `procrustes` | frozen, cached | frozen, cached | closed form |
| `lit` | frozen, cached | tuned from its pretrained weights | linear on the text |
| `scratch` | trained | trained | linear on both |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from understudy.core.errors import ConfigError
from understudy.data.features import FeatureBatches, Side, read_features
from understudy.data.sampler_distinct import DistinctSampler, group_ids
from understudy.data.samplers import ShuffledSampler
from understudy.data.store import Store
from understudy.models.multimodal import linear_align
from understudy.models.multimodal.aligner import Aligner, AlignerConfig, Modality
from understudy.models.multimodal.dual import AlignedTowers
from understudy.models.multimodal.heads import IDENTITY, LINEAR
from understudy.models.preprocess import to_tensor
from understudy.objectives.alignment import recall_at
from understudy.recipes.ape_arm_config import ARMS, CLOSED, ArmConfig
from understudy.recipes.ape_towers import FreshTowers, fresh_towers, ngram_towers, text_limit
from understudy.recipes.ape_watch import watch
from understudy.reinforce.features import preprocess_hash, read_inputs
from understudy.reinforce.towers import text_tower
from understudy.train.align import AlignResult, AlignStep, fit_aligner
from understudy.train.config import TrainConfig

__all__ = ["ARMS", "CLOSED", "ArmConfig", "Pairing"]


class Pairing:
    """One image encoder and one text encoder on a store's pairs, under one arm.

    Args:
        store: with cached features of both encoders (`reinforce.features`).
        image: the image encoder, or what names it: `name`, `hash`, `dim`, `preprocess`.
        text: the text encoder.
        config: the arm.
        image_column: payload column of images.
        text_column: payload column of captions.
        corpus: returns the captions that a fresh tokenizer is trained on.
        seed: of fresh weights, order and dropout.
    """

    def __init__(
        self,
        store: Store,
        image: Any,
        text: Any,
        config: ArmConfig,
        *,
        image_column: str = "image",
        text_column: str = "text",
        corpus: Callable[[], Sequence[str]] = tuple,
        seed: int = 0,
    ) -> None:
        self.store, self.config, self.seed = store, config, seed
        self.encoders = {"image": image, "text": text}
        self.columns = {"image": image_column, "text": text_column}
        self.tokens = config.arm == "ape-tokens"
        if self.tokens and not text.tokens:
            raise ConfigError(
                f"arm ape-tokens: encoder '{text.name}' has no tokens; add ?tokens=32 to it or use "
                "arm ape."
            )
        self._text_tower: nn.Module | None = None
        self._text_inputs: Any = None
        self.fresh: FreshTowers | None = None
        if config.arm == "lit":
            self._text_tower, self._text_inputs = text_tower(text)
        if config.arm == "scratch":
            self.fresh = self._fresh(corpus)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                self._text_tower = self.fresh.text()
            self._text_inputs = self.fresh.inputs

    def _fresh(self, corpus: Callable[[], Sequence[str]]) -> FreshTowers:
        config, text = self.config, self.encoders["text"]
        if config.scratch_model:
            return fresh_towers(
                config.scratch_model, corpus(), size=config.scratch_size,
                vocab_size=config.vocab_size, limit=text_limit(text),
            )  # fmt: skip
        return ngram_towers(text, config.pixels, config.tower, config.text_width, self.seed)

    # -- inputs

    def captions(self, rows: np.ndarray) -> list[str]:
        """Return the captions of rows."""
        column = self.columns["text"]
        return self.store.take(rows, [column])[column].to_pylist()

    def side(self, modality: str, rows: np.ndarray) -> Side:
        """Return what the arm's model takes of rows: features, pixels or ids.

        Raises:
            CardError: the cache is another checkpoint's or another preprocessing's.
        """
        rows = np.asarray(rows, np.int64)
        if modality == "text" and self._text_inputs is not None:
            return Side(rows=rows, values=self._text_inputs(self.captions(rows)).numpy())
        if self.fresh is not None:
            images = read_inputs(self.store, self.columns["image"], "image", rows)
            return Side(rows=rows, values=to_tensor(images, self.fresh.pixels).numpy())
        encoder = self.encoders[modality]
        return read_features(
            self.store,
            encoder.name,
            modality,
            rows,
            tokens=self.tokens and modality == "text",
            encoder_hash=encoder.hash,
            preprocess_hash=preprocess_hash(encoder),
        )

    def text_side(self, texts: Sequence[str]) -> Side:
        """Return texts that are not in the store (prompts) as the model takes them."""
        rows = np.arange(len(texts))
        if self._text_inputs is not None:
            return Side(rows=rows, values=self._text_inputs(list(texts)).numpy())
        pooled, tokens, mask = self.encoders["text"].encode(list(texts))
        if self.tokens:
            return Side(rows=rows, values=np.asarray(tokens), mask=mask)
        return Side(rows=rows, values=pooled)

    # -- model

    def modalities(self) -> tuple[Modality, Modality]:
        """Return the two sides with the arm's heads."""
        arm, config = self.config.arm, self.config
        heads = {
            "scratch": (LINEAR, LINEAR),
            "lit": (IDENTITY, LINEAR),
        }.get(arm, (config.image_head, config.text_head))
        if arm == "linear" or arm in CLOSED:
            heads = (LINEAR, LINEAR)
        names = tuple(self.encoders)
        fresh = dict(zip(names, self.fresh.widths, strict=True)) if self.fresh else {}
        image, text = (
            Modality(
                name=name,
                encoder="from-scratch" if arm == "scratch" else encoder.name,
                encoder_hash="" if arm == "scratch" else encoder.hash,
                preprocess_hash="" if arm == "scratch" else preprocess_hash(encoder),
                in_dim=fresh[name] if arm == "scratch" else encoder.dim,
                head=head,
            )
            for (name, encoder), head in zip(self.encoders.items(), heads, strict=True)
        )
        return image, replace(text, placement="tokens") if self.tokens else text

    @property
    def dim(self) -> int:
        """Width of the shared space."""
        kept = [m.in_dim for m in self.modalities() if m.head.kind == "identity"]
        return self.config.dim or (kept[0] if kept else 256)

    def model(self) -> nn.Module:
        """Return the arm's model with fresh heads."""
        config = AlignerConfig(dim=self.dim, modalities=self.modalities())
        aligner = Aligner(config, seed=self.seed)
        if self._text_tower is None:
            return aligner
        towers = {"text": self._text_tower}
        if self.fresh is not None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                towers["image"] = self.fresh.image()
        return AlignedTowers(aligner, towers)

    def closed_form(self, rows: np.ndarray) -> Aligner:
        """Return the aligner of a closed-form arm."""
        x, y = (self.side(m, rows).values.astype(np.float64) for m in ("image", "text"))
        config, (image, text) = self.config, self.modalities()
        if config.arm == "ridge":
            maps = linear_align.ridge(x, y, config.l2)
        elif config.arm == "cca":
            dim = min(config.dim or 256, x.shape[1], y.shape[1])
            maps = linear_align.cca(x, y, dim, config.l2)
        else:
            maps = linear_align.procrustes(x, y)
        return linear_align.to_aligner(maps, image, text, config.arm)

    # -- training and scores

    def train(
        self,
        rows: np.ndarray,
        train: TrainConfig,
        out: Path,
        *,
        held_out: np.ndarray | None = None,
        patience: int = 0,
        duplicates: str = "positives",
        chunk: int = 0,
        order: np.ndarray | None = None,
        resume: bool = False,
    ) -> tuple[nn.Module, AlignResult]:
        """Train the arm on rows; the model comes back with its best weights, in eval mode.

        Args:
            rows: pairs to train on.
            train: budget; `batch_size` is the number of pairs that are compared.
            out: folder of the run.
            held_out: pairs whose recall@1 chooses the weights; None takes the last ones.
            patience: evaluations without a new best before the run ends; 0 never ends it.
            duplicates: see `AlignStep`; `"refuse"` also draws batches without repeats.
            chunk: rows of logits at a time.
            order: pair image i with text `order[i]`: the shuffled control.
            resume: go on from a checkpoint in `out`, or take what is finished there.
        """
        rows = np.sort(np.asarray(rows, np.int64))
        sides = {m: self.side(m, rows) for m in ("image", "text")}
        if order is not None:
            text = sides["text"]
            mask = None if text.mask is None else text.mask[order]
            sides["text"] = replace(text, values=text.values[order], mask=mask)
        numbers = group_ids(self.captions(rows))
        groups = dict(zip(rows.tolist(), numbers.tolist(), strict=True))
        batch = min(train.batch_size or len(rows), len(rows))
        if duplicates == "refuse":
            sampler: Any = DistinctSampler(rows, numbers, batch, train.seed)
        else:
            sampler = ShuffledSampler(rows, batch, train.seed)
        evaluate = None
        if held_out is not None and len(held_out):
            evaluate = watch(self, rows, np.asarray(held_out), duplicates, train.seed)
        model = self.model()
        step = AlignStep(duplicates=duplicates, chunk=chunk)  # type: ignore[arg-type]
        done = fit_aligner(
            model,
            step,
            FeatureBatches(sides, sampler, groups),
            train,
            out,
            evaluate=evaluate,
            patience=patience if evaluate else 0,
            resume=resume,
            context={"arm": self.config.arm},
        )
        return model, done

    @torch.no_grad()
    def embed(self, model: nn.Module, modality: str, side: Side, chunk: int = 1024) -> torch.Tensor:
        """Return unit vectors of one side."""
        parts = []
        for at in range(0, len(side.rows), chunk):
            values = torch.tensor(side.values[at : at + chunk])
            values = values.float() if values.is_floating_point() else values
            masks = None
            if side.mask is not None:
                masks = {modality: torch.tensor(side.mask[at : at + chunk])}
            parts.append(model({modality: values}, masks)[f"{modality}_features"])
        return torch.cat(parts)

    def recall(self, model: nn.Module, rows: np.ndarray) -> float:
        """Return recall@1 of pairs, image to text; equal captions are all right."""
        both = [self.embed(model, m, self.side(m, rows)) for m in ("image", "text")]
        return float(recall_at(*both, groups=torch.from_numpy(group_ids(self.captions(rows)))))
