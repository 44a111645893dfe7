"""What the published reinforced pairs and their students count up to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from understudy.core.config import check_choice
from understudy.evaluate.pair_plans import (
    NOTES,
    PairSet,
    Published,
    add_generation,
    add_rate,
    add_samples,
    add_shares,
    add_storage,
    add_student,
    add_towers,
)
from understudy.evaluate.plan_runs import add_reinforcement, add_training
from understudy.evaluate.plans import Plan, add_cost

if TYPE_CHECKING:
    from understudy.recipes.mobileclip import Config

PAPER = "2311.17049"
CAPTIONS = 5
TEACHERS = ("ViT-L/14 openai", "ViT-L/14 datacomp_xl_s13b_b90k")
TEACHER_DIM = 768
STUDENTS = (1, 4)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Size:
    pairs: int
    views: int
    batch: int
    steps: int
    seen: float | None
    added_bytes: float
    devices: int


SIZES = {
    "paper": _Size(
        pairs=1_280_000_000,
        views=10,
        batch=65_536,
        steps=200_000,
        seen=13.1e9,
        added_bytes=50e12,
        devices=256,
    ),
    "paper-12m": _Size(
        pairs=12_800_000,
        views=30,
        batch=8_192,
        steps=30_000,
        seen=None,
        added_bytes=1.0e12,
        devices=8,
    ),
}
"""DataCompDR-1B and DataCompDR-12M, and the runs on them."""

TOWERS = {
    "mobileclip-s0": (11.4e6, 42.4e6),
    "mobileclip-s1": (21.5e6, 63.4e6),
    "mobileclip-s2": (35.7e6, 63.4e6),
    "mobileclip-b": (86.3e6, 63.4e6),
}
"""Published parameters of the folded towers."""

MACS = {"mobileclip-s0": 2.4e9, "mobileclip-s1": 4.7e9, "mobileclip-s2": 7.8e9}
"""Published multiply-accumulates of the image towers at 256 px, which the paper calls FLOPs."""

MILLISECONDS = {
    "mobileclip-s0": (1.5, 1.6),
    "mobileclip-s1": (2.5, 3.3),
    "mobileclip-s2": (3.6, 3.3),
    "mobileclip-b": (10.4, 3.3),
}
"""Published latency of image and text tower: iPhone 12 Pro Max, Core ML, batch 1."""


def plan(scale: str = "paper", price_per_hour: float = 2.0, model: str = "mobileclip-s0") -> Plan:
    """Count reinforced pairs and the training of one student on them; run nothing.

    Args:
        scale: `"paper"` (1.28 B pairs, 10 views) or `"paper-12m"` (12.8 M pairs, 30 views).
        price_per_hour: money per device hour.
        model: a CLIP of `understudy.models.MODELS`.

    Raises:
        ConfigError: an unknown scale, or a model that is no CLIP.
    """
    check_choice(scale, SIZES, "plan of mobileclip, scale")
    size = SIZES[scale]
    made = Plan(recipe="mobileclip", scale=scale)
    published = Published(
        parameters=TOWERS.get(model, (None, None)),
        macs=MACS.get(model),
        milliseconds=MILLISECONDS.get(model),
    )
    trained = add_towers(made, model, published, PAPER)
    pairs = PairSet(
        pairs=size.pairs,
        views=size.views,
        captions=CAPTIONS,
        dims=(TEACHER_DIM,) * len(TEACHERS),
        name="DataCompDR",
        added_bytes=size.added_bytes,
    )
    add_storage(made, pairs, TEACHERS, PAPER)
    seen = add_samples(made, size.pairs, size.steps, size.batch, PAPER, size.seen)
    achieved = add_rate(made)
    generation = add_generation(made, pairs) / achieved / 3600
    hours = (generation, add_student(made, trained, seen) / achieved / 3600)
    add_cost(made, {"generation": hours[0], "one student": hours[1]}, price_per_hour)
    add_shares(made, *hours, STUDENTS)
    made.add(
        "wall time of one student",
        hours[1] * 3600 / size.devices,
        "s",
        formula=f"on {size.devices} devices",
        source=f"{PAPER}, training details",
    )
    made.notes += NOTES
    return made


def preview(config: Config) -> Plan:
    """Count what `run` would ask, store and train on the user's data; write nothing.

    Raises:
        UnderstudyError: whatever `run` would refuse before its first step.
    """
    from understudy.data.store import Store
    from understudy.evaluate.held_out import needed_scorer
    from understudy.models.count import count_towers, parameters
    from understudy.recipes.mobileclip import reinforced, reinforcement, settle
    from understudy.reinforce.plan import plan as count
    from understudy.train.student import make_student
    from understudy.train.student_batches import train_rows

    store = Store.open(config.store)
    scored = len(needed_scorer(store).rows)
    config, views = settle(config, store)
    made = Plan(recipe="mobileclip", scale="this run")
    made.add("views", f"{config.num_views} of {', '.join(views.transforms)}", "")
    if config.teachers:
        add_reinforcement(made, count(store, reinforcement(config, views)))
    model = make_student(store, reinforced(config))
    towers = count_towers(model.config)
    add_training(
        made,
        model=model.config.name,
        parameters=parameters(model),
        macs=towers["image"].macs + 2 * towers["text"].macs,
        rows=len(train_rows(store, config.rows)),
        steps=config.train.steps,
        batch=config.train.batch_size,
        students=("plain", "reinforced"),
    )
    made.add("rows of the final score", scored, "rows")
    made.notes += [
        "a sample is one image and two texts; the plain student reads one text and costs less.",
        f"everything goes to {config.out}; nothing has been written.",
    ]
    return made
