"""Views that more than one recipe stores."""

from __future__ import annotations

from typing import Any

from understudy.core.config import check_choice
from understudy.data.view_config import ViewConfig

PAIR_VIEWS: dict[str, dict[str, dict[str, Any]]] = {
    "strong": {
        "random_resized_crop": {"scale": [0.08, 1.0], "interpolation": "bicubic"},
        "rand_augment": {},
    },
    "weak": {"random_resized_crop": {"scale": [0.9, 1.0], "interpolation": "bicubic"}},
}
"""The published view of image-text pairs (arXiv 2311.17049 and arXiv 2508.20691: no flip, no
erasing; both were tried and did not help), and the weak crop of plain CLIP training."""


def pair_views(kind: str, size: int) -> ViewConfig:
    """Return the configuration of a kind of view of image-text pairs.

    Args:
        kind: `"strong"` or `"weak"`.
        size: side in pixels.

    Raises:
        ConfigError: another kind.
    """
    check_choice(kind, PAIR_VIEWS, "views")
    return ViewConfig(size=size, transforms=PAIR_VIEWS[kind])
