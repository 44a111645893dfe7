"""Batches of documents that come exactly counted times: spans of a stream to ids and targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from understudy.data.sampler_counts import CountSampler
from understudy.train.lm_batches import TokenRows, lm_batch


class CountLoader:
    """The batches of a `CountSampler` over documents; a loader of `understudy.train.loop.fit`.

    Args:
        tokens: one row a document.
        sampler: whose rows are the store's.
        mask_documents: give document numbers, so that documents in a row do not see each other.
    """

    def __init__(
        self, tokens: TokenRows, sampler: CountSampler, *, mask_documents: bool = False
    ) -> None:
        self.tokens, self.sampler, self.mask_documents = tokens, sampler, mask_documents

    def describe(self) -> dict[str, Any]:
        """Return what identifies the batches: the sampler's stream and the documents."""
        return {
            "sampler": self.sampler.describe(),
            "tokens": self.tokens.fingerprint,
            "mask_documents": self.mask_documents,
        }

    def __call__(self, start: int, count: int) -> Iterator[Mapping[str, Any]]:
        """Yield `count` batches from number `start` on."""
        for step in range(start, start + count):
            yield self.batch(step)

    def batch(self, step: int) -> dict[str, Any]:
        """Return one batch: `ids`, `targets`, and `segments` where they apply."""
        spans = self.sampler.spans(step)
        rows = sorted({span.row for line in spans for span in line})
        documents = dict(zip(rows, self.tokens.take(np.array(rows, np.int64)), strict=True))
        lines = [
            np.concatenate([documents[span.row][span.start : span.stop] for span in line])
            for line in spans
        ]
        parts = [np.array([s.stop - s.start for s in line], np.int32) for line in spans]
        made = lm_batch(lines, parts if self.mask_documents else None)
        return {key: torch.from_numpy(value) for key, value in made.items()}
