"""Views of a served gallery: one a store version, taken over in the background as a whole.

A query takes the current view once and is answered from it to the end, whatever is written
meanwhile; a view never changes.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from understudy.core.errors import DataError, UnderstudyError
from understudy.data.spaces import Space, space_of
from understudy.data.store import Store
from understudy.update.columns import mapped_columns
from understudy.update.gallery import ENCODED, MAPPED, Gallery
from understudy.update.queries import QueryError
from understudy.update.search import search, search_index
from understudy.update.search_scores import Hits
from understudy.update.serve_config import ServeConfig
from understudy.update.serve_pinned import Pinned

_LOG = logging.getLogger("understudy.update.serve")
_FILTERS = 32
_PAUSE_S = 0.005  # between two bites of background work: queries first


@dataclass(frozen=True, slots=True)
class View:
    """A gallery at one version, ready to be searched.

    Attributes:
        gallery: the gallery.
        mode: memory, index or stream.
        metric: of its scores.
        spaces: ids of the spaces of mapped and of encoded rows, by state.
        pinned: its vectors in memory; None unless so searched.
        ids: the rows' ids in memory; None unless so searched.
        filters: rows that meet the filters asked so far.
    """

    gallery: Gallery
    mode: str
    metric: str
    spaces: dict[int, str]
    pinned: Pinned | None = None
    ids: pa.ChunkedArray | None = None
    filters: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def version(self) -> int:
        """Number of the store's version."""
        return self.gallery.version

    def search(self, vector: np.ndarray, k: int, space: Space | str, filter: str) -> Hits:
        """Return the k nearest rows of one query.

        Raises:
            SpaceError: the query is of another space.
            QueryError: the filter is not understood, or the version was removed meanwhile.
        """
        options: dict[str, Any] = {"space": space}
        try:
            if self.mode == "memory" and self.pinned is not None:
                allowed = self._allowed(filter) if filter else None
                return self.pinned.search(vector, k, metric=self.metric, allowed=allowed, **options)
            if self.mode == "index":
                return search_index(self.gallery, vector, k, filter=filter or None, **options)
            return search(
                self.gallery, vector, k, metric=self.metric, filter=filter or None, **options
            )
        except DataError as error:
            sentence = str(error).replace(f"{self.gallery.store.path}: ", "")
            if "is not understood" in sentence:
                raise QueryError(400, sentence) from None
            if "could not be read" in sentence:
                raise QueryError(
                    503, f"version {self.version} of the store is gone; ask again."
                ) from None
            raise

    def _allowed(self, filter: str) -> np.ndarray:
        found = self.filters.get(filter)
        if found is None:
            found = self.gallery.pinned.where(filter)
            if len(self.filters) < _FILTERS:
                self.filters[filter] = found
        return found

    def ids_of(self, rows: np.ndarray) -> list[str]:
        """Return the ids of rows."""
        if self.ids is not None:
            return self.ids.take(pa.array(rows)).to_pylist()
        return self.gallery.pinned.take(rows, ["id"])["id"].to_pylist()

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Return the vectors float32 [N, D] of rows."""
        return self.gallery.take(rows).vectors if self.pinned is None else self.pinned.vectors(rows)


def open_newest(store: Store, new: str, mapped: str) -> Gallery:
    """Open a gallery with those of its columns that are there.

    Args:
        store: where they are.
        new: column of the new model's own vectors, or a mixed one; empty for none. It may appear
            only when backfilling begins.
        mapped: column of vectors mapped to that model; empty takes `<new>.from.<old>`, if any. It
            may be gone when backfilling is over.

    Raises:
        DataError: neither is there, or several are mapped to `new`.
    """
    if not mapped:
        found = mapped_columns(store, new)
        if len(found) > 1:
            raise DataError(
                f"{store.path}: {' and '.join(found)} are mapped to '{new}'; name one (--mapped)."
            )
        mixed = store.has(new) and space_of(store, new).kind == "mixed"
        mapped = found[0] if found and not mixed else ""
    there = {k: c for k, c in (("new", new), ("mapped", mapped)) if c and store.has(c)}
    if not there:
        columns = " or ".join(f"'{name}'" for name in (new, mapped) if name)
        raise DataError(
            f"{store.path} has no column {columns} to serve; write vectors with 'understudy "
            "update encode', or map older ones with 'understudy update apply'."
        )
    return Gallery.open(store, **there)


def _spaces(gallery: Gallery) -> dict[int, str]:
    """Return the id of the space of mapped and of encoded rows."""
    found = {ENCODED: gallery.space.searched_from}
    if gallery.mixed is not None:
        found[MAPPED] = gallery.space.lineage[-1] if gallery.space.lineage else ""
    elif gallery.mapped is not None:
        found[MAPPED] = space_of(gallery.pinned, gallery.mapped).id
    return found


class Versions:
    """The current view of a store's gallery, and the thread that moves it on.

    Args:
        config: what is served, and how.

    Attributes:
        current: the view that queries are answered from; replaced as a whole.
        problem: why a newer version could not be taken over; empty when all is well.
    """

    def __init__(self, config: ServeConfig) -> None:
        self.config, self.problem = config, ""
        self._watch = Store.open(config.store)
        self._uid = self._watch.uid
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.current = self._first(self._open())

    def _open(self) -> Gallery:
        """Open the gallery of the newest version with the columns that it has."""
        return open_newest(self._watch.pinned(), self.config.new, self.config.mapped)

    def _first(self, gallery: Gallery) -> View:
        mode, config = self.config.search, self.config
        there = gallery.pinned.indexes()
        metrics = [there[c] for c in (gallery.mapped, gallery.new, gallery.mixed) if c in there]
        if mode == "auto":
            need = Pinned.bytes_needed(gallery.num_rows, gallery.dim)
            mode = "memory" if need <= config.memory_bytes else "index" if metrics else "stream"
        if mode == "memory":
            pinned, ids = Pinned.load(gallery, config.memory_bytes), _ids(gallery, 0)
            return View(gallery, mode, config.metric, _spaces(gallery), pinned, ids)
        if mode == "index" and not metrics:
            raise DataError(
                f"{gallery.store.path}: version {gallery.version} has no index to search (filling "
                "rows drops a column's index); build one (--build-index), or serve with --search "
                "memory or stream."
            )
        metric = metrics[0] if mode == "index" else config.metric
        return View(gallery, mode, metric, _spaces(gallery))

    def poll(self) -> bool:
        """Take over the newest version, if it is newer than the current one; say whether it was.

        Raises:
            UnderstudyError: its gallery cannot be served; the current view stays.
        """
        self._watch.refresh()
        if self._watch.version == self.current.version and self._watch.uid == self._uid:
            return False
        self.current = self._next(self._open())
        self._uid = self._watch.uid
        return True

    def _next(self, gallery: Gallery) -> View:
        view = self.current
        if view.pinned is None or view.ids is None or self._replaced(gallery):
            return self._first(gallery)
        ids = pa.chunked_array([*view.ids.chunks, *_ids(gallery, len(view.ids)).chunks])
        pinned = view.pinned.advanced(gallery, _PAUSE_S)
        return View(gallery, view.mode, view.metric, _spaces(gallery), pinned, ids)

    def _replaced(self, gallery: Gallery) -> bool:
        """Say whether cells that were filled may hold something else by now."""
        old, new = self.current.gallery, gallery
        if self._watch.uid != self._uid or new.num_rows < old.num_rows or old.mixed or new.mixed:
            return True
        columns = {old.new, old.mapped} & {new.new, new.mapped} - {None}
        cards = ((old.pinned.card(c), new.pinned.card(c)) for c in columns if c is not None)
        return any(before.identity() != after.identity() for before, after in cards)

    def fold(self) -> bool:
        """Fold one block of what was written since into the vectors in memory; say if there was."""
        view = self.current
        folded = None if view.pinned is None else view.pinned.folded()
        if folded is None:
            return False
        self.current = replace(view, pinned=folded)
        return True

    def _run(self) -> None:
        while not self._stop.wait(self.config.poll_s):
            try:
                start = time.perf_counter()
                if self.poll():
                    _LOG.info(
                        "version %d taken over in %.0f ms: %s",
                        self.current.version,
                        1e3 * (time.perf_counter() - start),
                        self.current.gallery.counts(),
                    )
                while not self._stop.is_set() and self.fold():
                    time.sleep(_PAUSE_S)
                self.problem = ""
            except (UnderstudyError, OSError) as error:
                if str(error) != self.problem:
                    _LOG.warning("still at version %d: %s", self.current.version, error)
                self.problem = str(error)
            except Exception as error:  # the thread must outlive what nobody foresaw
                _LOG.exception("still at version %d", self.current.version)
                self.problem = f"{type(error).__name__}: {error}"

    def start(self) -> None:
        """Begin to look for newer versions in the background."""
        self._thread = threading.Thread(target=self._run, name="versions", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop looking."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()


def _ids(gallery: Gallery, first: int) -> pa.ChunkedArray:
    """Return the ids of the rows from `first` on."""
    rows = np.arange(first, gallery.num_rows)
    store = gallery.pinned
    batches = store.scan(["id"]) if first == 0 else store.scan(["id"], rows=rows)
    chunks = [batch.column(0) for batch in batches]
    return pa.chunked_array(chunks, pa.string())
