"""Handwritten digits that arrive in time steps, with a natural kind of drift.

Two new digits appear at each of the first five steps and fade to a tenth of their share in the two
steps after; pictures turn and lose contrast from step to step; captions change their vocabulary ("a
scan", "a fax", "a photo on a phone"). A scan is for training or for the test, whatever the step.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from understudy.core.errors import ConfigError
from understudy.core.seeds import rng
from understudy.data.scenes import pack, scans
from understudy.data.scenes.words import DIGIT_WORDS

TEMPLATES = (
    "{style} of a {digit}",
    "{digit}, {style}",
    "{style} that shows {digit}",
    "the digit {digit} in {style}",
    "here is {digit} as {style}",
    "{style}: {digit}",
)
STYLES = (
    ("a scan", "an old form", "a ledger page"),
    ("a fax", "a telex sheet", "a carbon copy"),
    ("a photocopy", "a printout", "an overhead slide"),
    ("a photo on a phone", "a snapshot", "a text attachment"),
    ("a screenshot", "a post", "a profile pic"),
    ("a story", "a reel still", "a meme"),
)
"""Words of the pictures' style, a step each; more steps begin again."""
PROMPTS = tuple(template.replace("{style}", "a picture").replace("{digit}", "{}") for template in
                TEMPLATES)  # fmt: skip
"""Prompts of a neutral style, the same for all steps."""
ARRIVALS = 2
FADE = (1.0, 0.3)
FADED = 0.1
TURN, JITTER = 9.0, 3.0
"""Degrees that pictures turn a step, and the standard deviation around that."""
CONTRAST = 0.12
"""Share of the contrast that is lost a step."""


def class_shares(step: int) -> np.ndarray:
    """Return the share of each digit at a step (from 0), float64 [10]."""
    born = np.arange(10) // ARRIVALS
    age = step - born
    fading = np.array([*FADE, FADED])
    weights = np.where(age < 0, 0.0, fading[np.clip(age, 0, len(FADE))])
    return weights / weights.sum()


def class_counts(step: int, total: int) -> np.ndarray:
    """Return how many pictures of each digit a step has: whole numbers, by largest remainder."""
    exact = class_shares(step) * total
    counts = np.floor(exact).astype(np.int64)
    order = np.argsort(-(exact - counts), kind="stable")
    counts[order[: total - counts.sum()]] += 1
    return counts


@cache
def _pools(seed: int, test_share: float) -> dict[str, tuple[np.ndarray, ...]]:
    """Return the scans of each digit for training and for the test, in random order."""
    labels = scans.load().labels
    pools: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    for digit in range(10):
        mine = np.flatnonzero(labels == digit)
        order = mine[rng("drifting digits", seed, digit).permutation(len(mine))]
        cut = round(test_share * len(order))
        pools["test"].append(order[:cut])
        pools["train"].append(order[cut:])
    return {name: tuple(parts) for name, parts in pools.items()}


def picture(ink: np.ndarray, step: int, angle: float, size: int) -> np.ndarray:
    """Return a picture, uint8 [size, size, 3].

    Args:
        ink: float32 [8, 8] in [0, 1].
        step: from 0; contrast falls with it.
        angle: degrees that it is turned by.
        size: side in pixels.
    """
    large = scans.enlarge(ink[None], size)[0]
    turned = Image.fromarray((large * 255).astype(np.uint8)).rotate(
        angle, Image.Resampling.BILINEAR
    )
    level = max(1.0 - CONTRAST * step, 0.1)
    gray = np.asarray(turned, np.float32) / 255 * level + (1.0 - level) / 2
    return scans.to_rgb(gray[None])[0]


def caption(step: int, digit: int, draw: np.random.Generator) -> str:
    """Return a caption in the vocabulary of a step."""
    styles = STYLES[step % len(STYLES)]
    template = TEMPLATES[int(draw.integers(len(TEMPLATES)))]
    style = styles[int(draw.integers(len(styles)))]
    return template.format(style=style, digit=DIGIT_WORDS[digit])


def _rows(split: str, step: int, count: int, seed: int, size: int, share: float) -> dict[str, Any]:
    draw = rng("drifting digits", split, seed, step)
    pools = _pools(seed, share)[split]
    ink = scans.load().images
    chosen: list[tuple[int, int]] = []
    for digit, wanted in enumerate(class_counts(step, count).tolist()):
        pool = pools[digit]
        # A digit that needs more pictures than it has scans uses some twice, turned otherwise.
        order = np.concatenate([draw.permutation(pool) for _ in range(-(-wanted // len(pool)))]
                               or [pool[:0]])  # fmt: skip
        chosen += [(int(row), digit) for row in order[:wanted]]
    chosen = [chosen[i] for i in draw.permutation(len(chosen))]
    angles = draw.normal(TURN * step, JITTER, len(chosen))
    images = [
        picture(ink[row], step, angle, size) for (row, _), angle in zip(chosen, angles, strict=True)
    ]
    texts = [caption(step, digit, draw) for _, digit in chosen]
    return {"images": images, "texts": texts, "chosen": chosen}


def tables(
    *,
    seed: int = 0,
    steps: int = 6,
    train: int = 250,
    test: int = 62,
    size: int = 16,
    test_share: float = 0.2,
) -> Iterator[pack.SceneTable]:
    """Yield the rows of a store, a table for each step and split; `time` is the step, from 0.

    Args:
        seed: another seed is another sharing and other captions.
        steps: how many.
        train: pairs to learn from at each step.
        test: pairs of the test at each step.
        size: side of the pictures in pixels.
        test_share: share of each digit's scans that only the test may use.

    Raises:
        ConfigError: no steps or pairs, or a share that leaves nothing.
    """
    for name, value, least in (("steps", steps, 1), ("train", train, 1), ("size", size, 8)):
        if value < least:
            raise ConfigError(f"drifting-digits: '{name}' must be at least {least}, got {value}.")
    if test < 0 or not 0 < test_share < 1:
        raise ConfigError(
            f"drifting-digits: expected test >= 0 and test_share in (0, 1), got {test} and "
            f"{test_share}."
        )
    for step in range(steps):
        for split, count in (("train", train), ("test", test)):
            if not count:
                continue
            made = _rows(split, step, count, seed, size, test_share)
            labels = [digit for _, digit in made["chosen"]]
            ids = [f"drifting-digits/{split}/{step}/{i:05d}" for i in range(count)]
            yield pack.SceneTable(
                columns={
                    "id": pa.array(ids, pa.string()),
                    "image": pack.pngs(np.stack(made["images"])),
                    "text": pa.array(made["texts"], pa.string()),
                    "label": pa.array(labels, pa.int64()),
                    "split": pack.constant(split, count),
                    "source": pack.constant("scenes:drifting-digits", count),
                    "time": pa.array([step] * count, pa.int64()),
                    "scan": pa.array([row for row, _ in made["chosen"]], pa.int64()),
                }
            )


def meta() -> dict[str, Any]:
    """Return what a store of these pictures says about itself."""
    return {"classes": list(DIGIT_WORDS)}
