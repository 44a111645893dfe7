"""Blocks of solved columns kept on disk until all are there, so that a killed run goes on."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from understudy.core import progress
from understudy.core.files import atomic_path


class ColumnStage:
    """Solves a wide array [n, d] a block of columns at a time.

    Args:
        folder: where finished blocks are kept; made when needed.
        n: rows.
        width: columns d.
        block: columns at a time.
    """

    def __init__(self, folder: Path, n: int, width: int, block: int) -> None:
        self.folder, self.n, self.width, self.block = folder, n, width, block

    def _file(self, at: int) -> Path:
        return self.folder / f"{at:06d}-{min(at + self.block, self.width):06d}.npy"

    def done(self) -> list[int]:
        """Return the first columns of finished blocks."""
        return [at for at in range(0, self.width, self.block) if self._file(at).exists()]

    def fill(self, solve: Callable[[slice], np.ndarray], label: str) -> np.ndarray:
        """Solve the blocks that are missing; return float32 [n, d].

        Args:
            solve: returns solved columns [n, c] of a slice.
            label: what the bar shows.
        """
        finished = set(self.done())
        before = sum(min(self.block, self.width - at) for at in finished)
        with progress.bar(label, self.width, "columns", before) as bar:
            for at in range(0, self.width, self.block):
                if at in finished:
                    continue
                part = slice(at, min(at + self.block, self.width))
                values = solve(part).astype(np.float32)
                with atomic_path(self._file(at)) as temporary, open(temporary, "wb") as file:
                    np.save(file, values)
                bar.advance(values.shape[1])
        out = np.empty((self.n, self.width), np.float32)
        for at in range(0, self.width, self.block):
            out[:, at : at + self.block] = np.load(self._file(at))
        return out

    def drop(self) -> None:
        """Delete the blocks, and the folder above if nothing else is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.folder.parent.exists() and not any(self.folder.parent.iterdir()):
            self.folder.parent.rmdir()
