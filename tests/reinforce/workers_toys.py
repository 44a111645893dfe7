"""Exact teachers that can be made slow, and tell who computes; for tests that kill workers."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import yaml
from reinforce_functions import colour_classes as _classes
from reinforce_functions import colour_embedding as _colours
from reinforce_functions import say as _say
from reinforce_functions import text_embedding as _words


def _wait() -> None:
    """Take the time that a test asks for, and leave the process's id where it asks."""
    folder = os.environ.get("TOY_PIDS")
    if folder and os.environ.get("TOY_DRIVER") != str(os.getpid()):
        Path(folder, str(os.getpid())).touch()
    time.sleep(float(os.environ.get("TOY_PAUSE_S", "0")))


def colour_embedding(images) -> np.ndarray:
    """Embed images; see `reinforce_functions`."""
    _wait()
    return _colours(images)


def text_embedding(texts) -> np.ndarray:
    """Embed texts."""
    return _words(texts)


def colour_classes(images) -> np.ndarray:
    """Give class probabilities."""
    return _classes(images)


def say(images, num, seeds):
    """Caption images."""
    _wait()
    return _say(images, num, seeds)


def plain_config() -> dict:
    """Return a configuration with two teachers, a classifier and a captioner."""

    def function(name: str, **names: str) -> dict:
        return {
            "name": name,
            "kind": "callable",
            "options": {kind: f"workers_toys:{found}" for kind, found in names.items()},
        }

    both = {"embed_images": "colour_embedding", "embed_texts": "text_embedding"}
    return {
        "num_views": 2,
        "captions": 2,
        "topk": 3,
        "views": {"size": 48, "transforms": {"random_resized_crop": {}, "rand_augment": {}}},
        "teachers": [
            function("a", **both),
            function("b", **both),
            function("c", classify="colour_classes"),
        ],
        "captioners": [function("say", caption="say")],
        "unit_rows": 4,
        "batch_size": 8,
    }


def write_config(path: Path) -> Path:
    """Write the configuration as a file."""
    path.write_text(yaml.safe_dump(plain_config()))
    return path
