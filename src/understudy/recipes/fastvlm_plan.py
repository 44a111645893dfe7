"""What FastVLM counts up to at full size: parameters, operations, tokens, waiting times, hours."""

from __future__ import annotations

from typing import Any

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.evaluate.plans import Plan, add_cost
from understudy.models.language.cost import SIZES, kv_bytes, prefill_flop

PAPER = "2412.13303"
RESOLUTIONS = (256, 512, 1024)
TOKEN_RESOLUTIONS = (256, 512, 768, 1024, 1536)
COUNTED = {
    "mci0": (10.83e6, (2.385e9, 9.638e9, 40.16e9)),
    "mci2": (35.05e6, (7.834e9, 31.585e9, 130.36e9)),
    "fastvithd": (122_714_208, (14.810e9, 59.556e9, 243.354e9)),
    "naive-4-stage": (96_868_992, (16.898e9, 68.194e9, 282.437e9)),
}
"""Folded towers without heads: parameters, and multiply-accumulates at `RESOLUTIONS`."""

TTFT_ROWS: tuple[tuple[str, int, int, float, float, float], ...] = (
    ("Qwen2-0.5B", 1024, 256, 116.3, 50.5, 166),
    ("LLaVA-OneVision 0.5B", 1152, 7290, 2721.4, 11402.4, 14124),
    ("Qwen2-1.5B", 768, 144, 54.8, 97.1, 152),
    ("Qwen2-1.5B", 1024, 256, 116.3, 116.1, 233),
    ("Vicuna-7B", 256, 16, 6.8, 143.4, 150),
    ("Vicuna-7B", 768, 144, 54.8, 332.1, 387),
    ("Vicuna-7B", 1024, 256, 116.3, 461.1, 577),
    ("LLaVA-1.5 7B", 336, 576, 127.4, 1170.0, 1297),
    ("ConvLLaVA 7B", 768, 144, 164.3, 332.1, 496),
    ("ConvLLaVA 7B", 1536, 576, 1569.7, 1170.0, 2740),
    ("Qwen2-7B", 1024, 256, 116.3, 524.5, 641),
    ("Cambrian-1 8B", 0, 576, 3861.4, 1223.6, 5085),
    ("Qwen2-0.5B, 2x2 tiles", 2048, 1280, 581.5, 336.4, 918),
    ("Qwen2-1.5B, 2x2 tiles", 2048, 1280, 581.5, 681.7, 1263),
    ("Qwen2-7B, 2x2 tiles", 2048, 1280, 581.5, 3139.5, 3721),
)
"""(setting, R, visual tokens, vision ms, prefill ms, TTFT ms) as published, measured by the authors
on an M1 Max; their encoder ablation is of other conditions and is never mixed with these."""

HOURS = {
    "S1, 558 k captions (7B)": 0.5,
    "S1.5, 15 M captions at 1,024 px": 77.0,
    "S2, 1.1 M instructions at 1,024 px": 8.0,
}
"""Wall hours on one node of eight H100."""
DEVICES = 8
TEXT_TOKENS = 32
"""Text of a prompt, in tokens: an assumption of the prefill rows."""
MIB = 2**20


def plan(scale: str = "paper", price_per_hour: float = 2.0, model: str = "fastvithd") -> Plan:
    """Count towers, tokens, waiting times and training; run nothing.

    Args:
        scale: `"paper"`.
        price_per_hour: money per device hour.
        model: the tower whose parts are listed: a key of `COUNTED`.

    Raises:
        ConfigError: an unknown scale or tower.
    """
    check_choice(scale, ("paper",), "plan of fastvlm, scale")
    if model not in COUNTED:
        raise ConfigError(
            f"plan of fastvlm: '{model}' is no tower that is counted; give one of "
            f"{', '.join(COUNTED)}."
        )
    made = Plan(recipe="fastvlm", scale=scale)
    _towers(made)
    _parts(made, model)
    _activations(made, model)
    _tokens(made, model)
    _waiting(made)
    _prefill(made)
    add_cost(made, {stage: hours * DEVICES for stage, hours in HOURS.items()}, price_per_hour)
    made.notes += [
        "multiply-accumulates are of convolutions, linear layers and attention products.",
        "TTFT rows are the paper's: vision and prefill measured apart on an M1 Max and added; "
        "'understudy model ttft' measures the whole path.",
        f"prefill rows count {TEXT_TOKENS} text tokens beside the visual ones.",
        "the naive baseline has 96.9 M parameters, not the 125 M of the paper's caption.",
    ]
    return made


