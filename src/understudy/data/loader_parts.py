"""What a loader counts, and what it asks of a sampler."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.core.errors import ConfigError

if TYPE_CHECKING:
    from understudy.data.store import Store


@dataclass
class LoaderStats:
    """What was delivered so far.

    Attributes:
        batches: batches.
        rows: rows in them.
        plain: rows that used the plain image instead of a stored view.
        truncated: texts that the tokenizer cut, by key.
    """

    batches: int = 0
    rows: int = 0
    plain: int = 0
    truncated: dict[str, int] = field(default_factory=dict)

    def add(self, rows: int, counts: dict[str, int]) -> None:
        """Count one batch."""
        self.batches += 1
        self.rows += rows
        for name, count in counts.items():
            if name == "plain":
                self.plain += count
            else:
                key = name.removeprefix("truncated.")
                self.truncated[key] = self.truncated.get(key, 0) + count


def sampled_views(sampler: Any) -> tuple[int, ...]:
    """Return the stored views that a sampler asks for."""
    if hasattr(sampler, "view_index"):
        return (int(sampler.view_index),)
    return tuple(range(max(int(getattr(sampler, "num_views", 0)), 1)))


def sampled_rows(sampler: Any, store: Store) -> np.ndarray | None:
    """Return the rows that a sampler draws, if it says so.

    Raises:
        ConfigError: it draws a row that the store does not have.
    """
    count, rows = getattr(sampler, "count", None), getattr(sampler, "rows", None)
    if count is None:
        return None
    rows = np.arange(int(count)) if rows is None else np.asarray(rows, np.int64)
    if len(rows) and int(rows.max()) >= store.num_rows:
        raise ConfigError(
            f"the sampler draws row {int(rows.max())} and {store.path} has {store.num_rows} rows: "
            "make the sampler for this store."
        )
    return rows


def to_tensor(value: Any) -> Any:
    """Return arrays, and lists of arrays, as torch tensors; leave the rest."""
    import torch

    if isinstance(value, np.ndarray) and value.dtype != object:
        if not value.flags.writeable:
            value = value.copy()
        return torch.from_numpy(value)
    if isinstance(value, list) and value and isinstance(value[0], np.ndarray):
        return [to_tensor(item) for item in value]
    return value
