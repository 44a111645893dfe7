"""One step of learning a map: batches of stored vectors, and the objective bound to the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from understudy.data.samplers import ShuffledSampler
from understudy.objectives.compatible import compatible, uses_labels
from understudy.update.classifier import FrozenHead

if TYPE_CHECKING:
    from understudy.update.fit_config import FitConfig
    from understudy.update.pairs import Pairs


@dataclass(frozen=True, kw_only=True)
class MapStep:
    """Minimise the loss of a map.

    The loop puts a model in training mode when it starts and after each evaluation; the mode of a
    step follows from its number here, so that a resumed run does the same.

    Attributes:
        config: loss and weights.
        freeze_at: step from which batch normalisation uses its running statistics.
        head: the frozen classifier, for a loss with `disc`.
    """

    config: FitConfig
    freeze_at: int
    head: FrozenHead | None = None

    def __call__(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Run the map and return the losses."""
        model.train(int(batch["step"]) < self.freeze_at)
        found = model(batch["old"], batch.get("side"))
        z, u = found if isinstance(found, tuple) else (found, None)
        outputs: dict[str, Any] = {"z": z, "u": u}
        targets: dict[str, Any] = {"new": batch["new"]}
        if self.head is not None and uses_labels(self.config.loss):
            outputs["logits"] = self.head.logits(z)
            targets["labels"] = self.head.places(batch["labels"])
        config = self.config
        return compatible(
            outputs,
            targets,
            loss=config.loss,
            mu_sim=config.mu_sim,
            mu_disc=config.mu_disc,
            mu_unc=config.mu_unc,
            smoothing=config.smoothing,
        )


class MapBatches:
    """Batches of pairs: a loader factory for the loop.

    Args:
        pairs: where vectors are.
        items: int64 [M] those to learn from.
        batch_size: pairs of a step over all ranks; at most M are used.
        seed: of the order.
        rank: this process's number.
        world: processes that share each batch.
    """

    def __init__(
        self,
        pairs: Pairs,
        items: np.ndarray,
        batch_size: int,
        seed: int,
        *,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.pairs = pairs
        self.batch_size = min(batch_size, len(items)) // world * world
        # Batch normalisation cannot learn from a single item, so such a rest is left out.
        left = len(items) % max(self.batch_size, 1)
        self.sampler = ShuffledSampler(
            items,
            self.batch_size // world,
            seed,
            rank=rank,
            world=world,
            drop_last=left < 2 * world,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Steps in a pass over the pairs."""
        return self.sampler.steps_per_epoch

    def gather(self, items: np.ndarray) -> dict[str, Tensor]:
        """Return the batch of given items."""
        batch = {
            name: torch.from_numpy(np.ascontiguousarray(vectors.take(items)))
            for name, vectors in self.pairs.fields.items()
        }
        batch["rows"] = torch.from_numpy(np.array(items, np.int64))
        if self.pairs.labels is not None:
            batch["labels"] = torch.from_numpy(self.pairs.labels[items])
        return batch

    def __call__(self, start: int, count: int) -> Iterator[dict[str, Tensor]]:
        """Yield `count` batches from number `start` on."""
        for step in range(start, start + count):
            yield self.gather(self.sampler.batch(step).rows)

    def describe(self) -> dict[str, Any]:
        """Return what identifies the stream."""
        return {"sampler": self.sampler.describe(), "pairs": self.pairs.describe()}
