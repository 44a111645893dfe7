"""Where a graph's file is, and whether it belongs to a store as the store is now."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from understudy.core.errors import CardError, ConfigError, DataError
from understudy.curate.graph.nodes import source_of
from understudy.solve.graph import Graph

if TYPE_CHECKING:
    from understudy.data.store import Store

SUFFIX = ".knn.npz"


def default_path(store: Store, column: str) -> Path:
    """Return where the graph of a column is kept: beside the store.

    Raises:
        ConfigError: the store is not a local folder.
    """
    if "://" in store.path:
        raise ConfigError(f"{store.path}: name a local file for the graph (--graph FILE).")
    base = Path(store.path)
    return base.with_name(f"{base.name}.{column.replace('/', '_')}{SUFFIX}")


def find_graph(store: Store, path: str = "") -> Path:
    """Return the file of a store's graph: the one named, or the only one beside the store.

    Raises:
        DataError: none is named, and there is not exactly one.
    """
    if path:
        return Path(path)
    base = Path(store.path)
    found = [] if "://" in store.path else sorted(base.parent.glob(f"{base.name}.*{SUFFIX}"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise DataError(
            f"{store.path}: no graph beside it; make one with 'understudy graph knn {store.path} "
            "--column embed.<model>', or name its file (--graph FILE)."
        )
    raise DataError(
        f"{store.path}: several graphs beside it ({', '.join(p.name for p in found)}); name one "
        "(--graph FILE)."
    )


def load_graph(store: Store, path: str = "") -> Graph:
    """Read a graph and check that it is of this store, and of vectors that are still there.

    Raises:
        DataError: no such file, damaged, or of another store.
        CardError: the column that it was made of has been written again since.
    """
    file = find_graph(store, path)
    graph = Graph.load(file)
    if graph.rows is None or graph.facts.get("store") != store.uid:
        raise DataError(
            f"{file}: this graph is of another dataset than {store.path}; make one with "
            "'understudy graph knn'."
        )
    column = graph.facts["column"]
    if not store.has(column) or source_of(store, column) != graph.facts["source"]:
        raise CardError(
            f"{file}: column '{column}' has been written again (or dropped) since the graph was "
            "made of it; make the graph again with 'understudy graph knn --overwrite'."
        )
    return graph
