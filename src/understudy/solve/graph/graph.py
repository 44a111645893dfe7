"""A graph: symmetric affinities, degrees, Laplacian, components, and a file of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from understudy.core.config import check_choice
from understudy.core.errors import DataError
from understudy.core.files import atomic_path
from understudy.core.hashing import hash_bytes, hash_data
from understudy.solve.graph.scipy_parts import csgraph, sparse

FORMAT = 1
SELF_LOOPS = ("drop", "keep", "add")
SYMMETRISE = ("max", "mean", "check")


@dataclass(frozen=True, kw_only=True)
class Graph:
    """Nodes and the affinities between them.

    Attributes:
        weights: CSR float64 [n, n], symmetric, no negative entry.
        duplicates: int64, nodes that have another node at distance 0; their weights are capped.
        rows: int64 [n], what each node is elsewhere (a row of a store); None for 0 .. n - 1.
        facts: plain data: how the graph was made, and of what.
    """

    weights: Any
    duplicates: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    rows: np.ndarray | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_matrix(
        cls, given: Any, *, symmetrise: str = "check", self_loops: str = "drop", **more: Any
    ) -> Graph:
        """Make a graph of an affinity matrix, dense or sparse.

        Args:
            given: [n, n], 0 means no edge.
            symmetrise: `max` takes the larger of both directions, `mean` their mean, `check`
                raises unless they are equal.
            self_loops: `drop` the diagonal (label spreading is defined without), `keep` it, or
                `add` an entry of 1 to each.
            **more: other attributes of the graph.

        Raises:
            DataError: not square, not finite, negative, or not symmetric; the first offending
                entry is named.
        """
        check_choice(symmetrise, SYMMETRISE, "graph: symmetrise")
        check_choice(self_loops, SELF_LOOPS, "graph: self_loops")
        shape = getattr(given, "shape", ())
        if len(shape) != 2 or shape[0] != shape[1] or shape[0] == 0:
            raise DataError(f"graph: expected a square affinity matrix, got the shape {shape}.")
        matrix = sparse().csr_matrix(given, dtype=np.float64, copy=True)
        matrix.sum_duplicates()
        _check_entries(matrix)
        if symmetrise == "max":
            matrix = matrix.maximum(matrix.T)
        elif symmetrise == "mean":
            matrix = (matrix + matrix.T) * 0.5
        else:
            _check_symmetric(matrix)
        if self_loops == "drop":
            matrix.setdiag(0.0)
        elif self_loops == "add":
            matrix = matrix + sparse().identity(matrix.shape[0], format="csr")
        matrix = sparse().csr_matrix(matrix)
        matrix.eliminate_zeros()
        matrix.sort_indices()
        return cls(weights=matrix, **more)

    @property
    def n(self) -> int:
        """Number of nodes."""
        return int(self.weights.shape[0])

    @property
    def num_edges(self) -> int:
        """Number of undirected edges, self loops included."""
        loops = int(np.count_nonzero(self.weights.diagonal()))
        return (int(self.weights.nnz) - loops) // 2 + loops

    @cached_property
    def degrees(self) -> np.ndarray:
        """float64 [n], sums of rows."""
        return np.asarray(self.weights.sum(axis=1)).ravel()

    @cached_property
    def isolated(self) -> np.ndarray:
        """int64, nodes without an edge to another one."""
        others = np.diff(self.weights.indptr) - (self.weights.diagonal() != 0)
        return np.flatnonzero(others == 0)

    @cached_property
    def components(self) -> np.ndarray:
        """int32 [n], the connected component of each node."""
        return csgraph().connected_components(self.weights, directed=False)[1]

    @property
    def num_components(self) -> int:
        """Number of connected components, isolated nodes included."""
        return int(self.components.max()) + 1

    @cached_property
    def half(self) -> np.ndarray:
        """float64 [n], D^-1/2, and 0 for nodes without any weight."""
        degrees = self.degrees
        return np.where(degrees > 0, 1.0 / np.sqrt(np.where(degrees > 0, degrees, 1.0)), 0.0)

    def laplacian(self) -> Any:
        """Return L = D - W as CSR."""
        return sparse().csr_matrix(sparse().diags(self.degrees) - self.weights)

    def normalised(self) -> Any:
        """Return S = D^-1/2 W D^-1/2 as CSR; rows of isolated nodes are zero."""
        half = sparse().diags(self.half)
        return sparse().csr_matrix(half @ self.weights @ half)

    def touched(self, mask: np.ndarray) -> np.ndarray:
        """Return bool [n]: whether a node of the mask [n] is in a node's component."""
        hit = np.zeros(self.num_components, bool)
        hit[self.components[mask]] = True
        return hit[self.components]

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the weights and of what the nodes are."""
        arrays = [self.weights.indptr.astype(np.int64), self.weights.indices.astype(np.int32)]
        arrays.append(self.weights.data)
        if self.rows is not None:
            arrays.append(self.rows.astype(np.int64))
        return hash_bytes(*(np.ascontiguousarray(a).tobytes() for a in arrays))

    def summary(self) -> dict[str, Any]:
        """Return sizes and what is unusual as plain data."""
        sizes = np.bincount(self.components)
        return {
            "nodes": self.n,
            "edges": self.num_edges,
            "components": int(sizes.size),
            "largest_component": int(sizes.max()),
            "isolated": int(self.isolated.size),
            "duplicates": int(self.duplicates.size),
            "mean_degree": 2.0 * self.num_edges / self.n,
            "fingerprint": self.fingerprint,
        }

    def save(self, path: str | Path) -> Path:
        """Write the graph as an `.npz` file without pickles and return its path."""
        weights = self.weights
        facts = {"format": FORMAT, "fingerprint": self.fingerprint, "facts": self.facts}
        arrays = {
            "indptr": weights.indptr, "indices": weights.indices, "data": weights.data,
            "duplicates": self.duplicates, "about": _text(facts),
        }  # fmt: skip
        if self.rows is not None:
            arrays["rows"] = self.rows
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Graph:
        """Read a graph that `save` wrote.

        Raises:
            DataError: no such file, not a graph, of another version, or damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                about = json.loads(bytes(file["about"]))
                if about["format"] != FORMAT:
                    raise DataError(
                        f"{path}: graph of format {about['format']}, expected {FORMAT}."
                    )
                n = len(file["indptr"]) - 1
                parts = (file["data"], file["indices"], file["indptr"])
                graph = cls(
                    weights=sparse().csr_matrix(parts, shape=(n, n)),
                    duplicates=file["duplicates"],
                    rows=file["rows"] if "rows" in file.files else None,
                    facts=about["facts"],
                )
        except FileNotFoundError:
            raise DataError(
                f"{path}: no such graph; make one with 'understudy graph knn'."
            ) from None
        except (ValueError, KeyError, OSError, EOFError) as error:
            raise DataError(f"{path}: not a saved graph ({error}).") from None
        if graph.fingerprint != about["fingerprint"]:
            raise DataError(f"{path}: the graph is damaged (its hash differs); make it again.")
        return graph

    def identity(self) -> str:
        """Return a hash of the graph and of the facts it was made with."""
        return hash_data([self.fingerprint, self.facts])


