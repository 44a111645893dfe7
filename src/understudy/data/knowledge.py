"""Knowledge columns: what they are called and how their values are stored.

| column | values |
| --- | --- |
| `view.<set>.<k>` | packed parameters of the k-th stored view, `uint8 [stride]` |
| `<teacher>.image.<set>.<k>` | that teacher's embedding of that view, `[D]` |
| `<teacher>.text` | its embedding of the sample's own text, `[D]` |
| `caption.<captioner>` | synthetic captions, a list of strings |
| `<teacher>.caption.<captioner>.<s>` | its embedding of the s-th of those captions, `[D]` |
| `<teacher>.topk.<set>.<k>` | the K largest probabilities and their class ids |
| `feature.<encoder>.<modality>` | frozen features, `[D]`, or padded tokens `[T, D]` |

Embeddings are float16, or bfloat16 kept as the 16 bits of each number (Arrow has no bfloat16). A
column is one fixed-size list, so that reading a row is arithmetic; the card's `config` holds
`dtype` and `shape`, without which the numbers cannot be read back.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import count, takewhile
from typing import Any

import numpy as np
import pyarrow as pa

from understudy.core.config import check_choice
from understudy.core.errors import CardError, DataError

DTYPES = ("float16", "bfloat16", "float32")
"""How embeddings can be stored."""


def view_column(view_set: str, k: int) -> str:
    """Return the column of the k-th stored view of a set."""
    return f"view.{view_set}.{k}"


def image_column(teacher: str, view_set: str, k: int) -> str:
    """Return the column of a teacher's embeddings of a stored view."""
    return f"{teacher}.image.{view_set}.{k}"


def text_column(teacher: str) -> str:
    """Return the column of a teacher's embeddings of the samples' own texts."""
    return f"{teacher}.text"


def captions_column(captioner: str) -> str:
    """Return the column of a captioner's captions."""
    return f"caption.{captioner}"


def caption_column(teacher: str, captioner: str, s: int) -> str:
    """Return the column of a teacher's embeddings of a captioner's s-th captions.

    Each caption has a column of its own, so that an epoch that uses one caption of a row reads no
    other.
    """
    return f"{teacher}.caption.{captioner}.{s}"


def caption_columns(there: Collection[str], teacher: str, captioner: str) -> list[str]:
    """Return the columns that there are of `caption_column`, for s = 0, 1, ... up to a gap."""
    names = (caption_column(teacher, captioner, s) for s in count())
    return list(takewhile(there.__contains__, names))


def topk_column(teacher: str, view_set: str, k: int) -> str:
    """Return the column of a teacher's largest probabilities on a stored view."""
    return f"{teacher}.topk.{view_set}.{k}"


def feature_column(encoder: str, modality: str) -> str:
    """Return the column of a frozen encoder's features of a modality ("image", "text", ...)."""
    return f"feature.{encoder}.{modality}"


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Return the bfloat16 bits `uint16` of float32 values, rounded to the nearest even.

    The relative error is at most 2^-8 (half a unit in the last of 8 places); NaN stays NaN.
    """
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    out = (rounded >> np.uint32(16)).astype(np.uint16)
    nan = np.isnan(values)
    if nan.any():
        out[nan] = np.uint16(0x7FC0)
    return out


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    """Return the float32 values of bfloat16 bits `uint16`."""
    return (np.ascontiguousarray(bits, np.uint16).astype(np.uint32) << np.uint32(16)).view(
        np.float32
    )


def _item(dtype: str) -> pa.DataType:
    check_choice(dtype, DTYPES, "embedding dtype")
    return {"float16": pa.float16(), "bfloat16": pa.uint16(), "float32": pa.float32()}[dtype]


def embedding_type(shape: Sequence[int], dtype: str = "float16") -> pa.DataType:
    """Return the Arrow type of one row's embeddings of the given shape."""
    return pa.list_(_item(dtype), int(np.prod(shape)))


