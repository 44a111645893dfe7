"""The arms of the hierarchical solver's claim: what is factored and what is counted."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from understudy.core.seeds import rng
from understudy.solve import factorize, solve
from understudy.solve.problems import contrast_media, poisson

SIDES = (64, 128, 256)
SIZES = ("4k", "16k", "65k")
CONTRASTS = ("1e2", "1e4", "1e6")
ARMS: dict[str, str] = {
    "hsolve-ones": "near and far blocks, ones preserved, on the Poisson grids",
    "hsolve": "the same, nothing preserved",
    "spand-ones": "nested dissection, ones preserved, on the Poisson grids",
    "spand": "the same, nothing preserved",
    "media-ones": "nested dissection, ones preserved, on random media",
    "media": "the same, nothing preserved",
    "media-sa": "smoothed aggregation on the same media",
    "labels": "label spreading and harmonic functions on digits, against dense solves",
}


def run_grids(arm: str, seed: int, settings: Mapping[str, Any]) -> dict[str, float]:
    """Count iterations, stored numbers and setup time on three grids."""
    method, _, kept = arm.partition("-")
    found: dict[str, float] = {"rungs": 0.0}
    setup = []
    for size, side in zip(SIZES, settings["sides"], strict=True):
        problem = poisson(side)
        options = {"eps": settings["eps"], "leaf": settings["leaf"], "coords": problem.coords}
        options |= {"method": method, "phi": "ones" if kept else None, "threads": 1}
        factors, seconds = factorize(problem.matrix, **options), []
        for _ in range(settings["repeats"]):
            start = time.process_time()
            factors = factorize(problem.matrix, **options)
            seconds.append(time.process_time() - start)
        setup.append(min(seconds))
        b = rng("right", seed, side).standard_normal(problem.n)
        solved = solve(problem.matrix, b, factorization=factors)
        found[f"iterations_{size}"] = float(solved.iterations)
        found[f"memory_{size}"] = factors.floats_per_nnz
        found["rungs"] += float("indefinite" in " ".join((*factors.notes, *solved.notes)))
    growth = np.log(found["iterations_65k"] / found["iterations_4k"])
    exponent = growth / (2 * np.log(settings["sides"][2] / settings["sides"][0]))
    return {"exponent": float(exponent), **found, "setup_ratio": setup[2] / setup[1]}


def run_media(arm: str, seed: int, settings: Mapping[str, Any]) -> dict[str, float]:
    """Count iterations on media of growing contrast; Cholesky that fails counts as infinite."""
    found = {}
    for name in CONTRASTS:
        problem = contrast_media(settings["media_side"], float(name), seed)
        b = rng("right", seed, name).standard_normal(problem.n)
        if arm == "media-sa":
            solved = solve(problem.matrix, b, method="sa")
        else:
            phi = "ones" if arm == "media-ones" else None
            factors = factorize(
                problem.matrix, eps=settings["eps"], phi=phi, on_indefinite="raise",
                coords=problem.coords, leaf=settings["leaf"],
            )  # fmt: skip
            solved = solve(problem.matrix, b, factorization=factors)
        found[f"iterations_{name}"] = float(solved.iterations)
    return found


def run_labels(seed: int, settings: Mapping[str, Any]) -> dict[str, float]:
    """Compare label spreading and harmonic functions with dense solves."""
    from understudy.solve.graph import (
        KnnConfig,
        SolverConfig,
        build_graph,
        harmonic_labels,
        spread_labels,
    )

    points, labels = digits()
    graph = build_graph(points, KnnConfig(k=settings["neighbours"], search="exact"))
    n, classes = len(points), int(labels.max()) + 1
    draw = rng("labels", seed)
    given = np.concatenate(
        [draw.permutation(np.flatnonzero(labels == c))[: settings["given"]] for c in range(classes)]
    )
    known = np.full(n, -1)
    known[given] = labels[given]
    solver = SolverConfig(method="spand", eps=settings["eps"])
    a = settings["spread"]
    spread = spread_labels(graph, known, alpha=a, solver=solver).labels
    harmonic = harmonic_labels(graph, known, solver=solver).scores
    y = np.zeros((n, classes))
    y[given, labels[given]] = 1.0
    weights = graph.weights.toarray()
    degrees = weights.sum(axis=1)
    root = np.sqrt(degrees)
    similarity = weights / root[:, None] / root[None, :]
    dense = (1 - a) * np.linalg.solve(np.eye(n) - a * similarity, y)
    free = np.setdiff1d(np.arange(n), given)
    lap = np.diag(degrees) - weights
    exact = np.linalg.solve(lap[np.ix_(free, free)], weights[np.ix_(free, given)] @ y[given])
    return {
        "same_label": float((spread == dense.argmax(axis=1)).mean()),
        "harmonic_error": float(np.abs(harmonic[free] - exact).max()),
        "accuracy": float((spread == labels)[free].mean()),
    }


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return the 1,797 digits of scikit-learn, float64 [n, 64] in [0, 16], and their classes."""
    from understudy.core.lazy import require

    data: Any = require("sklearn.datasets", "scenes", "the digits of the claim")
    return data.load_digits(return_X_y=True)
