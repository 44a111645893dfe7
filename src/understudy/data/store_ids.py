"""Row ids: each row has one of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from understudy.core.errors import DataError
from understudy.data.store_lance import Handle

if TYPE_CHECKING:
    from lance.fragment import FragmentMetadata


class Ids:
    """Finds a repeated or missing id at eight bytes a row.

    Python's string hash stands for an id; only where two of them agree are the ids compared.
    """

    def __init__(self) -> None:
        self.num_rows = 0
        self._hashes: list[np.ndarray] = []

    def add(self, ids: pa.ChunkedArray | pa.Array, check: bool = True) -> None:
        """Note the next rows' ids.

        Raises:
            DataError: an id is missing or empty; the message gives the row.
        """
        values = ids.to_pylist()
        if check and (ids.null_count or "" in values):
            i = next(i for i, value in enumerate(values) if not value)
            raise DataError(f"row {self.num_rows + i}: 'id' is empty; every row needs its own.")
        self._hashes.append(np.fromiter((hash(v) for v in values), np.int64, len(values)))
        self.num_rows += len(values)

    def suspects(self) -> np.ndarray:
        """Return hashes that occur more than once."""
        if not self._hashes:
            return np.empty(0, np.int64)
        ordered = np.sort(np.concatenate(self._hashes))
        return np.unique(ordered[1:][ordered[1:] == ordered[:-1]])

    def check_unique(self, again: Iterable[pa.Array]) -> None:
        """Raise `DataError` if an id occurs twice.

        Args:
            again: the same ids once more, read only if two hashes agree.
        """
        suspects = set(self.suspects().tolist())
        if not suspects:
            return
        seen: dict[str, int] = {}
        row = 0
        for ids in again:
            for value in ids.to_pylist():
                if hash(value) in suspects:
                    if value in seen:
                        raise DataError(
                            f"id '{value}' occurs twice (rows {seen[value]} and {row}); every row "
                            "needs an id of its own."
                        )
                    seen[value] = row
                row += 1


def fragment_ids(
    path: str | Path, fragments: Iterable[FragmentMetadata], options: dict[str, str] | None
) -> Iterator[pa.Array]:
    """Yield the ids in data files that no version refers to yet, in order."""
    from lance.file import LanceFileReader

    for fragment in fragments:
        name = fragment.files[0].path
        reader = LanceFileReader(f"{path}/data/{name}", storage_options=options, columns=["id"])
        for batch in reader.read_all().to_batches():
            yield batch.column(0)


def stored_ids(handle: Handle) -> Iterator[pa.Array]:
    """Yield the ids of all rows, in order."""
    for batch in handle.dataset.scanner(columns=["id"]).to_batches():
        yield batch.column(0)
