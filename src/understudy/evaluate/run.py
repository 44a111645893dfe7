"""Evaluate a model on a store: one call, one flat dictionary of numbers.

>>> from understudy.evaluate.run import evaluate_model
>>> evaluate_model(model, store, split="test")                     # doctest: +SKIP
{'rows': 200.0, 'retrieval.t2i_r1': 0.69, ..., 'zeroshot.top1': 0.83, ...}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError, DataError
from understudy.evaluate.classify import classification_metrics
from understudy.evaluate.images import (
    StoreImages,
    embed_images,
    embed_texts,
    image_logits,
    logits_of,
)
from understudy.evaluate.retrieval import BLOCK, retrieval_metrics
from understudy.evaluate.rows import class_names, select_rows
from understudy.evaluate.zeroshot import (
    TEMPLATES,
    Prompts,
    class_weights,
    join_embeddings,
    zeroshot_metrics,
)
from understudy.models.base import Model
from understudy.models.preprocess import Preprocess

if TYPE_CHECKING:
    from understudy.data.store import Store

TASKS = ("retrieval", "zeroshot", "classify")
Models = Model | Sequence[Model]


def evaluate_model(
    model: Models,
    store: Store,
    *,
    tasks: Sequence[str] | None = None,
    split: str | None = None,
    rows: np.ndarray | Sequence[int] | None = None,
    classes: Sequence[str] | None = None,
    prompts: Prompts = TEMPLATES,
    batch_size: int = 64,
    ks: Sequence[int] = (1, 5, 10),
    bins: int = 15,
    image: str = "image",
    text: str = "text",
    label: str = "label",
    preprocess: Preprocess | None = None,
    threads: int = 1,
    block: int = BLOCK,
) -> dict[str, float]:
    """Score a model on the rows of a store.

    Args:
        model: a CLIP or a classifier; several CLIPs are evaluated as their ensemble.
        store: pictures with texts, labels or both.
        tasks: `"retrieval"` (pictures and texts, both ways), `"zeroshot"` (a CLIP, labels and class
            names), `"classify"` (a classifier and labels); None takes all that fit.
        split: only rows of this split.
        rows: only these row numbers; not together with `split`.
        classes: class names by label; None takes the model's, or the store's `meta["classes"]`.
        prompts: templates for zero-shot, or each class's full prompts.
        batch_size: images at once.
        ks: the K of recall@K.
        bins: of the calibration error.
        image: column of encoded pictures.
        text: column of captions, one string or a list of them a row.
        label: column of class numbers, or of class names; a number below 0 or a null is no label.
        preprocess: instead of the model's own; refused where released weights pin it.
        threads: that decode.
        block: rows of each side that retrieval compares at once.

    Returns:
        `rows`, and `<task>.<metric>`: see `retrieval_metrics` and `classification_metrics`.
        Retrieval adds `dropped_texts` (empty captions) and, like zero-shot, `truncated_texts`.
        Zero-shot and classification add `unlabelled_rows`: rows without a label, which they skip.

    Raises:
        ConfigError: an unknown task, a task that the model cannot do, or nothing to do.
        DataError: missing columns or class names, no rows, none with a label, labels that fit no
            class.
        ModelError: a wrong normalisation for released weights, a missing tokenizer, or outputs
            that are not finite.
    """
    models = (model,) if isinstance(model, Model) else tuple(model)
    if not models:
        raise ConfigError("evaluate: give at least one model.")
    run = _Run(
        models=models,
        store=store,
        rows=select_rows(store, split, rows),
        classes=class_names(models, store, classes),
        prompts=prompts,
        columns={"image": image, "text": text, "label": label},
        options={"batch_size": batch_size, "preprocess": preprocess, "threads": threads},
    )
    out = {"rows": float(len(run.rows))}
    for task in run.chosen(tasks):
        if task == "retrieval":
            found = run.retrieval(ks, block)
        elif task == "zeroshot":
            found = run.zeroshot(bins)
        else:
            found = run.classify(bins)
        out |= {f"{task}.{name}": value for name, value in found.items()}
    return out


@dataclass(kw_only=True)
class _Run:
    models: tuple[Any, ...]
    store: Store
    rows: np.ndarray
    classes: tuple[str, ...]
    prompts: Prompts
    columns: Mapping[str, str]
    options: Mapping[str, Any]
    _embedded: Tensor | None = field(default=None)

    @property
    def is_clip(self) -> bool:
        return hasattr(self.models[0], "encode_text")

    def chosen(self, tasks: Sequence[str] | None) -> list[str]:
        """Return the tasks to run: those asked for, or all that fit."""
        name = self.models[0].config.name
        if len(self.models) > 1 and not all(hasattr(m, "encode_text") for m in self.models):
            raise ConfigError("evaluate: only CLIP models can be joined to an ensemble.")
        has = {part: column in self.store.columns for part, column in self.columns.items()}
        if tasks is None:
            if self.is_clip:
                named = has["label"] and bool(self.classes)
                fits = {"retrieval": has["text"], "zeroshot": named and bool(len(self.labelled))}
            else:
                fits = {"classify": has["label"]}
            found = [task for task, possible in fits.items() if possible]
            if not found:
                raise ConfigError(
                    f"evaluate: {self.store.path} has nothing to score {name} on: a CLIP needs a "
                    "text column, or labels and class names; a classifier needs labels."
                )
            return found
        if isinstance(tasks, str):
            tasks = (tasks,)
        if not tasks:
            raise ConfigError("evaluate: no task; give some of " + ", ".join(TASKS) + ".")
        for task in tasks:
            check_choice(task, TASKS, "evaluate: task")
            if (task == "classify") == self.is_clip:
                kind = "a CLIP" if self.is_clip else "a classifier"
                other = "zeroshot" if self.is_clip else "classify"
                raise ConfigError(
                    f"evaluate: {name} is {kind}, which cannot do '{task}'; use '{other}'."
                )
        return list(dict.fromkeys(tasks))

    def column(self, part: str) -> list[Any]:
        name = self.columns[part]
        if name not in self.store.columns:
            raise DataError(
                f"{self.store.path}: no column '{name}' for the {part}s; it has "
                f"{', '.join(self.store.columns)}."
            )
        return self.store.take(self.rows, [name]).column(name).to_pylist()

    def embedded(self) -> Tensor:
        """Return the images' embeddings, computed once."""
        if self._embedded is None:
            images = StoreImages(self.store, self.rows, self.columns["image"])
            parts = [embed_images(model, images, **self.options) for model in self.models]
            self._embedded = parts[0] if len(parts) == 1 else join_embeddings(parts)
        return self._embedded

    def encode(self, texts: Sequence[str]) -> Tensor:
        parts = [embed_texts(model, texts) for model in self.models]
        return parts[0] if len(parts) == 1 else join_embeddings(parts)

    def truncated(self) -> int:
        return sum(m.tokenizer.num_truncated for m in self.models if m.tokenizer is not None)

    @cached_property
    def label_values(self) -> list[Any]:
        return self.column("label")

    @cached_property
    def labelled(self) -> np.ndarray:
        """Return the places, among the chosen rows, of those that have a label."""
        has = [
            value is not None and not (isinstance(value, int) and value < 0)
            for value in self.label_values
        ]
        return np.flatnonzero(has)

    def labels(self, count: int) -> Tensor:
        """Return the class numbers of labelled rows; names are looked up."""
        number = {name: i for i, name in enumerate(self.classes)}
        out = []
        for place in self.labelled.tolist():
            given = value = self.label_values[place]
            if isinstance(value, str):
                value = number.get(value, -1) if number else -1
            if not isinstance(value, int) or not 0 <= value < count:
                raise DataError(
                    f"{self.store.path}, row {self.rows[place]}: label {given!r} is none of the "
                    f"{count} classes."
                )
            out.append(value)
        if not out:
            raise DataError(
                f"{self.store.path}: none of the {len(self.rows)} chosen rows has a label in "
                f"column '{self.columns['label']}'; choose other rows, or score retrieval only."
            )
        return torch.tensor(out)

    def retrieval(self, ks: Sequence[int], block: int) -> dict[str, float]:
        texts, owners, dropped = [], [], 0
        for place, value in enumerate(self.column("text")):
            captions = [value] if isinstance(value, str) or value is None else list(value)
            kept = [c for c in captions if c is not None and c.strip()]
            dropped += len(captions) - len(kept)
            texts += kept
            owners += [place] * len(kept)
        if not texts:
            raise DataError(f"{self.store.path}: all captions of the chosen rows are empty.")
        kept_rows = sorted(set(owners))
        before = self.truncated()
        encoded = self.encode(texts)
        found = retrieval_metrics(
            self.embedded()[kept_rows],
            encoded,
            owners,
            ks=ks,
            image_ids=kept_rows,
            block=block,
        )
        found["dropped_texts"] = float(dropped)
        found["truncated_texts"] = float(self.truncated() - before)
        return found

    def zeroshot(self, bins: int) -> dict[str, float]:
        if not self.classes:
            raise DataError(
                f"{self.store.path}: zero-shot classification needs class names; give classes, or "
                "set them with store.set_meta(classes=[...])."
            )
        labels = self.labels(len(self.classes))
        before = self.truncated()
        weights = class_weights(self.encode, self.classes, self.prompts)
        scales = [float(model.scale().detach()) for model in self.models]
        scale = sum(scales) / len(scales)
        images = self.embedded()[self.labelled]
        found = zeroshot_metrics(images, labels, weights, scale=scale, bins=bins)
        found["truncated_texts"] = float(self.truncated() - before)
        found["unlabelled_rows"] = float(len(self.rows) - len(self.labelled))
        return found

    def classify(self, bins: int) -> dict[str, float]:
        model = self.models[0]
        count = model.config.num_classes
        logits_of(model)  # a model without a head is refused before labels are read
        if self.classes and len(self.classes) != count:
            raise DataError(
                f"classify: {model.config.name} has {count} classes, the data {len(self.classes)}; "
                "it was trained for other labels."
            )
        labels = self.labels(count)
        images = StoreImages(self.store, self.rows[self.labelled], self.columns["image"])
        logits = image_logits(model, images, **self.options)
        found = classification_metrics(logits, labels, bins=bins)
        found["unlabelled_rows"] = float(len(self.rows) - len(self.labelled))
        return found
