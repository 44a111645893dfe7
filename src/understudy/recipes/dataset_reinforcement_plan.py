"""What the published reinforced data sets count up to: records, bytes, hours, money."""

from __future__ import annotations

from typing import TYPE_CHECKING

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.evaluate.plan_runs import add_reinforcement, add_training
from understudy.evaluate.plans import (
    Plan,
    add_cost,
    amortised,
    hours_for,
    inference_flop,
    training_flop,
)

if TYPE_CHECKING:
    from understudy.recipes.dataset_reinforcement import Config
    from understudy.recipes.dataset_reinforcement_sets import Released

TEACHERS_GMAC = {
    "ig_resnext101_32x8d": 16.5,
    "ig_resnext101_32x16d": 36.3,
    "ig_resnext101_32x32d": 87.3,
    "ig_resnext101_32x48d": 153.6,
}
"""Multiply-accumulates of one 224 px image in 10^9, from the teachers' public model card."""
PEAK_FLOP_PER_S = 312e12
UTILISATION = 0.3
STUDENTS = (1, 5, 20)


def plan(scale: str = "paper", price_per_hour: float = 2.0, model: str = "mci0") -> Plan:
    """Count a reinforced set and the training of one student on it; run nothing.

    Args:
        scale: a released set, see `recipes.dataset_reinforcement_sets.RELEASED`: `"paper"`
            (ImageNet, 400 views of kind RA/RE, K 10), `"paper-small"` (100, 5), `"paper-mini"` (50,
            10), the same of other kinds (`"paper-rrc"`, `"paper-mix"`, `"paper-mix-ra-re"`, each
            also `-small` and `-mini`), `"cifar100"`, `"food101"`, `"flowers102"`.
        price_per_hour: money per device hour.
        model: a classifier of `understudy.models.MODELS`.

    Raises:
        ConfigError: an unknown scale, or a model that is no classifier.
    """
    from understudy.recipes.dataset_reinforcement_sets import RELEASED

    check_choice(scale, RELEASED, "plan of dataset-reinforcement, scale")
    size = RELEASED[scale]
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
        f"{4 * size.kept} + {_stride(size)} bytes per sample, no teacher.",
    ]
    if size.classes != 1_000:
        made.notes.append(
            "the small sets' teachers were fine-tuned on each set; their size is taken to be that "
            "of ImageNet's ensemble, and their views to be of the recommended kind (RA/RE)."
        )
    return made


def _stride(size: Released) -> int:
    """Return the bytes of a stored view."""
    from understudy.data.views import ViewPipeline

    return int(ViewPipeline(size.views()).stride)


def _records(made: Plan, size: Released) -> float:
    """Add rows of the stored records; return the device hours of making them."""
    stride = _stride(size)
    records = size.images * size.num_views
    per_record = stride + 4 * size.kept
    table = "2303.08983, released sets"
    made.add("images", size.images, "images", source=f"{size.data}, train")
    made.add("views per image (NS)", size.num_views, "", source=table)
    made.add("kept classes (K)", size.kept, f"of {size.classes}", source=table)
    made.add("records", records, "records", formula="images x NS")
    made.add("bytes per record: view", stride, "B", formula=", ".join(size.views().transforms))
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
    made.add(
        "bytes per record, dense float16", stride + 2 * size.classes, "B", formula="view + C x 2"
    )
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


def _student(made: Plan, size: Released, model: str) -> tuple[float, float]:
    """Add rows of the student; return device hours of training, and with teachers online."""
    from understudy import models
    from understudy.models.count import count_towers
    from understudy.models.image.classifier import ClassifierConfig

    config = models.config(model)
    if not isinstance(config, ClassifierConfig):
        raise ConfigError(
            f"plan of dataset-reinforcement: '{model}' is no classifier; give one such as mci0."
        )
    config = models.config(model, num_classes=size.classes)
    trained = count_towers(config)["image"]
    folded = count_towers(config, "branches")["image"]
    seen = size.epochs * size.images
    made.add("parameters, training form", trained.parameters, "", formula=model)
    made.add("parameters, folded", folded.parameters, "", formula="branches summed, exact")
    made.add("forward pass, folded", folded.macs, "MAC", formula=f"at {config.preprocess.size} px")
    made.add("epochs", size.epochs, "", source="2303.08983, epochs studied")
    made.add("samples seen", seen, "samples", formula="epochs x images")
    made.add("steps", seen // size.train_batch, "steps", formula=f"samples / {size.train_batch}")
    flop = training_flop(trained.macs, seen)
    made.add("training", flop, "FLOP", formula="6 x MAC x samples seen")
    online = flop + inference_flop(sum(TEACHERS_GMAC.values()) * 1e9, seen)
    hours = [
        hours_for(f, peak_flop_per_s=PEAK_FLOP_PER_S, utilisation=UTILISATION)
        for f in (flop, online)
    ]
    return hours[0], hours[1]


def preview(config: Config) -> Plan:
    """Count what `run` would ask, store and train on the user's data; write nothing.

    Raises:
        UnderstudyError: whatever `run` would refuse before its first step.
    """
    from understudy.data.store import Store
    from understudy.evaluate.held_out import needed_scorer
    from understudy.models.count import count_towers, parameters
    from understudy.recipes.dataset_reinforcement import reinforced, reinforcement, settle
    from understudy.reinforce.plan import plan as count
    from understudy.train.classifier_student import make_classifier
    from understudy.train.student_batches import train_rows

    store = Store.open(config.store)
    scored = len(needed_scorer(store).rows)
    config, views = settle(config, store)
    made = Plan(recipe="dataset-reinforcement", scale="this run")
    made.add("views", f"{config.num_views} of {', '.join(views.transforms)}", "")
    made.add("kept classes (K)", config.kept, "")
    if config.teachers:
        add_reinforcement(made, count(store, reinforcement(config, views)))
    model = make_classifier(store, reinforced(config, views))
    add_training(
        made,
        model=model.config.name,
        parameters=parameters(model),
        macs=count_towers(model.config)["image"].macs,
        rows=len(train_rows(store, config.rows)),
        steps=config.train.steps,
        batch=config.train.batch_size,
        students=("plain", "reinforced"),
    )
    made.add("rows of the final score", scored, "rows")
    made.notes.append(f"everything goes to {config.out}; nothing has been written.")
    return made
