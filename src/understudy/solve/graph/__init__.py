"""Graphs of neighbours and what is solved on them: labels, ranks, smoothing, embeddings.

    >>> from understudy.solve.graph import KnnConfig, build_graph, spread_labels
    >>> graph = build_graph(features, KnnConfig(k=10))          # doctest: +SKIP
    >>> result = spread_labels(graph, labels, alpha=0.99)       # -1 = no label  # doctest: +SKIP
    >>> result.labels, result.margin                            # doctest: +SKIP

Notation: W is a symmetric affinity without self loops, D its degrees, L = D - W its Laplacian and
S = D^-1/2 W D^-1/2. Importing this package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from understudy.solve.graph.affinity import graph_of, weights_to
    from understudy.solve.graph.build import KnnConfig, build_graph, find_neighbours
    from understudy.solve.graph.confidence import entropies, keep_confident, margins
    from understudy.solve.graph.estimators import HarmonicClassifier, LabelSpreading
    from understudy.solve.graph.estimators_spectral import SpectralEmbedding
    from understudy.solve.graph.graph import Graph
    from understudy.solve.graph.harmonic import harmonic_labels
    from understudy.solve.graph.labels import LabelResult
    from understudy.solve.graph.memory import estimate_graph_bytes
    from understudy.solve.graph.neighbours import ExactSearch, Neighbours
    from understudy.solve.graph.pagerank import personalised_pagerank, propagate
    from understudy.solve.graph.resistance import inverse_diagonal, resistances
    from understudy.solve.graph.smoothing import Smoothed, smooth
    from understudy.solve.graph.spectral import Spectrum, spectral_embedding
    from understudy.solve.graph.spread import spread_labels
    from understudy.solve.graph.system import GraphSolver, SolverConfig

_WHERE = {
    "ExactSearch": "neighbours",
    "Graph": "graph",
    "GraphSolver": "system",
    "HarmonicClassifier": "estimators",
    "KnnConfig": "build",
    "LabelResult": "labels",
    "LabelSpreading": "estimators",
    "Neighbours": "neighbours",
    "Smoothed": "smoothing",
    "SolverConfig": "system",
    "SpectralEmbedding": "estimators_spectral",
    "Spectrum": "spectral",
    "build_graph": "build",
    "entropies": "confidence",
    "estimate_graph_bytes": "memory",
    "find_neighbours": "build",
    "graph_of": "affinity",
    "harmonic_labels": "harmonic",
    "inverse_diagonal": "resistance",
    "keep_confident": "confidence",
    "margins": "confidence",
    "personalised_pagerank": "pagerank",
    "propagate": "pagerank",
    "resistances": "resistance",
    "smooth": "smoothing",
    "spectral_embedding": "spectral",
    "spread_labels": "spread",
    "weights_to": "affinity",
}

__all__ = [
    "ExactSearch",
    "Graph",
    "GraphSolver",
    "HarmonicClassifier",
    "KnnConfig",
    "LabelResult",
    "LabelSpreading",
    "Neighbours",
    "Smoothed",
    "SolverConfig",
    "SpectralEmbedding",
    "Spectrum",
    "build_graph",
    "entropies",
    "estimate_graph_bytes",
    "find_neighbours",
    "graph_of",
    "harmonic_labels",
    "inverse_diagonal",
    "keep_confident",
    "margins",
    "personalised_pagerank",
    "propagate",
    "resistances",
    "smooth",
    "spectral_embedding",
    "spread_labels",
    "weights_to",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'understudy.solve.graph' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(f"understudy.solve.graph.{_WHERE[name]}"), name)
