"""Small galleries under update, and an independent ranking, for the tests of search and serving."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
from PIL import Image

from understudy.data.knowledge import embedding_config, fixed_list
from understudy.data.spaces import Space
from understudy.data.store import Card, Store
from understudy.update.embedders import embedder_of

OLD = Space(model="v1", fingerprint="weights-v1", dim=16)
NEW_COLUMN, MAPPED_COLUMN = "embed.v2", "embed.v2.from.v1"


def fill(store, column, space, values, rows=None, *, unit_rows=64, overwrite=False):
    """Write vectors [N, D] of rows to an index column in one version."""
    config = {**embedding_config([space.dim], "float32"), "space": space.to_dict()}
    card = Card(column=column, writer=space.model, fingerprint=space.fingerprint, config=config)
    types = {column: pa.list_(pa.float32(), space.dim)}
    numbers = np.arange(store.num_rows) if rows is None else np.sort(np.asarray(rows))
    with store.job([card], types, rows=numbers, unit_rows=unit_rows, overwrite=overwrite) as job:
        for unit in job.todo():
            job.write(unit, {column: fixed_list(values[job.rows(unit)])})


def batch(first, count):
    """Return payload of rows, labels repeating 0 to 4."""
    numbers = range(first, first + count)
    return {"id": [f"item-{i}" for i in numbers], "label": [i % 5 for i in numbers]}


def vectors(num_rows, seed=0, dim=16):
    """Return (own vectors, mapped ones: near them) float32 [N, dim]."""
    rng = np.random.default_rng(seed)
    own = rng.standard_normal((num_rows, dim)).astype(np.float32)
    return own, own + 0.3 * rng.standard_normal((num_rows, dim)).astype(np.float32)


def make_store(path, num_rows=200, *, mapped_rows=None, encoded_rows=None, seed=0, fragment=90):
    """Return (store, own vectors, mapped vectors) with both columns filled where asked for."""
    own, mapped = vectors(num_rows, seed)
    store = Store.create(path, [batch(0, num_rows)], rows_per_fragment=fragment)
    fill(store, MAPPED_COLUMN, MAPPED, mapped, mapped_rows)
    if encoded_rows is not None:
        fill(store, NEW_COLUMN, NEW, own, encoded_rows)
    return store, own, mapped


class Colours:
    """Sixteen numbers of an image's mean colour, or of the letters a to p of a text."""

    tokens, dim = False, 16

    def __init__(self, modality, fingerprint="weights-v2"):
        self.name, self.hash, self.preprocess = "v2", fingerprint, {"modality": modality}

    def encode(self, batch):
        if isinstance(batch[0], str):
            rows = [[text.count(chr(97 + i)) for i in range(16)] for text in batch]
        else:
            rows = [np.resize(np.asarray(image).mean((0, 1)) + 1, 16) for image in batch]
        return np.array(rows, np.float32), None, None


def colour_embedder(modality, *, fingerprint="weights-v2", normalised=False):
    """Return the embedder of `Colours`."""
    return embedder_of(Colours(modality, fingerprint), modality, normalise=normalised)


NEW = colour_embedder("image").space
MAPPED = OLD.mapped("map-1", NEW)


def brute(query, stored, k, metric):
    """Return (rows, scores float64) of the k nearest of {row: vector}, in plain Python."""
    found = []
    q = [float(x) for x in query]
    for row, vector in stored.items():
        v = [float(x) for x in vector]
        dot = sum(a * b for a, b in zip(q, v, strict=True))
        if metric == "l2":
            score = -(sum((a - b) ** 2 for a, b in zip(q, v, strict=True)) ** 0.5)
        elif metric == "cosine":
            score = dot / (sum(a * a for a in q) ** 0.5 * sum(a * a for a in v) ** 0.5)
        else:
            score = dot
        found.append((-float(np.float32(score)), row))
    found = sorted(found)[:k]
    scores = [-s if metric != "l2" else s for s, _ in found]
    return [row for _, row in found], scores


def mean_colours(images):
    """Return float32 [B, 16]: the model `serve_toys:mean_colours`."""
    return Colours("image").encode(images)[0]


def pictures(num_rows, seed=0):
    """Return PNG files of one random colour each."""
    rng = np.random.default_rng(seed)
    files = []
    for colour in rng.integers(0, 256, (num_rows, 3)).tolist():
        out = io.BytesIO()
        Image.new("RGB", (6, 6), tuple(colour)).save(out, "PNG")
        files.append(out.getvalue())
    return files
