"""Pretrain a text encoder on paraphrases: captions of one picture are alike, of two are not.

The objective of sentence encoders (arXiv 1908.10084; in-batch negatives with a fixed scale as in
arXiv 1705.00652): text only, no pictures and no labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor, nn

from understudy.core.errors import DataError
from understudy.core.seeds import rng
from understudy.models.multimodal.heads import mean_tokens
from understudy.objectives.contrastive import clip_loss


@dataclass(frozen=True, kw_only=True)
class ParaphraseStep:
    """Minimise the contrastive loss between two captions of each picture.

    Attributes:
        scale: factor of the cosines.
    """

    scale: float = 20.0

    def __call__(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the loss of mean-pooled, normalised word vectors."""
        first, second = (
            F.normalize(mean_tokens(*model(batch[key])), dim=-1) for key in ("first", "second")
        )
        return {"loss": clip_loss(first, second, self.scale)}


class ParaphraseBatches:
    """Two captions each of some pictures: a loader factory.

    Args:
        groups: the captions of each picture; pictures with fewer than two are left out.
        tokenize: texts to ids.
        batch_size: pictures in a batch.
        seed: of the draws.

    Raises:
        DataError: fewer pictures with two captions than `batch_size`.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[str]],
        tokenize: Callable[[Sequence[str]], Tensor],
        batch_size: int,
        seed: int = 0,
    ) -> None:
        self.groups = [list(group) for group in groups if len(group) > 1]
        self.tokenize, self.batch_size, self.seed = tokenize, batch_size, seed
        if len(self.groups) < batch_size:
            raise DataError(
                f"paraphrases: {len(self.groups)} pictures have two captions, a batch needs "
                f"{batch_size}."
            )

    def __call__(self, start: int, count: int) -> Iterator[dict[str, Any]]:
        """Yield `count` batches from number `start` on."""
        for step in range(start, start + count):
            draw = rng("paraphrase", self.seed, step)
            rows = draw.choice(len(self.groups), self.batch_size, replace=False)
            both = [draw.choice(len(self.groups[r]), 2, replace=False) for r in rows]
            pairs = np.array(both)
            yield {
                key: self.tokenize(
                    [self.groups[r][k] for r, k in zip(rows, pairs[:, i], strict=True)]
                )
                for i, key in enumerate(("first", "second"))
            }
