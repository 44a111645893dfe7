"""What the published dense transfers count up to: pretraining, heads, fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.evaluate.label_curves import relative_gain
from understudy.evaluate.plan_runs import add_training
from understudy.evaluate.plans import Plan, add_cost, hours_for, training_flop

if TYPE_CHECKING:
    from understudy.recipes.quality_captions_config import Config

PAPER, LATER = "2405.08911", "2508.20691"
PEAK_FLOP_PER_S = 312e12
"""Of an A100 in 16 bits."""
UTILISATION = 0.3
"""Share of the peak that is reached: an assumption."""
SEEN = 65_536 * 200_000
"""Samples of a pretraining: batch x iterations of arXiv 2311.17049, which this study builds on."""
ARMS = ("alt text", "filtered alt text", "filtered and synthetic, distilled")
CONTROL = "filtered and synthetic, not distilled"
"""The cell that tells captions from teachers; the published arms leave it out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Task:
    name: str
    images: int
    size: int
    batch: int
    steps: int
    source: str


ADE = _Task(
    name="ADE20K",
    images=20_210,
    size=512,
    batch=16,
    steps=160_000,
    source="usual schedule of UperNet at 512 px",
)
COCO_EPOCHS, COCO_IMAGES, COCO_SIZE = 12, 118_287, (800, 1333)
NYU_TEST = 654
HEADS = {
    "mobileclip-s0": ("semantic-fpn", 14.5e6),
    "mobileclip-s2": ("semantic-fpn", 38.5e6),
    "mobileclip-b": ("uper", None),
}
"""CLIP -> head that the benchmarks put on its tower, and published parameters of both."""
FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def plan(scale: str = "paper", price_per_hour: float = 2.0, model: str = "mobileclip-b") -> Plan:
    """Count pretraining arms and dense fine-tunings of one tower; run nothing.

    Args:
        scale: `"paper"`.
        price_per_hour: money per device hour.
        model: `"mobileclip-b"` (ViT-B/16), `"mobileclip-s0"` (MCi0), `"mobileclip-s2"` (MCi2), or
            another CLIP whose image tower gives maps.

    Raises:
        ConfigError: an unknown scale, or a model that is no CLIP or gives no maps.
    """
    check_choice(scale, ("paper",), "plan of quality-captions, scale")
    made = Plan(recipe="quality-captions", scale=scale)
    pretrain = _pretraining(made, model)
    tune = _fine_tuning(made, model)
    hours = {
        f"pretraining, {len(ARMS)} arms": pretrain * len(ARMS),
        "the undistilled control arm": pretrain,
        f"ADE20K curves, {len(ARMS) + 1} arms x {len(FRACTIONS)} label fractions": tune
        * (len(ARMS) + 1)
        * len(FRACTIONS),
    }
    add_cost(made, hours, price_per_hour)
    _published(made)
    made.notes += [
        f"device hours assume {UTILISATION:.0%} of an A100's 312 TFLOP/s.",
        f"arms of the paper: {', '.join(ARMS)}; to tell captions from teachers add: {CONTROL}.",
        "captioning and asking teachers are counted by 'understudy plan mobileclip'.",
        "the published 14.5 M and 38.5 M are 0.5 and 0.7 M below this head by its description.",
        "Mask R-CNN's own operations depend on the pictures and are not counted.",
        "fine-tuning schedules are the usual ones of the benchmarks; the paper's own settings were "
        "not found.",
    ]
    return made


def _pretraining(made: Plan, model: str) -> float:
    """Add rows of one pretraining; return its device hours."""
    from understudy import models
    from understudy.models.count import count_towers

    config: Any = models.config(model)
    counted = count_towers(config)
    if "text" not in counted:
        raise ConfigError(
            f"plan of quality-captions: '{model}' is no CLIP; give mobileclip-b, say."
        )
    macs = counted["image"].macs + counted["text"].macs
    made.add("parameters of the image tower", counted["image"].parameters, "", formula=model)
    made.add("samples seen by one pretraining", SEEN, "samples", formula="65,536 x 200,000")
    flop = training_flop(macs, SEEN)
    made.add("one pretraining", flop, "FLOP", formula="6 x (image + text) x samples")
    return hours_for(flop, peak_flop_per_s=PEAK_FLOP_PER_S, utilisation=UTILISATION)


def _head(model: str) -> tuple[Any, float | None]:
    from understudy import models
    from understudy.models.dense.config import DenseConfig, HeadConfig

    config: Any = models.config(model)
    kind, published = HEADS.get(model, ("semantic-fpn", None))
    wide = kind == "uper"
    head = HeadConfig(
        kind=kind,
        classes=tuple(f"class {i}" for i in range(150)),
        width=512 if wide else 256,
        hidden=256 if wide else 128,
    )
    found = DenseConfig(
        name=config.name, image=config.image, preprocess=config.preprocess, head=head
    )
    return found, published


