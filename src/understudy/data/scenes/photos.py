"""Real photographs that ship inside scikit-learn and scikit-image, and patches of them.

The files are read from the installed packages, never from the network. Every picture is divided
into three vertical bands, one per split, so a patch of one split shares no pixel with another's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError, DataError
from understudy.core.lazy import require
from understudy.core.seeds import rng
from understudy.data.decode import decode
from understudy.data.scenes import pack
from understudy.data.scenes.scans import SPLITS

_SK, _SKI = ("sklearn", "datasets/images"), ("skimage", "data")
PICTURES: dict[str, tuple[tuple[str, str], str, tuple[str, ...]]] = {
    "temple": (_SK, "china.jpg", ("a temple roof in china", "a pagoda among trees under haze")),
    "flower": (_SK, "flower.jpg", ("an orange flower", "petals of a dahlia in a garden")),
    "astronaut": (
        _SKI,
        "astronaut.png",
        ("an astronaut in an orange suit", "a smiling woman before a space shuttle model"),
    ),
    "cat": (_SKI, "chelsea.png", ("a tabby cat", "the face of a cat with whiskers")),
    "coffee": (_SKI, "coffee.png", ("a cup of coffee", "an espresso with a spoon on a table")),
    "rocket": (_SKI, "rocket.jpg", ("a rocket on its launch pad", "smoke below a rocket at dusk")),
    "galaxies": (_SKI, "hubble_deep_field.jpg", ("galaxies in deep space", "stars in a dark sky")),
    "brick": (_SKI, "brick.png", ("a brick wall", "rows of bricks and mortar")),
    "grass": (_SKI, "grass.png", ("a field of grass", "blades of grass from above")),
    "gravel": (_SKI, "gravel.png", ("gravel on the ground", "small stones of a path")),
    "cameraman": (_SKI, "camera.png", ("a man with a camera", "a photographer on a lawn")),
    "coins": (_SKI, "coins.png", ("ancient greek coins", "rows of old coins on cloth")),
    "motorcycle": (
        _SKI,
        "motorcycle_left.png",
        ("a motorcycle in a garage", "the engine of a parked motorbike"),
    ),
}
"""name -> ((package, folder), file, captions); the first caption is the plain one."""

BACKGROUNDS = ("flower", "cat", "coffee", "grass", "gravel", "brick")
"""The six pictures that scenes stand on unless told otherwise."""

_BANDS = {"train": (0.0, 0.5), "teacher": (0.5, 0.75), "test": (0.75, 1.0)}


class Patches(NamedTuple):
    """Square patches: `images` uint8 [N, size, size, 3] and the index of each into `names`."""

    images: np.ndarray
    picture: np.ndarray
    names: tuple[str, ...]


@cache
def picture(name: str) -> np.ndarray:
    """Return one picture, uint8 [h, w, 3], read-only.

    Raises:
        ConfigError: there is no picture of that name.
        MissingExtraError: the package that carries it is not installed.
        DataError: the installed package doesn't carry the file.
    """
    check_choice(name, tuple(PICTURES), "photo")
    (package, folder), file, _ = PICTURES[name]
    module = require(package, "scenes", "the built-in photographs")
    path = Path(str(module.__file__)).parent / folder / file
    try:
        data = path.read_bytes()
    except OSError:
        raise DataError(
            f"{path}: the installed {package} doesn't carry this photograph; install a release "
            'that does: pip install -U "understudy[scenes]".'
        ) from None
    image = decode(data, name=str(path))
    image.setflags(write=False)
    return image


@cache
def _band(name: str, split: str, factor: int) -> np.ndarray:
    """Return a split's band of a picture, shrunk by averaging squares of `factor` pixels."""
    whole = picture(name)
    first, last = (round(edge * whole.shape[1]) for edge in _BANDS[split])
    band = whole[:, first:last]
    height, width = (n // factor for n in band.shape[:2])
    cut = band[: height * factor, : width * factor].astype(np.float32)
    small = cut.reshape(height, factor, width, factor, 3).mean(axis=(1, 3))
    return np.rint(small).astype(np.uint8)


def patches(
    count: int,
    size: int = 64,
    split: str = "train",
    *,
    names: Sequence[str] = BACKGROUNDS,
    draw: np.random.Generator | None = None,
    seed: int = 0,
) -> Patches:
    """Return random patches at half or full resolution (whichever fits the band), some mirrored.

    Args:
        count: how many.
        size: side in pixels.
        split: train, teacher or test: which band of each picture.
        names: the pictures to cut from.
        draw: where randomness comes from; by default it is made of `seed`.
        seed: another seed is other patches.

    Raises:
        ConfigError: unknown picture or split, or a band narrower than `size`.
    """
    check_choice(split, SPLITS, "scene split")
    if not names:
        raise ConfigError("photos: at least one picture must be named.")
    draw = draw if draw is not None else rng("scenes", "photos", split, seed)
    which = draw.integers(len(names), size=count)
    place, mirror = draw.random((count, 3)), draw.random(count) < 0.5
    options = []
    for name in names:
        fitting = [f for f in (1, 2) if min(_band(name, split, f).shape[:2]) >= size]
        if not fitting:
            raise ConfigError(
                f"photos: patches of {size} pixels don't fit the {split} band of '{name}', "
                f"{_band(name, split, 1).shape[1]} pixels wide."
            )
        options.append(fitting)
    images = np.empty((count, size, size, 3), np.uint8)
    for i in range(count):
        fitting = options[which[i]]
        band = _band(names[which[i]], split, fitting[int(place[i, 2] * len(fitting))])
        y, x = (int(p * (n - size + 1)) for p, n in zip(place[i, :2], band.shape[:2], strict=True))
        cut = band[y : y + size, x : x + size]
        images[i] = cut[:, ::-1] if mirror[i] else cut
    return Patches(images, which, tuple(names))


def caption(name: str, variant: int = 0) -> str:
    """Return a caption of a picture."""
    captions = PICTURES[name][2]
    return captions[variant % len(captions)]


def tables(
    *,
    train: int = 1000,
    test: int = 200,
    size: int = 96,
    seed: int = 0,
    names: Sequence[str] = tuple(PICTURES),
) -> Iterator[pack.SceneTable]:
    """Yield the rows of a store of photo patches, labelled by the picture they come from.

    Args:
        train: patches of the train bands.
        test: patches of the test bands.
        size: side in pixels.
        seed: another seed is other patches.
        names: the pictures.
    """
    for split, count in (("train", train), ("test", test)):
        cut = patches(count, size, split, names=names, seed=seed)
        texts = [caption(cut.names[p], i) for i, p in enumerate(cut.picture)]
        yield pack.SceneTable(
            columns={
                "id": pack.ids("photos", split, 0, count),
                "image": pack.pngs(cut.images),
                "text": pa.array(texts, pa.string()),
                "label": pa.array(cut.picture, pa.int64()),
                "split": pack.constant(split, count),
                "source": pack.constant("scenes:photos", count),
            },
            captions=[list(PICTURES[cut.names[p]][2]) for p in cut.picture],
            meta={"classes": list(names)},
        )


def meta() -> dict[str, Any]:
    """Return what a store of these patches says about itself."""
    return {"classes": list(PICTURES)}
