"""What a map's file says of it: spaces, sizes, pairs, score, losses, versions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy import __version__
from understudy.core.config import to_dict
from understudy.core.provenance import versions

if TYPE_CHECKING:
    from understudy.models.embedding.chain import MapModule
    from understudy.update.classifier import FrozenHead
    from understudy.update.fit_config import FitConfig
    from understudy.update.fit_score import MapScore
    from understudy.update.pairs import Pairs


def manifest_of(
    pairs: Pairs,
    config: FitConfig,
    module: MapModule,
    head: FrozenHead | None,
    held_out: MapScore | None,
    items: np.ndarray,
    norms: Mapping[str, Any],
    odd: list[str],
) -> dict[str, Any]:
    """Return what a map's file says of it.

    Args:
        pairs: what it was learned from.
        config: how.
        module: the network.
        head: the frozen classifier.
        held_out: its score.
        items: those that it learned from.
        norms: lengths of the vectors by field.
        odd: warnings.
    """
    side = pairs.spaces.get("side")
    r2 = held_out.r2 if held_out is not None and math.isfinite(held_out.r2) else None
    return {
        "from_space": pairs.spaces["old"].to_dict(),
        "to_space": pairs.spaces["new"].to_dict(),
        "side_space": None if side is None else side.to_dict(),
        "dims": {
            "old": pairs.old.dim,
            "side": 0 if pairs.side is None else pairs.side.dim,
            "new": pairs.new.dim,
        },
        "kind": config.kind,
        "inner": config.inner if config.kind == "transform" else 0,
        "uncertainty": module.config.uncertainty,
        "columns": pairs.columns,
        "source": pairs.source,
        "train_fingerprint": pairs.fingerprint,
        "train_pairs": len(items),
        "held_out_pairs": 0 if held_out is None else held_out.count,
        "held_out_mse": None if held_out is None else held_out.mse,
        "held_out_r2": r2,
        "norms": dict(norms),
        "loss": to_dict(config),
        "classifier": None if head is None else head.describe(),
        "warnings": list(odd),
        "code_version": __version__,
        "versions": versions(),
    }
