"""What an update by FastFill counts up to: the map at once, the new model as far as hours go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.evaluate.plans import Plan, add_cost, hours_for, inference_flop, training_flop

if TYPE_CHECKING:
    from understudy.recipes.fastfill import Config

IMAGES, CLASSES = 1_281_167, 1000
GALLERIES = {"ImageNet": IMAGES, "a billion items": 1_000_000_000}
SHARES = (0.1, 0.2, 0.5, 1.0)
MAP_EPOCHS = 80
PEAK_FLOP_PER_S = 312e12
"""Of an A100 in 16 bits."""
UTILISATION = 0.3
"""Share of the peak that is reached: an assumption."""


def plan(scale: str = "paper", price_per_hour: float = 2.0, model: str = "resnet50-128") -> Plan:
    """Count the map, an order's cost and the hours of partial backfills; run nothing.

    Args:
        scale: `"paper"`.
        price_per_hour: money per device hour.
        model: the new model; the old one is of its width.

    Raises:
        ConfigError: an unknown scale, or a model that is no image classifier.
    """
    from understudy import models
    from understudy.models.count import count_towers
    from understudy.models.embedding.compatible import TransformConfig, count_parameters
    from understudy.models.image.classifier import ClassifierConfig

    check_choice(scale, ("paper",), "plan of fastfill, scale")
    config: Any = models.config(model)
    if not isinstance(config, ClassifierConfig):
        raise ConfigError(f"plan of fastfill: '{model}' is no classifier; try resnet50-128.")
    made = Plan(recipe="fastfill", scale=scale)
    tower, width = count_towers(config)["image"], config.image.width
    h = TransformConfig(old_dim=width, new_dim=width, uncertainty=True)
    wide = TransformConfig(old_dim=384, new_dim=768, uncertainty=True)
    made.add(
        "parameters of h with uncertainty", count_parameters(h), "",
        formula=f"{width} -> {width}, inner 2048",
    )  # fmt: skip
    made.add(
        "parameters of h, 384 -> 768", count_parameters(wide), "",
        formula="P(384, 384, 768, 2048) + 769",
    )  # fmt: skip
    made.add("an item through h", inference_flop(h.macs, 1), "FLOP")
    made.add("an item through the new model", inference_flop(tower.macs, 1), "FLOP")
    made.add("uncertainty of an item", 4, "B", formula="float32")
    for name, items in GALLERIES.items():
        made.add(f"{name}: uncertainties", 4 * items, "B", formula=f"{items:,} items")
        made.add(f"{name}: mapped vectors", 4 * width * items, "B")
        made.add(f"{name}: mapping", _hours(inference_flop(h.macs, items)), "device hours")
        for share in SHARES:
            made.add(
                f"{name}: backfill of {share:.0%}",
                _hours(inference_flop(tower.macs, share * items)),
                "device hours",
            )
    hours = {
        "h on ImageNet's vectors": _hours(
            training_flop(h.macs + width * CLASSES, MAP_EPOCHS * IMAGES)
        ),
        "mapping a billion items": _hours(inference_flop(h.macs, 10**9)),
        "backfill of a fifth of them": _hours(inference_flop(tower.macs, 0.2 * 10**9)),
    }
    add_cost(made, hours, price_per_hour)
    made.notes += [
        f"device hours assume {UTILISATION:.0%} of an A100's 312 TFLOP/s and count operations "
        "alone; reading and decoding a billion raw items is not in them.",
        "models are those of 'understudy plan fct'.",
    ]
    return made


def _hours(flop: float) -> float:
    return hours_for(flop, peak_flop_per_s=PEAK_FLOP_PER_S, utilisation=UTILISATION)


def preview(config: Config) -> Plan:
    """Return what a run would embed, fit and search, without doing it.

    Raises:
        DataError: no such rows or columns.
    """
    from understudy.update.source_plan import count_source

    made = count_source(config, "fastfill", len(config.losses))
    orders = 5 + config.permutations - 1
    made.add(
        "galleries ranked", len(config.losses) * (2 + orders * (config.points - 2)), "",
        formula="losses x (both ends + orders x inner points); distances are computed once",
    )  # fmt: skip
    return made
