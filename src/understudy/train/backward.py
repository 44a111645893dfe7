"""Train a new classifier whose embeddings an old classifier, or an old gallery, understands.

What a map makes unnecessary; the baseline that it is measured against.

References:
    Backward-compatible training: arXiv 2003.11942; hot refresh: arXiv 2201.09724.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from understudy.core.config import to_dict
from understudy.core.errors import ConfigError
from understudy.models.image.classifier import Classifier
from understudy.models.io import weights_hash
from understudy.models.runs import load_run
from understudy.objectives.backward import backward_compatible
from understudy.train.classifier_config import ClassifierStudentConfig
from understudy.train.classifier_student import classifier_loader, make_classifier
from understudy.train.student_run import Evaluate, StudentResult, run_student, settle

if TYPE_CHECKING:
    from understudy.data.store import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class BackwardConfig(ClassifierStudentConfig):
    """Describe a classifier that stays compatible with an old one.

    Attributes:
        learn: labels; nothing else fits.
        weight: of the old classifier's cross-entropy on the new embeddings.
        refresh: of the hot-refresh term, which contrasts new queries with old and new negatives.
        refresh_temperature: of its cosines.
    """

    learn: Literal["labels", "topk", "online"] = "labels"
    weight: float = 1.0
    refresh: float = 0.0
    refresh_temperature: float = 0.1

    def __post_init__(self) -> None:
        ClassifierStudentConfig.__post_init__(self)
        if self.learn != "labels" or self.mixes:
            raise ConfigError(
                f"learn: backward-compatible training learns from unmixed labels, got {self.learn} "
                f"with mixup {self.mixup_alpha} and cutmix {self.cutmix_alpha}."
            )
        if self.weight < 0 or self.refresh < 0:
            raise ConfigError(
                f"weight, refresh: expected at least 0, got {self.weight} and {self.refresh}."
            )


class Compatible(nn.Module):
    """A new classifier beside the frozen old one.

    Args:
        new: learns; what a run saves.
        old: frozen in place.
        refresh: also embed the pictures with the old model.

    Raises:
        ConfigError: embeddings of different widths, a model without a head, or pictures that the
            two normalise differently.
    """

    def __init__(self, new: Classifier, old: Classifier, *, refresh: bool = False) -> None:
        super().__init__()
        widths = []
        for model in (old, new):
            head = model.image.head
            if not isinstance(head, nn.Linear):
                raise ConfigError(f"backward: {model.config.name} has no linear classifier.")
            widths.append(head.in_features)
        if widths[0] != widths[1]:
            raise ConfigError(
                f"backward: the old model's embeddings have {widths[0]} numbers, the new one's "
                f"{widths[1]}; they must be equal (changes: image.embed_dim), or train a map."
            )
        if refresh and new.preprocess != old.preprocess:
            raise ConfigError(
                f"backward: {old.config.name} and {new.config.name} normalise pictures differently;"
                " the hot-refresh term shows both the same ones."
            )
        self.new, self.old, self.refresh = new, old.requires_grad_(False).eval(), refresh

    @property
    def saved(self) -> nn.Module:
        """What a run writes."""
        return self.new

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return `logits`, `old_logits` and `features`; with `refresh` also `old_features`."""
        features = self.new.features(images)
        head: Any = self.old.image.head
        out = {
            "features": features,
            "logits": self.new.image.head(features),  # type: ignore[operator]
            "old_logits": F.linear(features, head.weight, head.bias),
        }
        if self.refresh:
            with torch.no_grad():
                out["old_features"] = self.old.features(images)
        return out


@dataclass(frozen=True, kw_only=True)
class BackwardStep:
    """The objective of `BackwardConfig`, bound to a model's call."""

    weight: float = 1.0
    refresh: float = 0.0
    smoothing: float = 0.0
    temperature: float = 0.1

    def __call__(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the losses."""
        return backward_compatible(
            model(batch["images"]),
            batch,
            weight=self.weight,
            refresh=self.refresh,
            smoothing=self.smoothing,
            temperature=self.temperature,
        )


def train_backward(
    store: Store,
    old: Classifier | str | Path,
    config: BackwardConfig,
    out: str | Path,
    evaluate: Evaluate | None = None,
    *,
    resume: bool = True,
    context: Mapping[str, Any] | None = None,
) -> StudentResult:
    """Train a classifier compatible with an old one.

    Classes are numbered as the old classifier numbered them; its own come first.

    Args:
        store: with images and labels.
        old: the old classifier, or its run or weights.
        config: what is learned, how long and how fast.
        out: the run's folder.
        evaluate: `evaluate(model) -> metrics`.
        resume: go on from the newest checkpoint in `out`.
        context: facts for the run's record.

    Raises:
        ConfigError: models that do not fit each other.
    """
    before: Any = old if isinstance(old, Classifier) else load_run(str(old), folded=False)
    if not isinstance(before, Classifier):
        raise ConfigError(f"backward: {old} is no classifier; its head is what must stay usable.")
    config = settle(config, None)
    student = make_classifier(store, config)
    if before.config.num_classes > student.config.num_classes:
        raise ConfigError(
            f"backward: the old classifier tells {before.config.num_classes} classes apart, the "
            f"new one only {student.config.num_classes}; the new classes come after the old ones."
        )
    wrapped = Compatible(student, before, refresh=config.refresh > 0)
    learned = {k: v for k, v in to_dict(config).items() if k not in ("model", "train", "workers")}
    return run_student(
        store,
        student,
        BackwardStep(
            weight=config.weight,
            refresh=config.refresh,
            smoothing=config.smoothing,
            temperature=config.refresh_temperature,
        ),
        classifier_loader(store, student, config),
        config,
        out,
        evaluate,
        learned={**learned, "old": weights_hash(before)},
        trained=wrapped,
        resume=resume,
        context=context,
    )
