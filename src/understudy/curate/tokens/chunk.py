"""Concatenate and chunk: documents laid end to end and cut into rows of one length."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from understudy.core.errors import ConfigError


class Windows(NamedTuple):
    """Parts of documents that windows of a stream of documents hold.

    Attributes:
        document: which document, int64 [S], window after window.
        start: place of the part in its document, int64 [S].
        size: tokens of the part, int64 [S].
        counts: parts of each window, int64 [R].
    """

    document: np.ndarray
    start: np.ndarray
    size: np.ndarray
    counts: np.ndarray


class Chunks(NamedTuple):
    """Rows of a stream of documents.

    Attributes:
        rows: the parts of documents in each row.
        rest: the parts of documents after the last row; no window where there are none.
    """

    rows: Windows
    rest: Windows


def chunk(lengths: np.ndarray, context: int, *, overlap: int = 0) -> Chunks:
    """Cut a stream of documents into rows of `context` + 1 tokens.

    Args:
        lengths: tokens of each document in order, int [N].
        context: input tokens of a row; one more is stored, the last target.
        overlap: 0: the next row starts after the whole row, as in arXiv 2406.11794 (2,049-token
            sequences). 1: the last target of a row is the first input of the next.

    Raises:
        ConfigError: no context, or another overlap.
    """
    if context < 1:
        raise ConfigError(f"chunk context: expected at least 1, got {context}.")
    if overlap not in (0, 1):
        raise ConfigError(f"chunk overlap: expected 0 or 1, got {overlap}.")
    ends = np.cumsum(np.asarray(lengths, np.int64))
    total = int(ends[-1]) if len(ends) else 0
    size, stride = context + 1, context + 1 - overlap
    rows = (total - size) // stride + 1 if total >= size else 0
    start = np.arange(rows, dtype=np.int64) * stride
    used = rows * stride
    # with an overlap, one token that is left was the last target already
    rest = np.array([used] if total - used > (overlap if rows else 0) else [], np.int64)
    return Chunks(
        windows(ends, start, start + size), windows(ends, rest, np.full(len(rest), total))
    )


def windows(ends: np.ndarray, start: np.ndarray, stop: np.ndarray) -> Windows:
    """Return the parts of documents inside of windows of a stream.

    Args:
        ends: where each document ends in the stream, ascending, int64 [N].
        start: first place of each window, int64 [R].
        stop: place after its last, int64 [R].
    """
    first = np.searchsorted(ends, start, "right")  # the document that holds the first token
    last = np.searchsorted(ends, stop, "left")  # the one that holds the last token
    counts = last - first + 1
    window = np.repeat(np.arange(len(start)), counts)
    document = np.arange(len(window)) - (np.cumsum(counts) - counts - first)[window]
    begins = ends - np.diff(ends, prepend=0)
    low = np.maximum(begins[document], start[window])
    high = np.minimum(ends[document], stop[window])
    # a document without tokens would be an empty part
    kept = high > low
    counts = np.bincount(window[kept], minlength=len(start))
    return Windows(document[kept], (low - begins[document])[kept], (high - low)[kept], counts)
