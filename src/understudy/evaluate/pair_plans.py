"""Rows that plans of reinforced image-text pairs share: towers, storage, generation, training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from understudy.core.errors import ConfigError
from understudy.evaluate.plans import (
    Plan,
    amortised,
    embedding_bytes,
    inference_flop,
    training_flop,
    transformer_macs,
)

CAPTION_TOKENS = 20
"""Mean length of a synthetic caption, in tokens: an assumption of the generation's cost."""
TIMED_PAIRS, TIMED_HOURS, TIMED_DEVICES = 12_800_000, 1.3, 8
"""12.8 M pairs on 8 A100 take 1.3 h, plain or reinforced, with ViT-B/16 (arXiv 2311.17049)."""
PEAK_FLOP_PER_S = 312e12
NOTES = (
    "device hours use the share of the peak that arXiv 2311.17049's own time implies: 12.8 M pairs "
    f"in {TIMED_HOURS} h on {TIMED_DEVICES} A100 with ViT-B/16.",
    f"captioning is counted at {CAPTION_TOKENS} tokens per caption with cached keys.",
    "published storage is of gzip-compressed pickles, with texts; ours is uncompressed.",
    "a seen sample is one view, its real caption and one synthetic caption.",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PairSet:
    """A reinforced set of pairs.

    Attributes:
        pairs: how many.
        views: J, stored views an image.
        captions: S, synthetic captions an image.
        dims: widths of the teachers' embeddings.
        name: of the set, for sources.
        added_bytes: published bytes that reinforcing added; None if there are none.
    """

    pairs: int
    views: int
    captions: int
    dims: tuple[int, ...]
    name: str
    added_bytes: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """What a paper prints about a model's two towers, image and text; None where it does not.

    Attributes:
        parameters: of the folded towers.
        macs: of the image tower's forward pass.
        milliseconds: on the paper's phone.
    """

    parameters: tuple[float | None, float | None] = (None, None)
    macs: float | None = None
    milliseconds: tuple[float, float] | None = None


def add_towers(made: Plan, model: str, published: Published, paper: str) -> Mapping[str, Any]:
    """Append parameters, operations and published latency of a CLIP; return its counts.

    Args:
        made: where to.
        model: a CLIP of `understudy.models.MODELS`.
        published: the paper's numbers.
        paper: its arXiv number.

    Raises:
        ConfigError: the model is no CLIP.
    """
    from understudy import models
    from understudy.models.count import count_towers
    from understudy.models.multimodal.clip import CLIPConfig

    config = models.config(model)
    if not isinstance(config, CLIPConfig):
        raise ConfigError(
            f"plan of {made.recipe}: '{model}' is no CLIP; give {made.recipe}-s0, say."
        )
    trained, folded = count_towers(config), count_towers(config, "branches")
    for tower, known in zip(("image", "text"), published.parameters, strict=True):
        form = f"parameters of the {tower} tower"
        made.add(f"{form}, training form", trained[tower].parameters, "", formula=model)
        made.add(
            f"{form}, folded",
            folded[tower].parameters,
            "",
            formula="branches summed, exact",
            source=f"{paper}, model sizes" if known else "",
            published=known,
        )
    for tower, what in (("image", f"{config.preprocess.size} px"), ("text", "one caption")):
        known = published.macs if tower == "image" else None
        made.add(
            f"forward pass of the {tower} tower",
            folded[tower].macs,
            "MAC",
            formula=f"{what}, folded",
            source=f"{paper}, ImageNet training of the image tower" if known else "",
            published=known,
        )
    for tower, known in zip(("image", "text"), published.milliseconds or (), strict=False):
        made.add(
            f"latency of the {tower} tower",
            "-",
            formula=f"ours: understudy model latency {model} --fold branches",
            source=f"{paper}, model sizes; a phone, ms",
            published=known,
        )
    return trained


def add_storage(made: Plan, pairs: PairSet, teachers: Sequence[str], paper: str) -> None:
    """Append bytes per pair, `(J + S + 1) x sum(d_k) x bytes` and J records, and in all."""
    from understudy.data.view_presets import pair_views
    from understudy.data.views import ViewPipeline

    dim = sum(pairs.dims)
    half, full = (
        embedding_bytes(views=pairs.views, captions=pairs.captions, dim=dim, itemsize=size)
        for size in (2, 4)
    )
    stride = ViewPipeline(pair_views("strong", 224)).stride
    source = f"{paper}, {pairs.name}"
    made.add("pairs", pairs.pairs, "pairs", source=source)
    made.add("views per image (J)", pairs.views, "", source=source)
    made.add("captions per image (S)", pairs.captions, "", source=source)
    made.add("teacher numbers per vector", dim, "", formula=" + ".join(teachers))
    made.add(
        "bytes per pair: bfloat16 or float16",
        half,
        "B",
        formula=f"(J + S + 1) x {dim:,} x 2",
    )
    made.add(
        "bytes per pair: float32",
        full,
        "B",
        formula=f"(J + S + 1) x {dim:,} x 4",
    )
    made.add("bytes per pair: view parameters", pairs.views * stride, "B", formula=f"J x {stride}")
    made.add(
        "bytes added in all",
        pairs.pairs * (half + pairs.views * stride),
        "B",
        formula="pairs x (16-bit vectors + view parameters)",
        source=f"{paper}, storage" if pairs.added_bytes else "",
        published=pairs.added_bytes,
    )
    made.add(
        "bytes read per seen sample",
        3 * dim * 2 + stride,
        "B",
        formula="one view's and two captions' vectors, one view's parameters",
    )


def add_samples(
    made: Plan, pairs: int, steps: int, batch: int, paper: str, published: float | None = None
) -> int:
    """Append steps, batch, samples seen and passes; return the samples seen."""
    seen = steps * batch
    made.add("steps", steps, "steps", source=f"{paper}, training details")
    made.add("batch", batch, "pairs", source=f"{paper}, training details")
    made.add("samples seen", seen, "samples", formula="steps x batch", published=published)
    made.add("passes over the data", seen / pairs, "", formula="samples seen / pairs")
    return seen


def add_rate(made: Plan) -> float:
    """Append and return what a device achieves, FLOP/s, by arXiv 2311.17049's own time."""
    from understudy import models
    from understudy.models.count import count_towers

    timed = count_towers(models.config("mobileclip-b"))  # type: ignore[arg-type]
    macs = timed["image"].macs + 2 * timed["text"].macs
    achieved = training_flop(macs, TIMED_PAIRS) / (TIMED_HOURS * 3600 * TIMED_DEVICES)
    made.add(
        "achieved per device",
        achieved,
        "FLOP/s",
        formula=f"ViT-B/16 in the paper's time, {achieved / PEAK_FLOP_PER_S:.0%} of an A100",
        source="2311.17049, training time",
    )
    return achieved


def add_generation(made: Plan, pairs: PairSet) -> float:
    """Append what asking ViT-L/14 teachers and a CoCa ViT-L/14 captioner costs; return the FLOP."""
    # ViT-L/14 at 224: 256 patches and the class token; text of 12 layers, width 768.
    image = transformer_macs(24, 1024, 257) + 256 * 1024 * 3 * 14**2
    text = transformer_macs(12, 768, 77)
    asked = pairs.pairs * len(pairs.dims) * (pairs.views * image + (pairs.captions + 1) * text)
    written = transformer_macs(12, 768, CAPTION_TOKENS)
    written += transformer_macs(12, 768, CAPTION_TOKENS, cross_tokens=256)
    caption = pairs.pairs * (image + pairs.captions * written)
    made.add("teacher, one view", image, "MAC", formula="ViT-L/14 at 224 px")
    made.add("teacher, one caption", text, "MAC", formula="12 layers of width 768, 77 tokens")
    made.add("asking the teachers", inference_flop(asked, 1), "FLOP", formula="2 x pairs x K x all")
    made.add("captioning", inference_flop(caption, 1), "FLOP", formula="CoCa ViT-L/14, S captions")
    return inference_flop(asked + caption, 1)


def add_student(made: Plan, trained: Mapping[str, Any], seen: int) -> float:
    """Append what training one student costs, and return the FLOP."""
    macs = trained["image"].macs + 2 * trained["text"].macs
    flop = training_flop(macs, seen)
    made.add("training", flop, "FLOP", formula="6 x (image + 2 texts) x samples seen")
    return flop


def add_shares(made: Plan, generation: float, student: float, counts: Sequence[int]) -> None:
    """Add the device hours a student when generation is shared by some.

    Args:
        made: the plan.
        generation: hours that asking the teachers takes, once.
        student: hours of training one student.
        counts: how many students share it.
    """
    for count in counts:
        made.add(
            f"device hours per student, {count} of them",
            amortised(generation, student, count),
            "device hours",
            formula=f"(generation + {count} x training) / {count}",
        )
