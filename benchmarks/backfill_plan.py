"""Planning a backfill of 1,000,000 x 512 vectors: seconds and memory of each policy, and recall.

Every policy runs in a process of its own, whose peak memory is measured; `commit` is what one batch
of a backfill costs the store. Recall is of the ten nearest items of 200 queries by mapped vectors,
and after a fifth of the plan, against exact search among the new model's own vectors.

    .venv/bin/python benchmarks/backfill_plan.py [--rows 1000000] [--dim 512]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from common import write_result
from understudy.data.card import Card
from understudy.data.knowledge import embedding_config, embedding_type, fixed_list
from understudy.data.spaces import Space
from understudy.data.store import Store
from understudy.update.columns import scan_vectors
from understudy.update.plan import PlanConfig, make_plan, write_plan

NEW, MAPPED, FULL = "embed.new", "embed.new.from.old", "embed.full"
POLICIES = {
    "uncertainty": {},
    "random": {},
    "class-mean": {"labels": "label"},
    "distance": {"oracle": FULL},
}
CLASSES, QUERIES, K, UNIT = 2000, 200, 10, 16_384
GOAL_S, GOAL_BYTES = 60.0, 2 << 30


def vectors(start: int, stop: int, dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return new vectors, mapped ones and uncertainties of some rows."""
    rng = np.random.default_rng(start)
    centres = np.random.default_rng(7).standard_normal((CLASSES, dim), dtype=np.float32)
    rows = np.arange(start, stop)
    new = centres[rows % CLASSES] + 0.6 * rng.standard_normal((len(rows), dim), dtype=np.float32)
    size = rng.exponential(0.4, len(rows)).astype(np.float32)
    error = rng.standard_normal((len(rows), dim), dtype=np.float32)
    u = np.log(size + 1e-6) + 0.3 * rng.standard_normal(len(rows), dtype=np.float32)
    return new, new + size[:, None] * error, u.astype(np.float32)


def build(path: Path, rows: int, dim: int) -> Store:
    """Make the store: ids, classes, mapped vectors with uncertainties, and all new ones."""
    store = Store.create(
        path,
        (
            {
                "id": [f"item-{(i * 48_271) % 99_999_989:08d}" for i in part],
                "label": np.array(part) % CLASSES,
            }
            for part in (range(a, min(a + 50_000, rows)) for a in range(0, rows, 50_000))
        ),
    )
    new = Space(model="new", fingerprint="new", dim=dim)
    mapped = Space(model="old", fingerprint="old", dim=dim).mapped("map", new)
    kind, config = embedding_type([dim], "float32"), embedding_config([dim], "float32")
    cards = [
        Card(column=c, writer="w", fingerprint=s.fingerprint, config=configured)
        for c, s, configured in (
            (MAPPED, mapped, {**config, "space": mapped.to_dict()}),
            (MAPPED + ".u", mapped, {"space": mapped.to_dict()}),
            (FULL, new, {**config, "space": new.to_dict()}),
        )
    ]
    types = {MAPPED: kind, MAPPED + ".u": pa.float32(), FULL: kind}
    with store.job(cards, types, unit_rows=UNIT) as job:
        for unit in job.todo():
            n, z, u = vectors(unit.start, unit.stop, dim)
            job.write(
                unit, {MAPPED: fixed_list(z), MAPPED + ".u": pa.array(u), FULL: fixed_list(n)}
            )
    return store


def peak_bytes() -> int:
    """Return the most memory that this process had since it began its program."""
    status = Path("/proc/self/status")
    if not status.exists():
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    # getrusage would count what the parent had when it started this process
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def plan_once(path: str, policy: str, out: str) -> None:
    """Plan in this process and print seconds, peak bytes and items."""
    began = time.perf_counter()
    made = make_plan(Store.open(path), PlanConfig(new=NEW, policy=policy, **POLICIES[policy]))
    write_plan(made, out)
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "bytes": peak_bytes(), "items": len(made)}))


