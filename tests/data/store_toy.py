"""A small store and a column for it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from understudy.data.card import Card
from understudy.data.knowledge import embedding_config, embedding_type, encode_embeddings
from understudy.data.store import Store

N, SIZE = 50, 4
VECTORS = np.random.default_rng(0).standard_normal((N, SIZE)).astype(np.float16)


def rows(start: int = 0, stop: int = N, step: int = 20) -> Iterator[dict[str, list]]:
    """Yield batches of rows [start, stop)."""
    for a in range(start, stop, step):
        part = range(a, min(a + step, stop))
        yield {
            "id": [f"s{i}" for i in part],
            "image": [bytes([i % 256]) * (i % 7) for i in part],
            "split": ["train" if i % 5 else "test" for i in part],
            "label": [i % 3 for i in part],
        }


def card(column: str = "t.text", **fields) -> Card:
    """Return a card of embeddings."""
    return Card(**{"column": column, "writer": "t", "config": embedding_config([SIZE]), **fields})


def fill(store: Store, column: str = "t.text", values: np.ndarray = VECTORS, **options) -> Store:
    """Fill a column and return the store."""
    with store.job([card(column)], {column: embedding_type([SIZE])}, **options) as job:
        for unit in job.todo():
            job.write(unit, {column: encode_embeddings(values[unit.start : unit.stop])})
    return store
