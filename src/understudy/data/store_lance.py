"""The few Lance operations the store is built on: open, one atomic change, row arithmetic.

Every change is one `Merge` commit that carries the whole list of fragments and the whole schema,
metadata included. That makes a column and its card appear together, keeps row order, and conflicts
with any other change made meanwhile, in which case the change is built again on the new version.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from understudy.core.errors import DataError
from understudy.data.store_names import logical
from understudy.data.store_schema import with_metadata

if TYPE_CHECKING:
    import lance
    from lance.fragment import FragmentMetadata
    from lance.schema import LanceSchema

FORMAT_KEY = "understudy.format"
FORMAT = "1"
META_KEY = "understudy.meta"
UID_KEY = "understudy.uid"
CARD_KEY = "understudy.card:"
ROWS_KEY = "understudy.rows:"
LANCE_ENTRIES = frozenset(
    ("data", "_versions", "_transactions", "_deletions", "_indices", "_refs", "_understudy")
)
_ATTEMPTS = 30


def lance_module() -> ModuleType:
    """Import Lance on first use (about a second) and return it."""
    os.environ.setdefault("LANCE_LOG", "error")  # a new store is not worth a warning on stderr
    import lance

    return lance


class Fragment(NamedTuple):
    """A run of consecutive rows that Lance stores together."""

    fragment_id: int
    start_row: int
    num_rows: int


class Change(NamedTuple):
    """What one commit will make of the dataset."""

    fragments: Sequence[FragmentMetadata]
    schema: LanceSchema
    metadata: Mapping[str, str | None]  # `None` deletes a key


def is_url(path: str | Path) -> bool:
    """Say whether `path` is an object-store URL rather than a local path."""
    return "://" in str(path)


def one_line(error: BaseException) -> str:
    """Return a library's message without line breaks, source positions and over-long lists."""
    text = " ".join(str(error).split())
    return text.split(", /")[0][:400]


def leftovers(path: str | Path) -> bool:
    """Say whether a local folder holds what a killed `create` leaves: data but no version."""
    root = Path(path)
    if is_url(path) or not root.is_dir():
        return False
    entries = {p.name for p in root.iterdir()}
    if not entries or not entries <= LANCE_ENTRIES:
        return False
    return not any((root / "_versions").glob("*.manifest"))


def open_dataset(
    path: str | Path, version: int | str | None, storage_options: dict[str, str] | None
) -> lance.LanceDataset:
    """Open a Lance dataset.

    Raises:
        DataError: nothing there, an unfinished store, something else, or no such version or tag.
    """
    lance = lance_module()
    if not is_url(path):
        root = Path(path)
        if not root.exists():
            raise DataError(f"{path}: no such store.")
        if leftovers(path):
            raise DataError(
                f"{path}: an import into this store was interrupted before it finished; "
                "run the same import again."
            )
        if not (root / "_versions").is_dir():
            raise DataError(
                f"{path}: not a store (a folder with '_versions' and 'data' is expected); "
                "import it first with `understudy data import`."
            )
    try:
        dataset = lance.dataset(str(path), version=version, storage_options=storage_options)
    except (ValueError, OSError) as error:
        if version is not None:
            kind = "tag" if isinstance(version, str) else "version"
            raise DataError(f"{path}: no {kind} {version!r} ({one_line(error)}).") from None
        raise DataError(f"{path}: the store cannot be opened ({one_line(error)}).") from None
    metadata = dataset.schema.metadata or {}
    found = metadata.get(FORMAT_KEY.encode())
    if found is None:
        raise DataError(
            f"{path}: a Lance dataset, but not an Understudy store; write its batches with "
            "Store.create."
        )
    if found.decode() != FORMAT:
        raise DataError(
            f"{path}: store format {found.decode()}, this version reads format {FORMAT}; "
            "install a newer understudy."
        )
    return dataset


