"""The arms of FastVLM's claim: their models, and what is timed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

REFERENCE = "vit-64"
"""The arm beside which every arm's first token is timed."""
RIVALS = {"naive": "naive-nano", "vit": "vit-nano16", "four": "mci-nano4"}
"""Towers of the parameters of `mci-nano5`, for claim A: four stages scaled naively, a ViT of patch
16, and MCi2's four stages (reported only)."""
CONTEXT = 192


def arm_config(arm: str, settings: Mapping[str, Any]) -> Any:
    """Return an arm's configuration; vocabulary and tokenizer come later."""
    from understudy.models.image.mci import MciConfig
    from understudy.models.image.mci_sizes import FIVE_STAGES
    from understudy.models.image.vit_config import VIT_NANO16
    from understudy.models.language.decoder import DecoderConfig
    from understudy.models.multimodal.vlm_config import VLMConfig, square

    # MCi3's five stages as thin at the start as the many positions there ask for; layer scales
    # begin at 0.1: the published 1e-5 is meant for long runs
    hybrid = MciConfig(
        channels=(4, 8, 16, 64, 192),
        blocks=(1, 1, 1, 2, 1),
        **{**FIVE_STAGES, "head_dim": 16, "layer_scale": 0.1},
    )
    is_vit = arm.startswith("vit")
    size = 128 if is_vit else settings["size"] // (1 if arm == "hybrid-512" else 2)
    return VLMConfig(
        name=arm,
        image=replace(VIT_NANO16, image_size=128) if is_vit else replace(hybrid, image_size=size),
        language=DecoderConfig(
            context=CONTEXT, width=settings["width"], depth=settings["depth"], num_heads=6
        ),
        preprocess=square(size),
        pool=2 if arm == "vit-16" else 1,
    )


def words() -> Any:
    """Return the tokenizer of all arms: the words of every question and answer there can be."""
    from understudy.data.scenes.qa import CORNERS, NONE
    from understudy.models.text.train_tokenizer import train_words

    texts = ["how many digits are there?", "which digit is the largest?", NONE]
    texts += [f"which digit is at the {corner}?" for corner in CORNERS]
    return train_words([*texts, *map(str, range(10))])


def make_arm(arm: str, seed: int, settings: Mapping[str, Any]) -> Any:
    """Return an arm's model with fresh weights."""
    from understudy.models.build import create_from

    return create_from(arm_config(arm, settings), tokenizer=words(), seed=seed)


def waiting(arm: str, seed: int, settings: Mapping[str, Any]) -> dict[str, float]:
    """Time the first token of an arm and of the reference, turn by turn, on one canvas.

    The picture is as large as the canvases, so that arms at lower resolution pay for the resizing
    that their users pay for.
    """
    from understudy.compress.ttft import TTFTConfig, bench_many, ttft_ratio

    config = TTFTConfig(
        samples=settings["ttft_samples"], warmup=3, prompt_tokens=8, image_side=settings["size"]
    )
    pair = {name: make_arm(name, seed, settings).eval() for name in {REFERENCE, arm}}
    results = {r.name: r for r in bench_many(pair, 0, config)}
    mine, other = results[arm], results[REFERENCE]
    return {
        "ttft_ms": mine.end_to_end_ms,
        "paper_ttft_ms": mine.paper_ms,
        "ttft_over_vit": ttft_ratio(mine, other),
        "paper_ttft_over_vit": ttft_ratio(mine, other, "paper_ms"),
    }


def latencies(settings: Mapping[str, Any]) -> dict[str, float]:
    """Time the equal towers of claim A; return their factors over the five-stage tower's time."""
    from understudy import models
    from understudy.compress.race import check_equal_size, factor, race
    from understudy.compress.timing import LatencyConfig
    from understudy.models.multimodal.vision_tower import VisionTower

    names = {"ours": "mci-nano5", **RIVALS}
    towers = {}
    for name, key in names.items():
        config: Any = models.config(key)
        folded: Any = models.create(key, seed=0).eval().fold("branches")
        tower = VisionTower(config.image.image_size, config.image).eval()
        tower.tower = folded.image
        towers[name] = tower
    check_equal_size(towers)
    sides = settings["resolutions"]
    times = race(
        towers,
        sides,
        LatencyConfig(
            rounds=settings["repeats"],
            inferences=settings["inferences"],
            discard=settings["discard"],
            trim=settings["trim"],
        ),
    )
    found = {}
    for rival in RIVALS:
        factors = {side: factor(times, rival, "ours", side) for side in sides}
        found |= {f"{rival}_over_ours_{side}": value for side, value in factors.items()}
        if 128 in factors and 512 in factors:
            found[f"{rival}_growth"] = factors[512] / factors[128]
    return found
