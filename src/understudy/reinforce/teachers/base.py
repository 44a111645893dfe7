"""What a teacher is: a frozen model with a fingerprint that is asked, never trained.

A teacher can embed images, embed texts, give class probabilities or write captions; which of these
is in `capabilities`. All teachers of a reinforcement look at the same 8-bit views and each does its
own resizing and normalisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from understudy.core.errors import ConfigError, DataError
from understudy.core.hashing import hash_data
from understudy.models.preprocess import Preprocess

if TYPE_CHECKING:
    from understudy.reinforce.config import TeacherSpec

CAPABILITIES = ("embed_images", "embed_texts", "classify", "caption")
Images = Sequence[np.ndarray] | np.ndarray
"""A list of uint8 [H, W, 3], uint8 [B, H, W, 3], or float32 [B, H, W, 3] in levels 0 to 255."""


def _label(names: Sequence[str] | None, i: int) -> str:
    return names[i] if names is not None else f"item {i}"


def unit_rows(values: np.ndarray, teacher: str, names: Sequence[str] | None = None) -> np.ndarray:
    """Return float32 `[B, D]` rows of length 1.

    Raises:
        DataError: a row is zero or holds NaN or infinity; the message names teacher and sample.
    """
    values = np.ascontiguousarray(values, np.float32)
    if values.ndim != 2:
        raise DataError(
            f"teacher '{teacher}': embeddings of shape {list(values.shape)}, expected [B, D]."
        )
    norms = np.linalg.norm(values.astype(np.float64), axis=1)
    bad = ~(np.isfinite(norms) & (norms > 0))
    if bad.any():
        i = int(np.argmax(bad))
        what = "a zero vector" if norms[i] == 0 else "NaN or infinity"
        raise DataError(
            f"teacher '{teacher}': the embedding of {_label(names, i)} is {what}; check the sample "
            "and the teacher's input range."
        )
    return (values / norms[:, None]).astype(np.float32)


def probability_rows(
    values: np.ndarray, teacher: str, names: Sequence[str] | None = None
) -> np.ndarray:
    """Return float32 `[B, C]` rows that sum to 1.

    Raises:
        DataError: a row holds NaN, infinity or a negative number, or does not sum to 1; the message
            names teacher and sample.
    """
    values = np.ascontiguousarray(values, np.float32)
    if values.ndim != 2:
        raise DataError(
            f"teacher '{teacher}': probabilities of shape {list(values.shape)}, expected [B, C]."
        )
    sums = values.sum(axis=1, dtype=np.float64)
    bad = ~(np.abs(sums - 1) <= 1e-2) | (values < 0).any(axis=1)
    if bad.any():
        i = int(np.argmax(bad))
        what = f"sum to {sums[i]:.6g}" if np.isfinite(sums[i]) else "hold NaN or infinity"
        if np.isfinite(sums[i]) and (values[i] < 0).any():
            what = f"go down to {values[i].min():.6g} (logits? give probabilities)"
        raise DataError(
            f"teacher '{teacher}': the probabilities of {_label(names, i)} {what}; expected "
            "numbers from 0 to 1 that sum to 1."
        )
    return (values / sums[:, None]).astype(np.float32)


class Teacher:
    """Base of all teachers.

    Subclasses set `capabilities` and write the hooks `_image_features`, `_text_features`,
    `_probabilities`, `_captions`, and `_identity`, the plain data behind the fingerprint.

    Args:
        name: what its columns are called.
        logit_scale: factor of its logits in distillation; None when it has none.
        preprocess: what images go through; None when it takes them as they are.

    Attributes:
        capabilities: which of `CAPABILITIES` it has.
        logit_bias: added to its logits, if it was trained with a sigmoid loss; else None.
        compute: precision of its arithmetic, for tolerances ("float32", "bfloat16", ...).
        probe_size: side of the gray image that widths are learned with, when it has no
            preprocessing of its own.
    """

    kind: ClassVar[str] = ""
    capabilities: frozenset[str] = frozenset()
    logit_bias: float | None = None
    compute: str = "float32"
    probe_size: int = 32

    def __init__(
        self,
        name: str,
        *,
        logit_scale: float | None = None,
        preprocess: Preprocess | None = None,
    ) -> None:
        self.name = name
        self.logit_scale = logit_scale
        self.preprocess = preprocess

    @classmethod
    def from_spec(cls, spec: TeacherSpec) -> Teacher:
        """Make the teacher that a configuration describes."""
        raise ConfigError(f"teacher '{spec.name}': kind '{spec.kind}' cannot be configured.")

    # what it is

    def _identity(self) -> dict[str, Any]:
        """Return what decides its outputs, weights hash included."""
        raise ConfigError(f"teacher '{self.name}': {type(self).__name__} has no fingerprint.")

    @cached_property
    def fingerprint(self) -> str:
        """Hash of weights, preprocessing and settings; not of the name or the logit scale."""
        from understudy.core.config import to_dict

        identity = {"kind": self.kind, "preprocess": to_dict(self.preprocess), **self._identity()}
        return hash_data(identity)

    @property
    def backend(self) -> dict[str, Any]:
        """What its outputs depend on in the last bits: libraries, device, precision."""
        return {"compute": self.compute}

    def _missing(self, capability: str) -> ConfigError:
        able = ", ".join(sorted(self.capabilities)) or "nothing"
        return ConfigError(
            f"teacher '{self.name}' (kind {self.kind}) cannot {capability}; it can: {able}."
        )

    def _need(self, capability: str) -> None:
        if capability not in self.capabilities:
            raise self._missing(capability)

    def _gray(self) -> np.ndarray:
        size = self.preprocess.size if self.preprocess else self.probe_size
        return np.full((1, size, size, 3), 127, np.uint8)

    @cached_property
    def image_dim(self) -> int:
        """Width of its image embeddings."""
        return int(self.embed_images(self._gray(), ["a gray image"]).shape[1])

    @cached_property
    def text_dim(self) -> int:
        """Width of its text embeddings."""
        return int(self.embed_texts(["a"]).shape[1])

    @cached_property
    def num_classes(self) -> int:
        """Number of classes it tells apart."""
        return int(self.classify(self._gray(), ["a gray image"]).shape[1])

    def train(self, mode: bool = True) -> Teacher:
        """Refuse training: a teacher is frozen.

        Raises:
            ConfigError: `mode` is true.
        """
        if mode:
            raise ConfigError(
                f"teacher '{self.name}' is frozen and cannot be switched to training mode; train "
                "the model itself and make a new teacher of it."
            )
        return self

    def eval(self) -> Teacher:
        """Return itself: a teacher is always in evaluation mode."""
        return self

    # what it is asked

    def image_features(self, images: Images) -> np.ndarray:
        """Return float32 `[B, D]` image features before normalisation.

        Raises:
            ConfigError: it has no image encoder.
        """
        self._need("embed_images")
        return np.ascontiguousarray(self._image_features(images), np.float32)

    def text_features(self, texts: Sequence[str]) -> np.ndarray:
        """Return float32 `[B, D]` text features before normalisation.

        Raises:
            ConfigError: it has no text encoder.
        """
        self._need("embed_texts")
        return np.ascontiguousarray(self._text_features(list(texts)), np.float32)

    def embed_images(self, images: Images, names: Sequence[str] | None = None) -> np.ndarray:
        """Return image embeddings float32 `[B, D]` of length 1.

        Args:
            images: see `Images`.
            names: what to call each image in errors.

        Raises:
            ConfigError: it has no image encoder.
            DataError: an embedding is zero or not finite; the message names the sample.
        """
        return unit_rows(self.image_features(images), self.name, names)

    def embed_texts(self, texts: Sequence[str], names: Sequence[str] | None = None) -> np.ndarray:
        """Return text embeddings float32 `[B, D]` of length 1.

        Raises:
            ConfigError: it has no text encoder.
            DataError: an embedding is zero or not finite; the message names the sample.
        """
        return unit_rows(self.text_features(texts), self.name, names)

    def classify(self, images: Images, names: Sequence[str] | None = None) -> np.ndarray:
        """Return class probabilities float32 `[B, C]`.

        Raises:
            ConfigError: it is not a classifier.
            DataError: a row is no distribution; the message names the sample.
        """
        self._need("classify")
        return probability_rows(self._probabilities(images), self.name, names)

    def caption(self, images: Images, num: int, seed: int | Sequence[int] = 0) -> list[list[str]]:
        """Return `num` captions of each image.

        Args:
            images: see `Images`.
            num: captions an image.
            seed: of the sampling; one number, or one for each image. Given one each, an image's
                captions do not depend on its neighbours in the batch.

        Raises:
            ConfigError: it writes no captions.
        """
        self._need("caption")
        if isinstance(seed, int):
            from understudy.core.seeds import seed_for

            seed = [seed_for("caption", seed, i) for i in range(len(images))]
        found = self._captions(images, num, list(seed))
        if len(found) != len(images) or any(len(row) != num for row in found):
            raise DataError(
                f"teacher '{self.name}': expected {num} captions of each of {len(images)} images."
            )
        return [[str(text) for text in row] for row in found]

    # hooks

    def _image_features(self, images: Images) -> Any:
        raise self._missing("embed_images")

    def _text_features(self, texts: list[str]) -> Any:
        raise self._missing("embed_texts")

    def _probabilities(self, images: Images) -> Any:
        raise self._missing("classify")

    def _captions(self, images: Images, num: int, seeds: list[int]) -> list[list[str]]:
        raise self._missing("caption")
