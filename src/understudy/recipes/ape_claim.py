"""The claim of APE at small scale, on digits; data and encoders are in `ape_digits`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from understudy.core.seeds import rng
from understudy.curate.alignment import (
    AlignmentReport,
    caption_key,
    image_key,
    leaks,
    repeats,
    report_on,
)
from understudy.curate.relevance import class_relevance, select_top
from understudy.data.store import Store
from understudy.evaluate.claims import Arm, AtMost, Check, Claim, Context, Difference, Within
from understudy.evaluate.zeroshot import average_prompts
from understudy.models.multimodal.heads import IDENTITY, HeadConfig
from understudy.models.text.ngrams import NgramTower
from understudy.recipes.ape_arms import ArmConfig, Pairing
from understudy.recipes.ape_digits import CONV, NAMES, PIXELS, SETTINGS, ngram_configs, prepare
from understudy.reinforce.encoders import NgramEncoder
from understudy.train.config import TrainConfig

ARMS = {
    "scratch": "CLIP from scratch: both towers trained, linear heads",
    "lit": "LiT: frozen image features, text tower tuned from its pretrained weights",
    "ape": "APE: both encoders frozen, a 4-layer MLP on the pooled text features",
    "ape-tokens": "APE with the MLP on every token, then the mean",
    "linear": "linear heads on both frozen encoders",
    "shuffled": "APE on pairs whose captions were shuffled: the control",
    "curated": "APE on 200 pairs chosen by relevance from a pool of 90 % irrelevant ones",
    "uncurated": "APE on the pool's first 2,000 pairs",
}
SMALL = 200
"""The claim against scratch and LiT is about at most this many pairs."""


class _Frozen:
    """An encoder of which only the cache is left: enough to read it and to check its card."""

    tokens = False

    def __init__(self, name: str, facts: Mapping[str, Any]) -> None:
        self.name, self.hash, self.dim = name, facts["hash"], facts["dim"]
        self.preprocess = facts["preprocess"]


def _pairing(arm: str, seed: int, context: Context) -> tuple[str, Pairing]:
    kind, pair = arm.rsplit("-", 1)
    settings, prepared = context.settings, context.prepared
    image, text = NAMES[pair]
    config = ngram_configs(tuple(prepared["vocabulary"]))["ab".index(pair)]
    tower = NgramTower(config, settings["text_dim"])
    tower.load_state_dict(load_file(context.seed_dir / f"{text}.safetensors"))
    mlp = HeadConfig(
        depth=settings["depth"],
        hidden=settings["hidden"],
        dropout=settings["dropout"],
    )
    own = {"shuffled": "ape", "curated": "ape", "uncurated": "ape"}.get(kind, kind)
    arms = ArmConfig(
        arm=own,
        dim=settings["dim"],
        image_head=IDENTITY,
        text_head=mlp,
        pixels=PIXELS,
        tower=CONV,
        text_width=settings["text_dim"],
    )
    store = Store.open(context.seed_dir / "store")
    frozen = _Frozen(image, prepared["encoders"][image])
    return kind, Pairing(store, frozen, NgramEncoder(text, tower), arms, seed=seed)


def _prompts() -> tuple[list[str], np.ndarray]:
    """Return all zero-shot prompts and the digit that each stands for."""
    from understudy.data.scenes import ape_pairs

    groups = ape_pairs.class_prompts()
    owner = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    return [text for group in groups for text in group], owner


def zeroshot(pairing: Pairing, model: torch.nn.Module) -> float:
    """Return top-1 over the ten digits, by prompts whose templates no caption uses."""
    texts, owner = _prompts()
    vectors = pairing.embed(model, "text", pairing.text_side(texts))
    weights = average_prompts(vectors, np.bincount(owner).tolist())
    rows = pairing.store.where("split = 'test'")
    images = pairing.embed(model, "image", pairing.side("image", rows))
    labels = torch.tensor(pairing.store.array("label", rows))
    return float(((images @ weights.T).argmax(1) == labels).float().mean())


def curate(pairing: Pairing, total: int) -> tuple[np.ndarray, AlignmentReport]:
    """Return the most relevant pairs of the pool: balanced, no repeats, no test image."""
    store = pairing.store
    pool = store.where("split = 'pool'")
    texts, owner = _prompts()
    features = pairing.side("text", pool).values
    relevance = class_relevance(features, pairing.text_side(texts).values, owner, owner.max() + 1)
    keys = [image_key(data) for data in store.take(pool, ["image"])["image"].to_pylist()]
    test = store.take(store.where("split = 'test'"), ["image"])["image"].to_pylist()
    captions = pairing.captions(pool)
    leaked = leaks(keys, [image_key(data) for data in test])
    twice = repeats([f"{k} {caption_key(c)}" for k, c in zip(keys, captions, strict=True)])
    found = select_top(relevance, total, usable=~leaked & ~twice)
    report = report_on(
        found.rows,
        captions,
        keys,
        found.coverage,
        [str(digit) for digit in range(10)],
        leakage=int(leaked.sum()),
        removed_repeats=int((twice & ~leaked).sum()),
    )
    return pool[found.rows], report


def run_arm(arm: str, seed: int, context: Context) -> dict[str, float]:
    """Train one arm at every number of pairs that it is asked for."""
    kind, pairing = _pairing(arm, seed, context)
    settings, store = context.settings, pairing.store
    train = TrainConfig(
        steps=settings["steps"],
        batch_size=settings["batch"],
        lr=settings["lr"],
        warmup_steps=settings["steps"] // 20,
        weight_decay=1e-4,
        betas=(0.9, 0.999),
        clip_norm=1.0,
        seed=seed,
        device="cpu",
    )
    if kind in ("curated", "uncurated"):
        rows = store.where("split = 'pool'")[: settings["uncurated"]]
        if kind == "curated":
            rows, _ = curate(pairing, settings["headline"])
        model, done = pairing.train(rows, train, context.arm_dir / "run")
        relevant = float((store.array("label", rows) >= 0).mean())
        found = {"zeroshot": zeroshot(pairing, model), "relevant": relevant}
        return {**found, "trainable": done.trainable}
    every, held = store.where("split = 'train'"), store.where("split = 'held-out'")
    out: dict[str, float] = {}
    small: list[float] = []
    for size in settings["sizes"]:
        rows = every[:size]
        order = rng("shuffled", seed).permutation(size) if kind == "shuffled" else None
        model, done = pairing.train(rows, train, context.arm_dir / f"run-{size}", order=order)
        tail = "" if size == settings["headline"] else f"@{size}"
        out[f"zeroshot{tail}"] = zeroshot(pairing, model)
        many = min(len(held), size)
        gap = pairing.recall(model, rows[:many]) - pairing.recall(model, held[:many])
        out[f"recall_gap{tail}"] = gap
        out["trainable"] = done.trainable
        small += [out[f"zeroshot{tail}"]] if size <= SMALL else []
    out["zeroshot_small"] = float(np.mean(small))
    return out


def checks(pair: str) -> tuple[Check, ...]:
    """Return what the results of one pair of encoders must show."""
    ape, lit, scratch = f"ape-{pair}", f"lit-{pair}", f"scratch-{pair}"
    return (
        Difference(
            name=f"a: beats scratch by 10 points ({pair})",
            metric="zeroshot_small",
            better=ape,
            worse=scratch,
            margin=0.10,
        ),
        Difference(
            name=f"a: at most 1 point below LiT ({pair})",
            metric="zeroshot_small",
            better=ape,
            worse=lit,
            margin=-0.01,
            ci_above=None,
        ),
        AtMost(
            name=f"a: at most a quarter of LiT's weights ({pair})",
            metric="trainable",
            arm=ape,
            over=lit,
            limit=0.25,
            reduce="max",
        ),
        Difference(
            name=f"b: smaller recall gap than LiT ({pair})",
            metric="recall_gap",
            better=ape,
            worse=lit,
            ci_above=None,
            lower_is_better=True,
            required=False,
        ),
        Difference(
            name=f"c: 200 curated beat 2,000 uncurated ({pair})",
            metric="zeroshot",
            better=f"curated-{pair}",
            worse=f"uncurated-{pair}",
        ),
        Within(
            name=f"shuffled pairs are at chance ({pair})",
            metric="zeroshot",
            a=f"shuffled-{pair}",
            value=0.1,
            num_se=3.0,
            floor=0.03,
        ),
        Difference(
            name=f"token level beats pooled heads ({pair})",
            metric="zeroshot_small",
            better=f"ape-tokens-{pair}",
            worse=ape,
            required=False,
        ),
        Difference(
            name=f"an MLP beats linear heads ({pair})",
            metric="zeroshot_small",
            better=ape,
            worse=f"linear-{pair}",
            required=False,
        ),
    )


CLAIM = Claim(
    recipe="ape",
    statement=(
        "On two different pairs of frozen encoders: with 50 to 200 pairs, small heads are at least "
        "10 points better than CLIP from scratch and at most 1 below LiT with a quarter of its "
        "trained weights, and overfit less; 200 well-chosen pairs beat 2,000 unchosen ones."
    ),
    arms=tuple(
        Arm(name=f"{kind}-{pair}", description=f"{text} ({' + '.join(NAMES[pair])})")
        for pair in NAMES
        for kind, text in ARMS.items()
    ),
    seeds=tuple(range(10)),
    metrics=("zeroshot", "zeroshot_small", "recall_gap", "trainable"),
    checks=(*checks("a"), *checks("b")),
    budget=(
        f"{SETTINGS['steps']} steps of {SETTINGS['batch']} pairs at one learning rate for every "
        "arm; 50, 200 and 1,000 pairs; zero-shot top-1 over ten digits by prompts whose templates "
        "no caption uses, mean of 50 and 200 pairs where it says small"
    ),
    failure=(
        "a: the mean difference is below its margin (or, against scratch, its interval touches 0), "
        "or more than a quarter of LiT's weights are trained; c: the interval touches 0; or "
        "shuffled pairs are not at chance; on either pair of encoders"
    ),
    run_arm=run_arm,
    prepare=prepare,
    scales={"laptop": SETTINGS},
)
