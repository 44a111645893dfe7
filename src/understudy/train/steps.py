"""Steps: the pure functions of `understudy.objectives`, bound to a model's call for the loop.

A step is called as `step(model, batch)` and returns scalars with the one to minimise under
`"loss"`. It may have `check(batch)`, which the loop calls on each batch in host memory, where
looking at values costs no wait.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from understudy.objectives.captioning import CAPTIONING, CONTRASTIVE, coca
from understudy.objectives.checks import fraction, needs, teacher_scales, unit_rows
from understudy.objectives.distill import Combine, Value
from understudy.objectives.gather import LOCAL, GatherGroup
from understudy.objectives.reinforced import (
    Captions,
    check_weights,
    reinforced,
    reinforced_sigmoid,
    select_captions,
)

Augment = Callable[[Tensor, Mapping[str, Any]], tuple[Tensor, Mapping[str, Tensor]]]
"""A student-side augmentation: (images, batch) -> (images, scalars); its `"loss"` is added."""


@dataclass(frozen=True, kw_only=True)
class PairStep:
    """What steps on pairs share: the ranks that a batch is spread over.

    Attributes:
        gather: compare with the samples of all ranks.
    """

    gather: bool = True
    _group: list[GatherGroup] = field(default_factory=list, repr=False, compare=False)

    @property
    def group(self) -> GatherGroup:
        """The ranks that share a batch; found at the first step, when they have joined."""
        if not self.gather:
            return LOCAL
        if not self._group:
            self._group.append(GatherGroup())
        return self._group[0]


@dataclass(frozen=True, kw_only=True)
class ClipStep(PairStep):
    """Train a CLIP model, plain (`lam=0`) or reinforced.

    Attributes:
        lam: weight of distillation; 1 - lam of the CLIP loss.
        scales: logit scale of each teacher.
        captions: `"real"` (plain CLIP), `"both"` (two losses), `"syn"`, or `"mix"` (one of both per
            pair).
        mix: share of synthetic captions for `"mix"`.
        weights: of the real and the synthetic batch.
        combine: how teachers combine, see `objectives.distill.affinity_distill`.
        value: `"ce"` or `"kl"`.
        sigmoid: sigmoid losses; the model has a logit bias.
        biases: logit bias of each teacher, for `sigmoid`.
        compat: see `objectives.distill.sigmoid_distill`.
        augment: applied to the student's images only, such as RangeAugment.
        seed: of the choice of captions.
        check_every: look at every n-th batch for teacher vectors that are not of unit length; 0
            never.
    """

    lam: float
    scales: Sequence[float] | float = ()
    captions: Captions = "both"
    mix: float = 0.5
    weights: Sequence[float] = (1.0, 1.0)
    combine: Combine = "average"
    value: Value = "ce"
    sigmoid: bool = False
    biases: Sequence[float] = ()
    compat: bool = False
    augment: Augment | None = None
    seed: int = 0
    check_every: int = 100
    _seen: list[int] = field(default_factory=lambda: [0], repr=False, compare=False)

    def __post_init__(self) -> None:
        fraction(self.lam, "lam")
        fraction(self.mix, "mix")
        check_weights(self.weights)
        if self.lam > 0 and isinstance(self.scales, Sequence):
            teacher_scales(self.scales, max(len(self.scales), 1))

    def check(self, batch: Mapping[str, Any]) -> None:
        """Refuse teacher embeddings that are not unit vectors (one batch in `check_every`)."""
        if self.lam == 0:
            return
        needs(batch, ("teacher_images",), "reinforced")
        teacher_scales(self.scales, len(batch["teacher_images"]))
        self._seen[0] += 1
        if not self.check_every or (self._seen[0] - 1) % self.check_every:
            return
        for key in ("teacher_images", "teacher_texts", "teacher_syn_texts"):
            for k, features in enumerate(batch.get(key) or ()):
                unit_rows(features, f"{key}[{k}]", batch.get("rows"))

    def __call__(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Run the towers once and return the losses."""
        needs(batch, ("images",), "clip")
        batch = select_captions(batch, self.captions, self.mix, self.seed)
        images, extra = batch["images"], {}
        if self.augment is not None:
            images, extra = self.augment(images, batch)
        outputs = model(images=images, texts=batch.get("texts"), syn_texts=batch.get("syn_texts"))
        common: dict[str, Any] = {
            "lam": self.lam, "scales": self.scales, "weights": self.weights, "group": self.group,
        }  # fmt: skip
        if self.sigmoid:
            found = reinforced_sigmoid(
                outputs, batch, biases=self.biases, compat=self.compat, **common
            )
        else:
            found = reinforced(outputs, batch, combine=self.combine, value=self.value, **common)
        found["logit_scale"] = outputs["logit_scale"].detach()
        if extra:
            added = {k: v.detach() for k, v in extra.items() if k != "loss"}
            loss = found["loss"] + extra["loss"] if "loss" in extra else found["loss"]
            found |= {**added, "loss": loss}
        return found


@dataclass(frozen=True, kw_only=True)
class CaptionStep(PairStep):
    """Train a captioner: contrastive and captioning loss together (arXiv 2205.01917).

    Attributes:
        contrastive: weight of the CLIP loss.
        captioning: weight of the captioning loss.
    """

    contrastive: float = CONTRASTIVE
    captioning: float = CAPTIONING

    def __call__(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Run the towers and the decoder once and return the losses."""
        needs(batch, ("images", "texts"), "coca")
        outputs = model(images=batch["images"], texts=batch["texts"])
        return coca(
            outputs,
            batch,
            contrastive=self.contrastive,
            captioning=self.captioning,
            group=self.group,
        )
