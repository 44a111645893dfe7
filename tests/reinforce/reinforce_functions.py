"""Exact functions as teachers, and a run in a process of its own that is made to be killed.

Imports no torch: `python reinforce_functions.py STORE` starts in a second or two and prints a line
whenever a teacher is asked.
"""

from __future__ import annotations

import sys
import time
import zlib

import numpy as np

from understudy.data.views import ViewConfig
from understudy.reinforce.config import ReinforceConfig
from understudy.reinforce.teachers.function import FunctionTeacher

VIEWS = ViewConfig(size=48, transforms={"random_resized_crop": {}, "rand_augment": {}})
SMALL = ReinforceConfig(num_views=2, views=VIEWS, unit_rows=4, batch_size=8, captions=2)


def colour_embedding(images) -> np.ndarray:
    """Embed images by their mean colours: exact whatever the batch."""
    cells = [
        np.asarray(i, np.float32)[y : y + 16, x : x + 16].mean((0, 1))
        for i in images
        for y in (0, 16, 32)
        for x in (0, 16, 32)
    ]
    return np.concatenate(cells).reshape(len(images), -1) + 1.0


def text_embedding(texts) -> np.ndarray:
    """Embed texts by hashes of their words."""
    out = np.zeros((len(texts), 27), np.float32)
    for row, text in zip(out, texts, strict=True):
        row[0] = 0.1
        for word in text.split():
            row[zlib.crc32(word.encode()) % 27] += 1
    return out


def colour_classes(images) -> np.ndarray:
    """Give 12 class probabilities by mean colours."""
    means = np.stack([np.asarray(i, np.float32).mean((0, 1)) for i in images]) / 40
    scores = np.concatenate([means, means[:, ::-1] * 0.9, means * 0.5, means**2 * 0.1], axis=1)
    scores = np.exp(scores - scores.max(1, keepdims=True))
    return scores / scores.sum(1, keepdims=True)


def say(images, num, seeds):
    """Caption images by a word of their seeds and their brightness."""
    words = ("small", "large", "old", "new", "odd", "plain", "fine", "rough")
    return [
        [
            f"a {words[(seed >> (3 * j)) % 8]} {words[(seed >> (3 * j + 24)) % 8]} thing"
            for j in range(num)
        ]
        for _, seed in zip(images, seeds, strict=True)
    ]


def function_teacher(name: str = "colours", **more) -> FunctionTeacher:
    """Return a teacher that embeds images and texts by exact functions."""
    functions = {"embed_images": colour_embedding, "embed_texts": text_embedding, **more}
    return FunctionTeacher(name, functions, logit_scale=20.0)


def small_teachers() -> dict[str, FunctionTeacher]:
    """Return an exact teacher and an exact captioner."""
    return {"colours": function_teacher(), "cap": FunctionTeacher("cap", {"caption": say})}


def announced(teacher: FunctionTeacher, pause_s: float) -> FunctionTeacher:
    """Have a teacher print a line and take its time whenever it is asked; same fingerprint."""
    fingerprint = teacher.fingerprint

    def wrap(function):
        def call(*args):
            print("asked", flush=True)
            time.sleep(pause_s)
            return function(*args)

        return call

    teacher.functions = {name: wrap(f) for name, f in teacher.functions.items()}
    teacher.__dict__["fingerprint"] = fingerprint
    return teacher


def main() -> None:
    """Reinforce the store named on the command line."""
    from understudy.data.store import Store
    from understudy.reinforce.generate import reinforce

    teachers = {name: announced(t, 0.01) for name, t in small_teachers().items()}
    reinforce(Store.open(sys.argv[1]), SMALL, teachers=teachers)
    print("done", flush=True)


if __name__ == "__main__":
    main()