class Handle:
    """An open dataset, the first row of each fragment, and the one way to change it.

    Args:
        path: local path or URL.
        version: number or tag to pin; `None` follows the newest version and may be written.
        storage_options: passed to Lance (credentials, end points).
    """

    def __init__(
        self,
        path: str | Path,
        version: int | str | None = None,
        storage_options: dict[str, str] | None = None,
    ) -> None:
        self.path = path
        self.pinned = version
        self.storage_options = storage_options
        self._pid = os.getpid()
        self._adopt(open_dataset(path, version, storage_options))

    def __reduce__(self) -> tuple[Any, ...]:
        return Handle, (self.path, self.pinned, self.storage_options)

    def _adopt(self, dataset: lance.LanceDataset) -> None:
        fragments = [f.metadata for f in dataset.get_fragments()]
        if any(f.deletion_file is not None for f in fragments):
            raise DataError(
                f"{self.path}: rows were deleted from this store outside of Understudy, so row "
                "numbers are no longer stable; restore an earlier version with Lance."
            )
        counts = np.array([f.physical_rows for f in fragments], dtype=np.int64)
        self.starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.fragments = [
            Fragment(f.id, int(start), int(count))
            for f, start, count in zip(fragments, self.starts, counts, strict=False)
        ]
        order = max((f.fragment_id for f in self.fragments), default=-1) + 1
        self._first_row = np.zeros(order, dtype=np.int64)
        for fragment in self.fragments:
            self._first_row[fragment.fragment_id] = fragment.start_row
        self.schema = dataset.schema  # with stored names
        self.columns = [logical(name) for name in self.schema.names]
        found = self.schema.metadata or {}
        self.metadata = {key.decode(): value.decode() for key, value in found.items()}
        self._dataset = dataset

    @property
    def dataset(self) -> lance.LanceDataset:
        """The open dataset.

        Raises:
            DataError: used in a forked child, where Lance would crash.
        """
        if os.getpid() != self._pid:
            raise DataError(
                f"{self.path}: a store was carried into a forked process, where Lance crashes; "
                "start workers with 'spawn' or use threads."
            )
        return self._dataset

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return int(self.starts[-1])

    def refresh(self) -> None:
        """Move to the newest version, unless a version is pinned."""
        if self.pinned is None and self.dataset.latest_version != self.dataset.version:
            self._adopt(open_dataset(self.path, None, self.storage_options))

    def adopt(self, dataset: lance.LanceDataset) -> None:
        """Take over a dataset that an operation returned."""
        self._adopt(dataset)

    def rows_of(self, addresses: np.ndarray) -> np.ndarray:
        """Return row numbers int64 [N] for Lance row addresses uint64 [N]."""
        offset = (addresses & np.uint64(0xFFFFFFFF)).astype(np.int64)
        return self._first_row[(addresses >> np.uint64(32)).astype(np.int64)] + offset

    def check_writable(self) -> None:
        """Raise `DataError` if a version is pinned."""
        if self.pinned is not None:
            raise DataError(
                f"{self.path}: opened at version {self.pinned!r}, which cannot be changed; open "
                "the store without a version to write."
            )

    def change(self, build: Callable[[lance.LanceDataset], Change | None], message: str) -> bool:
        """Commit one change atomically, building it again on each newer version met on the way.

        Args:
            build: makes the change from the newest version; `None` means that nothing is left to
                do.
            message: kept with the new version.

        Returns:
            Whether a version was committed.

        Raises:
            DataError: a version is pinned, or others kept changing the store all the time.
        """
        self.check_writable()
        lance = lance_module()
        from lance.commit import CommitConflictError

        for attempt in range(_ATTEMPTS):
            self.refresh()
            change = build(self.dataset)
            if change is None:
                return False
            operation = lance.LanceOperation.Merge(
                list(change.fragments), with_metadata(change.schema, change.metadata)
            )
            try:
                dataset = lance.LanceDataset.commit(
                    self.dataset,
                    operation,
                    read_version=self.dataset.version,
                    commit_message=message,
                )
            except CommitConflictError:
                # Another writer was first; a random pause keeps two of them from marching in step.
                time.sleep(random.uniform(0.01, 0.05) * (attempt + 1))
                continue
            except (OSError, ValueError, RuntimeError) as error:
                raise DataError(
                    f"{self.path}: '{message}' could not be committed ({one_line(error)}); the "
                    "store is as it was, so mend it and run the same command again."
                ) from error
            self._adopt(dataset)
            return True
        raise DataError(
            f"{self.path}: gave up after {_ATTEMPTS} tries because other writers kept changing the "
            "store; run the command again."
        )
