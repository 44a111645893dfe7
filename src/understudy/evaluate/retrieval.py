"""Retrieval both ways between images and texts, in blocks: no images x texts matrix in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from understudy.core.errors import ConfigError, DataError
from understudy.evaluate.metrics import Array, median_rank, recall_at

BLOCK = 4096


def _vectors(values: Array, what: str) -> Float[Tensor, "rows dim"]:
    out = torch.as_tensor(values).float()
    if out.ndim != 2 or len(out) == 0:
        raise DataError(f"{what}: expected [rows, dim] with rows; got {list(out.shape)}.")
    bad = ~torch.isfinite(out).all(1)
    if bool(bad.any()):
        raise DataError(f"{what}: row {int(bad.int().argmax())} is not finite.")
    return out


def _ids(values: Array | None, rows: int, what: str) -> Int[Tensor, " rows"]:
    out = torch.arange(rows) if values is None else torch.as_tensor(values).long()
    if out.shape != (rows,):
        raise DataError(f"{what}: expected one id for each of {rows} rows; got {list(out.shape)}.")
    return out


def _blocks(rows: int, size: int) -> Iterator[slice]:
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def retrieval_ranks(
    queries: Array, items: Array, query_ids: Array, item_ids: Array, *, block: int = BLOCK
) -> Int[Tensor, " queries"]:
    """Return the rank (0 = first) of each query's best-ranked relevant item, by dot product.

    Query and item belong together when their ids are equal, so one id may be on several items (five
    captions an image) and on several queries. Ties go to the earlier item. At most `block` x
    `block` scores are in memory.

    Args:
        queries: [queries, dim].
        items: [items, dim].
        query_ids: [queries].
        item_ids: [items].
        block: rows of each side taken at once.

    Raises:
        DataError: widths or lengths differ, values are not finite, or a query has no item.
    """
    if block < 1:
        raise ConfigError(f"retrieval: block must be at least 1, got {block}.")
    left, right = _vectors(queries, "queries"), _vectors(items, "items")
    if left.shape[1] != right.shape[1]:
        raise DataError(f"queries have {left.shape[1]} dimensions, items {right.shape[1]}.")
    left_ids = _ids(query_ids, len(left), "query ids").to(left.device)
    right_ids = _ids(item_ids, len(right), "item ids").to(left.device)
    lonely = ~torch.isin(left_ids, right_ids)
    if bool(lonely.any()):
        i = int(lonely.int().argmax())
        raise DataError(f"query {i} (id {int(left_ids[i])}) has no relevant item.")
    return torch.cat(
        [
            _rank_rows(left[q], left_ids[q], right, right_ids, block)
            for q in _blocks(len(left), block)
        ]
    )


def _rank_rows(
    queries: Tensor, ids: Tensor, items: Tensor, item_ids: Tensor, block: int
) -> Int[Tensor, " queries"]:
    parts = list(_blocks(len(items), block))
    kept = queries @ items.T if len(parts) == 1 else None

    def scores(part: slice) -> Tensor:
        # The second pass must see the very numbers of the first, so the same product is repeated.
        return kept if kept is not None else queries @ items[part].T

    best = queries.new_full((len(queries), 1), -math.inf)
    place = torch.zeros(len(queries), 1, dtype=torch.int64, device=queries.device)
    for part in parts:
        relevant = ids[:, None] == item_ids[part]
        value, index = _first_max(scores(part).masked_fill(~relevant, -math.inf))
        better = value > best
        best = torch.where(better, value, best)
        place = torch.where(better, index + part.start, place)
    rank = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
    for part in parts:
        table = scores(part)
        earlier = torch.arange(part.start, part.stop, device=queries.device) < place
        rank += ((table > best) | ((table == best) & earlier)).sum(1)
    return rank


def _first_max(table: Tensor) -> tuple[Tensor, Tensor]:
    """Return (largest value, its first position), each [rows, 1]."""
    value = table.amax(1, keepdim=True)
    return value, (table == value).int().argmax(1, keepdim=True)


def retrieval_metrics(
    images: Array,
    texts: Array,
    image_of_text: Array | None = None,
    *,
    ks: Sequence[int] = (1, 5, 10),
    image_ids: Array | None = None,
    block: int = BLOCK,
) -> dict[str, float]:
    """Score retrieval in both directions (recall@K as on Flickr30k and COCO).

    Text to image: a text has found its image if that is among the first K images. Image to text: an
    image has found a text if any of its captions is among the first K texts.

    Args:
        images: unit embeddings [images, dim].
        texts: unit embeddings [texts, dim].
        image_of_text: the id of each text's image [texts]; None pairs row by row.
        ks: the K of recall@K; a K that is not below the number of candidates is left out of that
            direction (but 1 never is).
        image_ids: the ids of the images; None counts from 0. Equal ids make images
            interchangeable (copies of one picture).
        block: see `retrieval_ranks`.

    Returns:
        `t2i_r1`, `t2i_r5`, ..., `i2t_r1`, ..., `t2i_median_rank`, `i2t_median_rank` (from 1) and
        `mean_r1`, `mean_r5`, ..., the means of both directions.

    Raises:
        DataError: lengths differ, or a text without an image, or an image without a text.
    """
    left, right = _vectors(images, "images"), _vectors(texts, "texts")
    if image_of_text is None and len(left) != len(right):
        raise DataError(
            f"{len(left)} images and {len(right)} texts: say which text belongs to which image "
            "(image_of_text)."
        )
    own = _ids(image_ids, len(left), "image ids")
    owner = _ids(image_of_text, len(right), "image_of_text")
    _check_pairs(own.cpu().numpy(), owner.cpu().numpy())
    out: dict[str, float] = {}
    ways = {
        "t2i": (right, left, owner, own),
        "i2t": (left, right, own, owner),
    }
    for name, (queries, items, query_ids, item_ids) in ways.items():
        ranks = retrieval_ranks(queries, items, query_ids, item_ids, block=block)
        out |= {f"{name}_r{k}": recall_at(ranks, k) for k in ks if k == 1 or k < len(items)}
        out[f"{name}_median_rank"] = median_rank(ranks)
    for k in ks:
        if {f"t2i_r{k}", f"i2t_r{k}"} <= out.keys():
            out[f"mean_r{k}"] = (out[f"t2i_r{k}"] + out[f"i2t_r{k}"]) / 2
    return out


def _check_pairs(images: np.ndarray, owners: np.ndarray) -> None:
    for one, other, what in ((owners, images, "text"), (images, owners, "image")):
        alone = ~np.isin(one, other)
        if alone.any():
            i = int(np.argmax(alone))
            partner = "image" if what == "text" else "text"
            raise DataError(f"{what} {i} (image id {int(one[i])}) has no {partner}.")
