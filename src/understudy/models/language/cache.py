"""What attention has computed for earlier tokens, so that a new token costs one token's work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

Heads = Float[Tensor, "rows heads length width"]


class KeyValues:
    """Keys and values of one attention layer so far."""

    def __init__(self, key: Heads | None = None, value: Heads | None = None) -> None:
        self.key, self.value = key, value

    @property
    def length(self) -> int:
        """Tokens that are held."""
        return 0 if self.key is None else self.key.shape[2]

    def append(self, key: Heads, value: Heads) -> tuple[Heads, Heads]:
        """Add new tokens' keys and values; return those of all tokens so far."""
        if self.key is not None and self.value is not None:
            key, value = torch.cat([self.key, key], 2), torch.cat([self.value, value], 2)
        self.key, self.value = key, value
        return key, value

    def select(self, rows: Int[Tensor, " chosen"]) -> KeyValues:
        """Return a cache of some rows, in any order and as often as they are named."""
        if self.key is None or self.value is None:
            return KeyValues()
        return KeyValues(self.key[rows], self.value[rows])


def select_rows(cache: Any, rows: Int[Tensor, " chosen"]) -> Any:
    """Return some rows of whatever a model keeps between tokens.

    Args:
        cache: None, a tensor with a row a sequence, an object with `select(rows)` such as
            `KeyValues`, a Transformers cache (which is changed in place), or a list, tuple or
            mapping of these.
        rows: int64 row numbers; a row may be named several times.

    Raises:
        TypeError: something else is in it.
    """
    if cache is None:
        return None
    if isinstance(cache, Tensor):
        return cache[rows.to(cache.device)]
    if hasattr(cache, "select"):
        return cache.select(rows)
    if hasattr(cache, "reorder_cache"):
        cache.reorder_cache(rows)
        return cache
    if isinstance(cache, Mapping):
        return {key: select_rows(part, rows) for key, part in cache.items()}
    if isinstance(cache, list | tuple):
        return type(cache)([select_rows(part, rows) for part in cache])
    raise TypeError(
        f"a cache of type {type(cache).__name__} cannot be reordered; give it a method select(rows)"
    )
