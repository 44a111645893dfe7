"""The tasks of MinHash deduplication."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from understudy.core.files import read_json
from understudy.curate.dedup.components import components
from understudy.curate.dedup.copies import texts_of, weights_of, write_verdicts
from understudy.curate.dedup.exact import prefix_range
from understudy.curate.dedup.minhash import band_keys, shingles, signatures
from understudy.curate.dedup.words import segmented
from understudy.curate.engine.units import read_pages

BUCKET_LIMIT = 1_000
"""Of more documents with one key, each is compared with the first and its neighbour only."""


def sign(
    out: Path,
    folder: str,
    hash: str,
    ngram: int,
    letters: bool,
    bands: int,
    rows: int,
    seed: int,
    sets: bool,
) -> dict[str, Any]:
    """Write a unit's band keys, sorted within each band, and facts of its documents (a task)."""
    keys, numbers, weights, lengths = [np.zeros((bands, 0), np.uint64)], [], [], []
    members: list[np.ndarray] = []
    sizes: list[np.ndarray] = []
    done = 0
    for batch in read_pages(folder):
        texts = texts_of(batch)
        weights.append(weights_of(batch))
        lengths.append(np.array([len(t) for t in texts], np.int64))
        found, owner = _batch_shingles(texts, ngram, letters)
        starts = np.flatnonzero(np.diff(owner, prepend=-1))
        signature = signatures(found, starts, bands * rows, seed)
        keys.append(band_keys(signature, bands, rows))
        numbers.append(done + owner[starts])
        if sets:
            unique, count = _unique(found, owner)
            members.append(unique)
            sizes.append(np.bincount(count, minlength=len(texts)))
        done += batch.num_rows
    found = np.concatenate(keys, axis=1)
    number = np.concatenate([*numbers, np.zeros(0, np.int64)])
    order = np.argsort(found, axis=1, kind="stable")
    np.save(out / "keys.npy", np.take_along_axis(found, order, 1))
    np.save(out / "rows.npy", number[order].astype(np.uint32))
    np.save(out / "weights.npy", np.concatenate([*weights, np.zeros(0, np.int64)]))
    np.save(out / "lengths.npy", np.concatenate([*lengths, np.zeros(0, np.int64)]))
    if sets:
        np.save(out / "members.npy", np.concatenate([*members, np.zeros(0, np.uint64)]))
        np.save(out / "ends.npy", np.cumsum(np.concatenate([*sizes, np.zeros(0, np.int64)])))
    return {"rows": done, "signed": len(number)}


