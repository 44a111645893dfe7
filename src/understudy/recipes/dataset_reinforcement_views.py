"""The published kinds of view of dataset reinforcement."""

from __future__ import annotations

from typing import Any

from understudy.core.config import check_choice
from understudy.data.view_config import ViewConfig

_CROP: dict[str, dict] = {"random_resized_crop": {}, "random_horizontal_flip": {}}
_RA_RE: dict[str, dict] = {"rand_augment": {}, "random_erase": {"p": 0.25}}
MIX: dict[str, dict] = {"mixup": {"p": 0.5}, "cutmix": {"p": 0.5}}
"""Mixing with another image; a student that learns from labels mixes batches instead."""
VARIANTS: dict[str, dict[str, dict]] = {
    "rrc": _CROP,
    "mix": {**_CROP, **MIX},
    "ra-re": {**_CROP, **_RA_RE},
    "mix-ra-re": {**_CROP, **_RA_RE, **MIX},
}
"""The published kinds of view: crop; with mixing; with RandAugment and erasing (the recommended
middle); with both."""

ORDINARY = (
    "resize",
    "center_crop",
    "random_crop",
    "random_resized_crop",
    "random_horizontal_flip",
)
"""Transforms of stored views that also make an ordinary training augmentation."""


def views(variant: str, size: int, **changes: dict[str, Any] | None) -> ViewConfig:
    """Return a published kind of view with some transforms changed.

    Args:
        variant: a key of `VARIANTS`.
        size: side in pixels.
        **changes: options by transform; None leaves a transform out.
    """
    check_choice(variant, VARIANTS, "variant")
    transforms = {**VARIANTS[variant], **{k: v for k, v in changes.items() if v is not None}}
    kept = {k: v for k, v in transforms.items() if changes.get(k, v) is not None}
    return ViewConfig(size=size, transforms=kept)
