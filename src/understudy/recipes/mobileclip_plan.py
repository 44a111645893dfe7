"""What the published reinforced pairs and their students count up to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.evaluate.plans import (
    Plan,
    add_cost,
    amortised,
    embedding_bytes,
    inference_flop,
    training_flop,
    transformer_macs,
)

PAPER = "2311.17049"
CAPTIONS = 5
TEACHERS = ("ViT-L/14 openai", "ViT-L/14 datacomp_xl_s13b_b90k")
TEACHER_DIM = 768
CAPTION_TOKENS = 20
"""Mean length of a synthetic caption, in tokens: an assumption of the generation's cost."""
TIMED_PAIRS, TIMED_HOURS, TIMED_DEVICES = 12_800_000, 1.3, 8
"""12.8 M pairs on 8 A100 take 1.3 h, plain or reinforced, with ViT-B/16 (Time per epoch, 12M)."""
PEAK_FLOP_PER_S = 312e12
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
    counted = _model(made, model)
    _storage(made, size)
    hours = _hours(made, size, counted)
    add_cost(made, {"generation": hours[0], "one student": hours[1]}, price_per_hour)
    for count in STUDENTS:
        made.add(
            f"device hours per student, {count} of them",
            amortised(hours[0], hours[1], count),
            "device hours",
            formula=f"(generation + {count} x training) / {count}",
        )
    made.add(
        "wall time of one student",
        hours[1] * 3600 / size.devices,
        "s",
        formula=f"on {size.devices} devices",
        source=f"{PAPER}, training details",
    )
    made.notes += [
        "device hours use the share of the peak that the paper's own time implies: 12.8 M pairs "
        f"in {TIMED_HOURS} h on {TIMED_DEVICES} A100 with ViT-B/16.",
        f"captioning is counted at {CAPTION_TOKENS} tokens per caption with cached keys.",
        "published storage is of gzip-compressed pickles, with texts; ours is uncompressed.",
        "a seen sample is one view, its real caption and one synthetic caption.",
    ]
    return made


def _model(made: Plan, model: str) -> tuple[Any, int]:
    """Add rows of the student; return its counts and the reference tower's cost per sample."""
    from understudy import models
    from understudy.models.count import count_towers
    from understudy.models.multimodal.clip import CLIPConfig

    config = models.config(model)
    if not isinstance(config, CLIPConfig):
        raise ConfigError(f"plan of mobileclip: '{model}' is no CLIP; give mobileclip-s0, say.")
    trained, folded = count_towers(config), count_towers(config, "branches")
    published = TOWERS.get(model, (None, None))
    for tower, paper in zip(("image", "text"), published, strict=True):
        form = f"parameters of the {tower} tower"
        made.add(f"{form}, training form", trained[tower].parameters, "", formula=model)
        made.add(
            f"{form}, folded",
            folded[tower].parameters,
            "",
            formula="branches summed, exact",
            source=f"{PAPER}, model sizes" if paper else "",
            published=paper,
        )
    for tower, what in (("image", f"{config.preprocess.size} px"), ("text", "one caption")):
        made.add(f"forward pass of the {tower} tower", folded[tower].macs, "MAC", formula=what)
    timed = count_towers(models.config("mobileclip-b"))
    return trained, timed["image"].macs + 2 * timed["text"].macs


def _storage(made: Plan, size: _Size) -> None:
    from understudy.data.views import ViewPipeline
    from understudy.recipes.mobileclip import views

    dim = len(TEACHERS) * TEACHER_DIM
    per_pair = embedding_bytes(views=size.views, captions=CAPTIONS, dim=dim)
    stride = ViewPipeline(views("strong", 224)).stride
    made.add("pairs", size.pairs, "pairs", source=f"{PAPER}, DataCompDR")
    made.add("views per image (J)", size.views, "", source=f"{PAPER}, DataCompDR")
    made.add("captions per image (S)", CAPTIONS, "", source=f"{PAPER}, DataCompDR")
    made.add("teacher numbers per vector", dim, "", formula=" + ".join(TEACHERS))
    made.add(
        "bytes per pair: bfloat16 or float16", per_pair, "B", formula="(J + S + 1) x 1,536 x 2"
    )
    made.add(
        "bytes per pair: float32",
        embedding_bytes(views=size.views, captions=CAPTIONS, dim=dim, itemsize=4),
        "B",
        formula="(J + S + 1) x 1,536 x 4",
    )
    made.add("bytes per pair: view parameters", size.views * stride, "B", formula=f"J x {stride}")
    made.add(
        "bytes added in all",
        size.pairs * (per_pair + size.views * stride),
        "B",
        formula="pairs x (16-bit vectors + view parameters)",
        source=f"{PAPER}, storage",
        published=size.added_bytes,
    )
    made.add(
        "bytes read per seen sample",
        3 * dim * 2 + stride,
        "B",
        formula="one view's and two captions' vectors, one view's parameters",
    )


def _hours(made: Plan, size: _Size, counted: tuple[Any, int]) -> tuple[float, float]:
    """Add rows of samples and operations; return device hours of generation and training."""
    trained, timed_macs = counted
    achieved = training_flop(timed_macs, TIMED_PAIRS) / (TIMED_HOURS * 3600 * TIMED_DEVICES)
    seen = size.steps * size.batch
    made.add("steps", size.steps, "steps", source=f"{PAPER}, training details")
    made.add("batch", size.batch, "pairs", source=f"{PAPER}, training details")
    made.add("samples seen", seen, "samples", formula="steps x batch", published=size.seen)
    made.add("passes over the data", seen / size.pairs, "", formula="samples seen / pairs")
    made.add(
        "achieved per device",
        achieved,
        "FLOP/s",
        formula=f"ViT-B/16 in the paper's time, {achieved / PEAK_FLOP_PER_S:.0%} of an A100",
        source=f"{PAPER}, training time",
    )
    # ViT-L/14 at 224: 256 patches and the class token; text of 12 layers, width 768.
    image = transformer_macs(24, 1024, 257) + 256 * 1024 * 3 * 14**2
    text = transformer_macs(12, 768, 77)
    asked = size.pairs * len(TEACHERS) * (size.views * image + (CAPTIONS + 1) * text)
    written = transformer_macs(12, 768, CAPTION_TOKENS)
    written += transformer_macs(12, 768, CAPTION_TOKENS, cross_tokens=256)
    caption = size.pairs * (image + CAPTIONS * written)
    made.add("teacher, one view", image, "MAC", formula="ViT-L/14 at 224 px")
    made.add("teacher, one caption", text, "MAC", formula="12 layers of width 768, 77 tokens")
    made.add("asking the teachers", inference_flop(asked, 1), "FLOP", formula="2 x pairs x K x all")
    made.add("captioning", inference_flop(caption, 1), "FLOP", formula="CoCa ViT-L/14, S captions")
    macs = trained["image"].macs + 2 * trained["text"].macs
    flop = training_flop(macs, seen)
    made.add("training", flop, "FLOP", formula="6 x (image + 2 texts) x samples seen")
    generation = inference_flop(asked + caption, 1)
    return generation / achieved / 3600, flop / achieved / 3600
