"""Questions about canvases of one to four handwritten digits, one in a corner each.

The stand-in for visual question answering at high resolution: digits are large or small, and small
ones can only be read where the encoder sees enough pixels of them. Every question has one answer
that follows from what was drawn; questions about small digits are flagged.

Canvas i of a split depends on the seed and i alone: a longer set begins with the shorter one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from understudy.core.dialogue import MARK
from understudy.core.errors import ConfigError
from understudy.core.seeds import rng
from understudy.data.scenes import pack, render, scans
from understudy.data.scenes.words import COLOUR_RGB

CHUNK = 25
CORNERS = ("top left", "top right", "bottom left", "bottom right")
KINDS = ("count", "corner", "largest")
_SMALL, _LARGE = (0.055, 0.085), (0.18, 0.29)
"""Sides of small and large digits as shares of the canvas: 28 to 43 and 92 to 148 of 512 pixels."""
_CLEARLY = 1.3
"""How much longer the side of the largest digit is than the next one's, to be asked for."""
NONE = "none"


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """One question with its answer.

    Attributes:
        kind: `"count"`, `"corner"` or `"largest"`.
        text: the question.
        answer: a digit, or `"none"` for an empty corner.
        small: whether the answer is a small digit.
    """

    kind: str
    text: str
    answer: str
    small: bool


@dataclass(frozen=True, kw_only=True)
class Canvases:
    """N canvases.

    Attributes:
        images: uint8 [N, S, S, 3].
        digits: int64 [N, 4], the digit in each corner (see `CORNERS`), -1 for none.
        sides: int64 [N, 4], side of the digit's square in pixels, 0 for none.
        small: bool [N, 4].
        questions: of each canvas, in the order in which they are asked.
    """

    images: np.ndarray
    digits: np.ndarray
    sides: np.ndarray
    small: np.ndarray
    questions: list[list[Question]]


def questions_of(digits: np.ndarray, sides: np.ndarray, small: np.ndarray) -> list[Question]:
    """Return the questions of one canvas: count, four corners, and the largest if it is clear.

    Args:
        digits: int [4], -1 for an empty corner.
        sides: int [4] in pixels, 0 for an empty corner.
        small: bool [4].
    """
    present = digits >= 0
    count = str(int(present.sum()))
    found = [Question(kind="count", text="how many digits are there?", answer=count, small=False)]
    for corner, name in enumerate(CORNERS):
        answer = str(int(digits[corner])) if present[corner] else NONE
        text = f"which digit is at the {name}?"
        flag = bool(present[corner] and small[corner])
        found.append(Question(kind="corner", text=text, answer=answer, small=flag))
    order = np.argsort(-sides, kind="stable")
    first, second = sides[order[0]], sides[order[1]]
    if first > 0 and first >= _CLEARLY * second:
        text = "which digit is the largest?"
        top = order[0]
        found.append(
            Question(
                kind="largest", text=text, answer=str(int(digits[top])), small=bool(small[top])
            )
        )
    return found


