"""MixUp and CutMix of a batch with itself, for plain and online-distillation training.

Baselines of arXiv 2303.08983: one of {MixUp alpha 0.2, CutMix alpha 1.0} per batch. Reinforced
samples are not mixed here: if mixing is wanted, the teacher must have seen the mixed image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from understudy.core.errors import ConfigError
from understudy.core.seeds import rng
from understudy.objectives.supervised import mixed_targets
from understudy.objectives.topk import Densify, targets


@dataclass(frozen=True, kw_only=True, slots=True)
class MixConfig:
    """Describe batch mixing.

    Attributes:
        mixup_alpha: of Beta(alpha, alpha) for MixUp; 0 switches it off.
        cutmix_alpha: of Beta(alpha, alpha) for CutMix; 0 switches it off.
        probability: that a batch is mixed at all.
        seed: of the draws; with the step it decides them.
        force: mix even stored targets of unmixed views: q of both images, by the images' share.
    """

    mixup_alpha: float = 0.2
    cutmix_alpha: float = 1.0
    probability: float = 1.0
    seed: int = 0
    force: bool = False

    def __post_init__(self) -> None:
        if min(self.mixup_alpha, self.cutmix_alpha) < 0 or not (
            self.mixup_alpha or self.cutmix_alpha
        ):
            raise ConfigError(
                f"MixConfig: mixup_alpha {self.mixup_alpha} and cutmix_alpha {self.cutmix_alpha} "
                "must be at least 0 and not both 0."
            )
        if not 0 <= self.probability <= 1:
            raise ConfigError(
                f"MixConfig.probability: expected a number in [0, 1], got {self.probability}."
            )


def cut_box(lam: float, height: int, width: int, x: float, y: float) -> tuple[int, int, int, int]:
    """Return (left, top, right, bottom) of a box of area share 1 - lam around (x, y), clipped.

    Args:
        lam: share of the first image.
        height: of the image, in pixels.
        width: of the image, in pixels.
        x: centre, in [0, 1) of the width.
        y: centre, in [0, 1) of the height.
    """
    side = (1.0 - lam) ** 0.5
    half_w, half_h = side * width / 2, side * height / 2
    left, right = (np.clip(x * width + s * half_w, 0, width) for s in (-1, 1))
    top, bottom = (np.clip(y * height + s * half_h, 0, height) for s in (-1, 1))
    return int(left), int(top), int(right), int(bottom)


def mix_batch(
    batch: Mapping[str, Any],
    config: MixConfig,
    num_classes: int,
    smoothing: float = 0.0,
    *,
    method: Densify = "smooth",
    compat: bool = False,
) -> dict[str, Any]:
    """Mix a batch with a shuffled copy of itself: MixUp or CutMix, one of both per batch.

    Args:
        batch: `images` [B, 3, H, W], `step`, and `labels` [B] or stored targets (see
            `objectives.topk.targets`).
        config: how; stored targets are mixed only with `config.force`.
        num_classes: of `targets`.
        smoothing: label smoothing of both targets; stored ones are soft already.
        method: how stored targets become dense, see `objectives.topk.densify`.
        compat: see there.

    Returns:
        the batch with mixed `images` and with `targets` [B, C], lam q + (1 - lam) q' where lam is
        the first image's share.

    Raises:
        ConfigError: the batch holds stored targets, which would no longer fit the images.
    """
    stored = batch.get("topk_p") is not None
    if stored and not config.force:
        raise ConfigError(
            "mixing: the batch holds stored targets of unmixed views; mix inside the "
            "reinforcement (the teacher must see the mixed image) or set force=True."
        )
    if num_classes < 1:
        raise ConfigError(f"mixing: num_classes must be at least 1, got {num_classes}.")
    images, order, lam = mix_images(batch, config)
    if stored:
        q = targets(batch, num_classes, method, compat=compat)
        mixed = lam * q + (1.0 - lam) * q[order]
    else:
        labels: Tensor = batch["labels"]
        mixed = mixed_targets(labels, labels[order], lam, num_classes, smoothing)
    return {**batch, "images": images, "targets": mixed}


def mix_images(batch: Mapping[str, Any], config: MixConfig) -> tuple[Tensor, Tensor, float]:
    """Return mixed images [B, 3, H, W], whom each was mixed with [B], and its own share.

    Args:
        batch: `images` [B, 3, H, W] and `step`, which with the seed decides the draws.
        config: how.
    """
    draw = rng("mix", config.seed, int(batch.get("step", 0)))
    images: Tensor = batch["images"]
    order = torch.from_numpy(draw.permutation(len(images))).to(images.device)
    lam = 1.0
    if draw.random() < config.probability:
        modes = [m for m in ("mixup", "cutmix") if getattr(config, f"{m}_alpha") > 0]
        mode = modes[int(draw.integers(len(modes)))]
        alpha = getattr(config, f"{mode}_alpha")
        lam = float(draw.beta(alpha, alpha))
        if mode == "mixup":
            images = torch.lerp(images[order], images, lam)
        else:
            height, width = images.shape[-2:]
            left, top, right, bottom = cut_box(lam, height, width, draw.random(), draw.random())
            images = images.clone()
            images[..., top:bottom, left:right] = batch["images"][order][
                ..., top:bottom, left:right
            ]
            # The clipped box may be smaller than lam says.
            lam = 1.0 - (right - left) * (bottom - top) / (height * width)
    return images, order, lam
