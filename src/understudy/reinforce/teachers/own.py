"""Teachers that are models of this package: a CLIP, or a classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from understudy import models
from understudy.core.config import from_dict
from understudy.core.errors import ConfigError
from understudy.models.base import Model
from understudy.models.image.classifier import Classifier
from understudy.models.io import weights_hash
from understudy.models.multimodal.clip import CLIP
from understudy.reinforce.config import TeacherSpec
from understudy.reinforce.teachers.base import Images
from understudy.reinforce.teachers.torch_teacher import TorchTeacher, numpy


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Options of kind `understudy`.

    Attributes:
        seed: of fresh weights when `model` is given and `path` is not (controls and tests).
        fold: run the folded form, which is faster and differs in the last bits.
        device: `cpu`, `cuda`, ... or `auto`.
        compute: `float32`, `bfloat16` or `float16`.
    """

    seed: int = 0
    fold: bool = True
    device: str = "auto"
    compute: str = "float32"


class OwnTeacher(TorchTeacher):
    """A model of this package as a teacher.

    A CLIP with a tokenizer embeds images and texts; a classifier gives probabilities and embeds
    images by its pooled features.

    Args:
        name: what its columns are called.
        model: a `CLIP` or a `Classifier`; frozen in place unless it is folded.
        logit_scale: None takes a CLIP's own.
        fold: run the folded form of a model that is not folded yet.
        device: `cpu`, `cuda`, ... or `auto`.
        compute: precision of the arithmetic.
    """

    kind: ClassVar[str] = "understudy"

    def __init__(
        self,
        name: str,
        model: Model,
        *,
        logit_scale: float | None = None,
        fold: bool = True,
        device: str = "auto",
        compute: str = "float32",
    ) -> None:
        if isinstance(model, CLIP):
            able = {"embed_images", "embed_texts"} if model.tokenizer else {"embed_images"}
            logit_scale = float(model.scale().detach()) if logit_scale is None else logit_scale
        elif isinstance(model, Classifier):
            able = {"embed_images", "classify"} if model.config.num_classes else {"embed_images"}
        else:
            raise ConfigError(
                f"teacher '{name}': a {type(model).__name__} is neither a CLIP nor a classifier; "
                "wrap it in a FunctionTeacher."
            )
        self._weights = weights_hash(model.eval())
        self._folds = fold and not model.is_folded
        super().__init__(
            name,
            model.fold() if self._folds else model,
            logit_scale=logit_scale,
            preprocess=model.preprocess,
            device=device,
            compute=compute,
        )
        self.capabilities = frozenset(able)

    @classmethod
    def from_spec(cls, spec: TeacherSpec) -> OwnTeacher:
        """Load `path`, or make `model` with fresh weights of `options.seed`."""
        options = from_dict(Options, spec.options, f"teacher '{spec.name}'.options")
        if spec.path:
            model = models.load(spec.path)
        elif spec.model:
            model = models.create(spec.model, seed=options.seed)
        else:
            raise ConfigError(
                f"teacher '{spec.name}': give 'path', a weights file of understudy.models.save."
            )
        return cls(
            spec.name,
            model,
            logit_scale=spec.logit_scale,
            fold=options.fold,
            device=options.device,
            compute=options.compute,
        )

    def _identity(self) -> dict[str, Any]:
        tokenizer = getattr(self.module, "tokenizer", None)
        return {
            "weights": self._weights,
            "tokenizer": tokenizer.fingerprint() if tokenizer else "",
            "fold": self._folds,
            "compute": self.compute,
        }

    def _image_features(self, images: Images) -> Any:
        with self._asking():
            if isinstance(self.module, CLIP):
                return numpy(self.module.encode_image(self._input(images), normalize=False))
            return numpy(self.module.features(self._input(images)))  # type: ignore[operator]

    def _text_features(self, texts: list[str]) -> Any:
        assert isinstance(self.module, CLIP)
        with self._asking():
            tokens = self.module.tokenize(texts).to(self.device)
            return numpy(self.module.encode_text(tokens, normalize=False))

    def _probabilities(self, images: Images) -> Any:
        with self._asking():
            logits = self.module(self._input(images))["logits"]
            return numpy(logits.float().softmax(dim=-1))