def _batch_shingles(texts: list[str], ngram: int, letters: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the shingles of texts, uint64 [G], and the text of each, int64 [G] ascending."""
    found, owner = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for words in segmented(texts):
        hashes, text = shingles(words, ngram, letters)
        found.append(hashes)
        owner.append(text + np.int64(words.first))
    return np.concatenate(found), np.concatenate(owner)


def _unique(hashes: np.ndarray, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each document's shingles in ascending order without equals, and their documents."""
    order = np.lexsort((hashes, owner))
    hashes, owner = hashes[order], owner[order]
    new = np.ones(len(hashes), bool)
    new[1:] = (hashes[1:] != hashes[:-1]) | (owner[1:] != owner[:-1])
    return hashes[new], owner[new]


def match(
    out: Path, index: Mapping[str, str], bands: list[int], part: int, parts: int, all_pairs: bool
) -> dict[str, Any]:
    """Write pairs of documents that share a key of some bands (a task)."""
    units = [
        (
            np.load(Path(e["folder"]) / "keys.npy", mmap_mode="r"),
            np.load(Path(e["folder"]) / "rows.npy", mmap_mode="r"),
            e["start"],
        )
        for e in read_json(index["path"])
    ]
    found = np.zeros((0, 2), np.int64)
    large = 0
    for band in bands:
        keys, rows = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
        for unit_keys, unit_rows, start in units:
            here = prefix_range(unit_keys[band], part, parts)
            keys.append(np.array(unit_keys[band][here]))
            rows.append(unit_rows[band][here] + np.int64(start))
        key, row = np.concatenate(keys), np.concatenate(rows)
        # units come in order, so a stable sort leaves the first document first
        order = np.argsort(key, kind="stable")
        key, row = key[order], row[order]
        pairs, many = _pairs(key, row, all_pairs)
        found = unique_pairs(np.concatenate([found, pairs])) if len(pairs) else found
        large += many
    np.save(out / "pairs.npy", found)
    return {"pairs": len(found), "large_buckets": large}


def _pairs(key: np.ndarray, row: np.ndarray, all_pairs: bool) -> tuple[np.ndarray, int]:
    """Return pairs [P, 2], the smaller number first, of documents with equal sorted keys."""
    new = np.ones(len(key), bool)
    new[1:] = key[1:] != key[:-1]
    first = np.flatnonzero(new)
    head = first[np.cumsum(new) - 1] if len(key) else first
    other = np.flatnonzero(~new)
    found = [np.stack([row[head[other]], row[other]], 1)]
    if not all_pairs:
        return found[0], 0
    found.append(np.stack([row[other - 1], row[other]], 1))
    size = np.diff(np.append(first, len(key)))
    wide = (size > 2) & (size <= BUCKET_LIMIT)
    for start, count in zip(first[wide].tolist(), size[wide].tolist(), strict=True):
        left, right = np.triu_indices(count, 1)
        found.append(np.stack([row[start + left], row[start + right]], 1))
    return np.concatenate(found), int((size > BUCKET_LIMIT).sum())


def unique_pairs(pairs: np.ndarray) -> np.ndarray:
    """Return pairs [P, 2] in ascending order without equals."""
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    new = np.ones(len(pairs), bool)
    new[1:] = (pairs[1:] != pairs[:-1]).any(1)
    return pairs[new]


def _load_pairs(pairs: Mapping[str, str]) -> np.ndarray:
    loaded = [np.load(Path(e["folder"]) / "pairs.npy") for e in read_json(pairs["path"])]
    return np.concatenate([*loaded, np.zeros((0, 2), np.int64)])


def verify(
    out: Path,
    index: Mapping[str, str],
    pairs: Mapping[str, str],
    part: int,
    parts: int,
    jaccard: float,
) -> dict[str, Any]:
    """Write the pairs whose exact Jaccard similarity reaches a threshold (a task)."""
    units = read_json(index["path"])
    starts = np.array([u["start"] for u in units], np.int64)
    members = [np.load(Path(u["folder"]) / "members.npy", mmap_mode="r") for u in units]
    ends = [np.load(Path(u["folder"]) / "ends.npy", mmap_mode="r") for u in units]

    def shingle_set(document: int) -> np.ndarray:
        unit = int(np.searchsorted(starts, document, "right")) - 1
        row = document - int(starts[unit])
        return members[unit][ends[unit][row - 1] if row else 0 : ends[unit][row]]

    loaded = _load_pairs(pairs)
    mine = unique_pairs(loaded[loaded[:, 0] % parts == part])
    kept = np.zeros(len(mine), bool)
    for number, (a, b) in enumerate(mine.tolist()):
        left, right = shingle_set(a), shingle_set(b)
        both = len(np.intersect1d(left, right, assume_unique=True))
        kept[number] = both >= jaccard * (len(left) + len(right) - both)
    np.save(out / "pairs.npy", mine[kept])
    return {"candidates": len(mine), "pairs": int(kept.sum())}


def cluster(
    out: Path, index: Mapping[str, str], pairs: Mapping[str, str], longest: bool
) -> dict[str, Any]:
    """Write the verdict on all documents: connected components of the pairs (a task)."""
    loaded = _load_pairs(pairs)
    nodes, roots = components(loaded[:, 0], loaded[:, 1])
    _, group = np.unique(roots, return_inverse=True)
    units = read_json(index["path"])
    weight, length = _facts(units, nodes, "weights"), _facts(units, nodes, "lengths")
    # the first of the order within each group stands for it
    order = np.lexsort((nodes, -length if longest else nodes, group))
    new = np.ones(len(nodes), bool)
    new[1:] = np.diff(group[order]) > 0
    heads = nodes[order][new]
    total = np.bincount(group, weights=weight, minlength=1).astype(np.int64)
    write_verdicts(out, nodes, heads[group], total[group])
    return {"documents": len(nodes), "clusters": len(heads)}


def _facts(units: list[dict[str, Any]], nodes: np.ndarray, name: str) -> np.ndarray:
    """Return a fact of some documents, whose numbers ascend, from the units that hold them."""
    found = np.zeros(len(nodes), np.int64)
    for unit in units:
        here = slice(*np.searchsorted(nodes, [unit["start"], unit["start"] + unit["rows"]]))
        if here.start < here.stop:
            values = np.load(Path(unit["folder"]) / f"{name}.npy", mmap_mode="r")
            found[here] = values[nodes[here] - unit["start"]]
    return found