def _chunk(index: int, split: str, seed: int, size: int) -> Canvases:
    draw = rng("scenes", "qa", split, seed, index)
    allowed = scans.split_rows(split)
    counts = draw.integers(1, 5, size=CHUNK)
    # the first `count` corners of a random order hold digits; nothing overlaps
    order = np.argsort(draw.random((CHUNK, 4)), axis=1)
    rows = allowed[draw.integers(len(allowed), size=(CHUNK, 4))]
    is_small = draw.random((CHUNK, 4)) < 0.5
    low = np.where(is_small, _SMALL[0], _LARGE[0])
    high = np.where(is_small, _SMALL[1], _LARGE[1])
    shares = low + draw.random((CHUNK, 4)) * (high - low)
    sides = np.maximum((shares * size).astype(np.int64), 6)
    half = size // 2
    free = draw.random((CHUNK, 4, 2))
    top = (order // 2) * half + (free[..., 0] * (half - sides + 1)).astype(np.int64)
    left = (order % 2) * half + (free[..., 1] * (half - sides + 1)).astype(np.int64)
    colours = draw.integers(len(COLOUR_RGB), size=(CHUNK, 4))
    tint = draw.uniform(-20, 20, (CHUNK, 4, 3))
    paper = 255 - draw.uniform(0, 40, (CHUNK, 1, 1, 3))
    canvas = np.broadcast_to(paper, (CHUNK, size, size, 3)).astype(np.float32)
    render.draw(
        canvas,
        render.Objects(
            counts=counts,
            scans=rows,
            top=top,
            left=left,
            sides=sides,
            colours=(COLOUR_RGB[colours] + tint).astype(np.float32),
            angles=draw.normal(0, 0.1, (CHUNK, 4)),
            slants=draw.normal(0, 0.1, (CHUNK, 4)),
            weights=2.0 ** draw.uniform(-0.6, 0.4, (CHUNK, 4)),
        ),
    )
    digits = np.full((CHUNK, 4), -1, np.int64)
    corner_sides = np.zeros((CHUNK, 4), np.int64)
    small = np.zeros((CHUNK, 4), bool)
    labels = scans.load().labels[rows]
    for i in range(CHUNK):
        places = order[i, : counts[i]]
        digits[i, places] = labels[i, : counts[i]]
        corner_sides[i, places] = sides[i, : counts[i]]
        small[i, places] = is_small[i, : counts[i]]
    asked = []
    for i in range(CHUNK):
        found = questions_of(digits[i], corner_sides[i], small[i])
        asked.append([found[j] for j in draw.permutation(len(found))])
    return Canvases(
        images=render.to_uint8(canvas),
        digits=digits,
        sides=corner_sides,
        small=small,
        questions=asked,
    )


def chunks(count: int, split: str = "train", *, seed: int = 0, size: int = 512) -> Iterator[Any]:
    """Yield `count` canvases in runs of up to 25.

    Args:
        count: how many.
        split: train, teacher or test: which scans may be used; they are disjoint.
        seed: another seed is other canvases.
        size: side of the canvas in pixels.

    Raises:
        ConfigError: a number or a size out of range, or no such split.
    """
    if count < 0:
        raise ConfigError(f"qa: a number of canvases must be >= 0, got {count}.")
    if size < 64:
        raise ConfigError(f"qa: 'size' must be at least 64 pixels, got {size}.")
    scans.split_rows(split)
    for index in range(-(-count // CHUNK)):
        made = _chunk(index, split, seed, size)
        left = min(count - index * CHUNK, CHUNK)
        yield Canvases(**{name: value[:left] for name, value in vars(made).items()})


def conversation(questions: list[Question], image_first: bool) -> str:
    """Return questions and answers as a conversation in JSON, the image in the first question.

    Args:
        questions: at least one.
        image_first: whether the image stands before or after the words of the first question.
    """
    turns = []
    for i, question in enumerate(questions):
        text = question.text
        if i == 0:
            text = f"{MARK}\n{text}" if image_first else f"{text}\n{MARK}"
        turns += [{"from": "human", "value": text}, {"from": "gpt", "value": question.answer}]
    return json.dumps(turns)


def _table(made: Canvases, split: str, start: int) -> pack.SceneTable:
    asked = made.questions
    strings, flags = pa.list_(pa.string()), pa.list_(pa.bool_())
    columns = {
        "id": pack.ids("qa", split, start, len(asked)),
        "image": pack.pngs(made.images),
        "conversations": pa.array([conversation(q, True) for q in asked], pa.string()),
        "split": pack.constant(split, len(asked)),
        "source": pack.constant("scenes:qa", len(asked)),
        "kinds": pa.array([[q.kind for q in qs] for qs in asked], strings),
        "small": pa.array([[q.small for q in qs] for qs in asked], flags),
        "digits": pa.array(made.digits.tolist(), pa.list_(pa.int8())),
        "sides": pa.array(made.sides.tolist(), pa.list_(pa.int16())),
    }
    return pack.SceneTable(columns=columns)


def tables(
    *, train: int = 3000, test: int = 300, seed: int = 0, size: int = 512
) -> Iterator[pack.SceneTable]:
    """Yield the rows of a store: canvases with conversations, `kinds` and `small` a question each.

    Args:
        train: canvases to learn from.
        test: canvases of scans that no training canvas has.
        seed: another seed is other canvases.
        size: side of the canvas in pixels.
    """
    for split, count in {"train": train, "test": test}.items():
        start = 0
        for made in chunks(count, split, seed=seed, size=size):
            yield _table(made, split, start)
            start += len(made.questions)


def meta() -> dict[str, Any]:
    """Return what a store of these canvases says about itself."""
    return {"kinds": list(KINDS), "corners": list(CORNERS)}
