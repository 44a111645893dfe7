"""What an alignment run is watched by: recall and loss of held-out and of training pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from understudy.core.seeds import rng
from understudy.data.sampler_distinct import group_ids
from understudy.objectives.alignment import pair_loss, recall_at

if TYPE_CHECKING:
    from understudy.recipes.ape_arms import Pairing

LOSS_PAIRS = 2000
"""Pairs of which losses are computed at most: their logits are a square."""


def watch(
    pairing: Pairing, rows: np.ndarray, held_out: np.ndarray, duplicates: str, seed: int
) -> Callable[[nn.Module, int], dict[str, float]]:
    """Return what scores a model on held-out pairs and on as many training pairs.

    Both are scored in eval mode and in equal numbers, so that their distance is overfitting and
    nothing else: `recall@1` (mean of both directions), `loss`, `train_recall@1`, `train_loss`.

    Args:
        pairing: the arm.
        rows: training pairs.
        held_out: pairs that choose the weights.
        duplicates: as the arm trains, see `AlignStep`.
        seed: of the draw of training pairs.
    """
    drawn = np.sort(rng("ape-watched", seed).permutation(rows)[: len(held_out)])
    parts = {"": held_out, "train_": drawn}
    sides = {p: {m: pairing.side(m, r) for m in pairing.encoders} for p, r in parts.items()}
    groups = {p: torch.from_numpy(group_ids(pairing.captions(r))) for p, r in parts.items()}

    def evaluate(model: nn.Module, step: int) -> dict[str, float]:
        found: dict[str, float] = {}
        scale = getattr(model, "aligner", model).scale()  # type: ignore[operator]
        for part, ids in groups.items():
            first, second = (pairing.embed(model, m, s) for m, s in sides[part].items())
            both = (recall_at(first, second, 1, ids), recall_at(second, first, 1, ids))
            found[f"{part}recall@1"] = float(sum(both)) / 2
            few = slice(LOSS_PAIRS)
            same = ids[few] if duplicates == "positives" else None
            found[f"{part}loss"] = float(pair_loss(first[few], second[few], scale, groups=same))
        return found

    return evaluate
