"""A small world for the reinforce tests: a store of drawn pictures, nano teachers, functions."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image
from reinforce_functions import (
    VIEWS,
    colour_classes,
    colour_embedding,
    function_teacher,
    say,
    text_embedding,
)

from understudy import models
from understudy.data.store import Store
from understudy.models.text.train_tokenizer import train_words

__all__ = [
    "VIEWS",
    "colour_classes",
    "colour_embedding",
    "function_teacher",
    "say",
    "text_embedding",
]

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (40, 60, 220), "grey": (99,) * 3}
SHAPES = ("disc", "box", "bar")
TEXTS = [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES]


def picture(i: int, kind: str = "PNG") -> bytes:
    """Return an encoded picture of caption `TEXTS[i % 12]`, with noise of its own."""
    draw = np.random.default_rng(i)
    height, width = (52, 64) if i % 3 else (60, 48)
    pixels = draw.integers(0, 60, (height, width, 3))
    colour, shape = TEXTS[i % len(TEXTS)].split()[1:]
    y, x = np.mgrid[:height, :width]
    inside = {
        "disc": (y - 25) ** 2 + (x - 24) ** 2 < 200,
        "box": (abs(y - 25) < 13) & (abs(x - 24) < 13),
        "bar": abs(y - 25) < 6,
    }[shape]
    pixels[inside] += np.array(COLOURS[colour]) - 30
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def rows(count: int, first: int = 0) -> dict[str, list]:
    """Return rows with id, image, text, label and split."""
    numbers = range(first, first + count)
    return {
        "id": [f"s{i:04d}" for i in numbers],
        "image": [picture(i) for i in numbers],
        "text": [TEXTS[i % len(TEXTS)] for i in numbers],
        "label": [i % len(TEXTS) for i in numbers],
        "split": ["test" if i % 5 == 4 else "train" for i in numbers],
    }


def make_store(path: Path, count: int = 24, **meta) -> Store:
    """Make a store of `count` rows."""
    return Store.create(path, [rows(count)], meta=meta)


def tokenizer():
    """Return a word tokenizer that knows the captions."""
    return train_words(TEXTS, 64, context_length=8)


def nano_clip(seed: int = 0, **overrides):
    """Return a nano CLIP with a tokenizer, in evaluation mode."""
    changes = {"embed_dim": 16, "text.depth": 1, **overrides}
    return models.create("clip-teacher-a", seed=seed, tokenizer=tokenizer(), **changes).eval()


def nano_classifier(classes: int = 12, seed: int = 0):
    """Return a small classifier of 32-pixel images."""
    return models.create("cnn-tiny", seed=seed, num_classes=classes).eval()
