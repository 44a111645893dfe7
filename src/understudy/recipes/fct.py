r"""FCT: change the embedding model of a gallery without reading one item again.

"Forward Compatible Training for Large-Scale Embedding Retrieval Systems" (CVPR 2022, arXiv
2112.02805). When an old model is deployed, a second small vector is stored beside each embedding,
learned without knowing what for. When a new model comes, a small network maps both to the new
model's space; the new model is trained freely, and queries are its own.

    understudy run fct STORE --old efficientnet-lite0 --new efficientnet-lite2 --out runs/fct
    understudy run fct STORE --old train:digits-mlp-8 --new train:digits-mlp-32 \
        --side simclr:digits-mlp-16 --shift 1 --noise 0.15
    understudy verify fct --jobs 2
    understudy plan fct --scale paper

`STORE` holds labelled pictures or texts (or is a file of pairs). Expect a mapped gallery well above
the old one and below a full backfill (the paper, ImageNet-1k, 500 -> 1,000 classes, CMC-1: old
46.4, mapped 61.8, with side information 65.1, backfilled 68.4). The claim (10 arms, 5 seeds) takes
some ten minutes on two cores.

The algorithm, as `run` goes through it:

1. both models' vectors of the items to learn from and of the items to search, and side information;
2. maps on the first: a rotation, least squares, h of the old vector alone, h with side information;
3. the second as queries and gallery, each item left out of its own ranking: old/old, new/new, new
   queries on each mapped gallery, and on the raw one where widths allow it;
4. where models are trained here: a backward-compatible new model on the untouched gallery;
5. what h costs an item beside the new model.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.core.config import to_dict
from understudy.core.files import write_json
from understudy.recipes.fct_claim import CLAIM
from understudy.recipes.fct_plan import plan as PLAN
from understudy.recipes.fct_plan import preview
from understudy.update.source_config import SourceConfig

if TYPE_CHECKING:
    from understudy.update.sample import Sample
    from understudy.update.source import Source

__all__ = ["CLAIM", "PLAN", "Config", "preview", "run"]

KINDS = {"rotation": "orthogonal", "least squares": "least-squares", "h": "transform"}


@dataclass(frozen=True, kw_only=True)
class Config(SourceConfig):
    """Say what is updated; see `understudy.update.source_config.SourceConfig` for the items.

    Attributes:
        out: folder of the maps and of `result.json`.
        bct: weight of the old classifier in backward-compatible training, the baseline that is
            added where both models are trained here; 0 leaves it out.
    """

    out: Path = Path("runs/fct")
    bct: float = 1.0


def run(config: Config) -> Path:
    """Embed, fit maps, search.

    Returns:
        the folder, with maps and `result.json`.

    Raises:
        ConfigError: options that do not fit each other.
        DataError: rows, labels or vectors that cannot be used.
    """
    from understudy.update.sample import cross_metrics
    from understudy.update.source import open_source

    source = open_source(config, config.out / "models")
    test, metric = source.test, config.metric
    found: dict[str, dict[str, Any]] = {
        "old/old": cross_metrics(test.old, test.old, test.labels, metric),
        "new/new": cross_metrics(test.new, test.new, test.labels, metric),
    }
    if test.old.shape == test.new.shape:
        found["new/old, raw"] = cross_metrics(test.new, test.old, test.labels, metric)
    for name, kind in KINDS.items():
        found[name] = _mapped(config, source, name, kind, side=False)
    if test.side is not None:
        found["h with side"] = _mapped(config, source, "h with side", "transform", side=True)
    if config.bct and source.rows is not None and {"old", "new"} <= set(source.models):
        found["backward-compatible"] = _backward(config, source)
    result = {
        "recipe": "fct",
        "config": to_dict(config),
        "rows": {"train": len(source.train), "test": len(test)},
        "spaces": {part: str(space) for part, space in test.spaces.items()},
        "updates": _with_gains(found),
        "costs": _costs(source, found),
    }
    write_json(config.out / "result.json", result)
    return config.out


def _mapped(config: Config, source: Source, name: str, kind: str, *, side: bool) -> dict[str, Any]:
    """Fit one map and search the gallery that it makes."""
    from understudy.update.fit import fit_map
    from understudy.update.sample import cross_metrics

    test = source.test
    fit = replace(config.fit, kind=kind, loss="l2", seed=config.seed)  # type: ignore[arg-type]
    out = config.out / "maps" / name.replace(" ", "-")
    made = fit_map(source.train.pairs(side=side), fit, out)
    assert made.map is not None
    begun = time.perf_counter()
    mapped, _ = made.map.transform(test.old, test.side if side else None)
    seconds = time.perf_counter() - begun
    held = made.held_out
    facts = {
        "map_file": str(made.path),
        "parameters": made.map.num_parameters,
        "flop_per_item": made.map.flops_per_item,
        "items_per_s": len(test) / max(seconds, 1e-9),
        "held_out_mse": None if held is None else held.mse,
        "held_out_r2": None if held is None else held.r2,
        "warnings": made.warnings,
    }
    return {**cross_metrics(test.new, mapped, test.labels, config.metric), **facts}


def _backward(config: Config, source: Source) -> dict[str, Any]:
    """Train the new model to fit the old classifier and search the old gallery with it."""
    from understudy.data.store import Store
    from understudy.update.sample import cross_metrics
    from understudy.update.source_config import chosen_rows
    from understudy.update.trained import EmbedderConfig, embed, train_compatible

    assert source.rows is not None
    chosen = EmbedderConfig(
        model=config.new.partition(":")[2], train=config.train, smoothing=config.smoothing
    )
    out = config.out / "models" / "backward"
    model = train_compatible(
        chosen, source.rows, source.models["old"], out, config.seed, weight=config.bct
    )
    store, test = Store.open(config.store), source.test
    own = embed(model, store, chosen_rows(store, config)[1], source.rows.column)
    alone = cross_metrics(own, own, test.labels, config.metric)
    found = cross_metrics(own, test.old, test.labels, config.metric)
    return {**found, "own_map": alone["map"], "own_cmc_1": alone["cmc_1"]}


def _with_gains(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Add to each row its share of a full backfill's gain, where there is one."""
    old, new = (found[name]["map"] for name in ("old/old", "new/new"))
    if not new > old:
        return found
    return {n: {**row, "gain_map": (row["map"] - old) / (new - old)} for n, row in found.items()}


def _costs(source: Source, found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return bytes of an item, and items a second through h and through the embedders."""
    test: Sample = source.test
    return {
        "side_bytes_per_item": 0 if test.side is None else int(test.side[0].nbytes),
        "old_bytes_per_item": int(test.old[0].nbytes),
        "new_bytes_per_item": int(test.new[0].nbytes),
        "embedded_per_s": source.rates,
        "mapped_per_s": found["h"]["items_per_s"],
    }
