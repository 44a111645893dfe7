"""What MobileCLIP2's reinforced sets and students count up to, and what a run would cost here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
from understudy.evaluate.plans import Plan, add_cost, training_flop

if TYPE_CHECKING:
    from understudy.recipes.mobileclip2 import Config

PAPER = "2508.20691"
TEACHERS = ("ViT-L/14 DFN2B", "ViT-L/14 DFN2B s39b")
SCALES = (70, 60)
STUDENTS = (1, 4)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Size:
    pairs: PairSet
    steps: int
    batch: int
    base_bytes: float | None = None
    float32_bytes: float | None = None
    stored_bytes: float | None = None


def _pairs(name: str, pairs: int, views: int, added: float | None) -> PairSet:
    return PairSet(
        pairs=pairs, views=views, captions=5, dims=(768, 768), name=name, added_bytes=added
    )


SIZES = {
    "paper": _Size(
        pairs=_pairs("DFNDR-2B", 1_900_000_000, 2, None),
        steps=200_000,
        batch=65_536,
        base_bytes=65e12,
        float32_bytes=97e12,
        stored_bytes=162e12,
    ),
    "paper-12m": _Size(
        pairs=_pairs("DFNDR-2B12M", 12_800_000, 30, 1.3e12),
        steps=30_000,
        batch=8_192,
    ),
}
"""DFNDR-2B (65 TB become 162 TB, in float32) and its 12.8 M subset (1.3 TB, in bfloat16, without
images), and the runs on them."""
BATCHES = {"mobileclip2-s3": 114_688, "mobileclip2-s4": 114_688}
"""Batches of the large run that are not 65,536."""
SEEN = 13e9
"""Samples seen that the main table gives for every student; S3 and S4 come to 22.9 G."""

TOWERS = {
    "mobileclip2-s0": Published(parameters=(11.4e6, 63.4e6), milliseconds=(1.5, 3.3)),
    "mobileclip2-s2": Published(parameters=(35.7e6, 63.4e6), milliseconds=(3.6, 3.3)),
    "mobileclip2-b": Published(parameters=(86.3e6, 63.4e6), milliseconds=(10.4, 3.3)),
    "mobileclip2-s3": Published(parameters=(125.1e6, 123.6e6), milliseconds=(8.0, 6.6)),
    "mobileclip2-l": Published(parameters=(304.3e6, 123.6e6), milliseconds=(57.9, 6.6)),
    "mobileclip2-s4": Published(parameters=(321.6e6, 123.6e6), milliseconds=(19.6, 6.6)),
}
"""Published sizes and latencies of image and text towers."""

CAPTIONER = "coca-vit-l14"
CAPTIONER_SEEN = 13e9
FINE_TUNED_SEEN = 12e6
SEARCH_STEPS, SEARCH_BATCH = 30_000, 8_192


def plan(scale: str = "paper", price_per_hour: float = 2.0, model: str = "mobileclip2-s0") -> Plan:
    """Count captioner, reinforced pairs, search for scales and training of one student.

    Args:
        scale: `"paper"` (1.9 B pairs, 2 views) or `"paper-12m"` (12.8 M pairs, 30 views).
        price_per_hour: money per device hour.
        model: a CLIP of `understudy.models.MODELS`.

    Raises:
        ConfigError: an unknown scale, or a model that is no CLIP.
    """
    check_choice(scale, SIZES, "plan of mobileclip2, scale")
    size = SIZES[scale]
    made = Plan(recipe="mobileclip2", scale=scale)
    trained = add_towers(made, model, TOWERS.get(model, Published()), PAPER)
    add_storage(made, size.pairs, TEACHERS, PAPER)
    _stored(made, size)
    batch = BATCHES.get(model, size.batch) if scale == "paper" else size.batch
    published = SEEN if scale == "paper" else None
    seen = add_samples(made, size.pairs.pairs, size.steps, batch, PAPER, published)
    achieved = add_rate(made)
    rate = achieved * 3600
    generation = add_generation(made, size.pairs) / rate
    student = add_student(made, trained, seen) / rate
    hours = {
        "captioner": _captioner(made) / rate,
        "generation": generation,
        "search, one scale of one teacher": _search(made) / rate,
        "one student": student,
    }
    add_cost(made, hours, price_per_hour)
    add_shares(made, generation, student, STUDENTS)
    made.notes += [
        *NOTES,
        f"teachers are distilled at logit scales {SCALES[0]} and {SCALES[1]}, found one at a time; "
        "a search multiplies its row by the number of candidates and teachers.",
        "DFNDR-2B adds 97 TB, about 51 kB a pair: what (2 + 5 + 1) x 1,536 numbers of float32 "
        "take, 49,152 B; 16 bits halve it.",
        "the paper gives 13 B seen samples for every student, but 200,000 steps of 114,688 (S3, "
        "S4) are 22.9 B.",
    ]
    return made


def _stored(made: Plan, size: _Size) -> None:
    """Add rows of whole sets, as published."""
    stride = made.value("bytes per pair: view parameters")
    float32 = size.pairs.pairs * (made.value("bytes per pair: float32") + stride)
    made.add(
        "bytes added in all, float32",
        float32,
        "B",
        formula="pairs x (32-bit vectors + view parameters)",
        source=f"{PAPER}, sizes of sets" if size.float32_bytes else "",
        published=size.float32_bytes,
    )
    if size.base_bytes is not None:
        made.add(
            "bytes of the reinforced set, float32",
            size.base_bytes + float32,
            "B",
            formula=f"{size.base_bytes / 1e12:g} TB of pairs and what is added",
            source=f"{PAPER}, sizes of sets",
            published=size.stored_bytes,
        )


def _captioner(made: Plan) -> float:
    """Add rows of the captioner; return the FLOP of its training."""
    from understudy import models
    from understudy.models.count import macs, parameters
    from understudy.models.io import skeleton

    config: Any = models.config(CAPTIONER)
    made.add("captioner, parameters", parameters(skeleton(config)), "", formula=CAPTIONER)
    cost = _pass(skeleton(config), config, macs)
    made.add("captioner, one pair", cost, "MAC", formula="image, text and decoder once")
    flop = training_flop(cost, CAPTIONER_SEEN + FINE_TUNED_SEEN)
    made.add(
        "captioner, training",
        flop,
        "FLOP",
        formula="6 x one pair x (13 B seen samples of DFN-2B and 12 M of fine-tuning)",
        source=f"{PAPER}, captioners",
    )
    return flop


def _pass(model: Any, config: Any, macs: Any) -> int:
    import torch

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, images: Any, texts: Any) -> Any:
            return self.model(images=images, texts=texts)["caption_logits"]

    side, length = config.preprocess.size, config.text.context_length
    pixels = torch.empty(1, 3, side, side, device="meta")
    tokens = torch.empty(1, length, dtype=torch.int64, device="meta")
    return macs(Whole().eval(), pixels, tokens)


def _search(made: Plan) -> float:
    """Add rows of the search for scales with ViT-B/16; return the FLOP of one candidate."""
    from understudy import models
    from understudy.models.count import count_towers

    config: Any = models.config("mobileclip2-b")
    counted = count_towers(config)
    seen = SEARCH_STEPS * SEARCH_BATCH
    flop = training_flop(counted["image"].macs + 2 * counted["text"].macs, seen)
    made.add(
        "search, one scale of one teacher",
        flop,
        "FLOP",
        formula=f"ViT-B/16, {SEARCH_STEPS:,} steps of {SEARCH_BATCH:,}",
        source=f"{PAPER}, logit scales",
    )
    return flop


def preview(config: Config) -> Plan:
    """Count what `run` would ask, store, search and train on the user's data; write nothing.

    Raises:
        UnderstudyError: whatever `run` would refuse before its first step.
    """
    from understudy.data.store import Store
    from understudy.evaluate.held_out import needed_scorer
    from understudy.models.count import count_towers, parameters
    from understudy.recipes.mobileclip2 import plain, reinforcement, settle
    from understudy.reinforce.plan import plan as count
    from understudy.train.student import make_student
    from understudy.train.student_batches import rows_of

    store = Store.open(config.store)
    scored = len(needed_scorer(store).rows)
    config, views = settle(config, store)
    made = Plan(recipe="mobileclip2", scale="this run")
    made.add("views", f"{config.num_views} of {', '.join(views.transforms)}", "")
    if config.teachers or config.captioners:
        add_reinforcement(made, count(store, reinforcement(config, views)))
    # its tokenizer learns from real captions: the synthetic ones may not be written yet
    model = make_student(store, plain(config))
    towers = count_towers(model.config)
    macs = towers["image"].macs + 2 * towers["text"].macs
    add_training(
        made,
        model=model.config.name,
        parameters=parameters(model),
        macs=macs,
        rows=len(rows_of(store, plain(config))),
        steps=config.train.steps,
        batch=config.train.batch_size,
        students=("plain", "reinforced") if config.baseline else ("reinforced",),
    )
    if config.search:
        asked = len(config.teachers) or len(config.imitate) or 1
        students, steps = len(config.search) * asked, config.search_steps or config.train.steps
        made.add("students of the search", students, "", formula="candidates x teachers")
        made.add(
            "search",
            students * training_flop(macs, steps * config.train.batch_size),
            "FLOP",
            formula=f"students x 6 x MAC x {steps:,} steps of {config.train.batch_size:,}",
        )
    made.add("rows of the final score", scored, "rows")
    made.notes += [
        "a sample is one image and two texts; the plain student reads one text and costs less.",
        f"everything goes to {config.out}; nothing has been written.",
    ]
    return made