def embedding_config(shape: Sequence[int], dtype: str = "float16") -> dict[str, Any]:
    """Return what a card's `config` must hold for `decode_embeddings`."""
    check_choice(dtype, DTYPES, "embedding dtype")
    return {"dtype": dtype, "shape": [int(n) for n in shape]}


def fixed_list(values: np.ndarray) -> pa.FixedSizeListArray:
    """Return `[N, size]` as an Arrow fixed-size list without copying the numbers."""
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, int(np.prod(values.shape[1:])))


def encode_embeddings(values: np.ndarray, dtype: str = "float16") -> pa.FixedSizeListArray:
    """Return embeddings `[N, *shape]` as a column of the given storage type.

    Raises:
        DataError: a value is not finite, or too large for float16; the message names the item.
    """
    values = np.asarray(values)
    check_choice(dtype, DTYPES, "embedding dtype")
    flat = values.reshape(len(values), int(np.prod(values.shape[1:])))
    limit = np.finfo(np.float16).max if dtype == "float16" else np.inf
    bad = ~(np.isfinite(flat) & (np.abs(flat) <= limit)).all(axis=1)
    if bad.any():
        i = int(np.argmax(bad))
        raise DataError(
            f"embedding of item {i} holds NaN, infinity or a number beyond {dtype}'s range: check "
            "the teacher's input, or store float32."
        )
    if dtype == "bfloat16":
        return fixed_list(to_bfloat16(flat))
    return fixed_list(flat.astype(dtype))


def decode_embeddings(stored: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """Return float32 `[N, *shape]` of a stored column `[N, size]`.

    Args:
        stored: what `Store.array` returned.
        config: the card's `config`, with `dtype` and `shape`.

    Raises:
        CardError: the card does not say how to read the column, or its size differs.
    """
    if "dtype" not in config or "shape" not in config:
        raise CardError("the card has no 'dtype' and 'shape': it is not an embedding column's.")
    shape = tuple(int(n) for n in config["shape"])
    if stored.ndim != 2 or stored.shape[1] != int(np.prod(shape)):
        raise CardError(
            f"stored rows of {list(stored.shape[1:])} numbers, but the card says {list(shape)}: "
            "the column is damaged; write it again."
        )
    values = from_bfloat16(stored) if config["dtype"] == "bfloat16" else stored.astype(np.float32)
    return values.reshape(len(stored), *shape)


def topk_type(k: int) -> pa.DataType:
    """Return the Arrow type of K probabilities (float16) and K class ids (uint16): 4 K bytes."""
    return pa.list_(pa.uint8(), 4 * k)


def encode_topk(values: np.ndarray, ids: np.ndarray) -> pa.FixedSizeListArray:
    """Return probabilities `[N, K]` and class ids `[N, K]` (below 65,536) as a column."""
    if values.shape != ids.shape or values.ndim != 2:
        raise DataError(f"top-K: values {values.shape} and ids {ids.shape} must be [N, K] both.")
    if ids.size and (ids.min() < 0 or ids.max() > 0xFFFF):
        raise DataError(f"top-K: class id {int(ids.max())} does not fit 16 bits.")
    halves = [values.astype("<f2").view(np.uint8), ids.astype("<u2").view(np.uint8)]
    width = 2 * values.shape[1]
    return fixed_list(np.concatenate([h.reshape(len(values), width) for h in halves], axis=1))


def decode_topk(stored: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (probabilities float32 `[N, K]`, class ids int64 `[N, K]`) of stored bytes."""
    if stored.ndim != 2 or stored.dtype != np.uint8 or stored.shape[1] % 4:
        raise CardError(
            f"top-K column of {stored.dtype} {list(stored.shape)}: expected uint8 [N, 4 K]."
        )
    half = stored.shape[1] // 2
    values = np.ascontiguousarray(stored[:, :half]).view("<f2").astype(np.float32)
    ids = np.ascontiguousarray(stored[:, half:]).view("<u2").astype(np.int64)
    return values, ids