def as_graph(given: Any, self_loops: str = "drop") -> Graph:
    """Return a graph, or the graph of an affinity matrix (the larger direction counts)."""
    if isinstance(given, Graph):
        return given
    return Graph.from_matrix(given, symmetrise="max", self_loops=self_loops)


def _text(facts: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(json.dumps(facts, sort_keys=True).encode(), np.uint8)


def _check_entries(matrix: Any) -> None:
    for wrong, what in (
        (~np.isfinite(matrix.data), "is not finite"),
        (matrix.data < 0, "is negative, and affinities may not be"),
    ):
        if wrong.any():
            at = int(np.argmax(wrong))
            row = int(np.searchsorted(matrix.indptr, at, side="right")) - 1
            raise DataError(
                f"graph: the weight at ({row}, {int(matrix.indices[at])}) {what}: "
                f"{matrix.data[at]:g}."
            )


def _check_symmetric(matrix: Any) -> None:
    difference = abs(matrix - matrix.T).tocoo()
    if difference.nnz == 0:
        return
    at = int(np.argmax(difference.data))
    if difference.data[at] > 1e-12 * matrix.data.max():
        raise DataError(
            f"graph: max |W - W^T| = {difference.data[at]:.3g} at ({difference.row[at]}, "
            f"{difference.col[at]}); pass symmetrise='max' or 'mean'."
        )
