"""Steps of classifiers: on labels, on stored probabilities, on teachers asked at every step.

Like those of `understudy.train.steps` they bind pure functions to a model's call for the loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from understudy.core.errors import ConfigError
from understudy.models.preprocess import Preprocess
from understudy.objectives.checks import needs
from understudy.objectives.supervised import classify, hard_distillation, online_kd
from understudy.objectives.topk import Densify, check_topk, topk
from understudy.train.mixing import MixConfig, mix_batch
from understudy.train.teacher_input import check_size, renormalise


@dataclass(frozen=True, kw_only=True)
class ClassifierStep:
    """Train a classifier on labels, with optional mixing of images.

    Attributes:
        smoothing: label smoothing.
        mix: MixUp and CutMix; None mixes nothing.
        num_classes: needed for mixing.
    """

    smoothing: float = 0.0
    mix: MixConfig | None = None
    num_classes: int = 0

    def __call__(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the cross-entropy, and top-1 of unmixed images."""
        needs(batch, ("images", "labels"), "classify")
        if self.mix is not None:
            batch = mix_batch(batch, self.mix, self.num_classes, self.smoothing)
        return classify(model(batch["images"]), batch, smoothing=self.smoothing)


@dataclass(frozen=True, kw_only=True)
class TopKStep:
    """Train a classifier on stored top-K probabilities of replayed views.

    Attributes:
        num_classes: classes of the data set.
        method: how the dropped mass comes back, see `objectives.topk.densify`.
        compat: see there.
        mix: forced mixing of images and of their targets, by one share; None mixes nothing, as
            published: the teacher never saw a mixed image.

    Raises:
        ConfigError: mixing that is not forced.
    """

    num_classes: int
    method: Densify = "smooth"
    compat: bool = False
    mix: MixConfig | None = None

    def __post_init__(self) -> None:
        if self.mix is not None and not self.mix.force:
            raise ConfigError(
                "TopKStep.mix: stored targets are of unmixed views; mix inside the reinforcement, "
                "or set MixConfig(force=True)."
            )

    def check(self, batch: Mapping[str, Any]) -> None:
        """Refuse targets that are not finite, or of other classes."""
        needs(batch, ("topk_p", "topk_id"), "topk")
        check_topk(batch["topk_p"], batch["topk_id"], self.num_classes, batch.get("rows"))

    def __call__(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the KL to the stored targets."""
        needs(batch, ("images",), "topk")
        if self.mix is not None:
            batch = mix_batch(
                batch, self.mix, self.num_classes, method=self.method, compat=self.compat
            )
        return topk(model(batch["images"]), batch, method=self.method, compat=self.compat)


@dataclass(frozen=True, kw_only=True)
class OnlineKdStep:
    """Train a classifier on what teachers say about the same images, asked at every step.

    Attributes:
        teachers: modules that return `{"logits": ...}`; they stay frozen and in eval mode, and
            their probabilities are averaged.
        lambda_kd: weight of the imitation.
        lambda_cls: weight of the labels.
        temperature: T.
        smoothing: label smoothing of the labels' term.
        mix: mixing of images before both see them; labels are mixed too.
        num_classes: needed for mixing.
        hard: imitate the teachers' most likely class instead of their probabilities: minimise
            lambda_cls CE(y) + lambda_kd CE(argmax) (arXiv 2012.12877, eq. 3).
        preprocess: what the batches were prepared for (the student's); each teacher gets them as
            its own preprocessing normalises. None gives all the same pixels.

    Raises:
        ConfigError: a teacher that takes images of another size; a temperature for hard labels.
    """

    teachers: Sequence[nn.Module]
    lambda_kd: float = 1.0
    lambda_cls: float = 0.0
    temperature: float = 1.0
    smoothing: float = 0.0
    mix: MixConfig | None = None
    num_classes: int = 0
    hard: bool = False
    preprocess: Preprocess | None = None

    def __post_init__(self) -> None:
        if self.hard and self.temperature != 1.0:
            raise ConfigError("temperature: a most likely class has none; leave it at 1 with hard.")
        if self.hard and not self.lambda_kd + self.lambda_cls > 0:
            raise ConfigError("lambda_kd, lambda_cls: both are 0; nothing would be learned.")
        for teacher in self.teachers:
            teacher.requires_grad_(False).eval()
            if self._differs(teacher):
                name = getattr(getattr(teacher, "config", None), "name", type(teacher).__name__)
                check_size(self.preprocess, teacher.preprocess, name)  # type: ignore[arg-type]

    def _differs(self, teacher: nn.Module) -> bool:
        return self.preprocess is not None and hasattr(teacher, "preprocess")

    def _ask(self, teacher: nn.Module, images: Tensor) -> Tensor:
        """Return a teacher's probabilities [B, C] of the student's images."""
        if self._differs(teacher):
            images = renormalise(images, self.preprocess, teacher.preprocess)  # type: ignore[arg-type]
        return teacher(images)["logits"].float().softmax(dim=-1)

    def __call__(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Ask the teachers and return the losses."""
        needs(batch, ("images",), "online_kd")
        if self.mix is not None:
            batch = mix_batch(batch, self.mix, self.num_classes, self.smoothing)
        images = batch["images"]
        with torch.no_grad():
            probabilities = torch.stack([self._ask(t, images) for t in self.teachers]).mean(dim=0)
        batch = {**batch, "teacher_probs": probabilities}
        if self.hard:
            return self._imitate_hard(model(images), batch)
        return online_kd(
            model(images),
            batch,
            lambda_kd=self.lambda_kd,
            lambda_cls=self.lambda_cls,
            temperature=self.temperature,
            smoothing=self.smoothing,
        )

    def _imitate_hard(
        self, outputs: Mapping[str, Tensor], batch: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        total = self.lambda_cls + self.lambda_kd
        found = hard_distillation(
            outputs, batch, alpha=self.lambda_kd / total, smoothing=self.smoothing
        )
        return {**found, "loss": total * found["loss"]}
