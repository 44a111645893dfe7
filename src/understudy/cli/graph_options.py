"""The options of `understudy graph ...`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(kw_only=True)
class KnnCommand:
    """Find nearest neighbours of a store's rows and make a graph of them.

    Attributes:
        store: also the first word of the command.
        column: vectors, such as embed.<model> or feature.<encoder>.<modality>.
        graph: file of the graph; beside the store by default.
        neighbours: column of neighbours, knn.<column> by default; distances go beside it.
        where: SQL condition on the rows that become nodes.
        k: neighbours of each row, itself not counted.
        metric: euclidean or cosine.
        search: exact, approximate, or auto by size.
        kernel: rbf, exp(-d^2 / sigma^2), or connectivity, 1 for each edge.
        sigma: width of rbf: a number, median or local.
        self_loops: drop or add.
        seed: of the approximate search.
        block_mb: working memory of the exact search, MiB.
        dry_run: print the cost, write nothing.
        overwrite: replace neighbours and a graph of other settings.
        json: print JSON.
    """

    store: str
    column: str
    graph: str = ""
    neighbours: str = ""
    where: str = ""
    k: int = 10
    metric: str = "euclidean"
    search: str = "auto"
    kernel: str = "rbf"
    sigma: str = "median"
    self_loops: str = "drop"
    seed: int = 0
    block_mb: int = 32
    dry_run: bool = False
    overwrite: bool = False
    json: bool = False


@dataclass(kw_only=True)
class SolvedCommand:
    """What all commands share that solve on a graph; see each of them.

    Attributes:
        store: also the first word of the command.
        graph: file of the graph; the only one beside the store by default.
        out: column to write.
        method: of the solver: auto, direct, jacobi, rs, sa, spand, hsolve.
        rtol: relative residual.
        dry_run: print what would be solved, write nothing.
        overwrite: replace a column of other settings.
        json: print JSON.
    """

    store: str
    graph: str = ""
    out: str = ""
    method: str = "auto"
    rtol: float = 1e-10
    dry_run: bool = False
    overwrite: bool = False
    json: bool = False


@dataclass(kw_only=True)
class SpreadCommand(SolvedCommand):
    """Spread the labels of few rows over all: label spreading (Zhou et al. 2003).

    Writes <out> (-1, or empty text, where no label reaches), <out>.margin and <out>.entropy.

    Attributes:
        store: also the first word of the command.
        labels: column of labels; null, -1 and empty text are none.
        where: use the labels of rows that meet this SQL condition only.
        alpha: share that comes from neighbours, in (0, 1).
        scores: also write the classes' shares, <out>.scores.
        graph: file of the graph; the only one beside the store by default.
        out: column to write, label.spread by default.
        method: of the solver: auto, direct, jacobi, rs, sa, spand, hsolve.
        rtol: relative residual.
        dry_run: print what would be solved, write nothing.
        overwrite: replace a column of other settings.
        json: print JSON.
    """

    labels: str = "label"
    where: str = ""
    alpha: float = 0.99
    scores: bool = False


@dataclass(kw_only=True)
class HarmonicCommand(SolvedCommand):
    """Extend the labels of few rows to all by harmonic functions (Zhu et al. 2003).

    Writes <out> (-1, or empty text, where no label reaches), <out>.margin and <out>.entropy.

    Attributes:
        store: also the first word of the command.
        labels: column of labels; null, -1 and empty text are none.
        where: use the labels of rows that meet this SQL condition only.
        class_mass: scale classes to their shares among the labels.
        scores: also write the classes' shares, <out>.scores.
        graph: file of the graph; the only one beside the store by default.
        out: column to write, label.harmonic by default.
        method: of the solver: auto, direct, jacobi, rs, sa, spand, hsolve.
        rtol: relative residual.
        dry_run: print what would be solved, write nothing.
        overwrite: replace a column of other settings.
        json: print JSON.
    """

    labels: str = "label"
    where: str = ""
    class_mass: bool = False
    scores: bool = False


@dataclass(kw_only=True)
class PagerankCommand(SolvedCommand):
    """Propagate a column by personalised PageRank (APPNP), or rank rows from seeds.

    Attributes:
        store: also the first word of the command.
        column: numbers to propagate; or else give seeds.
        seeds: SQL condition on the rows that walks start at.
        teleport: chance of a walk to end at a step, in (0, 1].
        normalise: row (sums of rows stay) or symmetric; for a column.
        graph: file of the graph; the only one beside the store by default.
        out: column to write, pagerank.<column> or pagerank.seeds by default.
        method: of the solver: auto, direct, jacobi, rs, sa, spand, hsolve.
        rtol: relative residual.
        dry_run: print what would be solved, write nothing.
        overwrite: replace a column of other settings.
        json: print JSON.
    """

    column: str = ""
    seeds: str = ""
    teleport: float = 0.1
    normalise: str = "row"


@dataclass(kw_only=True)
class SmoothCommand(SolvedCommand):
    """Smooth a column over a graph: (C + g L) Z = C T; rows without numbers get some.

    Attributes:
        store: also the first word of the command.
        column: teacher outputs or embeddings to smooth.
        strength: g >= 0; larger is smoother.
        confidence: column of confidences >= 0; empty is 1 for all, degree the degrees.
        graph: file of the graph; the only one beside the store by default.
        out: column to write, smooth.<column> by default.
        method: of the solver: auto, direct, jacobi, rs, sa, spand, hsolve.
        rtol: relative residual.
        dry_run: print what would be solved, write nothing.
        overwrite: replace a column of other settings.
        json: print JSON.
    """

    column: str
    strength: float = 1.0
    confidence: str = ""


@dataclass(kw_only=True)
class EmbedCommand(SolvedCommand):
    """Write spectral coordinates: the slowest eigenvectors of the normalised Laplacian.

    Attributes:
        store: also the first word of the command.
        k: coordinates; trivial ones are not counted.
        eigen_solver: auto, eigsh, lobpcg or dense.
        seed: of its start.
        graph: file of the graph; the only one beside the store by default.
        out: column to write, spectral.<column> by default.
        method: of the inner systems: auto, direct, jacobi, rs, sa, spand, hsolve.
        rtol: relative residual of the inner systems.
        dry_run: print what would be solved, write nothing.
        overwrite: replace a column of other settings.
        json: print JSON.
    """

    k: int = 8
    eigen_solver: str = "auto"
    seed: int = 0
