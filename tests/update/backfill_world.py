"""A small gallery with mapped vectors and uncertainties, and a new model to backfill it with.

Run as a script it backfills: `backfill_world.py STORE PLAN LOG PAUSE [COMMIT_ROWS]`.
"""

from __future__ import annotations

import hashlib
import sys
import time

import numpy as np
import pyarrow as pa

from understudy.core.errors import DataError
from understudy.data.card import Card
from understudy.data.knowledge import embedding_config, embedding_type, encode_embeddings
from understudy.data.spaces import Space
from understudy.data.store import Store

DIM, OLD_DIM, CLASSES = 8, 4, 6
OLD = Space(model="old", fingerprint="old-weights", dim=OLD_DIM)
NEW = Space(model="new", fingerprint="new-weights", dim=DIM)
MAPPED = OLD.mapped("map-weights", NEW)
NEW_COLUMN, MAPPED_COLUMN = "embed.new", "embed.new.from.old"


def vector_of(text):
    """What the new model says of an item: its class's place and a little of its own."""
    words = text.split()
    label = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")
    place = np.random.default_rng(label).standard_normal(DIM) * 1.5
    own = np.random.default_rng(seed).standard_normal(DIM) * 0.7
    return (place + own).astype(np.float32)


def embed_new(texts):
    """The new model as a function for `--model backfill_world:embed_new`."""
    return np.stack([vector_of(text) for text in texts])


def embed_old(texts):
    """The old model: it sees less of the same."""
    return embed_new(texts)[:, :OLD_DIM] + 0.5


class ToyEncoder:
    """The new model; writes the items of each call to a log before it returns."""

    def __init__(self, space=NEW, log=None, pause=0.0, change=None):
        self.space, self.fingerprint = space, space.fingerprint
        self.log, self.pause, self.change = log, pause, change
        self.calls = 0

    def __call__(self, items):
        self.calls += 1
        if any(item == "broken" for item in items):
            raise DataError("this text is broken.")
        if self.pause:
            time.sleep(self.pause)
        if self.log is not None:
            with open(self.log, "a") as file:
                file.write("".join(f"{item}\n" for item in items))
        vectors = np.stack([vector_of(item) for item in items])
        return vectors if self.change is None else self.change(vectors)


def write_column(store, column, space, values, rows, kind=None, config=None, **more):
    """Fill an index column (or a plain one) by a job."""
    config = config or {
        **embedding_config([space.dim], "float32"),
        "input": "text",
        "space": space.to_dict(),
    }
    card = Card(
        column=column, writer=space.model, fingerprint=space.fingerprint, config=config, **more
    )
    kind = kind or embedding_type([space.dim], "float32")
    with store.job([card], {column: kind}, rows=rows) as job:
        for unit in job.todo():
            mine = values[job.rows(unit)]
            job.write(
                unit,
                {
                    column: encode_embeddings(mine, "float32")
                    if mine.ndim == 2
                    else pa.array(mine, kind)
                },
            )


def make_world(path, rows=60, encoded=(), uncertainty=True, seed=0, rows_per_fragment=16):
    """Make the store; return it with z, n and u."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, rows)
    texts = [f"item {label} number {i}" for i, label in enumerate(labels)]
    ids = [f"s{(i * 7919) % 100_003:06d}" for i in range(rows)]
    store = Store.create(
        path,
        [{"id": ids, "text": texts, "label": labels, "brand": [f"b{x % 2}" for x in labels]}],
        rows_per_fragment=rows_per_fragment,
    )
    n = np.stack([vector_of(text) for text in texts])
    size = rng.exponential(1.0, rows)
    z = (n + rng.standard_normal(n.shape) * size[:, None]).astype(np.float32)
    u = (np.log(size) + rng.standard_normal(rows) * 0.3).astype(np.float32)
    every = np.arange(rows)
    write_column(store, MAPPED_COLUMN, MAPPED, z, every)
    if uncertainty:
        config = {"of": MAPPED_COLUMN, "space": MAPPED.to_dict()}
        write_column(store, MAPPED_COLUMN + ".u", MAPPED, u, every, pa.float32(), config)
    if len(encoded):
        write_column(store, NEW_COLUMN, NEW, n, np.asarray(encoded))
    return store, z, n, u


def main():
    from understudy.update.backfill import BackfillConfig, backfill
    from understudy.update.plan import read_plan

    path, plan, log, pause, *more = sys.argv[1:]
    config = BackfillConfig(
        input="text", encode_rows=4, commit_rows=int(more[0]) if more else 20, check_items=0
    )
    encoder = ToyEncoder(log=log, pause=float(pause))
    backfill(Store.open(path), read_plan(plan), encoder, config)


if __name__ == "__main__":
    main()
