"""`understudy update fit STORE`: learn a map between two spaces."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.cli.common import note, parse_config, positional_store, show, table
from understudy.core.errors import ConfigError
from understudy.update.fit_config import FitConfig
from understudy.update.vector_files import SUFFIXES

if TYPE_CHECKING:
    from understudy.update.maps import CompatibleMap
    from understudy.update.pairs import Pairs


@dataclass(frozen=True, kw_only=True, slots=True)
class FitOptions(FitConfig):
    """Learn a map from the old vectors to the new ones, from stored vectors alone.

    Attributes:
        store: the store that holds both columns; also the first word of the command. Or a file of
            pairs (.npz, .parquet) with ids and the fields old, new and perhaps side.
        old: column of old vectors, or a file of them.
        new: column of new vectors, or a file of them.
        side: column (or file) of side information; none gives the old vector twice.
        labels: column of classes, for a loss with disc.
        classifier: the new model's classification layer: safetensors with weight and bias, or
            FILE:PREFIX; class means of the new vectors stand in for it.
        where: SQL filter of the rows to learn from.
        eval_where: SQL filter of rows to score instead of held-out ones.
        join: pair files by id where their order differs, and leave out what not all have.
        out: folder of the run.
        onnx: also write map.onnx (needs the extra 'export').
        time_limit_s: stop with a checkpoint after this many seconds; 0 never.
        fresh: start over instead of going on with what is in the folder.
        threads: of the processor.
        dry_run: print pairs, parameters, FLOPs and bytes; write nothing.
        json: print JSON.
    """

    store: str = ""
    old: str = ""
    new: str = ""
    side: str = ""
    labels: str = ""
    classifier: str = ""
    where: str = ""
    eval_where: str = ""
    join: bool = False
    out: Path = Path("runs/map")
    onnx: bool = False
    time_limit_s: float = 0.0
    fresh: bool = False
    threads: int = 1
    dry_run: bool = False
    json: bool = False

    def config(self) -> FitConfig:
        """Return the part that says how the map is learned."""
        return FitConfig(**{f.name: getattr(self, f.name) for f in dataclasses.fields(FitConfig)})


def facts_table(facts: dict[str, Any], title: str) -> str:
    """Format named facts as a table; whole numbers get separators."""

    def cell(value: Any) -> Any:
        return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value

    rows = [(name.replace("_", " "), cell(value)) for name, value in facts.items()]
    return table([(n, f"{v:,}" if type(v) is int else v) for n, v in rows], (title, ""))


def _pairs(options: FitOptions) -> tuple[Pairs, Pairs | None]:
    """Return the pairs to learn from, and those to score if they are named."""
    from understudy.update.pair_files import pairs_of_file, pairs_of_files
    from understudy.update.pairs import pairs_of_store

    if options.store and Path(options.store).suffix in SUFFIXES:
        return pairs_of_file(options.store), None
    if not (options.old and options.new):
        raise ConfigError(
            "update fit: name the two columns (--old embed.a --new embed.b), or a file of pairs."
        )
    if not options.store:
        return pairs_of_files(options.old, options.new, options.side, join=options.join), None
    from understudy.data.store import Store

    store = Store.open(options.store)

    def read(where: str) -> Pairs:
        return pairs_of_store(
            store,
            options.old,
            options.new,
            side=options.side,
            labels=options.labels,
            where=where,
        )

    return read(options.where), read(options.eval_where) if options.eval_where else None


def fit(argv: Sequence[str], prog: str) -> int:
    """Parse and run `update fit STORE`."""
    options = parse_config(FitOptions, positional_store(argv), prog)

    import torch

    from understudy.update.classifier import load_head
    from understudy.update.fit import FitWarning, fit_map

    torch.set_num_threads(options.threads)
    config = options.config()
    pairs, scored = _pairs(options)
    if options.dry_run:
        show(_fit_plan(pairs, scored, config), options.json, lambda f: facts_table(f, "fit"))
        return 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)  # printed below, once
        result = fit_map(
            pairs,
            config,
            options.out,
            head=load_head(options.classifier) if options.classifier else None,
            eval_pairs=scored,
            seconds_limit_s=options.time_limit_s,
            resume=not options.fresh,
        )
    for sentence in result.warnings:
        note(f"warning: {sentence}")
    if result.map is None:
        note(f"stopped by the time limit; run the same command again to go on ({options.out})")
        return 0
    show(_fit_facts(result.map, options), options.json, lambda f: facts_table(f, "map"))
    note(f"wrote {result.path}")
    if options.onnx:
        from understudy.update.export_map import export_map

        note(f"wrote {export_map(result.map, options.out / 'map.onnx')}")
    return 0


def _fit_plan(pairs: Pairs, scored: Pairs | None, config: FitConfig) -> dict[str, Any]:
    from understudy.models.embedding.compatible import count_parameters
    from understudy.update.fit import transform_config

    held = round(config.held_out * len(pairs)) if scored is None else 0
    facts: dict[str, Any] = {
        "pairs": len(pairs) - held,
        "held_out": held if scored is None else len(scored),
        "old_dim": pairs.old.dim,
        "side_dim": pairs.side.dim if pairs.side else 0,
        "new_dim": pairs.new.dim,
        "from_space": str(pairs.spaces["old"]),
        "to_space": str(pairs.spaces["new"]),
    }
    if config.kind != "transform":
        count = (pairs.old.dim + (pairs.side.dim if pairs.side else 0) + 1) * pairs.new.dim
        return {**facts, "parameters": count, "bytes_written": 4 * count}
    network = transform_config(pairs, config)
    parameters = count_parameters(network)
    # forward, and two products of its size backward
    flops = 3 * 2 * network.macs * (len(pairs) - held) * config.epochs
    return {
        **facts,
        "parameters": parameters,
        "epochs": config.epochs,
        "flops": flops,
        "flops_per_item_applied": 2 * network.macs,
        "bytes_written": 4 * parameters,
    }


def _fit_facts(made: CompatibleMap, options: FitOptions) -> dict[str, Any]:
    keys = ("kind", "train_pairs", "held_out_pairs", "held_out_mse", "held_out_r2", "uncertainty")
    classifier = made.manifest["classifier"]
    return {
        "path": str(options.out / "map.safetensors"),
        "fingerprint": made.fingerprint,
        "from_space": str(made.from_space),
        "to_space": str(made.to_space),
        "side_space": str(made.side_space) if made.side_space else "none",
        **{key: made.manifest[key] for key in keys},
        "classifier": classifier["origin"] if classifier else "none",
        "parameters": made.num_parameters,
        "flops_per_item": made.flops_per_item,
    }
