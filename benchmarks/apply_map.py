"""Applying a map against nothing but the matrix products of the same network.

The published widths of an update 384 -> 768 (inner 2048, no side information, uncertainty head).
`bare` multiplies random matrices of the network's shapes, at the number of rows a time that is
fastest for it; `transform` maps vectors in memory; `apply` reads a store's column, maps it and
commits the new one. Arms take turns, so that a slow moment of the machine meets all of them.

    .venv/bin/python benchmarks/apply_map.py [--quick]
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from common import alternate, rates, ratio, write_result

GOAL = 0.8
OLD, NEW, INNER = 384, 768, 2048


def made_map() -> Any:
    """Return a map with fresh weights between two made-up models."""
    from understudy.data.spaces import Space
    from understudy.models.embedding.compatible import CompatibleTransform, TransformConfig
    from understudy.update.maps import CompatibleMap

    config = TransformConfig(old_dim=OLD, new_dim=NEW, inner=INNER, uncertainty=True)
    old, new = (Space(model=m, fingerprint=m, dim=d) for m, d in (("old", OLD), ("new", NEW)))
    manifest = {"from_space": old.to_dict(), "to_space": new.to_dict(), "side_space": None}
    return CompatibleMap(CompatibleTransform(config, seed=0), manifest)


def made_store(path: Path, compatible: Any, rows: int) -> tuple[Any, Any]:
    """Return a store with a column of old vectors, and the vectors."""
    import pyarrow as pa

    from understudy.core.seeds import rng
    from understudy.data.knowledge import embedding_config, fixed_list
    from understudy.data.store import Card, Store

    vectors = rng("vectors").standard_normal((rows, OLD), dtype="float32")
    store = Store.create(path, [{"id": [f"item-{i}" for i in range(rows)]}])
    space = compatible.from_space
    config = {**embedding_config([OLD], "float32"), "space": space.to_dict()}
    card = Card(column="embed.old", writer="old", fingerprint="old", config=config)
    with store.job([card], {"embed.old": pa.list_(pa.float32(), OLD)}, unit_rows=4096) as job:
        for unit in job.todo():
            job.write(unit, {"embed.old": fixed_list(vectors[unit.start : unit.stop])})
    return store, vectors


def bare_products(rows: int, chunk: int) -> Callable[[], None]:
    """Return a function that multiplies as often and as much as the network does, and no more."""
    import torch

    # the matrices of both branches, the mixer and the head
    branch = [(OLD, 2 * OLD), (2 * OLD, 2 * NEW)]
    shapes = [*branch, *branch, (4 * NEW, INNER), (INNER, INNER), (INNER, NEW), (NEW, 1)]
    weights = [torch.randn(b, a) for a, b in shapes]
    inputs = {a: torch.randn(chunk, a) for a, _ in shapes}
    outputs = [torch.empty(chunk, b) for _, b in shapes]

    def run() -> None:
        with torch.inference_mode():
            for _ in range(0, rows, chunk):
                for (a, _), weight, out in zip(shapes, weights, outputs, strict=True):
                    torch.mm(inputs[a], weight.T, out=out)

    return run


def best_chunk(rows: int) -> int:
    """Return the number of rows at a time at which bare products are fastest."""
    chunks = [c for c in (256, 512, 1024, 2048, 4096) if c <= rows]
    arms = {str(c): bare_products(rows, c) for c in chunks}
    seconds = alternate(arms, rounds=2)
    return int(min(seconds, key=lambda name: min(seconds[name])))


def main() -> None:
    import torch

    from understudy.update.apply import apply_map

    torch.set_num_threads(1)
    quick = "--quick" in sys.argv
    rows, rounds = (2048, 3) if quick else (8192, 7)
    compatible, number = made_map(), count()
    chunk = best_chunk(min(rows, 4096))
    with tempfile.TemporaryDirectory() as folder:
        store, vectors = made_store(Path(folder) / "store", compatible, rows)
        arms = {
            "bare": bare_products(rows, chunk),
            "transform": lambda: compatible.transform(vectors),
            "apply": lambda: apply_map(
                store, compatible, old="embed.old", out=f"embed.out{next(number)}"
            ),
        }
        seconds = alternate(arms, rounds)
    shares = {name: round(ratio(seconds["bare"], seconds[name]), 3) for name in arms}
    speeds = rates(seconds, dict.fromkeys(arms, rows))
    for name in arms:
        print(f"{name:>10}: {speeds[name]:,} items a second, {shares[name]:.2f} of bare products")
    gflops = compatible.flops_per_item * speeds["bare"] / 1e9
    print(f"bare products: {gflops:.0f} GFLOP/s on one thread, {chunk} rows at a time")
    met = shares["apply"] >= GOAL
    print(f"apply / bare: {shares['apply']:.2f} (goal >= {GOAL})")
    facts = {"rows": rows, "widths": [OLD, NEW, INNER], "items_per_s": speeds, "of_bare": shares}
    write_result("apply_map", {**facts, "chunk": chunk, "goal": GOAL, "met": met})
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
