"""What an update by FastFill counts up to: the map at once, the new model as far as hours go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from understudy.evaluate.plans import Plan, add_cost, inference_flop, training_flop
from understudy.update.paper_size import (
    CLASSES,
    GALLERIES,
    IMAGES,
    MAP_EPOCHS,
    UTILISATION,
    backbone,
)
from understudy.update.paper_size import hours as hours_of

if TYPE_CHECKING:
    from understudy.recipes.fastfill import Config

SHARES = (0.1, 0.2, 0.5, 1.0)
"""Of a gallery that are encoded again."""


def plan(scale: str = "paper", price_per_hour: float = 2.0, model: str = "resnet50-128") -> Plan:
    """Count the map, an order's cost and the hours of partial backfills; run nothing.

    Args:
        scale: `"paper"`.
        price_per_hour: money per device hour.
        model: the new model; the old one is of its width.

    Raises:
        ConfigError: an unknown scale, or a model that is no image classifier.
    """
    from understudy.models.embedding.compatible import TransformConfig, count_parameters

    tower, width = backbone(model, scale, "fastfill")
    made = Plan(recipe="fastfill", scale=scale)
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
        made.add(f"{name}: mapping", hours_of(inference_flop(h.macs, items)), "device hours")
        for share in SHARES:
            made.add(
                f"{name}: backfill of {share:.0%}",
                hours_of(inference_flop(tower.macs, share * items)),
                "device hours",
            )
    hours = {
        "h on ImageNet's vectors": hours_of(
            training_flop(h.macs + width * CLASSES, MAP_EPOCHS * IMAGES)
        ),
        "mapping a billion items": hours_of(inference_flop(h.macs, 10**9)),
        "backfill of a fifth of them": hours_of(inference_flop(tower.macs, 0.2 * 10**9)),
    }
    add_cost(made, hours, price_per_hour)
    made.notes += [
        f"device hours assume {UTILISATION:.0%} of an A100's 312 TFLOP/s and count operations "
        "alone; reading and decoding a billion raw items is not in them.",
        "models are those of 'understudy plan fct'.",
    ]
    return made


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