def _fine_tuning(made: Plan, model: str) -> float:
    """Add rows of a fine-tuning on ADE20K; return its device hours."""
    import torch

    from understudy.core.errors import ModelError
    from understudy.models.count import macs, parameters
    from understudy.models.dense.model import DenseModel

    config, published = _head(model)
    try:
        with torch.device("meta"):
            dense = DenseModel(config).eval()
    except ModelError as error:
        raise ConfigError(f"plan of quality-captions: '{model}': {error}") from None
    pixels = torch.empty(1, 3, ADE.size, ADE.size, device="meta")
    cost, count = macs(dense, pixels), parameters(dense)
    made.add(
        "parameters of tower and segmentation head",
        count,
        "",
        formula=f"{config.head.kind}, 150 classes, training form",
        source=f"{LATER}, dense tables" if published else "",
        published=published,
    )
    made.add(f"one picture of {ADE.size} px", cost, "MAC", formula="tower and head, forward")
    made.add(
        "ADE20K passes",
        ADE.batch * ADE.steps / ADE.images,
        "",
        formula=f"{ADE.batch} x {ADE.steps:,} / {ADE.images:,}",
        source=ADE.source,
    )
    flop = training_flop(cost, ADE.batch * ADE.steps)
    made.add("one fine-tuning on ADE20K", flop, "FLOP", formula="6 x MAC x batch x steps")
    made.add(
        "COCO pictures seen by Mask R-CNN, 1x",
        COCO_EPOCHS * COCO_IMAGES,
        "pictures",
        formula=f"{COCO_EPOCHS} epochs of {COCO_IMAGES:,}, up to {COCO_SIZE[0]} x {COCO_SIZE[1]}",
    )
    made.add("NYUv2 test pictures", NYU_TEST, "pictures", formula="RMSE in metres")
    return hours_for(flop, peak_flop_per_s=PEAK_FLOP_PER_S, utilisation=UTILISATION)


def _published(made: Plan) -> None:
    """Add the headline as relative changes, with the absolute values that they imply."""
    made.add(
        "ViT-B/16 over MAE, ADE20K mIoU",
        relative_gain(53.9, 48.1),
        "",
        formula="about 53.9 over 48.1 (implied by the relative gain)",
        source=f"{PAPER}, abstract",
    )
    made.add(
        "ViT-B/16 over MAE, NYUv2 RMSE",
        relative_gain(0.339, 0.383),
        "",
        formula="about 0.339 over 0.383 (implied by the relative gain)",
        source=f"{PAPER}, abstract",
    )
    made.add(
        "Swin-L over MCi2, parameters with heads",
        234.1 / 38.5,
        "times",
        formula="234.1 M / 38.5 M at equal mIoU",
        source=f"{PAPER}, abstract",
        published=6.1,
    )
    made.add(
        "labels needed, other pretraining over quality captions",
        10,
        "times",
        formula="claimed, not counted",
        source=f"{PAPER}, abstract",
    )


def preview(config: Config) -> Plan:
    """Count what `run` would train on the user's data; train and write nothing.

    Raises:
        UnderstudyError: whatever `run` would refuse before its first step.
    """
    from understudy.data.store import Store
    from understudy.data.subsets import label_count
    from understudy.evaluate.rows import select_rows
    from understudy.models.count import count_towers, parameters
    from understudy.recipes.quality_captions_config import (
        DISTILLED,
        arms_of,
        pretraining,
        start,
        transfer_of,
    )
    from understudy.train.student import clip_loader, make_student
    from understudy.train.student_batches import train_rows

    arms = arms_of(config)
    store, labelled = Store.open(config.store), Store.open(config.labelled)
    model = make_student(store, start(config, config.seeds[0]))
    causes = (False, True) if config.distil else (False,)
    for distils in causes:
        for arm in arms:  # every column is opened, every card is checked
            clip_loader(store, model, pretraining(config, arm, distils, config.seeds[0]))
    towers = count_towers(model.config)
    names = [arm.name + (DISTILLED if distils else "") for distils in causes for arm in arms]
    made = Plan(recipe="quality-captions", scale="this run")
    add_training(
        made,
        model=model.config.name,
        parameters=parameters(model),
        macs=towers["image"].macs + towers["text"].macs,
        rows=len(train_rows(store, config.rows)),
        steps=config.train.steps,
        batch=config.train.batch_size,
        students=[f"{name}, seed {seed}" for seed in config.seeds for name in names],
    )
    transfer = transfer_of(config, labelled, config.seeds[0])
    pool = len(train_rows(labelled)) - transfer.validation
    counts = sorted({label_count(share, pool) for share in transfer.labels})
    tried = len(transfer.lrs) if len(transfer.lrs) > 1 else 0
    made.add("labelled rows", pool, "rows", formula=f"{transfer.validation} more held back")
    made.add(
        "fine-tunings",
        len(names) * len(config.seeds) * (len(counts) + tried),
        "",
        formula=f"students x ({len(counts)} label counts + {tried} learning rates tried)",
    )
    made.add("rows of the test", len(select_rows(labelled, "test")), "rows")
    made.notes += [
        "a sample is one image and one text; arms with both captions read two.",
        f"everything goes to {config.out}; nothing has been written.",
    ]
    return made
