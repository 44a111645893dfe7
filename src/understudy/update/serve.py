"""A gallery under update as a service: queries in, neighbours with their space and state out.

    from understudy.update.serve import Service
    from understudy.update.serve_config import ServeConfig
    service = Service(ServeConfig(store="photos.lance", new="embed.v2", mapped="embed.v2.from.v1"))
    service.answer(Query(kind="vector", vector=v, space=service.space_id))

`update.serve_http` puts it behind HTTP; nothing here knows of sockets.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from understudy.data.spaces import SpaceError
from understudy.update.gallery import ENCODED, MAPPED
from understudy.update.queries import Query, QueryError
from understudy.update.search import check_query_space
from understudy.update.serve_config import ServeConfig
from understudy.update.serve_versions import Versions

if TYPE_CHECKING:
    from understudy.update.serve_encoders import Encoders

_STATES = {MAPPED: "mapped", ENCODED: "encoded"}


class Service:
    """Answers queries, each wholly from one version of the store.

    Args:
        config: what is served, and how.
        encoders: of texts and images; None answers vectors only.

    Raises:
        DataError: the gallery cannot be served.
        SpaceError: the encoders write to another space than the gallery is searched from.
    """

    def __init__(self, config: ServeConfig, encoders: Encoders | None = None) -> None:
        self.config, self.encoders = config, encoders
        self.versions = Versions(config)
        if encoders is not None:
            where = f"gallery of {config.store}"
            check_query_space(encoders.space, self.versions.current.gallery.space, where)
        self._turns = threading.BoundedSemaphore(config.workers)

    def answer(self, query: Query) -> dict[str, Any]:
        """Return a query's neighbours as plain data.

        Returns:
            `version` of the store, `space` of the query, `metric`, `took_ms` and `hits`, nearest
            first: `id`, `row`, `score`, `state` (mapped or encoded), `space` of the stored vector,
            and `vector` if it was asked for.

        Raises:
            QueryError: the query cannot be answered.
            SpaceError: a vector of another space.
        """
        start = time.perf_counter()
        vector, space = self._vector(query)
        if not self._turns.acquire(timeout=self.config.wait_s):
            raise QueryError(503, "too many searches are waiting; ask again in a moment.")
        try:
            view = self.versions.current  # once: all of the answer comes from this version
            hits = view.search(vector, query.top_k, space, query.filter)
            rows = hits.rows[0]
            rows = rows[rows >= 0]
            ids = view.ids_of(rows)
            vectors = view.vectors(rows).tolist() if query.with_vectors else None
        finally:
            self._turns.release()
        found = []
        for i, (row, score) in enumerate(zip(rows.tolist(), hits.scores[0].tolist(), strict=False)):
            state = ENCODED if hits.encoded[0, i] else MAPPED
            hit = {
                "id": ids[i],
                "row": row,
                "score": score,
                "state": _STATES[state],
                "space": view.spaces[state],
            }
            found.append(hit if vectors is None else {**hit, "vector": vectors[i]})
        return {
            "version": view.version,
            "space": view.gallery.space.searched_from,
            "metric": view.metric,
            "took_ms": round(1e3 * (time.perf_counter() - start), 3),
            "hits": found,
        }

    def _vector(self, query: Query) -> tuple[Any, Any]:
        """Return a query's vector and its space (or the id of it)."""
        if query.kind == "vector":
            if not query.space:
                raise QueryError(
                    400,
                    "a vector query names the space it is in ('space'); GET /state says which one "
                    "the gallery is searched from.",
                )
            return query.vector, query.space
        if self.encoders is None:
            raise QueryError(
                400, f"this server was started without --model and cannot encode {query.kind}s."
            )
        if query.space and query.space != self.encoders.space.id:
            raise SpaceError(
                f"'space' is {query.space}, but {query.kind}s are encoded into "
                f"{self.encoders.space.id} here; leave it out."
            )
        return self.encoders.encode(query), self.encoders.space

    def state(self) -> dict[str, Any]:
        """Return what is served: version, rows by state, spaces, and whether a newer one failed."""
        view = self.versions.current
        gallery = view.gallery
        return {
            "version": view.version,
            "rows": gallery.num_rows,
            **gallery.counts(),
            "space": gallery.space.searched_from,
            "spaces": {_STATES[state]: space for state, space in view.spaces.items()},
            "model": gallery.space.model,
            "dim": gallery.dim,
            "metric": view.metric,
            "search": view.mode,
            "queries": ["vector", *(self.encoders.kinds() if self.encoders else [])],
            "problem": self.versions.problem,
        }

    def start(self) -> None:
        """Begin to follow the store."""
        self.versions.start()

    def stop(self) -> None:
        """Stop following the store."""
        self.versions.stop()
