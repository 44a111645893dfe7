"""Pretrain an image encoder on rotations and on labels that are not the target's.

Predicting by how many quarter turns a picture was rotated needs no labels (arXiv 1803.07728); side
labels (is there a loop, is it even) are further heads. What comes out is a frozen encoder whose
features were never trained on the classes it will be aligned to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from understudy.core.errors import ConfigError
from understudy.core.seeds import rng
from understudy.models.preprocess import Preprocess, to_tensor

TURNS = 4


@dataclass(frozen=True, kw_only=True)
class PretextStep:
    """Classify several things at once, each by its own slice of the logits.

    Attributes:
        heads: number of classes of each; the first is the rotation.
    """

    heads: Sequence[int] = (TURNS,)

    def __call__(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the sum of the heads' cross-entropies; labels below 0 are left out."""
        parts = model(batch["images"])["logits"].float().split(list(self.heads), dim=1)
        losses = []
        for logits, labels in zip(parts, batch["labels"].T, strict=True):
            known = (labels >= 0).sum().clamp(min=1)
            loss = F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum")
            losses.append(loss / known)
        turned = (parts[0].argmax(1) == batch["labels"][:, 0]).float().mean()
        return {"loss": torch.stack(losses).sum(), "rotation_top1": turned.detach()}


class PretextBatches:
    """Rotated pictures with their turn and their side labels: a loader factory.

    Args:
        images: uint8 [N, S, S, 3].
        side_labels: int64 [N, H]; -1 where there is none.
        preprocess: what images go through.
        batch_size: pictures in a batch.
        seed: of draws and turns.
    """

    def __init__(
        self,
        images: np.ndarray,
        side_labels: np.ndarray,
        preprocess: Preprocess,
        batch_size: int,
        seed: int = 0,
    ) -> None:
        if len(images) != len(side_labels) or images.shape[1] != images.shape[2]:
            raise ConfigError(
                f"pretext: expected square images and a row of labels for each, got "
                f"{list(images.shape)} and {list(side_labels.shape)}."
            )
        self.images, self.side_labels = images, side_labels
        self.preprocess, self.batch_size, self.seed = preprocess, batch_size, seed

    def __call__(self, start: int, count: int) -> Iterator[dict[str, Any]]:
        """Yield `count` batches from number `start` on."""
        for step in range(start, start + count):
            draw = rng("pretext", self.seed, step)
            rows = draw.integers(len(self.images), size=self.batch_size)
            turns = draw.integers(TURNS, size=self.batch_size)
            turned = np.empty((self.batch_size, *self.images.shape[1:]), np.uint8)
            for turn in range(TURNS):
                mine = turns == turn
                turned[mine] = np.rot90(self.images[rows[mine]], turn, axes=(1, 2))
            labels = np.concatenate([turns[:, None], self.side_labels[rows]], axis=1)
            yield {
                "rows": torch.from_numpy(rows),
                "images": to_tensor(turned, self.preprocess),
                "labels": torch.from_numpy(labels.astype(np.int64)),
            }