def _image(model: str) -> Any:
    from understudy import models

    return models.config(model)


def _towers(made: Plan) -> None:
    import torch

    from understudy.models.count import macs, parameters

    for name, (count, published) in COUNTED.items():
        tower = _folded(name)
        made.add(
            f"parameters of {name}, folded",
            parameters(tower),
            "",
            formula="branches summed, without a head",
            source=PAPER,
            published=count,
        )
        for side, paper in zip(RESOLUTIONS, published, strict=True):
            pixels = torch.empty(1, 3, side, side, device="meta")
            made.add(
                f"{name} at {side} px",
                macs(tower, pixels),
                "MAC",
                formula="one image",
                published=paper,
            )


def _folded(name: str) -> Any:
    """Return a tower without a head in its published inference form, on no device."""
    from understudy.models.io import skeleton

    model: Any = skeleton(_headless(_image(name)), "branches")
    return model.image


def _headless(config: Any) -> Any:
    from dataclasses import replace

    return replace(config, num_classes=0, classes=()) if config.num_classes else config


def _parts(made: Plan, model: str) -> None:
    from understudy.models.count import parameters

    tower = _folded(model)
    made.add(f"{model}, stem", parameters(tower.stem), "parameters")
    for i, stage in enumerate(tower.stages, 1):
        parts = {
            f"down-sampler into stage {i}": stage.downsample,
            f"positions of stage {i}": stage.positions,
            f"stage {i}": stage.blocks,
        }
        for part, module in parts.items():
            count = parameters(module)
            if count:
                made.add(f"{model}, {part}", count, "parameters")
    made.add(f"{model}, last convolution", parameters(tower.expand), "parameters")


def _activations(made: Plan, model: str) -> None:
    tower = _image(model).image
    for stage, (channels, stride) in enumerate(
        zip(tower.channels, tower.pyramid_strides, strict=True), 1
    ):
        made.add(
            f"{model}, one map of stage {stage} at 1,024 px",
            channels * (1024 // stride) ** 2 * 2 / MIB,
            "MiB",
            formula=f"{channels} x {1024 // stride}^2 x 2 bytes",
        )


def _tokens(made: Plan, model: str) -> None:
    from understudy.models.multimodal.vision_tower import num_tokens, token_stride

    tower = _image(model).image
    stride = token_stride(tower)
    for side in TOKEN_RESOLUTIONS:
        made.add(
            f"visual tokens at {side} px",
            num_tokens(side, tower),
            "tokens",
            formula=f"({side} / {stride})^2",
        )
    made.add(
        "visual tokens of 2x2 tiles of 1,024 px",
        5 * num_tokens(1024, tower),
        "tokens",
        formula="(2 x 2 + 1) x one view; the encoder runs five times",
    )


def _waiting(made: Plan) -> None:
    for name, side, tokens, vision, prefill, published in TTFT_ROWS:
        where = f"{side:,} px" if side else "mixed"
        made.add(
            f"TTFT, {name} at {where}",
            vision + prefill,
            "ms",
            formula=f"{vision:g} vision + {prefill:g} prefill, {tokens:,} visual tokens",
            source=f"{PAPER}, tables",
            published=published,
        )
    first = next(row for row in TTFT_ROWS if row[0] == "Qwen2-0.5B")
    other = next(row for row in TTFT_ROWS if row[0].startswith("LLaVA-OneVision"))
    made.add(
        "LLaVA-OneVision 0.5B over FastVLM 0.5B",
        (other[3] + other[4]) / (first[3] + first[4]),
        "times",
        source=PAPER,
        published=85.0,
    )


def _prefill(made: Plan) -> None:
    for name, size in SIZES.items():
        for visual in (256, 1280):
            tokens = visual + TEXT_TOKENS
            made.add(
                f"prefill of {name}, {visual} visual tokens",
                prefill_flop(size, tokens),
                "FLOP",
                formula="2 P S + 4 L D S^2",
            )
            made.add(
                f"cache of {name}, {visual} visual tokens",
                kv_bytes(size, tokens),
                "B",
                formula="2 L S n_kv d_head x 2 bytes",
            )
