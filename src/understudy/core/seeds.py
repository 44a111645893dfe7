"""Random numbers that depend on what is drawn, never on who draws it.

The seed of item *i* is a hash of everything that names the draw (run seed, epoch, row, ...). Worker
counts, batch sizes and restarts therefore cannot change a result.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def seed_for(*parts: int | str) -> int:
    """Return a 63-bit seed for the draw that `parts` name.

    Args:
        *parts: whatever identifies the draw, in a fixed order, for example
            `("views", 0, "sample-17", 3)`.
    """
    text = "\x1f".join(f"{type(p).__name__[0]}{p}" for p in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def rng(*parts: int | str) -> np.random.Generator:
    """Return a NumPy generator (Philox) for the draw that `parts` name."""
    return np.random.Generator(np.random.Philox(key=seed_for(*parts)))


def torch_generator(*parts: int | str) -> torch.Generator:
    """Return a CPU torch generator for the draw that `parts` name."""
    import torch

    return torch.Generator().manual_seed(seed_for(*parts))
