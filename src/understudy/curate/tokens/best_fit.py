"""Best-fit-decreasing packing: pieces of documents fitted into rows with little left over.

Documents are cut to pieces of at most a row, sorted by length, and each is put into the fullest
open row where it fits (arXiv 2404.10830). What attends to what is the mask's business: the lengths
of the pieces in a row are its segments.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from understudy.core.errors import ConfigError


class Packed(NamedTuple):
    """Pieces fitted into rows.

    Attributes:
        document: which document, int64 [P], in the order of rows and in a row as they were put.
        start: place of the piece in its document, int64 [P].
        size: tokens of the piece, int64 [P].
        row: its row, int64 [P], ascending.
        rows: how many rows there are.
    """

    document: np.ndarray
    start: np.ndarray
    size: np.ndarray
    row: np.ndarray
    rows: int


def best_fit(lengths: np.ndarray, capacity: int) -> np.ndarray:
    """Return the row of each piece, int64 [N]; pieces of no length are refused.

    Rows are kept by how much room they have, and a bit set says for which amounts of room there is
    one, so that the fullest row where a piece fits is the lowest bit from its length on. A piece
    costs O(capacity / 64) word operations at most, after sorting.

    Args:
        lengths: tokens of each piece, 1 to `capacity`, int [N].
        capacity: tokens of a row.

    Raises:
        ConfigError: a piece is longer than a row, or empty.
    """
    lengths = np.asarray(lengths, np.int64)
    if len(lengths) and not 1 <= int(lengths.min()) <= int(lengths.max()) <= capacity:
        raise ConfigError(
            f"best_fit: pieces of {int(lengths.min())} to {int(lengths.max())} tokens for rows of "
            f"{capacity}; cut them first."
        )
    order = np.argsort(-lengths, kind="stable")
    rows = np.empty(len(lengths), np.int64)
    placed: list[int] = []
    room: list[list[int]] = [[] for _ in range(capacity + 1)]
    bits, opened = 0, 0
    for length in lengths[order].tolist():
        above = bits >> length
        if above:
            free = length + (above & -above).bit_length() - 1
            row = room[free].pop()
            if not room[free]:
                bits ^= 1 << free
        else:
            row, free, opened = opened, capacity, opened + 1
        placed.append(row)
        left = free - length
        if left:
            if not room[left]:
                bits |= 1 << left
            room[left].append(row)
    rows[order] = placed
    return rows


def pack(lengths: np.ndarray, context: int) -> Packed:
    """Cut documents to pieces of at most `context` + 1 tokens and fit them into such rows.

    Args:
        lengths: tokens of each document, int [N].
        context: input tokens of a row; one more is stored, the last target.

    Raises:
        ConfigError: no context.
    """
    if context < 1:
        raise ConfigError(f"pack context: expected at least 1, got {context}.")
    capacity = context + 1
    lengths = np.asarray(lengths, np.int64)
    counts = -(-lengths // capacity)
    document = np.repeat(np.arange(len(lengths)), counts)
    number = np.arange(len(document)) - (np.cumsum(counts) - counts)[document]
    start = number * capacity
    size = np.minimum(capacity, lengths[document] - start)
    row = best_fit(size, capacity)
    order = np.argsort(row, kind="stable")
    rows = int(row.max()) + 1 if len(row) else 0
    return Packed(document[order], start[order], size[order], row[order], rows)
