"""What plans of updates at the papers' size have in common: galleries, a backbone, device hours."""

from __future__ import annotations

from typing import Any

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.evaluate.plans import hours_for

IMAGES, CLASSES = 1_281_167, 1000
"""Of ImageNet-1k."""
GALLERIES = {"ImageNet": IMAGES, "a billion items": 1_000_000_000}
MAP_EPOCHS = 80
"""Of the transformation in the published configurations (arXiv 2112.02805)."""
PEAK_FLOP_PER_S = 312e12
"""Of an A100 in 16 bits."""
UTILISATION = 0.3
"""Share of the peak that is reached: an assumption."""


def backbone(model: str, scale: str, recipe: str) -> tuple[Any, int]:
    """Return (parameters and operations of an image classifier, width of its embedding).

    Raises:
        ConfigError: an unknown scale, or a model that is no image classifier.
    """
    from understudy import models
    from understudy.models.count import count_towers
    from understudy.models.image.classifier import ClassifierConfig

    check_choice(scale, ("paper",), f"plan of {recipe}, scale")
    config: Any = models.config(model)
    if not isinstance(config, ClassifierConfig):
        raise ConfigError(f"plan of {recipe}: '{model}' is no classifier; try resnet50-128.")
    return count_towers(config)["image"], config.image.width


def hours(flop: float) -> float:
    """Return the device hours of operations at the assumed share of the peak."""
    return hours_for(flop, peak_flop_per_s=PEAK_FLOP_PER_S, utilisation=UTILISATION)
