"""What the published reinforced data sets count up to: records, bytes, hours, money."""

from __future__ import annotations

from dataclasses import dataclass

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.evaluate.plans import (
    Plan,
    add_cost,
    amortised,
    hours_for,
    inference_flop,
    training_flop,
)

IMAGES = 1_281_167
CLASSES = 1_000
TEACHERS_GMAC = {
    "ig_resnext101_32x8d": 16.5,
    "ig_resnext101_32x16d": 36.3,
    "ig_resnext101_32x32d": 87.3,
    "ig_resnext101_32x48d": 153.6,
}
"""Multiply-accumulates of one 224 px image in 10^9, from the teachers' public model card."""
BATCH = 1_024
PEAK_FLOP_PER_S = 312e12
UTILISATION = 0.3
STUDENTS = (1, 5, 20)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Size:
    views: int
    kept: int
    epochs: int
    published_gb: float


SIZES = {
    "paper": _Size(views=400, kept=10, epochs=300, published_gb=37.5),
    "paper-small": _Size(views=100, kept=5, epochs=150, published_gb=5.6),
    "paper-mini": _Size(views=50, kept=10, epochs=150, published_gb=4.9),
}
"""The released RA/RE sets of arXiv 2303.08983 and the epochs studied with them."""


def plan(scale: str = "paper", price_per_hour: float = 2.0, model: str = "mci0") -> Plan:
    """Count a reinforced ImageNet and the training of one student on it; run nothing.

    Args:
        scale: `"paper"` (400 views, K 10), `"paper-small"` (100, 5) or `"paper-mini"` (50, 10).
        price_per_hour: money per device hour.
        model: a classifier of `understudy.models.MODELS`.

    Raises:
        ConfigError: an unknown scale, or a model that is no classifier.
    """
    check_choice(scale, SIZES, "plan of dataset-reinforcement, scale")
    size = SIZES[scale]
    made = Plan(recipe="dataset-reinforcement", scale=scale)
    generation = _records(made, size)
    training, online = _student(made, size, model)
    add_cost(made, {"generation": generation, "one student": training}, price_per_hour)
    for count in STUDENTS:
        made.add(
            f"device hours per student, {count} of them",
            amortised(generation, training, count),
            "device hours",
            formula=f"(generation + {count} x training) / {count}",
            source="2303.08983",
        )
    made.add(
        "device hours per student, teachers online",
        online,
        "device hours",
        formula="training + the ensemble on every sample seen",
    )
    made.notes += [
        f"device hours assume {UTILISATION:.0%} of {PEAK_FLOP_PER_S / 1e12:.0f} TFLOP/s (A100, "
        "half precision); the paper prints none for generation.",
        "published sizes are of gzipped pickles; ours are uncompressed fixed-stride columns.",
        "a reinforced step costs what a plain step costs: one more read of "
        f"{4 * size.kept} + 23 bytes per sample, no teacher.",
    ]
    return made


def _records(made: Plan, size: _Size) -> float:
    """Add rows of the stored records; return the device hours of making them."""
    from understudy.data.views import ViewPipeline
    from understudy.recipes.dataset_reinforcement import views

    stride = ViewPipeline(views("ra-re", 224)).stride
    records = IMAGES * size.views
    per_record = stride + 4 * size.kept
    table = "2303.08983, released sets"
    made.add("images", IMAGES, "images", source="ImageNet-1k, train")
    made.add("views per image (NS)", size.views, "", source=table)
    made.add("kept classes (K)", size.kept, f"of {CLASSES}", source=table)
    made.add("records", records, "records", formula="images x NS")
    made.add(
        "bytes per record: view", stride, "B", formula="crop 8, flip 1, RandAugment 6, erase 8"
    )
    made.add("bytes per record: targets", 4 * size.kept, "B", formula="K x (float16 + uint16)")
    made.add(
        "bytes per record",
        per_record,
        "B",
        formula="view + targets",
        source=table,
        published=round(size.published_gb * 1e9 / records, 1),
    )
    made.add(
        "bytes per record, float32 probabilities",
        stride + 6 * size.kept,
        "B",
        formula="view + K x (4 + 2)",
    )
    made.add("bytes per record, dense float16", stride + 2 * CLASSES, "B", formula="view + C x 2")
    made.add(
        "bytes in all",
        records * per_record,
        "B",
        formula="records x bytes per record",
        source=table,
        published=size.published_gb * 1e9,
    )
    macs = sum(TEACHERS_GMAC.values()) * 1e9
    flop = inference_flop(macs, records)
    made.add(
        "teacher ensemble", macs, "MAC", formula=" + ".join(TEACHERS_GMAC), source="model card"
    )
    made.add("generation", flop, "FLOP", formula="2 x ensemble x records")
    return hours_for(flop, peak_flop_per_s=PEAK_FLOP_PER_S, utilisation=UTILISATION)


def _student(made: Plan, size: _Size, model: str) -> tuple[float, float]:
    """Add rows of the student; return device hours of training, and with teachers online."""
    from understudy import models
    from understudy.models.count import count_towers
    from understudy.models.image.classifier import ClassifierConfig

    config = models.config(model)
    if not isinstance(config, ClassifierConfig):
        raise ConfigError(
            f"plan of dataset-reinforcement: '{model}' is no classifier; give one such as mci0."
        )
    config = models.config(model, num_classes=CLASSES)
    trained = count_towers(config)["image"]
    folded = count_towers(config, "branches")["image"]
    seen = size.epochs * IMAGES
    made.add("parameters, training form", trained.parameters, "", formula=model)
    made.add("parameters, folded", folded.parameters, "", formula="branches summed, exact")
    made.add("forward pass, folded", folded.macs, "MAC", formula=f"at {config.preprocess.size} px")
    made.add("epochs", size.epochs, "", source="2303.08983, epochs studied")
    made.add("samples seen", seen, "samples", formula="epochs x images")
    made.add("steps", seen // BATCH, "steps", formula=f"samples / {BATCH}")
    flop = training_flop(trained.macs, seen)
    made.add("training", flop, "FLOP", formula="6 x MAC x samples seen")
    online = flop + inference_flop(sum(TEACHERS_GMAC.values()) * 1e9, seen)
    hours = [
        hours_for(f, peak_flop_per_s=PEAK_FLOP_PER_S, utilisation=UTILISATION)
        for f in (flop, online)
    ]
    return hours[0], hours[1]
