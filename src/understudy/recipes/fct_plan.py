"""What an update by FCT counts up to: on ImageNet, and for a gallery of a billion items."""

from __future__ import annotations

from typing import TYPE_CHECKING

from understudy.evaluate.plans import Plan, add_cost, inference_flop, training_flop
from understudy.update.paper_size import (
    GALLERIES,
    IMAGES,
    MAP_EPOCHS,
    UTILISATION,
    backbone,
)
from understudy.update.paper_size import hours as hours_of

if TYPE_CHECKING:
    from understudy.update.source_config import SourceConfig

PAPER = "2112.02805"
EPOCHS = 100
"""Of a backbone."""


def plan(scale: str = "paper", price_per_hour: float = 2.0, model: str = "resnet50-128") -> Plan:
    """Count models, map, side information and both ways of updating; run nothing.

    Args:
        scale: `"paper"`.
        price_per_hour: money per device hour.
        model: backbone of the old model, the new one and the side information.

    Raises:
        ConfigError: an unknown scale, or a model that is no image classifier.
    """
    from understudy.models.embedding.compatible import TransformConfig, count_parameters

    tower, width = backbone(model, scale, "fct")
    made = Plan(recipe="fct", scale=scale)
    h = TransformConfig(old_dim=width, new_dim=width, side_dim=width)
    made.add("parameters of a backbone", tower.parameters, "", formula=f"{model}, with its head")
    made.add("numbers of an embedding", width, "")
    made.add("parameters of h", count_parameters(h), formula="with side information, inner 2048")
    made.add("an item through h", inference_flop(h.macs, 1), "FLOP", formula="2 x multiplications")
    made.add("an item through the new model", inference_flop(tower.macs, 1), "FLOP")
    made.add("new model / h", tower.macs / h.macs, "", formula="operations of an item")
    made.add("side information of an item", 4 * width, "B", formula="float32")
    hours: dict[str, float] = {}
    for name, items in GALLERIES.items():
        made.add(f"{name}: side information", 4 * width * items, "B", formula=f"{items:,} items")
        for how, macs in (("mapping", h.macs), ("full backfill", tower.macs)):
            flop = inference_flop(macs, items)
            made.add(f"{name}: {how}", hours_of(flop), "device hours", formula=f"{flop:.3g} FLOP")
    trained = hours_of(training_flop(tower.macs, EPOCHS * IMAGES))
    hours["old model, half of the classes"] = trained / 2
    hours["new model"] = trained
    hours["side information, two views"] = trained
    hours["h on ImageNet's vectors"] = hours_of(training_flop(h.macs, MAP_EPOCHS * IMAGES))
    hours["vectors of both models and side"] = hours_of(3 * inference_flop(tower.macs, IMAGES))
    add_cost(made, hours, price_per_hour)
    made.notes += [
        f"device hours assume {UTILISATION:.0%} of an A100's 312 TFLOP/s and count operations "
        "alone: reading a billion items is not in them, and mapping reads none.",
        f"backbones: {EPOCHS} epochs of SGD 1.024 at batch 1,024; h: {MAP_EPOCHS} epochs of Adam "
        f"5e-4 at batch 1,024 (the published configurations, {PAPER}).",
    ]
    return made


def preview(config: SourceConfig) -> Plan:
    """Return what a run would embed, fit and search, without doing it.

    Raises:
        DataError: no such rows or columns.
    """
    from understudy.update.source_plan import count_source

    return count_source(config, "fct", 2 if config.side else 1)
