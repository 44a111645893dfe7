"""`understudy graph knn|spread|harmonic|pagerank|smooth|embed`: columns solved on a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.cli.common import note, parse_config, positional_store, show, table
from understudy.cli.graph_options import (
    EmbedCommand,
    HarmonicCommand,
    KnnCommand,
    PagerankCommand,
    SmoothCommand,
    SolvedCommand,
    SpreadCommand,
)
from understudy.core.errors import ConfigError

if TYPE_CHECKING:
    from understudy.data.store import Store
    from understudy.solve.graph import Graph, SolverConfig


def knn(argv: Sequence[str], prog: str) -> int:
    """Make a graph of nearest neighbours."""
    command = parse_config(KnnCommand, positional_store(argv), prog)
    from understudy.curate.graph.files import default_path
    from understudy.curate.graph.knn import plan_knn, write_knn
    from understudy.data.store import Store
    from understudy.solve.graph import KnnConfig

    config = KnnConfig(
        k=command.k,
        metric=command.metric,
        search=command.search,
        kernel=command.kernel,
        sigma=_sigma(command.sigma),
        self_loops=command.self_loops,
        seed=command.seed,
        block_mb=command.block_mb,
    )
    store = Store.open(command.store)
    plan = plan_knn(
        store, command.column, config, where=command.where, neighbours=command.neighbours
    )
    out = Path(command.graph) if command.graph else default_path(store, command.column)
    if command.dry_run:
        _show({"writes": f"{out}, {plan.neighbours}", **plan.cost}, command.json, "graph knn")
        return 0
    graph = write_knn(store, plan, out, overwrite=command.overwrite)
    facts = {**graph.summary(), **_short(graph.facts)}
    _show({**facts, "graph": str(out)}, command.json, "graph knn")
    if graph.isolated.size or graph.duplicates.size:
        _list_unusual(store, graph)
    note(f"wrote column '{plan.neighbours}' of {command.store}")
    note(f"wrote {out}")
    return 0


def _sigma(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


def _short(facts: dict[str, Any]) -> dict[str, Any]:
    return {k: facts[k] for k in ("search", "recall", "sigma_found") if k in facts}


def _list_unusual(store: Store, graph: Graph) -> None:
    assert graph.rows is not None
    for what, nodes in (("isolated", graph.isolated), ("duplicated", graph.duplicates)):
        if nodes.size:
            ids = store.take(graph.rows[nodes[:5]], ["id"])["id"].to_pylist()
            more = f" and {nodes.size - 5:,} more" if nodes.size > 5 else ""
            note(f"{what}: {', '.join(ids)}{more}")


def spread(argv: Sequence[str], prog: str) -> int:
    """Spread labels."""
    command = parse_config(SpreadCommand, positional_store(argv), prog)
    return _labels(command, "spread", alpha=command.alpha)


def harmonic(argv: Sequence[str], prog: str) -> int:
    """Extend labels by harmonic functions."""
    command = parse_config(HarmonicCommand, positional_store(argv), prog)
    return _labels(command, "harmonic", class_mass=command.class_mass)


def _labels(command: SpreadCommand | HarmonicCommand, method: str, **own: Any) -> int:
    from understudy.curate.graph.labels import LabelConfig, plan_labels, write_labels

    solver, store, graph = _opened(command)
    config = LabelConfig(
        method=method,
        labels=command.labels,
        where=command.where,
        out=command.out,
        scores=command.scores,
        **own,
    )
    plan = plan_labels(store, graph, config)

    def write() -> tuple[int, dict[str, Any]]:
        return write_labels(store, graph, plan, solver=solver, overwrite=command.overwrite)

    return _finish(command, f"graph {method}", plan.facts, write)


def pagerank(argv: Sequence[str], prog: str) -> int:
    """Propagate a column, or rank rows."""
    command = parse_config(PagerankCommand, positional_store(argv), prog)
    if bool(command.column) == bool(command.seeds):
        raise ConfigError(f"{prog}: give either --column to propagate, or --seeds to rank from.")
    if command.column:
        return _values(
            command,
            "pagerank",
            column=command.column,
            teleport=command.teleport,
            normalise=command.normalise,
        )
    from understudy.curate.graph.values import write_ranks

    solver, store, graph = _opened(command)
    out = command.out or "pagerank.seeds"
    facts = {"writes": out, "nodes": graph.n, "edges": graph.num_edges, "right_hand_sides": 1}

    def write() -> tuple[int, dict[str, Any]]:
        return write_ranks(
            store,
            graph,
            command.seeds,
            out=out,
            teleport=command.teleport,
            solver=solver,
            overwrite=command.overwrite,
        )

    return _finish(command, "graph pagerank", facts, write)


def smooth(argv: Sequence[str], prog: str) -> int:
    """Smooth a column."""
    command = parse_config(SmoothCommand, positional_store(argv), prog)
    return _values(
        command,
        "smooth",
        column=command.column,
        strength=command.strength,
        confidence=command.confidence,
    )


def _values(command: PagerankCommand | SmoothCommand, method: str, **own: Any) -> int:
    from understudy.curate.graph.files import find_graph
    from understudy.curate.graph.values import ValueConfig, plan_values, write_values

    config = ValueConfig(method=method, out=command.out, **own)
    solver, store, graph = _opened(command)
    plan = plan_values(store, graph, config)
    work = Path(f"{find_graph(store, command.graph)}.work")

    def write() -> tuple[int, dict[str, Any]]:
        return write_values(
            store, graph, plan, work=work, solver=solver, overwrite=command.overwrite
        )

    return _finish(command, f"graph {method}", plan.facts, write)


def embed(argv: Sequence[str], prog: str) -> int:
    """Write spectral coordinates."""
    command = parse_config(EmbedCommand, positional_store(argv), prog)
    from understudy.curate.graph.embed import write_embedding

    solver, store, graph = _opened(command)
    out = command.out or f"spectral.{graph.facts['column']}"
    facts = {"writes": out, "nodes": graph.n, "edges": graph.num_edges, "coordinates": command.k}

    def write() -> tuple[int, dict[str, Any]]:
        return write_embedding(
            store,
            graph,
            command.k,
            out=out,
            method=command.eigen_solver,
            seed=command.seed,
            solver=solver,
            overwrite=command.overwrite,
        )

    return _finish(command, "graph embed", facts, write)


def _opened(command: SolvedCommand) -> tuple[SolverConfig, Store, Graph]:
    from understudy.curate.graph.files import load_graph
    from understudy.data.store import Store
    from understudy.solve.graph import SolverConfig

    solver = SolverConfig(method=command.method, rtol=command.rtol)
    store = Store.open(command.store)
    return solver, store, load_graph(store, command.graph)


def _finish(
    command: SolvedCommand,
    title: str,
    facts: dict[str, Any],
    write: Callable[[], tuple[int, dict[str, Any]]],
) -> int:
    if command.dry_run:
        _show(facts, command.json, title)
        return 0
    written, found = write()
    _show({**facts, "rows_written": written, **found}, command.json, title)
    done = "" if written else " (it was there already)"
    note(f"wrote column '{facts['writes']}' of {command.store}{done}")
    return 0


def _show(facts: dict[str, Any], as_json: bool, title: str) -> None:
    def text(data: dict[str, Any]) -> str:
        flat: list[tuple[str, Any]] = []
        for name, value in data.items():
            if isinstance(value, dict):
                flat += [(f"{name} {key}", part) for key, part in value.items()]
            else:
                flat.append((name, value))
        rows = [(n.replace("_", " "), _plain(v)) for n, v in flat]
        return table(rows, (title, ""))

    show(facts, as_json, text)


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return ", ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in value)
    if isinstance(value, dict):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items())
    return f"{value:.3g}" if isinstance(value, float) else value
