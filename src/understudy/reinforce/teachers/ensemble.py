"""Several teachers as one: probabilities averaged, embeddings side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from understudy.core.errors import ConfigError
from understudy.reinforce.teachers.base import Images, Teacher, unit_rows


class Ensemble(Teacher):
    """Members that look at the same images, each with its own preprocessing.

    It classifies by the mean of the members' probabilities at temperature 1 (arXiv 2303.08983), and
    embeds by the members' unit embeddings side by side (arXiv 2311.17049; `embed_images` scales the
    row to length 1, `image_features` leaves each block at length 1).

    Args:
        name: what its columns are called.
        members: at least one teacher.

    Raises:
        ConfigError: no members, or classifiers with different numbers of classes.
    """

    kind: ClassVar[str] = "ensemble"

    def __init__(self, name: str, members: Sequence[Teacher]) -> None:
        super().__init__(name)
        if not members:
            raise ConfigError(f"ensemble '{name}': it has no members.")
        self.members = list(members)
        self.capabilities = frozenset.intersection(*(m.capabilities for m in members)) - {"caption"}
        self.compute = next((m.compute for m in members if m.compute != "float32"), "float32")
        if "classify" in self.capabilities:
            counts = {m.name: m.num_classes for m in members}
            if len(set(counts.values())) > 1:
                found = ", ".join(f"'{k}' {v}" for k, v in counts.items())
                raise ConfigError(
                    f"ensemble '{name}': its members tell different numbers of classes apart "
                    f"({found}); probabilities of the same classes can be averaged."
                )

    def _identity(self) -> dict[str, Any]:
        return {"members": [m.fingerprint for m in self.members]}

    @property
    def backend(self) -> dict[str, Any]:
        """The members' back ends."""
        return {m.name: m.backend for m in self.members}

    def _gray(self) -> np.ndarray:
        return max((m._gray() for m in self.members), key=lambda image: image.shape[1])

    def _image_features(self, images: Images) -> np.ndarray:
        parts = [unit_rows(m.image_features(images), m.name) for m in self.members]
        return np.concatenate(parts, axis=1)

    def _text_features(self, texts: list[str]) -> np.ndarray:
        parts = [unit_rows(m.text_features(texts), m.name) for m in self.members]
        return np.concatenate(parts, axis=1)

    def classify(self, images: Images, names: Sequence[str] | None = None) -> np.ndarray:
        """Return the mean of the members' probabilities, float32 `[B, C]`."""
        self._need("classify")
        parts = [m.classify(images, names) for m in self.members]
        return np.asarray(np.mean(parts, axis=0, dtype=np.float64), np.float32)
