"""What a map is worth on pairs that it never saw, and what is wrong with the pairs themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from understudy.core.seeds import seed_for
from understudy.update.pairs import Pairs
from understudy.update.vector_checks import Norms, check_vectors

PAIRS_PER_DIM = 10
Transform = Callable[[np.ndarray, np.ndarray | None], np.ndarray]


@dataclass(frozen=True, slots=True)
class MapScore:
    """How far mapped vectors are from new ones.

    Attributes:
        mse: squared distance, mean over items and dimensions.
        r2: share of the new vectors' variance that is explained; 0 is what their mean reaches.
            NaN if they do not vary.
        count: pairs scored.
    """

    mse: float
    r2: float
    count: int


def split_items(pairs: Pairs, held_out: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (items to learn from, items to score), both ascending.

    Which items are held out follows from seed and ids, not from their order or neighbours.

    Args:
        pairs: all pairs.
        held_out: share to score.
        seed: of the choice.
    """
    count = round(held_out * len(pairs))
    if held_out and len(pairs) > 2:
        count = min(max(count, 1), len(pairs) - 2)
    if not count:
        return np.arange(len(pairs)), np.empty(0, np.int64)
    mixed = pairs.id_hashes ^ np.uint64(seed_for("held-out pairs", seed))
    mixed *= np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    scored = np.zeros(len(pairs), bool)
    scored[np.argsort(mixed, kind="stable")[:count]] = True
    return np.flatnonzero(~scored), np.flatnonzero(scored)


def score(transform: Transform, pairs: Pairs, items: np.ndarray) -> MapScore:
    """Score a map on some items, a few thousand at a time.

    Args:
        transform: `transform(old, side) -> mapped vectors`.
        pairs: where vectors are.
        items: which to score.
    """
    error, squares, total = 0.0, 0.0, np.zeros(pairs.new.dim)
    for _, vectors in pairs.parts(items):
        new = vectors["new"].astype(np.float64)
        z = transform(vectors["old"], vectors.get("side"))
        error += float(((z - new) ** 2).sum())
        squares += float((new**2).sum())
        total += new.sum(0)
    count = max(len(items), 1)
    variance = squares - float((total**2).sum()) / count
    r2 = 1 - error / variance if variance > 1e-12 * squares else float("nan")
    return MapScore(error / (count * pairs.new.dim), r2, len(items))


def check_pairs(pairs: Pairs) -> tuple[dict[str, dict], list[str]]:
    """Read all vectors once; return their lengths by field, and sentences on what is odd.

    Raises:
        DataError: vectors that are NaN, infinite or all zero; the items are named.
    """
    norms = {name: Norms() for name in pairs.fields}
    for items, vectors in pairs.parts(np.arange(len(pairs))):
        for name, values in vectors.items():

            def names(places: np.ndarray, items: np.ndarray = items) -> list[str]:
                return pairs.names(items[places])

            norms[name].add(check_vectors(values, names, f"{pairs.source}, {name}"))
    odd = []
    for name, found in norms.items():
        column = pairs.columns.get(name, name)
        if found.mixed():
            odd.append(
                f"{name} vectors ({column}): {found.unit_share:.0%} have length 1 and the others "
                "have not: normalised and other vectors are mixed; encode them in one way."
            )
        elif pairs.spaces[name].normalised and found.unit_share < 0.5:
            odd.append(
                f"{name} vectors ({column}): their space says that they are normalised, but their "
                f"mean length is {found.total / max(found.count, 1):.4g}."
            )
    return {name: found.describe() for name, found in norms.items()}, odd


def judge(score: MapScore | None, learned: int, dim: int) -> list[str]:
    """Return sentences on a score that should worry, and on too few pairs.

    Args:
        score: of held-out pairs; None if none were held out.
        learned: pairs that were learned from.
        dim: width of the new vectors.
    """
    found = []
    known = "no pairs were held out to score it"
    if score is not None:
        known = f"held-out MSE {score.mse:.4g}, R^2 {score.r2:.3f}"
    if learned < PAIRS_PER_DIM * dim:
        found.append(
            f"the map was learned from {learned:,} pairs, fewer than {PAIRS_PER_DIM} for each of "
            f"{dim} dimensions ({known}); encode more items with both models."
        )
    if score is None:
        found.append("no pairs were held out: nothing says how good the map is; set held_out.")
    elif not score.r2 > 0:
        found.append(
            f"held-out R^2 is {score.r2:.3f} (MSE {score.mse:.4g}): the map is no better than the "
            "mean of the new vectors; check that the pairs belong together, or train longer."
        )
    return found


def overlap(pairs: Pairs, learned: np.ndarray, other: Pairs) -> list[str]:
    """Return a sentence if pairs that were learned from are among those that are scored.

    Args:
        pairs: all pairs.
        learned: items that are learned from.
        other: pairs that are scored.
    """
    scored = other.id_hashes
    shared = np.flatnonzero(np.isin(scored, pairs.id_hashes[learned]))
    if not len(shared):
        return []
    return [
        f"{len(shared):,} of {len(other):,} pairs to score are also learned from, the first is "
        f"'{other.name(int(shared[0]))}': the score will be better than the map; take them out."
    ]
