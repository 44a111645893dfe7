"""Heads and schedules of published relatives of APE, whose own schedule is not printed.

Both are read from the works' code: ShareLock (arXiv 2410.07173) and freeze-align
(arXiv 2409.19425). `understudy run ape STORE --preset sharelock` fills them in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from understudy.models.multimodal.heads import FREEZE_ALIGN, IDENTITY, SHARELOCK
from understudy.train.config import TrainConfig

FREEZE_ALIGN_PAIRS = 6_000_000
"""Pairs of freeze-align's curated set."""


def sharelock() -> dict[str, Any]:
    """Return ShareLock's: an MLP of 4 layers on the text, the image side as it is.

    Adam, learning rate 1e-3, weight decay 1e-4, cosine, 150 of 5,000 steps of warm-up, 16
    micro-batches of 1,024 pairs, of which each is compared with itself; gradients clipped at 1.
    """
    return {
        "text_head": SHARELOCK,
        "image_head": IDENTITY,
        "train": TrainConfig(
            steps=5_000,
            batch_size=1_024,
            accumulate=16,
            lr=1e-3,
            warmup_steps=150,
            weight_decay=1e-4,
            betas=(0.9, 0.999),
            clip_norm=1.0,
            eval_every=50,
        ),
    }


def freeze_align(pairs: int = FREEZE_ALIGN_PAIRS) -> dict[str, Any]:
    """Return freeze-align's: its projectors on both sides, 1,024 numbers wide.

    AdamW, learning rate 1e-3, weight decay 0.02, 15 epochs of which 10 warm up (there from 1e-5,
    here from the first step's share of the peak), batch 14,400.

    Args:
        pairs: in the training set; they decide the steps.
    """
    batch = 14_400
    epoch = max(pairs // batch, 1)
    return {
        "text_head": FREEZE_ALIGN,
        "image_head": FREEZE_ALIGN,
        "dim": 1_024,
        "chunk": 4_096,
        "train": TrainConfig(
            steps=15 * epoch,
            batch_size=batch,
            lr=1e-3,
            warmup_steps=10 * epoch,
            weight_decay=0.02,
            betas=(0.9, 0.999),
            eval_every=epoch,
        ),
    }


SCHEDULES: Mapping[str, Callable[[], dict[str, Any]]] = MappingProxyType(
    {"sharelock": sharelock, "freeze-align": freeze_align}
)
"""What a preset of `ape` fills in, by name."""
