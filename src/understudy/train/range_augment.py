"""RangeAugment: brightness, contrast and noise whose ranges are learned (arXiv 2212.10553).

Each operation draws its magnitude uniformly from [low, high]; both ends are parameters. What they
are driven by is how different an image may become: the mean squared error between an image and its
augmented self is pulled to the error that a target PSNR stands for, and the target moves from 40 dB
(hardly visible) to 20 dB (strong) over the run, along a cosine. The task's own gradient reaches the
magnitudes too, since every operation is differentiable in them.

A learned augmentation cannot be stored, so only the student sees it (arXiv 2311.17049).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.models.preprocess import Preprocess

OPERATIONS = ("brightness", "contrast", "noise")
CURRICULA = ("cosine", "linear", "constant")
LIMITS = {
    "brightness": ((0.1, 0.9), (1.1, 10.0)),
    "contrast": ((0.1, 0.9), (1.1, 10.0)),
    "noise": ((0.0, 5e-5), (1e-4, 1.0)),
}
"""Where the low and the high end of each range may lie; noise is a standard deviation."""
BEGIN = {"brightness": (0.85, 1.2), "contrast": (0.85, 1.2), "noise": (2.5e-5, 0.02)}
"""The ranges before anything is learned: weak, as the first target asks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RangeAugmentConfig:
    """Describe the learned augmentation.

    Attributes:
        steps: length of the curriculum in optimiser steps; later steps keep the last target.
        psnr: target at the first and at the last step, in dB, both in [10, 60].
        curriculum: `"cosine"`, `"linear"` (both in squared error) or `"constant"` (the last
            target).
        operations: which to learn.
        share: of the images that each operation touches.
        weight: of the pull to the target, for errors of pixels in [0, 1].
        lr_multiplier: how much faster than the model's weights the magnitudes move under Adam.
    """

    steps: int
    psnr: tuple[float, float] = (40.0, 20.0)
    curriculum: str = "cosine"
    operations: tuple[str, ...] = OPERATIONS
    share: float = 0.5
    weight: float = 100.0
    lr_multiplier: float = 1.0

    def __post_init__(self) -> None:
        check_choice(self.curriculum, CURRICULA, "RangeAugmentConfig.curriculum")
        if self.steps < 1:
            raise ConfigError(f"RangeAugmentConfig.steps: expected at least 1, got {self.steps}.")
        if len(self.psnr) != 2 or not all(10 <= value <= 60 for value in self.psnr):
            raise ConfigError(
                "RangeAugmentConfig.psnr: expected two targets in dB between 10 and 60, such as "
                f"(40, 20), got {self.psnr}."
            )
        if not self.operations or len(set(self.operations)) < len(self.operations):
            raise ConfigError(
                "RangeAugmentConfig.operations: expected at least one, each once, got "
                f"{self.operations}."
            )
        for name in self.operations:
            check_choice(name, OPERATIONS, "RangeAugmentConfig.operations")
        if not 0 < self.share <= 1:
            raise ConfigError(
                f"RangeAugmentConfig.share: expected a number in (0, 1], got {self.share}."
            )
        for name in ("weight", "lr_multiplier"):
            if not getattr(self, name) > 0:
                raise ConfigError(
                    f"RangeAugmentConfig.{name}: expected more than 0, got {getattr(self, name)}."
                )

    def target_mse(self, step: int) -> float:
        """Return the squared error asked for at a step, for pixels in [0, 1]."""
        start, end = (10.0 ** (-value / 10.0) for value in self.psnr)
        done = min(max(step / self.steps, 0.0), 1.0)
        if self.curriculum == "constant":
            return end
        if self.curriculum == "linear":
            return start + (end - start) * done
        return end + 0.5 * (start - end) * (1.0 + math.cos(math.pi * done))


