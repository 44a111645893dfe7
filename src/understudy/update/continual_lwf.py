"""The step of learning without forgetting: a student's own loss, and nearness to its teacher.

The teacher is the frozen last checkpoint, asked at every step for the very batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from understudy.models.multimodal.clip import CLIP
from understudy.objectives.forgetting import lwf_loss
from understudy.train.steps import ClipStep


@dataclass(frozen=True, kw_only=True)
class LwfStep:
    """Add `weight` times the divergence from the last checkpoint to a student's loss.

    Attributes:
        base: the student's own step.
        teacher: the last checkpoint, in eval mode.
        weight: lambda.
        tau: temperature of both softmaxes.
    """

    base: ClipStep
    teacher: CLIP
    weight: float = 1.0
    tau: float = 1.0

    def check(self, batch: Mapping[str, Any]) -> None:
        """Look at a batch in host memory, as the student's own step does."""
        self.base.check(batch)

    def __call__(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Run the towers once and the teacher's once."""
        seen: dict[str, Any] = {}

        def call(**inputs: Any) -> dict[str, Tensor]:
            seen["inputs"], seen["outputs"] = inputs, model(**inputs)
            return seen["outputs"]

        found = self.base(cast(nn.Module, call), batch)
        inputs, outputs = seen["inputs"], seen["outputs"]
        with torch.no_grad():
            old = self.teacher(**inputs)
        kinds = [k for k in ("text_features", "syn_text_features") if k in outputs]
        divergence = sum(
            lwf_loss(
                outputs["image_features"],
                outputs[kind],
                outputs["logit_scale"],
                old["image_features"],
                old[kind],
                float(old["logit_scale"]),
                tau=self.tau,
                group=self.base.group,
            )
            for kind in kinds
        ) / len(kinds)
        divergence = cast(Tensor, divergence)
        loss = found["loss"] + self.weight * divergence
        return {**found, "lwf": divergence.detach(), "loss": loss}
