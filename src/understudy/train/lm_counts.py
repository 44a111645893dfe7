"""Batches of documents that come exactly counted times: spans of a stream to ids and targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from understudy.data.sampler_counts import CountSampler
from understudy.data.tokens import TokenStore


class CountLoader:
    """The batches of a `CountSampler` over a token store of documents.

    Each yields `ids` and `targets` int64 [B, context], `segments` int32 [B, context] (which
    document of its row a token belongs to) and `tokens_seen`, `unique_tokens_seen`.

    Args:
        tokens: one row a document.
        sampler: whose rows are the store's.
    """

    def __init__(self, tokens: TokenStore, sampler: CountSampler) -> None:
        self.tokens, self.sampler = tokens, sampler

    def describe(self) -> dict[str, Any]:
        """Return what identifies the batches: the sampler's stream and the documents."""
        return {**self.sampler.describe(), "fingerprint": self.tokens.fingerprint}

    def __call__(self, start: int, count: int) -> Iterator[Mapping[str, Any]]:
        """Yield `count` batches from number `start` on."""
        for step in range(start, start + count):
            yield self.batch(step)

    def batch(self, step: int) -> dict[str, Any]:
        """Return one batch."""
        spans = self.sampler.spans(step)
        rows = sorted({span.row for line in spans for span in line})
        documents = dict(zip(rows, self.tokens.take(np.array(rows, np.int64)), strict=True))
        shape = (len(spans), self.sampler.context + 1)
        tokens, segments = np.empty(shape, np.int64), np.empty(shape, np.int32)
        for i, line in enumerate(spans):
            at = 0
            for number, span in enumerate(line):
                stop = at + span.stop - span.start
                tokens[i, at:stop] = documents[span.row][span.start : span.stop]
                segments[i, at:stop] = number
                at = stop
        seen = self.sampler.seen(step)
        return {
            "ids": torch.from_numpy(tokens[:, :-1].copy()),
            "targets": torch.from_numpy(tokens[:, 1:].copy()),
            "segments": torch.from_numpy(segments[:, :-1].copy()),
            "tokens_seen": seen["tokens"],
            "unique_tokens_seen": seen["unique_tokens"],
        }
