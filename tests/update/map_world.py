"""Two spaces of the same items, a store of both, and a map between them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from understudy.data.card import Card
from understudy.data.knowledge import embedding_config, encode_embeddings
from understudy.data.spaces import Space
from understudy.data.store import Store
from understudy.update.fit import fit_map
from understudy.update.fit_config import FitConfig
from understudy.update.maps import CompatibleMap
from understudy.update.pairs import pairs_of_store

N, OLD_DIM, NEW_DIM, SIDE_DIM, CLASSES = 300, 6, 5, 3, 4
OLD = Space(model="old", fingerprint="aa", dim=OLD_DIM)
NEW = Space(model="new", fingerprint="bb", dim=NEW_DIM)
SIDE = Space(model="psi", fingerprint="cc", dim=SIDE_DIM)


def vectors(seed: int = 0, n: int = N) -> dict[str, np.ndarray]:
    """Return old, new and side vectors and labels of items that have classes."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, CLASSES, n)
    centres = np.random.default_rng(1).normal(size=(CLASSES, 8))
    x = centres[labels] + 0.5 * draw.normal(size=(n, 8))
    turn = np.random.default_rng(2)
    return {
        "old": np.tanh(x @ turn.normal(size=(8, OLD_DIM))).astype(np.float32),
        "new": (x @ turn.normal(size=(8, NEW_DIM))).astype(np.float32),
        "side": (x @ turn.normal(size=(8, SIDE_DIM))).astype(np.float32),
        "labels": labels,
    }


def put(store: Store, column: str, space: Space, values: np.ndarray, rows=None, **card) -> None:
    """Write an index column of rows of `values`."""
    config = {**embedding_config([space.dim], "float32"), "space": space.to_dict()}
    made = Card(
        column=column, writer=space.model, fingerprint=space.fingerprint, config=config, **card
    )
    with store.job([made], {column: pa.list_(pa.float32(), space.dim)}, rows=rows) as job:
        for unit in job.todo():
            job.write(unit, {column: encode_embeddings(values[job.rows(unit)], "float32")})


def make_store(path: Path, n: int = N, seed: int = 0, side: bool = True) -> Store:
    """Make a store with `embed.old`, `embed.new`, `embed.psi` and labels."""
    made = vectors(seed, n)
    rows = {"id": [f"i{k}" for k in range(n)], "label": pa.array(made["labels"])}
    store = Store.create(path, [pa.table(rows)], meta={"classes": list("abcd")})
    put(store, "embed.old", OLD, made["old"])
    put(store, "embed.new", NEW, made["new"])
    if side:
        put(store, "embed.psi", SIDE, made["side"])
    return store


def quick(**changes) -> FitConfig:
    """Return a fit that takes a moment."""
    return FitConfig(
        **{"inner": 32, "epochs": 6, "warmup_epochs": 1, "batch_size": 64, "lr": 5e-3, **changes}
    )


def make_map(store: Store, out: Path, side: str = "", **changes) -> CompatibleMap:
    """Fit a map on a store's columns."""
    pairs = pairs_of_store(store, "embed.old", "embed.new", side=side, labels="label")
    found = fit_map(pairs, quick(**changes), out).map
    assert found is not None
    return found
