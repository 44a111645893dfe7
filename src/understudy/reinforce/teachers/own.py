"""Teachers that are models of this package: a CLIP, a captioner, or a classifier."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from understudy import models
from understudy.core.config import from_dict
from understudy.core.errors import ConfigError
from understudy.models.base import Model
from understudy.models.image.classifier import Classifier
from understudy.models.io import weights_hash
from understudy.models.language.options import check_generation
from understudy.models.multimodal.coca import CoCa
from understudy.models.multimodal.pair import PairModel
from understudy.reinforce.config import TeacherSpec
from understudy.reinforce.teachers.base import Images
from understudy.reinforce.teachers.captioning import (
    CaptionOptions,
    sampling_settings,
    write_captions,
)
from understudy.reinforce.teachers.torch_teacher import TorchTeacher, numpy


@dataclass(frozen=True, kw_only=True, slots=True)
class Options(CaptionOptions):
    """Options of kind `understudy`; `CaptionOptions` has those of captioners.

    Attributes:
        seed: of fresh weights when `model` is given and `path` is not (controls and tests).
        fold: run the folded form, which is faster and differs in the last bits.
        device: `cpu`, `cuda`, ... or `auto`.
        compute: `float32`, `bfloat16` or `float16`.
        max_tokens: tokens of a caption at most; 0 for what the captioner takes, up to 30.
    """

    max_tokens: int = 0
    seed: int = 0
    fold: bool = True
    device: str = "auto"
    compute: str = "float32"


def _fitting(options: CaptionOptions, model: CoCa, where: str) -> CaptionOptions:
    """Return options whose captions fit the captioner's context."""
    room = model.config.text.context_length - 1
    if not options.max_tokens:
        options = replace(options, max_tokens=min(30, room))
    check_generation(options, where)
    if options.max_tokens > room:
        raise ConfigError(
            f"{where}.max_tokens: {options.max_tokens} tokens do not fit the captioner's context; "
            f"give at most {room}."
        )
    return options


class OwnTeacher(TorchTeacher):
    """A model of this package as a teacher.

    A CLIP with a tokenizer embeds images and texts; a captioner does too, and writes captions; a
    classifier gives probabilities and embeds images by its pooled features.

    Args:
        name: what its columns are called.
        model: a `CLIP`, a `CoCa` or a `Classifier`; frozen in place unless it is folded.
        logit_scale: None takes a CLIP's own.
        fold: run the folded form of a model that is not folded yet.
        device: `cpu`, `cuda`, ... or `auto`.
        compute: precision of the arithmetic.
        writing: how a captioner writes.
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
        writing: CaptionOptions | None = None,
    ) -> None:
        self.writing = writing or Options()
        if isinstance(model, PairModel):
            able = {"embed_images", "embed_texts"} if model.tokenizer else {"embed_images"}
            logit_scale = float(model.scale().detach()) if logit_scale is None else logit_scale
            if isinstance(model, CoCa) and model.tokenizer:
                able |= {"caption"}
                self.writing = _fitting(self.writing, model, f"teacher '{name}'.options")
        elif isinstance(model, Classifier):
            able = {"embed_images", "classify"} if model.config.num_classes else {"embed_images"}
        else:
            raise ConfigError(
                f"teacher '{name}': a {type(model).__name__} is neither a CLIP, a captioner nor a "
                "classifier; wrap it in a FunctionTeacher."
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
        if getattr(model.config, "sigmoid", False):
            self.logit_bias = float(model.logit_bias.detach())  # type: ignore[union-attr]

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
            writing=options,
        )

    def _identity(self) -> dict[str, Any]:
        tokenizer = getattr(self.module, "tokenizer", None)
        return {
            "weights": self._weights,
            "tokenizer": tokenizer.fingerprint() if tokenizer else "",
            "fold": self._folds,
            "compute": self.compute,
            **(sampling_settings(self.writing) if "caption" in self.capabilities else {}),
        }

    def _image_features(self, images: Images) -> Any:
        with self._asking():
            if isinstance(self.module, PairModel):
                return numpy(self.module.encode_image(self._input(images), normalize=False))
            return numpy(self.module.features(self._input(images)))  # type: ignore[operator]

    def _text_features(self, texts: list[str]) -> Any:
        assert isinstance(self.module, PairModel)
        with self._asking():
            tokens = self.module.tokenize(texts).to(self.device)
            return numpy(self.module.encode_text(tokens, normalize=False))

    def _probabilities(self, images: Images) -> Any:
        with self._asking():
            logits = self.module(self._input(images))["logits"]
            return numpy(logits.float().softmax(dim=-1))

    def _captions(self, images: Images, num: int, seeds: list[int]) -> list[list[str]]:
        model = self.module
        assert isinstance(model, CoCa)
        assert model.tokenizer is not None
        with self._asking():
            pixels = self._input(images)
            return write_captions(
                model.step,
                lambda times: model.begin_captions(pixels, times),
                self.writing,
                seeds,
                num,
                end_ids=(model.end_id,),
                decode=model.tokenizer.decode,
                where=f"teacher '{self.name}'.options",
            )
