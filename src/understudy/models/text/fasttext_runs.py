"""Runs: many short lists of numbers as one array and the length of each list."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def run_sums(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the int64 sums of runs of `values`, `counts[i]` of them each."""
    total = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
    stops = np.cumsum(counts)
    return total[stops] - total[stops - counts]


def places(counts: np.ndarray) -> np.ndarray:
    """Return 0..c-1 for each c of `counts`, one after the other."""
    return np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)


def merge_runs(groups: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Join several groups of runs item by item: (values, counts) each, to one (values, counts)."""
    if len(groups) == 1:
        return groups[0]
    counts = np.add.reduce([c for _, c in groups]).astype(np.int64)
    out = np.empty(int(counts.sum()), np.int64)
    start = np.cumsum(counts) - counts
    for values, own in groups:
        out[np.repeat(start, own) + places(own)] = values
        start = start + own
    return out, counts


def select_runs(
    values: np.ndarray, counts: np.ndarray, order: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the runs with the numbers `order`, in that order, as (values, counts)."""
    starts = (np.cumsum(counts) - counts)[order]
    chosen = counts[order]
    return values[np.repeat(starts, chosen) + places(chosen)], chosen
