"""timm models as teachers: probabilities and pooled features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from understudy.core.config import from_dict
from understudy.core.errors import ConfigError
from understudy.core.lazy import require
from understudy.models.preprocess import Preprocess
from understudy.reinforce.config import TeacherSpec
from understudy.reinforce.teachers.base import Images
from understudy.reinforce.teachers.torch_teacher import TorchTeacher, numpy


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Options of kind `timm`.

    Attributes:
        pretrained: take timm's released weights (its own client fetches them); `path` wins.
        size: side of the input in pixels; 0 for the model's.
        num_classes: width of the output; 0 for the model's.
        device: `cpu`, `cuda`, ... or `auto`.
        compute: `float32`, `bfloat16` or `float16`.
    """

    pretrained: bool = True
    size: int = 0
    num_classes: int = 0
    device: str = "auto"
    compute: str = "float32"


def preprocess_of(timm: Any, module: Any, size: int = 0) -> Preprocess:
    """Return what a timm model's images go through; views take the place of its resize and crop."""
    data = timm.data.resolve_model_data_config(module)
    given = data["interpolation"]
    return Preprocess(
        size=size or int(data["input_size"][-1]),
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        interpolation=given if given in ("bilinear", "bicubic") else "bicubic",
    )


class TimmTeacher(TorchTeacher):
    """A timm model as a teacher.

    Args:
        name: what its columns are called.
        module: the model.
        preprocess: what images go through.
        logit_scale: factor of its logits in distillation.
        device: `cpu`, `cuda`, ... or `auto`.
        compute: precision of the arithmetic.
    """

    kind: ClassVar[str] = "timm"

    def __init__(
        self,
        name: str,
        module: torch.nn.Module,
        preprocess: Preprocess,
        *,
        logit_scale: float | None = None,
        device: str = "auto",
        compute: str = "float32",
    ) -> None:
        super().__init__(
            name,
            module,
            logit_scale=logit_scale,
            preprocess=preprocess,
            device=device,
            compute=compute,
        )
        classifies = bool(getattr(module, "num_classes", 0))
        self.capabilities = frozenset({"embed_images"} | ({"classify"} if classifies else set()))

    @classmethod
    def from_spec(cls, spec: TeacherSpec) -> TimmTeacher:
        """Make `model` with the checkpoint in `path`, or with timm's released weights."""
        where = f"teacher '{spec.name}'"
        options = from_dict(Options, spec.options, f"{where}.options")
        if not spec.model:
            raise ConfigError(
                f"{where}: give 'model', a timm model name such as 'resnet50.a1_in1k'."
            )
        timm = require("timm", "vision", where)
        given = {"num_classes": options.num_classes} if options.num_classes else {}
        try:
            module = timm.create_model(
                spec.model,
                pretrained=options.pretrained and not spec.path,
                checkpoint_path=spec.path,
                **given,
            )
        except (RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ConfigError(f"{where}: timm does not make '{spec.model}' ({reason}).") from None
        return cls(
            spec.name,
            module,
            preprocess_of(timm, module, options.size),
            logit_scale=spec.logit_scale,
            device=options.device,
            compute=options.compute,
        )

    def _image_features(self, images: Images) -> Any:
        with self._asking():
            maps = self.module.forward_features(self._input(images))  # type: ignore[operator]
            return numpy(self.module.forward_head(maps, pre_logits=True))  # type: ignore[operator]

    def _probabilities(self, images: Images) -> Any:
        with self._asking():
            return numpy(self.module(self._input(images)).float().softmax(dim=-1))
