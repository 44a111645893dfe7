"""What a frozen encoder is, and what of its answers must not be cached."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from understudy.core.errors import DataError
from understudy.core.hashing import hash_data

LARGE_NORM = 1e4
"""Above this length float16, whose largest number is 65,504, is close to overflowing."""

Encoded = tuple[np.ndarray, np.ndarray | None, np.ndarray | None]
"""(pooled [B, D], tokens [B, T, D] or None, mask bool [B, T] or None), float32."""


class FeatureWarning(UserWarning):
    """Features that can be stored but may be not what was wanted."""


@runtime_checkable
class Encoder(Protocol):
    """A frozen encoder of one modality.

    Attributes:
        name: part of column names.
        hash: hash of weights and everything else that decides its outputs, but preprocessing.
        dim: width of its features.
        tokens: whether `encode` returns tokens and a mask.
        preprocess: plain data: what its input goes through, tokenizer included.
    """

    name: str
    hash: str
    dim: int
    tokens: bool
    preprocess: dict[str, Any]

    def encode(self, batch: Sequence[Any] | np.ndarray) -> Encoded:
        """Return pooled features, and tokens and mask where it has them."""
        ...


def preprocess_hash(encoder: Encoder) -> str:
    """Return the hash of what an encoder's input goes through."""
    return hash_data(encoder.preprocess)


def check_frozen_encoder(encoder: Encoder) -> None:
    """Refuse an encoder whose `module` is in training mode or takes gradients.

    Raises:
        ModelError: it is.
    """
    module = getattr(encoder, "module", None)
    if module is not None and hasattr(module, "named_modules"):
        from understudy.models.multimodal.dual import check_frozen

        check_frozen(module, encoder.name)


def encode_checked(encoder: Encoder, batch: Any, names: Sequence[str], dtype: str) -> Encoded:
    """Encode a batch and refuse or warn about what must not be cached.

    Args:
        encoder: who is asked.
        batch: its input.
        names: what to call each item in messages.
        dtype: how it will be stored; float16 may overflow.

    Raises:
        DataError: wrong shapes, NaN, infinity, a zero vector, or a text that is all padding.
    """
    pooled, tokens, mask = encoder.encode(batch)
    where = f"encoder '{encoder.name}'"
    if pooled.shape != (len(names), encoder.dim):
        raise DataError(
            f"{where}: features of shape {list(pooled.shape)}, expected "
            f"[{len(names)}, {encoder.dim}]."
        )
    if encoder.tokens and (tokens is None or mask is None):
        raise DataError(f"{where}: says that it has tokens, but returned none.")
    if mask is not None and not mask.any(1).all():
        raise DataError(f"{where}: {names[int(np.argmin(mask.any(1)))]} is all padding; drop it.")
    parts = [pooled] if tokens is None or mask is None else [pooled, tokens[mask]]
    for part in parts:
        # Names follow pooled rows only; a bad token is found in its pooled vector as well.
        label = names if len(part) == len(names) else None
        norms = np.linalg.norm(part.astype(np.float64), axis=1)
        for bad, what in ((~np.isfinite(norms), "NaN or infinity"), (norms == 0, "a zero vector")):
            if bad.any() and (part is pooled or what != "a zero vector"):
                at = int(np.argmax(bad))
                item = label[at] if label is not None else f"token {at} of the batch"
                raise DataError(
                    f"{where}: the features of {item} are {what}; check the sample and the "
                    "encoder's input range."
                )
        if dtype == "float16" and norms.max() > LARGE_NORM:
            warnings.warn(
                f"{where}: features of length {norms.max():.3g} (above {LARGE_NORM:g}) are close "
                "to float16's range; normalise them or cache in bfloat16 or float32.",
                FeatureWarning,
                stacklevel=3,
            )
    return pooled, tokens, mask
