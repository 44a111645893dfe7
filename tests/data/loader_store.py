"""A small reinforced store: three views, two teachers, two captioners, top-K probabilities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from view_images import encoded, picture

from understudy.data.card import Card
from understudy.data.knowledge import (
    caption_column,
    captions_column,
    embedding_config,
    embedding_type,
    encode_embeddings,
    encode_topk,
    feature_column,
    fixed_list,
    image_column,
    text_column,
    topk_column,
    topk_type,
    view_column,
)
from understudy.data.store import Store
from understudy.data.view_config import ViewConfig
from understudy.data.views import ViewPipeline

ROWS, VIEWS, CAPTIONS, CLASSES, K, SIDE = 24, 3, 3, 7, 3, 30
TEACHERS = {"ta": (6, "float16"), "tb": (4, "bfloat16")}
CONFIG = ViewConfig(size=16, transforms={"random_resized_crop": {}, "rand_augment": {}})
MIXING = ViewConfig(
    size=16, transforms={"random_resized_crop": {}, "mixup": {"p": 1.0, "div_by": 1.0}}
)


class WordCounter:
    """A tokenizer of six ids that counts what it cuts; picklable."""

    def __init__(self, context: int = 6) -> None:
        self.context, self.num_truncated = context, 0

    def __call__(self, texts: list[str]) -> np.ndarray:
        out = np.zeros((len(texts), self.context), np.int64)
        for i, text in enumerate(texts):
            words = text.split()
            self.num_truncated += len(words) > self.context
            ids = [int("".join(c for c in w if c.isdigit()) or 0) + 1 for w in words]
            out[i, : len(ids)] = ids[: self.context]
        return out

    def fingerprint(self) -> str:
        return f"words-{self.context}"


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def embedding(teacher: str, kind: str, place: int, rows: np.ndarray) -> np.ndarray:
    """Return what a teacher said of rows: unit vectors that name everything they depend on."""
    dim = TEACHERS[teacher][0]
    draws = [
        np.random.default_rng([sum(map(ord, teacher + kind)), place, int(r)]).normal(size=dim)
        for r in rows
    ]
    return unit(np.array(draws).reshape(len(rows), dim))


def probabilities(view: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    draws = [np.random.default_rng([view, int(r)]).dirichlet(np.ones(CLASSES)) for r in rows]
    p = np.array(draws)
    ids = np.argsort(-p, axis=1)[:, :K]
    return np.take_along_axis(p, ids, 1), ids


def image(row: int) -> np.ndarray:
    return picture(SIDE, SIDE + row % 3, row)


def caption(row: int, s: int) -> str:
    words = f"row {row} caption {s}"
    return words if s < 2 else f"{words} with far too many words"


def payload(rows: int = ROWS) -> dict[str, list]:
    return {
        "id": [f"sample-{r}" for r in range(rows)],
        "image": [encoded(image(r)) for r in range(rows)],
        "text": [
            f"text {r}" if r % 5 else f"text {r} is much too long a caption" for r in range(rows)
        ],
        "label": [r % CLASSES for r in range(rows)],
        "extra": ["x" * 100] * rows,
    }


def fill(store: Store, column: str, values: pa.Array, config: dict, **more) -> None:
    """Write one knowledge column of rows 0 to len(values) - 1."""
    card = Card(column=column, writer="test", config=config, **more)
    rows = np.arange(len(values)) if len(values) < store.num_rows else None
    with store.job([card], {column: values.type}, rows=rows) as job:
        for part in job.todo():
            job.write(part, {column: values[part.start : part.stop]})


def fill_views(store: Store, config: ViewConfig, name: str = "main", count: int = VIEWS) -> None:
    pipeline = ViewPipeline(config)
    rows = np.arange(store.num_rows)
    sizes = np.array([image(r).shape[:2] for r in rows])
    for k in range(count):
        seeds = rows + 1000 * k
        partners = None
        if config.mixes:
            chosen = pipeline.draw_partners(seeds, len(rows), rows)
            partners = (chosen, sizes[chosen])
        params = pipeline.sample(sizes, seeds, partners)
        fill(
            store,
            view_column(name, k),
            fixed_list(pipeline.pack(params)),
            {**config.to_dict(), "set": name, "k": k},
            backend=pipeline.backend,
        )


def make_store(path: Path) -> Store:
    """Create the store with every kind of knowledge column."""
    store = Store.create(path, [payload()])
    rows = np.arange(ROWS)
    fill_views(store, CONFIG)
    fill_views(store, MIXING, "mixed", 1)
    texts = pa.array([[caption(r, s) for s in range(CAPTIONS)] for r in rows])
    fill(store, captions_column("coca"), texts, {})
    for teacher, (dim, dtype) in TEACHERS.items():
        config = embedding_config([dim], dtype)
        more = {"fingerprint": f"hash-{teacher}"}
        for k in range(VIEWS):
            values = encode_embeddings(embedding(teacher, "view", k, rows), dtype)
            column = image_column(teacher, "main", k)
            fill(store, column, values, {**config, "set": "main", "k": k}, **more)
        values = encode_embeddings(embedding(teacher, "text", 0, rows), dtype)
        fill(store, text_column(teacher), values, config, **more)
        for s in range(CAPTIONS):
            values = encode_embeddings(embedding(teacher, "caption", s, rows), dtype)
            assert values.type == embedding_type([dim], dtype)
            fill(store, caption_column(teacher, "coca", s), values, config, **more)
    for k in range(VIEWS):
        values = encode_topk(*probabilities(k, rows))
        assert values.type == topk_type(K)
        config = {"k": K, "set": "main", "view": k, "classes": CLASSES}
        fill(store, topk_column("ens", "main", k), values, config)
    features = np.arange(ROWS * 5, dtype=np.float32).reshape(ROWS, 5)
    column = feature_column("enc", "image")
    fill(store, column, encode_embeddings(features), embedding_config([5]), fingerprint="hash-enc")
    return store


class Deadly:
    """A field that ends the process that makes it."""

    keys = ("dead",)
    columns: tuple[str, ...] = ()

    def bind(self, binding: object) -> Deadly:
        return self

    def wants(self, plan: object) -> list:
        return []

    def make(self, plan: object, got: list) -> dict:
        import os

        os._exit(3)

    def describe(self) -> dict:
        return {}
