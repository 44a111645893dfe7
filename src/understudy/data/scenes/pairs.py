"""Image-text scenes: two or three handwritten digits on a canvas, with unreliable alt text.

The stand-in for web images with alt text, a captioner and a test set. A student sees 4,000 scenes
with noisy alt text; the clean captions play the captioner; large teachers are trained on scenes of
their own. No scan is shared between the splits, so nothing leaks.

Scene i of a split depends on the seed and i alone: a longer set begins with the shorter one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from understudy.core.config import check_keys
from understudy.core.errors import ConfigError
from understudy.core.seeds import rng
from understudy.data.scenes import pack, pair_words, render, scans
from understudy.data.scenes.base import Scenes
from understudy.data.scenes.words import COLOUR_RGB, COLOURS, SIZES, Noise, as_noise, corrupt

CHUNK = 250
_MAX = 3
_SIDES = ((11, 15), (18, 22))  # pixels of small and large digits on a canvas of 48, both inclusive
_SMALL, _LARGE = 0, 2


@dataclass(frozen=True, kw_only=True)
class PairScenes(Scenes):
    """Scenes of two or three digits (M = 3).

    Attributes:
        labels: int64 [N], digit-pair class (see `pair_words.CLASSES`), -1 for three digits.
        relation: int64 [N], index into `pair_words.RELATIONS`: how object 0 lies to object 1.
        third: int64 [N], side of the pair that object 2 is on; see `pair_words.third_word`.
    """

    labels: np.ndarray
    relation: np.ndarray
    third: np.ndarray


def _layout(count: int, size: int, three: float, split: str, draw: Any) -> dict[str, np.ndarray]:
    """Draw what each scene of a chunk contains and where it stands."""
    allowed = scans.split_rows(split)
    rows = allowed[draw.integers(len(allowed), size=(count, _MAX))]
    counts = np.where(draw.random(count) < three, 3, 2)
    large = draw.integers(2, size=(count, _MAX))
    scale = size / 48
    low = np.array([s[0] for s in _SIDES])[large]
    high = np.array([s[1] for s in _SIDES])[large]
    sides = low + (draw.random((count, _MAX)) * (high - low + 1)).astype(np.int64)
    sides = np.maximum(np.floor(sides * scale), 4).astype(np.int64)
    relation, third = draw.integers(2, size=count), draw.integers(2, size=count)
    # Along the axis of the relation the first object has the first half, the second the other;
    # across it a pair roams freely, but beside a third digit it keeps to its own half.
    half = size // 2
    roam = size - sides
    start = np.zeros((count, _MAX), np.int64)
    start[:, 1] = half
    free = draw.random((count, _MAX, 2))
    along = start + (free[..., 0] * (half - sides + 1)).astype(np.int64)
    across = (free[..., 1] * (roam + 1)).astype(np.int64)
    own = (free[..., 1] * (half - sides + 1)).astype(np.int64)
    pair_half = np.where(third == 0, half, 0)[:, None]  # third 0 is above, so the pair is below
    is_three = (counts == 3)[:, None]
    across = np.where(is_three, own + pair_half, across)
    across[:, 2] = own[:, 2] + np.where(third == 0, 0, half)
    along[:, 2] = (free[:, 2, 0] * (roam[:, 2] + 1)).astype(np.int64)
    horizontal = (relation == 0)[:, None]
    return {
        "counts": counts,
        "rows": rows,
        "sizes": np.where(large == 1, _LARGE, _SMALL),
        "sides": sides,
        "relation": relation,
        "third": third,
        "top": np.where(horizontal, across, along),
        "left": np.where(horizontal, along, across),
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class PairOptions:
    """What pair scenes look like.

    Attributes:
        seed: another seed is other scenes.
        size: side of the canvas in pixels.
        three: share of scenes with three digits.
        num_colours: inks in use, 1 (black) to 6.
        variation: how much pens, inks and papers differ; 0 is upright black-on-white print of each
            scan, 1 the standard.
        noise: of the alt text: a `words.Noise`, its rates, a level (1 = the standard 40 % dropped,
            20 % swapped, junk) or None for clean text.
        num_captions: clean captions per scene.
    """

    seed: int = 0
    size: int = 48
    three: float = 0.4
    num_colours: int = 6
    variation: float = 1.0
    noise: Noise | float | dict[str, float] | None = None
    num_captions: int = 5

    def __post_init__(self) -> None:
        if self.size < 32:
            raise ConfigError(f"pairs: 'size' must be at least 32 pixels, got {self.size}.")
        if not 0 <= self.three <= 1:
            raise ConfigError(f"pairs: 'three' must lie in [0, 1], got {self.three}.")
        if not 1 <= self.num_colours <= len(COLOURS):
            raise ConfigError(f"pairs: 'num_colours' must be 1 to 6, got {self.num_colours}.")
        if not 0 <= self.variation <= 2:
            raise ConfigError(f"pairs: 'variation' must lie in [0, 2], got {self.variation}.")
        if self.num_captions < 1:
            raise ConfigError(f"pairs: 'num_captions' must be >= 1, got {self.num_captions}.")
        object.__setattr__(self, "noise", as_noise(self.noise))


def _chunk(index: int, split: str, options: PairOptions) -> PairScenes:
    seed, size, vary = options.seed, options.size, options.variation
    draw = rng("scenes", "pairs", split, seed, index)
    plan = _layout(CHUNK, size, options.three, split, draw)
    colours = (draw.random((CHUNK, _MAX)) * options.num_colours).astype(np.int64)
    tint = draw.uniform(-25, 25, (CHUNK, _MAX, 3)) * vary
    shade = draw.uniform(0, 55, (CHUNK, 1, 1, 1)) - draw.uniform(-12, 12, (CHUNK, 1, 1, 3))
    paper = 255 - shade * vary
    grain = draw.standard_normal((CHUNK, size, size, 1), np.float32) * 6 * vary
    objects = render.Objects(
        counts=plan["counts"],
        scans=plan["rows"],
        top=plan["top"],
        left=plan["left"],
        sides=plan["sides"],
        colours=(COLOUR_RGB[colours] + tint).astype(np.float32),
        angles=draw.normal(0, 0.12, (CHUNK, _MAX)) * vary,
        slants=draw.normal(0, 0.15, (CHUNK, _MAX)) * vary,
        weights=2.0 ** (draw.uniform(-0.7, 0.5, (CHUNK, _MAX)) * vary),
    )
    canvas = (paper + grain).astype(np.float32)
    masks = render.draw(canvas, objects)
    digits = scans.load().labels[plan["rows"]]
    words = (digits, plan["sizes"], colours, plan["relation"], plan["third"], plan["counts"])
    clean = pair_words.captions(
        *words, options.num_captions, rng("scenes", "pairs", "captions", split, seed, index)
    )
    texts = corrupt(
        [c[0] for c in clean],
        as_noise(options.noise),
        rng("scenes", "pairs", "noise", split, seed, index),
    )
    return PairScenes(
        images=render.to_uint8(canvas),
        texts=texts,
        captions=clean,
        masks=masks,
        labels=pair_words.class_of(digits, plan["counts"]),
        counts=plan["counts"],
        digits=digits,
        sizes=plan["sizes"],
        colours=colours,
        boxes=render.boxes(masks, _MAX),
        scan_rows=plan["rows"],
        relation=plan["relation"],
        third=plan["third"],
    )


def chunks(count: int, split: str = "train", **options: Any) -> Iterator[PairScenes]:
    """Yield `count` scenes in runs of up to 250; see `scenes` for the arguments."""
    if count < 0:
        raise ConfigError(f"pairs: a number of scenes must be >= 0, got {count}.")
    check_keys(options, PairOptions.__slots__, "pairs")  # type: ignore[attr-defined]
    chosen = PairOptions(**options)
    scans.split_rows(split)
    for index in range(-(-count // CHUNK)):
        made = _chunk(index, split, chosen)
        left = count - index * CHUNK
        yield made if left >= CHUNK else made.select(np.arange(left))


def scenes(count: int, split: str = "train", **options: Any) -> PairScenes:
    """Return `count` scenes.

    Args:
        count: how many.
        split: train, teacher or test: which scans may be used.
        **options: the fields of `PairOptions`.

    Raises:
        ConfigError: an option is unknown or out of range.
    """
    return PairScenes.join(list(chunks(max(count, 1), split, **options))).select(np.arange(count))


def _table(made: PairScenes, split: str, start: int, masks: bool) -> pack.SceneTable:
    count, counts = len(made), made.counts
    relation = [pair_words.RELATIONS[r] for r in made.relation]
    columns = {
        "id": pack.ids("pairs", split, start, count),
        "image": pack.pngs(made.images),
        "text": pa.array(made.texts, pa.string()),
        "label": pa.array(made.labels, pa.int64()),
        "split": pack.constant(split, count),
        "source": pack.constant("scenes:pairs", count),
        "digits": pack.list_column(made.digits, counts, pa.int8()),
        "sizes": pack.word_column(made.sizes, counts, SIZES),
        "colours": pack.word_column(made.colours, counts, COLOURS),
        "boxes": pack.list_column(made.boxes, counts, pa.list_(pa.int16(), 4)),
        "scans": pack.list_column(made.scan_rows, counts, pa.int16()),
        "relation": pa.array(relation, pa.string()),
    }
    if masks:
        columns["mask"] = pack.pngs(made.masks)
    return pack.SceneTable(columns=columns, captions=made.captions)


def tables(
    *,
    train: int = 4000,
    teacher: int = 20_000,
    test: int = 1000,
    seed: int = 0,
    size: int = 48,
    three: float = 0.4,
    num_colours: int = 6,
    variation: float = 1.0,
    noise: Noise | float | dict[str, float] | None = 1.0,
    num_captions: int = 5,
    masks: bool = True,
) -> Iterator[pack.SceneTable]:
    """Yield the rows of a store: noisy train pairs, clean teacher pairs, clean test pairs.

    Args:
        train: scenes with noisy alt text, for students.
        teacher: scenes with clean text, for training teachers.
        test: scenes with clean text, seen by nobody.
        seed: see `PairOptions`, also for the next five.
        size: side of the canvas in pixels.
        three: share of scenes with three digits.
        num_colours: inks in use.
        variation: of pens, inks and papers.
        noise: of the train split's alt text.
        num_captions: clean captions per scene.
        masks: write the `mask` column.
    """
    look = {"seed": seed, "size": size, "three": three, "num_colours": num_colours}
    look |= {"variation": variation, "num_captions": num_captions}
    wanted = {"train": (train, noise), "teacher": (teacher, None), "test": (test, None)}
    for split, (count, rates) in wanted.items():
        start = 0
        for made in chunks(count, split, noise=rates, **look):
            yield _table(made, split, start, masks)
            start += len(made)


def meta() -> dict[str, Any]:
    """Return what a store of these scenes says about itself."""
    return {
        "classes": [f"{a} and {b}" for a, b in pair_words.CLASSES],
        "prompts": pair_words.class_prompts(),
    }