def measured(path: Path, policy: str) -> dict[str, float]:
    """Plan in a process of its own."""
    command = [sys.executable, __file__, "--plan", str(path), policy, f"{path}.{policy}.parquet"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def recalls(store: Store, order: np.ndarray, dim: int) -> dict[str, float]:
    """Return recall@10 of galleries with nothing and a fifth of an order encoded again."""
    import torch

    rank = np.full(store.num_rows, store.num_rows)
    rank[order] = np.arange(len(order))
    fresh = vectors(store.num_rows, store.num_rows + QUERIES, dim)[0]
    queries = torch.from_numpy(fresh)
    galleries = {"exact": 1.0, "mapped": 0.0, "fifth": 0.2}
    best = {g: (torch.full((QUERIES, K), torch.inf), torch.zeros(QUERIES, K).long())
            for g in galleries}  # fmt: skip
    for start, (z, n) in scan_vectors(store, [MAPPED, FULL], np.ones(store.num_rows, bool)):
        first = torch.from_numpy(rank[start : start + len(z)])
        near = [(torch.from_numpy(v), torch.from_numpy(v).square().sum(1)) for v in (z, n)]
        far, own = (norm - 2 * queries @ v.T for v, norm in near)
        for name, part in galleries.items():
            table = torch.where(first < part * store.num_rows, own, far)
            value, place = table.topk(K, largest=False)
            both = torch.cat([best[name][0], value], 1)
            at = torch.cat([best[name][1], place + start], 1)
            value, pick = both.topk(K, largest=False)
            best[name] = (value, at.gather(1, pick))
    exact = best["exact"][1]
    return {
        name: float((best[name][1][:, :, None] == exact[:, None, :]).any(2).float().mean())
        for name in ("mapped", "fifth")
    }


def commit_cost(store: Store, order: np.ndarray, dim: int) -> dict[str, float]:
    """Return what a batch of the default size costs the store when its rows lie everywhere."""
    from understudy.update.backfill import COMMITS, BackfillConfig, backfill

    new = Space(model="new", fingerprint="new", dim=dim)

    class Stored:
        space = new
        seconds = 0.0

        def __call__(self, items):
            return np.zeros((len(items), dim), np.float32) + np.arange(1, dim + 1)

    made = make_plan(store, PlanConfig(new=NEW, budget=f"{store.num_rows // COMMITS}items"))
    began = time.perf_counter()
    config = BackfillConfig(input="id", check_items=0, encode_rows=1024)
    result = backfill(store, made, Stored(), config)
    took = time.perf_counter() - began
    return {"items": result.encoded, "commits": result.commits, "seconds": took}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--plan", nargs=3, metavar=("STORE", "POLICY", "OUT"))
    given = parser.parse_args()
    if given.plan:
        plan_once(*given.plan)
        return
    with tempfile.TemporaryDirectory(prefix="backfill-bench-") as name:
        path = Path(name) / "store"
        store = build(path, given.rows, given.dim)
        plans = {policy: measured(path, policy) for policy in POLICIES}
        for policy, found in plans.items():
            print(f"plan {policy}: {found['seconds']:.1f} s, peak {found['bytes'] / 1e9:.2f} GB")
        made = make_plan(store, PlanConfig(new=NEW))
        recall = recalls(store, made.rows, given.dim)
        print(f"recall@{K} of mapped search against exact search: {recall['mapped']:.3f}; "
              f"with a fifth encoded again: {recall['fifth']:.3f}")  # fmt: skip
        commit = commit_cost(store, made.rows, given.dim)
        print(f"one batch of {commit['items']:,} scattered items: {commit['seconds']:.1f} s "
              f"beside encoding, column {given.rows * given.dim * 4 / 1e9:.2f} GB")  # fmt: skip
    goal = f"every policy under {GOAL_S:.0f} s and {GOAL_BYTES / 1e9:.2f} GB"
    met = all(p["seconds"] < GOAL_S and p["bytes"] < GOAL_BYTES for p in plans.values())
    write_result(
        "backfill_plan",
        {
            "rows": given.rows,
            "dim": given.dim,
            "plans": plans,
            "recall": recall,
            "batch": commit,
            "goal": goal,
            "goal_met": met,
        },
    )
    print(f"goal ({goal}): {'met' if met else 'missed'}")
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