def psnr(mse: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    """Return the peak signal-to-noise ratio in dB of squared errors of pixels in [0, 1]."""
    return -10.0 * torch.log10(mse.clamp_min(1e-10))


class LearnedRange(nn.Module):
    """A uniform distribution whose ends learn, each inside its limits.

    Args:
        limits: ((lowest, highest) of the low end, the same of the high end).
        begin: the ends before training.
        speed: factor of the parameters, hence of their step under Adam.
    """

    def __init__(
        self,
        limits: Sequence[tuple[float, float]],
        begin: tuple[float, float],
        speed: float = 1.0,
    ) -> None:
        super().__init__()
        self.limits, self.speed = tuple(limits), speed
        raw = [
            math.log((value - lo) / (hi - value)) / speed
            for value, (lo, hi) in zip(begin, self.limits, strict=True)
        ]
        # Zero-dimensional, so that no optimiser decays and no sharding splits them.
        self.low_raw = nn.Parameter(torch.tensor(raw[0]))
        self.high_raw = nn.Parameter(torch.tensor(raw[1]))

    def ends(self) -> tuple[Tensor, Tensor]:
        """Return the low and the high end."""
        raws = (self.low_raw, self.high_raw)
        low, high = (
            lo + (hi - lo) * torch.sigmoid(self.speed * raw)
            for raw, (lo, hi) in zip(raws, self.limits, strict=True)
        )
        return low, high

    def forward(self, count: int) -> Float[Tensor, "count 1 1 1"]:
        """Draw `count` magnitudes; the draw is differentiable in both ends."""
        low, high = self.ends()
        drawn = torch.rand(count, 1, 1, 1, device=low.device)
        return low + drawn * (high - low)


def brightness(images: Tensor, magnitude: Tensor) -> Tensor:
    """Scale pixels [B, 3, H, W] in [0, 1]."""
    return images * magnitude


def contrast(images: Tensor, magnitude: Tensor) -> Tensor:
    """Scale the distance of pixels from their image's mean, channel by channel."""
    mean = images.mean(dim=(-2, -1), keepdim=True)
    return mean + (images - mean) * magnitude


def noise(images: Tensor, magnitude: Tensor) -> Tensor:
    """Add normal noise of standard deviation `magnitude`."""
    return images + torch.randn_like(images) * magnitude


APPLY = {"brightness": brightness, "contrast": contrast, "noise": noise}


class RangeAugment(nn.Module):
    """Augment a student's images and learn how much: `ClipStep(augment=...)`.

    Its parameters must be part of what is trained: put it in a `Trainee` beside the model.

    Args:
        config: targets and operations.
        preprocess: the normalisation of the images that will come; the augmentation works on
            pixels in [0, 1].
    """

    def __init__(self, config: RangeAugmentConfig, preprocess: Preprocess) -> None:
        super().__init__()
        self.config = config
        self.ranges = nn.ModuleDict(
            {
                name: LearnedRange(LIMITS[name], BEGIN[name], config.lr_multiplier)
                for name in config.operations
            }
        )
        shape = (1, 3, 1, 1)
        self.register_buffer("mean", torch.tensor(preprocess.mean).reshape(shape), persistent=False)
        self.register_buffer("std", torch.tensor(preprocess.std).reshape(shape), persistent=False)

    def forward(
        self, images: Float[Tensor, "batch 3 height width"], batch: Mapping[str, Any]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Augment normalised images.

        Every operation, in an order drawn anew, touches its own share of the images. Pixels are
        clipped to [0, 1] at the end.

        Args:
            images: normalised float images.
            batch: with `step`, which decides the target.

        Returns:
            the images, normalised again, and `loss` (the weighted distance to the target), `psnr`
            (mean over the images, in dB), and the ends of every range.
        """
        with torch.autocast(images.device.type, enabled=False):
            pixels = images.float() * self.std + self.mean  # type: ignore[operator]
            changed = self.augment(pixels)
            mse = (changed - pixels).square().mean(dim=(1, 2, 3))
            loss = self._distance(mse, int(batch.get("step", 0)))
            out = (changed - self.mean) / self.std  # type: ignore[operator]
        facts = {"loss": loss, "psnr": psnr(mse.detach()).mean()}
        for name, learned in self.ranges.items():
            low, high = learned.ends()  # type: ignore[operator]
            facts |= {f"{name}_low": low.detach(), f"{name}_high": high.detach()}
        return out.to(images.dtype), facts

    def augment(
        self, pixels: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """Apply the operations to pixels in [0, 1]."""
        count = len(pixels)
        chosen = max(1, round(count * self.config.share))
        names = list(self.ranges)
        for position in torch.randperm(len(names)).tolist():
            name = names[position]
            where = torch.randperm(count, device=pixels.device)[:chosen]
            part = APPLY[name](pixels[where], self.ranges[name](chosen))
            pixels = pixels.index_copy(0, where, part)
        return pixels.clamp(0.0, 1.0)

    def _distance(self, mse: Tensor, step: int) -> Tensor:
        # Smooth L1 in squared levels of 8 bits, scaled back: quadratic only within one such unit.
        levels = 255.0**2
        target = torch.full_like(mse, self.config.target_mse(step) * levels)
        return F.smooth_l1_loss(mse * levels, target) * (self.config.weight / levels)


class Trainee(nn.Module):
    """A model and an augmentation that learns with it, trained as one and saved as the model.

    Args:
        model: called for the forward pass; its weights alone are what a run saves at its end.
        augment: the learned augmentation, part of checkpoints only.
    """

    def __init__(self, model: nn.Module, augment: nn.Module) -> None:
        super().__init__()
        self.model, self.augment = model, augment

    @property
    def saved(self) -> nn.Module:
        """What `save_weights` writes."""
        return self.model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the model."""
        return self.model(*args, **kwargs)
