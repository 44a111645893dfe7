"""Scenes on photographs: one to four tinted digits on a photo patch, with masks and depth.

Every fact is exact: which digit, colour, size and place, what is hidden by what, how far each pixel
is. The depth is a tilted ground plane; each digit is a small tilted card before it, the later drawn
the nearer. Far things are hazier, so depth can be seen in the picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from understudy.core.errors import ConfigError
from understudy.core.seeds import rng
from understudy.data.scenes import pack, photo_words, photos, render, scans
from understudy.data.scenes.base import Scenes
from understudy.data.scenes.words import (
    COLOUR_RGB,
    COLOURS,
    DIGIT_WORDS,
    SIZES,
    Noise,
    as_noise,
    corrupt,
)

CHUNK = 250
_SIDES = np.array([(0.22, 0.27), (0.32, 0.37), (0.44, 0.49)])  # of the canvas, by size word
_HAZE = 0.55  # share of white in the farthest pixel


@dataclass(frozen=True, kw_only=True)
class PhotoScenes(Scenes):
    """Scenes of one to four digits on photographs (M = 4).

    Attributes:
        depth: float32 [N, S, S] in [0, 1], 0 is nearest.
        places: int64 [N, M], index into `photo_words.PLACES`; no two objects of a scene share one.
        background: int64 [N], index into the `names` of photographs.
    """

    depth: np.ndarray
    places: np.ndarray
    background: np.ndarray


def normals(depth: np.ndarray, relief: float = 1.0) -> np.ndarray:
    """Return unit surface normals float32 [N, S, S, 3] of depth maps by finite differences.

    Args:
        depth: [N, S, S] in [0, 1], 0 is nearest.
        relief: how many canvas widths a depth difference of 1 is.
    """
    dy, dx = np.gradient(depth.astype(np.float32), axis=(1, 2))
    steep = relief * depth.shape[1]
    raw = np.stack([dx * steep, dy * steep, np.ones_like(dx)], axis=-1)
    return (raw / np.linalg.norm(raw, axis=-1, keepdims=True)).astype(np.float32)


def _depth(masks: np.ndarray, num: int, draw: np.random.Generator) -> np.ndarray:
    count, size = masks.shape[:2]
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    tilt = draw.uniform(-1, 1, (count, num + 1, 2)).astype(np.float32)
    # Level 0 is the ground in [0.6, 1]; objects hold bands below it, the last drawn nearest.
    level = np.concatenate([[0.8], 0.55 - 0.5 * (np.arange(num) + 0.5) / num]).astype(np.float32)
    reach = np.concatenate([[0.2], np.full(num, 0.2 / num)]).astype(np.float32)
    out = np.empty(masks.shape, np.float32)
    for j in range(num + 1):
        slope = tilt[:, j, :, None, None] / 2
        plane = level[j] + reach[j] * (slope[:, 0] * axis[:, None] + slope[:, 1] * axis[None])
        out = np.where(masks == j, plane, out) if j else plane
    return out


def _corners(
    places: np.ndarray, sides: np.ndarray, size: int, draw: np.random.Generator
) -> np.ndarray:
    """Return the first row and column of each object's square, int [N, M, 2]."""
    # The centre stays in the object's quarter; large digits may reach over, and hide others.
    jitter = draw.random((*places.shape, 2))
    corners = np.stack([places // 2, places % 2], axis=-1)
    centre = (corners * 0.5 + 0.1 + 0.3 * jitter) * size
    start = np.rint(centre - sides[..., None] / 2).astype(np.int64)
    return np.clip(start, 0, (size - sides)[..., None])


def _chunk(index: int, split: str, options: dict[str, Any]) -> PhotoScenes:
    size, names, seed = options["size"], options["names"], options["seed"]
    low, high = options["objects"]
    num = len(photo_words.PLACES)
    draw = rng("scenes", "photo scenes", split, seed, index)
    counts = draw.integers(low, high + 1, size=CHUNK)
    allowed = scans.split_rows(split)
    rows = allowed[draw.integers(len(allowed), size=(CHUNK, num))]
    places = np.argsort(draw.random((CHUNK, num)), axis=1)
    sizes = draw.integers(len(SIZES), size=(CHUNK, num))
    colours = draw.integers(len(COLOURS), size=(CHUNK, num))
    share = _SIDES[sizes, 0] + draw.random((CHUNK, num)) * (_SIDES[sizes, 1] - _SIDES[sizes, 0])
    sides = np.maximum((share * size).astype(np.int64), 5)
    start = _corners(places, sides, size, draw)
    tint = draw.uniform(-25, 25, (CHUNK, num, 3))
    objects = render.Objects(
        counts=counts,
        scans=rows,
        top=start[..., 0],
        left=start[..., 1],
        sides=sides,
        colours=(COLOUR_RGB[colours] + tint).astype(np.float32),
        angles=draw.normal(0, options["rotation"], (CHUNK, num)),
        slants=draw.normal(0, 0.15, (CHUNK, num)),
        weights=draw.uniform(0.5, 1.1, (CHUNK, num)),
    )
    cut = photos.patches(CHUNK, size, split, names=names, draw=draw)
    canvas = cut.images.astype(np.float32) * 0.75 + 0.25 * 255
    masks = render.draw(canvas, objects)
    depth = _depth(masks, num, draw)
    white = (_HAZE * depth)[..., None]
    canvas = canvas * (1 - white) + 255 * white
    facts = {
        "counts": counts,
        "digits": scans.load().labels[rows],
        "colours": colours,
        "sizes": sizes,
        "places": places,
        "background": cut.picture,
    }
    grounds = [photos.caption(name) for name in names]
    key = ("photo scenes", split, seed, index)
    clean = photo_words.captions(
        facts, grounds, options["num_captions"], rng("scenes", "captions", *key)
    )
    texts = corrupt([c[0] for c in clean], options["noise"], rng("scenes", "noise", *key))
    return PhotoScenes(
        images=render.to_uint8(canvas),
        texts=texts,
        captions=clean,
        masks=masks,
        depth=depth,
        boxes=render.boxes(masks, num),
        scan_rows=rows,
        **facts,
    )


def chunks(
    count: int,
    split: str = "train",
    *,
    seed: int = 0,
    size: int = 64,
    objects: tuple[int, int] = (1, 4),
    rotation: float = 0.15,
    names: Sequence[str] = photos.BACKGROUNDS,
    noise: Noise | float | dict[str, float] | None = None,
    num_captions: int = 3,
) -> Iterator[PhotoScenes]:
    """Yield `count` scenes in runs of up to 250; see `scenes` for the arguments."""
    low, high = objects
    if not 1 <= low <= high <= len(photo_words.PLACES):
        raise ConfigError(
            f"photo-scenes: 'objects' must be (low, high) within 1 to 4, got {objects}."
        )
    if size < 32 or num_captions < 1 or count < 0:
        raise ConfigError(
            "photo-scenes: 'size' must be >= 32, 'num_captions' >= 1 and the count >= 0, got "
            f"{size}, {num_captions} and {count}."
        )
    options = {
        "seed": seed,
        "size": size,
        "objects": (low, high),
        "rotation": rotation,
        "names": tuple(names),
        "noise": as_noise(noise),
        "num_captions": num_captions,
    }
    scans.split_rows(split)
    for index in range(-(-count // CHUNK)):
        made = _chunk(index, split, options)
        left = count - index * CHUNK
        yield made if left >= CHUNK else made.select(np.arange(left))


def scenes(count: int, split: str = "train", **options: Any) -> PhotoScenes:
    """Return `count` scenes.

    Args:
        count: how many.
        split: train, teacher or test: which scans and which bands of the photos may be used.
        **options: `seed`; `size` of the canvas in pixels (64); `objects`, least and most digits
            (1, 4); `rotation`, standard deviation in radians (0.15); `names` of the background
            photos; `noise` of the alt text (none); `num_captions` per scene (3).

    Raises:
        ConfigError: an option is out of range.
    """
    return PhotoScenes.join(list(chunks(max(count, 1), split, **options))).select(np.arange(count))


def _table(
    made: PhotoScenes, split: str, start: int, names: Sequence[str], dense: bool
) -> pack.SceneTable:
    count, counts = len(made), made.counts
    columns = {
        "id": pack.ids("photo-scenes", split, start, count),
        "image": pack.pngs(made.images),
        "text": pa.array(made.texts, pa.string()),
        "label": pa.array(np.where(counts == 1, made.digits[:, 0], -1), pa.int64()),
        "split": pack.constant(split, count),
        "source": pack.constant("scenes:photo-scenes", count),
        "digits": pack.list_column(made.digits, counts, pa.int8()),
        "sizes": pack.word_column(made.sizes, counts, SIZES),
        "colours": pack.word_column(made.colours, counts, COLOURS),
        "places": pack.word_column(made.places, counts, photo_words.PLACES),
        "boxes": pack.list_column(made.boxes, counts, pa.list_(pa.int16(), 4)),
        "scans": pack.list_column(made.scan_rows, counts, pa.int16()),
        "background": pa.array([names[b] for b in made.background], pa.string()),
    }
    if dense:
        columns["mask"] = pack.pngs(made.masks)
        columns["depth"] = pack.pack_depth(made.depth)
    return pack.SceneTable(columns=columns, captions=made.captions)


def tables(
    *,
    train: int = 4000,
    teacher: int = 500,
    test: int = 1000,
    seed: int = 0,
    size: int = 64,
    objects: tuple[int, int] = (1, 4),
    rotation: float = 0.15,
    names: Sequence[str] = photos.BACKGROUNDS,
    noise: Noise | float | dict[str, float] | None = 0.5,
    num_captions: int = 3,
    dense: bool = True,
) -> Iterator[pack.SceneTable]:
    """Yield the rows of a store.

    Args:
        train: scenes with noisy alt text.
        teacher: scenes with clean text for experts and teachers, from scans and photo bands of
            their own.
        test: scenes with clean text.
        seed: another seed is other scenes.
        size: side of the canvas in pixels.
        objects: least and most digits.
        rotation: standard deviation of their rotation, radians.
        names: the background photographs.
        noise: of the train split's alt text.
        num_captions: clean captions per scene.
        dense: write the columns `mask` and `depth`.
    """
    wanted = {"train": (train, noise), "teacher": (teacher, None), "test": (test, None)}
    for split, (count, rates) in wanted.items():
        start = 0
        runs = chunks(
            count,
            split,
            seed=seed,
            size=size,
            objects=objects,
            rotation=rotation,
            names=names,
            noise=rates,
            num_captions=num_captions,
        )
        for made in runs:
            yield _table(made, split, start, names, dense)
            start += len(made)


def meta() -> dict[str, Any]:
    """Return what a store of these scenes says about itself."""
    prompts = [
        [f"a {word}", f"a picture of a {word}", f"a {d}"] for d, word in enumerate(DIGIT_WORDS)
    ]
    return {"classes": list(DIGIT_WORDS), "prompts": prompts}
