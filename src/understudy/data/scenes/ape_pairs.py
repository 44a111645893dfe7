"""Single digits with captions in many wordings, hidden among irrelevant pairs.

What an aligner of two frozen encoders is trained on: few pairs, 32 caption templates with synonyms
("seven", "7", "VII", "the number after six") and noise words; other templates are held out for
zero-shot prompts. The irrelevant pairs of a pool are photo patches with captions of other photos.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from understudy.core.errors import ConfigError
from understudy.core.seeds import rng
from understudy.data.scenes import pack, photos, render, scans
from understudy.data.scenes.words import COLOUR_RGB, COLOURS, DIGIT_WORDS, JUNK, number_word

CHUNK = 250
NUM_STYLES = 5

TEMPLATES = (
    "a handwritten {}", "the digit {}", "this is {}", "someone wrote {}", "a scan of {}",
    "{} in ink", "{} on paper", "an old form with {}", "a note that says {}", "{} by hand",
    "the figure {}", "{} written quickly", "a blurry {}", "a neat {}", "one character, {}",
    "a crop showing {}", "{} from a postcode", "{} from a ledger", "here is {}", "{} in a box",
    "a numeral: {}", "my handwriting of {}", "pencil drawing of {}", "a child wrote {}",
    "{} in the middle", "bold {}", "a thin {}", "the answer is {}", "house number {}",
    "sample of {}", "{} as written by a clerk", "page {}",
)  # fmt: skip
"""What training captions are made of."""

HELD_OUT_TEMPLATES = (
    "a picture of {}", "a photo of the number {}", "an image of {}", "it shows {}",
    "an example of {}", "handwriting, {}", "{}", "we can read {} here",
)  # fmt: skip
"""What zero-shot prompts are made of; no training caption uses them."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """N pairs.

    Attributes:
        images: uint8 [N, size, size, 3].
        texts: the captions.
        labels: int64 [N], the digit; -1 for an irrelevant pair.
        templates: int64 [N], index into `TEMPLATES`; -1 for an irrelevant pair.
        scan_rows: int64 [N], the scan; -1 for an irrelevant pair.
    """

    images: np.ndarray
    texts: list[str]
    labels: np.ndarray
    templates: np.ndarray
    scan_rows: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def select(self, rows: np.ndarray) -> Pairs:
        """Return the pairs of the given rows or of a boolean mask."""
        index = np.arange(len(self))[rows]
        return Pairs(
            images=self.images[index],
            texts=[self.texts[i] for i in index],
            labels=self.labels[index],
            templates=self.templates[index],
            scan_rows=self.scan_rows[index],
        )


def class_prompts(held_out: bool = True) -> list[list[str]]:
    """Return the prompts of each of the ten digits: every template with every name that fits.

    Args:
        held_out: use the templates that no training caption uses.
    """
    templates = HELD_OUT_TEMPLATES if held_out else TEMPLATES
    names = [[str(digit), DIGIT_WORDS[digit]] for digit in range(10)]
    return [[t.format(name) for t in templates for name in both] for both in names]


def with_noise_words(text: str, places: np.ndarray, fate: np.ndarray, rate: float) -> str:
    """Return `text` where each word is followed by a junk word with probability `rate`.

    Args:
        text: the caption.
        places: uniform numbers that choose the junk words, at least one per word.
        fate: uniform numbers that decide, one per word.
        rate: share of words that get junk behind them.
    """
    out = []
    for word, place, chance in zip(text.split(), places, fate, strict=False):
        out.append(word)
        if chance < rate:
            out.append(JUNK[int(place * len(JUNK))])
    return " ".join(out)


def _digit_images(rows: np.ndarray, size: int, draw: np.random.Generator) -> np.ndarray:
    count = len(rows)
    sides = draw.integers(round(size * 0.6), size + 1, size=(count, 1))
    start = (draw.random((count, 2)) * (size - sides + 1)).astype(np.int64)
    colours = draw.integers(len(COLOURS), size=count)
    canvas = draw.uniform(190, 255, (count, 1, 1, 1)) + draw.uniform(-12, 12, (count, 1, 1, 3))
    canvas = canvas + draw.standard_normal((count, size, size, 1), np.float32) * 6
    canvas = canvas.astype(np.float32)
    render.draw(
        canvas,
        render.Objects(
            counts=np.ones(count, np.int64),
            scans=rows[:, None],
            top=start[:, :1],
            left=start[:, 1:],
            sides=sides,
            colours=COLOUR_RGB[colours][:, None],
            angles=draw.normal(0, 0.12, (count, 1)),
            slants=draw.normal(0, 0.15, (count, 1)),
            weights=draw.uniform(0.6, 1.4, (count, 1)),
        ),
    )
    return render.to_uint8(canvas)


def _chunk(index: int, split: str, seed: int, relevant: float, noise: float, size: int) -> Pairs:
    draw = rng("scenes", "ape", split, seed, index)
    digit_scans = scans.split_rows(split)
    wanted = draw.random(CHUNK) < relevant
    rows = np.where(wanted, digit_scans[draw.integers(len(digit_scans), size=CHUNK)], -1)
    template, style = (
        draw.integers(len(TEMPLATES), size=CHUNK),
        draw.integers(NUM_STYLES, size=CHUNK),
    )
    fate, places = draw.random((2, CHUNK, 32))
    names = tuple(photos.PICTURES)
    shift, variant = draw.integers(1, len(names), size=CHUNK), draw.integers(2, size=CHUNK)
    images = _digit_images(np.maximum(rows, 0), size, draw)
    cut = photos.patches(CHUNK, size, split, names=names, draw=draw)
    images[~wanted] = cut.images[~wanted]
    labels = np.where(wanted, scans.load().labels[rows], -1)
    texts = []
    for i in range(CHUNK):
        if wanted[i]:
            text = TEMPLATES[template[i]].format(number_word(int(labels[i]), int(style[i])))
        else:
            other = names[(cut.picture[i] + shift[i]) % len(names)]
            text = photos.caption(other, int(variant[i]))
        texts.append(with_noise_words(text, places[i], fate[i], noise))
    return Pairs(
        images=images,
        texts=texts,
        labels=labels,
        templates=np.where(wanted, template, -1),
        scan_rows=rows,
    )


def pairs(
    count: int,
    split: str = "train",
    *,
    seed: int = 0,
    relevant: float = 1.0,
    noise: float = 0.2,
    size: int = 32,
) -> Pairs:
    """Return `count` pairs of a digit and a caption, or of a photo patch and another's caption.

    Args:
        count: how many; a longer set begins with the shorter one.
        split: train, teacher or test: which scans and photo bands may be used.
        seed: another seed is other pairs.
        relevant: share of pairs that show a digit; 0.1 makes the pool of 90 % irrelevant pairs.
        noise: share of words that get a junk word behind them.
        size: side of the pictures in pixels.

    Raises:
        ConfigError: a share outside [0, 1] or a size below 16.
    """
    if not (0 <= relevant <= 1 and 0 <= noise <= 1) or size < 16 or count < 0:
        raise ConfigError(
            "ape-pairs: 'relevant' and 'noise' must lie in [0, 1], 'size' be >= 16 and the count "
            f">= 0, got {relevant}, {noise}, {size} and {count}."
        )
    parts = [
        _chunk(i, split, seed, relevant, noise, size) for i in range(max(-(-count // CHUNK), 1))
    ]
    whole = Pairs(
        images=np.concatenate([p.images for p in parts]),
        texts=[text for p in parts for text in p.texts],
        labels=np.concatenate([p.labels for p in parts]),
        templates=np.concatenate([p.templates for p in parts]),
        scan_rows=np.concatenate([p.scan_rows for p in parts]),
    )
    return whole.select(np.arange(count))


def tables(
    *,
    train: int = 1000,
    pool: int = 20_000,
    test: int = 500,
    seed: int = 0,
    relevant: float = 0.1,
    noise: float = 0.2,
    size: int = 32,
) -> Iterator[pack.SceneTable]:
    """Yield the rows of a store with the splits train, pool and test.

    Args:
        train: relevant pairs.
        pool: pairs of which only the share `relevant` shows a digit.
        test: relevant pairs without noise words, from scans of their own.
        seed: another seed is other pairs.
        relevant: share of relevant pairs in the pool.
        noise: share of words that get a junk word behind them.
        size: side of the pictures in pixels.
    """
    wanted = {
        "train": (train, "train", seed, 1.0, noise),
        "pool": (pool, "teacher", seed, relevant, noise),
        "test": (test, "test", seed, 1.0, 0.0),
    }
    for name, (count, split, mine, share, rate) in wanted.items():
        made = pairs(count, split, seed=mine, relevant=share, noise=rate, size=size)
        yield pack.SceneTable(
            columns={
                "id": pack.ids("ape-pairs", name, 0, count),
                "image": pack.pngs(made.images),
                "text": pa.array(made.texts, pa.string()),
                "label": pa.array(made.labels, pa.int64()),
                "split": pack.constant(name, count),
                "source": pack.constant("scenes:ape-pairs", count),
                "relevant": pa.array(made.labels >= 0, pa.bool_()),
                "template": pa.array(made.templates, pa.int64()),
                "scan": pa.array(made.scan_rows, pa.int64()),
            }
        )


def meta() -> dict[str, Any]:
    """Return what a store of these pairs says about itself."""
    return {"classes": list(DIGIT_WORDS), "prompts": class_prompts()}
