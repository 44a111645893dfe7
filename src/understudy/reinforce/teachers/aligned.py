"""Two frozen encoders that an aligner brings into one space: a CLIP-like teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from understudy.core.config import check_choice, from_dict
from understudy.core.errors import CardError, ConfigError
from understudy.models.io import weights_hash
from understudy.reinforce.config import TeacherSpec
from understudy.reinforce.teachers.base import Images, Teacher
from understudy.reinforce.teachers.torch_teacher import numpy


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Options of kind `aligned`.

    Attributes:
        image: the image encoder, a teacher's specification (`kind`, `path`, ...).
        text: the text encoder, likewise.
        image_modality: the aligner's name of the image side.
        text_modality: the aligner's name of the text side.
        inputs: what the heads were trained on: the encoders' own `features`, as
            `reinforce.features` caches them, or unit `embeddings`. Empty takes what the aligner's
            manifest says, else `features`.
    """

    image: dict
    text: dict
    image_modality: str = "image"
    text_modality: str = "text"
    inputs: str = ""


def _hash(encoder: Any) -> str:
    return encoder.fingerprint if isinstance(encoder, Teacher) else encoder.hash


def _encoder(data: Mapping[str, Any], name: str, where: str) -> Teacher:
    from understudy.reinforce.teachers import create

    return create(from_dict(TeacherSpec, {"name": name, **data}, where))


class AlignedTeacher(Teacher):
    """An image teacher and a text teacher with a head on each, as the `ape` recipe trains them.

    Args:
        name: what its columns are called.
        image: embeds images: a teacher, or an encoder of `understudy.reinforce.features`.
        text: embeds texts, likewise.
        aligner: an `understudy.models.multimodal.aligner.Aligner`.
        image_modality: the aligner's name of the image side.
        text_modality: the aligner's name of the text side.
        inputs: `features` or `embeddings`; empty for what the aligner says.
        logit_scale: None takes the aligner's own.

    Raises:
        CardError: the aligner was made for another checkpoint of an encoder.
    """

    kind: ClassVar[str] = "aligned"
    capabilities = frozenset({"embed_images", "embed_texts"})

    def __init__(
        self,
        name: str,
        image: Any,
        text: Any,
        aligner: Any,
        *,
        image_modality: str = "image",
        text_modality: str = "text",
        inputs: str = "",
        logit_scale: float | None = None,
    ) -> None:
        own = float(aligner.scale().detach()) if logit_scale is None else logit_scale
        super().__init__(name, logit_scale=own)
        self.encoders = {"image": image, "text": text}
        self.aligner = aligner.eval().requires_grad_(False)
        self.sides = {"image": image_modality, "text": text_modality}
        self.inputs = inputs or aligner.manifest.get("inputs", "features")
        check_choice(self.inputs, ("features", "embeddings"), f"teacher '{name}'.options.inputs")
        for side, encoder in self.encoders.items():
            if isinstance(encoder, Teacher):
                encoder._need(f"embed_{side}s")
                self.compute = encoder.compute if self.compute == "float32" else self.compute
            modality = aligner.config.modality(self.sides[side])
            wanted = modality.encoder_hash
            if wanted and wanted != _hash(encoder):
                raise CardError(
                    f"teacher '{name}': its aligner was made for checkpoint '{wanted}' of "
                    f"'{modality.encoder}', the {side} encoder's is '{_hash(encoder)}'; use the "
                    "encoder it was trained with."
                )
        if isinstance(image, Teacher):
            self.preprocess = image.preprocess

    @classmethod
    def from_spec(cls, spec: TeacherSpec) -> AlignedTeacher:
        """Load the aligner in `path` and the two encoders in the options."""
        from understudy.models.multimodal.aligner import load_aligner

        where = f"teacher '{spec.name}'"
        options = from_dict(Options, spec.options, f"{where}.options")
        if not spec.path:
            raise ConfigError(f"{where}: give 'path', the aligner's file.")
        return cls(
            spec.name,
            _encoder(options.image, f"{spec.name}-image", f"{where}.options.image"),
            _encoder(options.text, f"{spec.name}-text", f"{where}.options.text"),
            load_aligner(spec.path),
            image_modality=options.image_modality,
            text_modality=options.text_modality,
            inputs=options.inputs,
            logit_scale=spec.logit_scale,
        )

    def _identity(self) -> dict[str, Any]:
        return {
            "image": _hash(self.encoders["image"]),
            "text": _hash(self.encoders["text"]),
            "aligner": weights_hash(self.aligner),
            "inputs": self.inputs,
        }

    @property
    def backend(self) -> dict[str, Any]:
        """The two encoders' back ends."""
        return {side: getattr(e, "backend", {}) for side, e in self.encoders.items()}

    def _gray(self) -> np.ndarray:
        image = self.encoders["image"]
        return image._gray() if isinstance(image, Teacher) else super()._gray()

    def _ask(self, side: str, items: Any, tokens: bool) -> tuple[Any, Any]:
        """Return an encoder's features and, of tokens, which are valid."""
        encoder = self.encoders[side]
        if not isinstance(encoder, Teacher):
            pooled, values, mask = encoder.encode(items)
            if not tokens or values is not None:
                return (values, mask) if tokens else (pooled, None)
        elif not tokens:
            method = f"{side}_features" if self.inputs == "features" else f"embed_{side}s"
            return getattr(encoder, method)(items), None
        elif hasattr(encoder, f"{side}_tokens"):
            return getattr(encoder, f"{side}_tokens")(items)
        raise ConfigError(
            f"teacher '{self.name}': its aligner works on tokens, which the {side} encoder "
            f"'{encoder.name}' does not give; train an aligner on pooled features."
        )

    def _project(self, side: str, items: Any) -> np.ndarray:
        name = self.sides[side]
        tokens = self.aligner.config.modality(name).placement == "tokens"
        values, mask = self._ask(side, items, tokens)
        valid = None if mask is None else torch.from_numpy(np.asarray(mask, bool))
        features = torch.from_numpy(np.ascontiguousarray(values, np.float32))
        with torch.inference_mode():
            return numpy(self.aligner.encode(name, features, valid))

    def _image_features(self, images: Images) -> np.ndarray:
        return self._project("image", images)

    def _text_features(self, texts: Sequence[str]) -> np.ndarray:
        return self._project("text", list(texts))
