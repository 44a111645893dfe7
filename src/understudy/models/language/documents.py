"""Attention inside documents: several documents in a row, none of which sees another.

`segments` int [rows, length] holds a document's number at each of its places. Neighbouring places
of one number are one document; positions restart with each. What a row's places compute is then
what the documents would compute alone.

Three ways give the same numbers: a mask for PyTorch's attention, the documents one by one (work
and memory grow with their own lengths, so it is the cheapest where launching costs little), and
FlexAttention, which skips the masked blocks on an accelerator.
"""

from __future__ import annotations

from functools import cache, cached_property
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from understudy.core.config import check_choice
from understudy.core.errors import DataError

Heads = Float[Tensor, "rows heads length width"]
Mask = Bool[Tensor, "rows 1 length length"]
Way = Literal["auto", "mask", "split", "flex"]
WAYS = ("auto", "mask", "split", "flex")


def document_runs(segments: Int[Tensor, "rows length"]) -> Int[Tensor, "rows length"]:
    """Return the number of each place's document in its row, from 0, in order, int64."""
    fresh = torch.zeros_like(segments, dtype=torch.int64)
    fresh[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return fresh.cumsum(1)


def document_positions(segments: Int[Tensor, "rows length"]) -> Int[Tensor, "rows length"]:
    """Return each place's position in its own document, from 0, int64."""
    places = torch.arange(segments.shape[1], device=segments.device).expand(segments.shape)
    starts = torch.zeros_like(places)
    fresh = segments[:, 1:] != segments[:, :-1]
    starts[:, 1:] = torch.where(fresh, places[:, 1:], 0)
    return places - starts.cummax(1).values


def document_mask(
    segments: Int[Tensor, "rows length"],
) -> Mask:
    """Return which keys each query sees: itself and earlier places of its own document."""
    runs = document_runs(segments)
    same = runs[:, :, None] == runs[:, None, :]
    return same.tril()[:, None]


class Documents:
    """How attention is computed for one batch of rows; made once and used by every layer.

    Args:
        segments: document number of each place.
        way: `"mask"`, `"split"` or `"flex"` (which is `"split"` where FlexAttention does not run:
            with gradients on the processor); `"auto"` takes `"flex"` on CUDA and `"split"`
            elsewhere.

    Raises:
        DataError: segments of another shape.
    """

    def __init__(self, segments: Int[Tensor, "rows length"], way: Way = "auto") -> None:
        check_choice(way, WAYS, "documents")
        if segments.ndim != 2:
            raise DataError(
                f"segments: expected [rows, length], got {list(segments.shape)}; give a document "
                "number for each token."
            )
        if way == "auto":
            way = "flex" if segments.device.type == "cuda" else "split"
        self.way, self.segments = way, segments
        self.positions = document_positions(segments)

    @cached_property
    def _mask(self) -> Mask:
        return document_mask(self.segments)

    @cached_property
    def _blocks(self) -> Any:
        return _block_mask(document_runs(self.segments))

    @cached_property
    def _pieces(self) -> list[tuple[Tensor | None, int, int]]:
        """Documents by length, (places, count, length): those of one length share a call."""
        starts = (self.positions == 0).flatten().nonzero()[:, 0]
        ends = torch.cat([starts[1:], starts.new_tensor([self.positions.numel()])])
        lengths = ends - starts
        order = lengths.argsort(stable=True)
        sizes, counts = lengths[order].unique_consecutive(return_counts=True)
        if len(sizes) == 1:  # all of one length: the places are in order already
            return [(None, int(counts[0]), int(sizes[0]))]
        pieces: list[tuple[Tensor | None, int, int]] = []
        for size, first in zip(sizes.tolist(), starts[order].split(counts.tolist()), strict=True):
            places = first[:, None] + torch.arange(size, device=first.device)
            pieces.append((places.flatten(), len(first), size))
        return pieces

    def __call__(self, query: Heads, key: Heads, value: Heads) -> Heads:
        """Return what attention finds; keys and values have as many heads as queries."""
        if self.way == "mask":
            return F.scaled_dot_product_attention(query, key, value, attn_mask=self._mask)
        if self.way == "flex" and (query.device.type == "cuda" or not query.requires_grad):
            return _flex(query.device.type)(query, key, value, block_mask=self._blocks)
        flat = [part.transpose(1, 2).flatten(0, 1) for part in (query, key, value)]
        found = torch.cat([self._one_length(flat, *piece) for piece in self._pieces])
        if len(self._pieces) > 1:
            back = torch.cat([places for places, *_ in self._pieces if places is not None])
            found = torch.empty_like(found).index_copy(0, back, found)
        return found.unflatten(0, self.segments.shape).transpose(1, 2)

    @staticmethod
    def _one_length(
        flat: list[Tensor], places: Tensor | None, count: int, size: int
    ) -> Float[Tensor, "tokens heads width"]:
        parts = [part if places is None else part.index_select(0, places) for part in flat]
        query, key, value = (part.unflatten(0, (count, size)).transpose(1, 2) for part in parts)
        found = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return found.transpose(1, 2).flatten(0, 1)


def _block_mask(runs: Int[Tensor, "rows length"]) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    def seen(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (runs[row, query] == runs[row, key])

    rows, length = runs.shape
    return create_block_mask(seen, rows, None, length, length, device=str(runs.device))


@cache
def _flex(device: str) -> Any:
    """Return FlexAttention, compiled where that gives its kernels; elsewhere it runs as written."""
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False) if device == "cuda" else flex_attention
