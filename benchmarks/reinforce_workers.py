"""Reinforce on local Ray: two workers against one, and one worker against this process.

A teacher that computes for a second or more a unit (matrix products, one thread) looks at pictures.
Three arms reinforce the same rows: this process; Ray with one worker of one thread; Ray with two.
Rates are taken between the third unit and the third last one, so that neither starting workers nor
the last unit counts; `start_s` says what starting took. The content of all stores must be equal.

Goals: two workers at least 1.7 times as fast as one; Ray at most 15 % slower than this process at
equal cores. Needs two cores that are free.

    .venv/bin/python benchmarks/reinforce_workers.py [--quick]
"""

from __future__ import annotations

import io
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from PIL import Image

ROWS_A_UNIT, SIDE = 8, 640
GOAL_TWO, GOAL_OVERHEAD = 1.7, 0.15
EDGE = 3


def embed(images) -> np.ndarray:
    """Embed images after a good deal of arithmetic, the same whatever the batch."""
    turns = int(os.environ["BENCHMARK_TURNS"])
    mixing = np.random.default_rng(0).normal(size=(SIDE, SIDE)).astype(np.float32) / SIDE**0.5
    out = []
    for image in images:
        state = np.resize(np.asarray(image, np.float32) / 255, (SIDE, SIDE))
        for _ in range(turns):
            state = np.tanh(state @ mixing)
        out.append(state[:, :8].mean(axis=0) + 1)
    return np.stack(out)


def turns_for(seconds: float) -> int:
    """Return how often the teacher must turn so that a unit takes so long."""
    os.environ["BENCHMARK_TURNS"] = "20"
    image = np.zeros((32, 32, 3), np.uint8)
    embed([image])
    began = time.perf_counter()
    embed([image] * ROWS_A_UNIT)
    return max(1, round(20 * seconds / (time.perf_counter() - began)))


def picture(seed: int) -> bytes:
    """Return a small PNG."""
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def timed(path: Path, units: int, filler) -> dict[str, float | str]:
    """Reinforce a fresh store; return samples/s in the middle, the start, and the content."""
    from understudy.data.store import Store
    from understudy.data.views import ViewConfig
    from understudy.reinforce.config import ReinforceConfig, TeacherSpec
    from understudy.reinforce.fill import Report
    from understudy.reinforce.generate import reinforce

    rows = units * ROWS_A_UNIT
    data = {"id": [str(i) for i in range(rows)], "image": [picture(i) for i in range(rows)]}
    store = Store.create(path, [data])
    spec = TeacherSpec(
        name="t", kind="callable", options={"embed_images": "reinforce_workers:embed"}
    )
    config = ReinforceConfig(
        num_views=1,
        views=ViewConfig(size=32),
        batch_size=ROWS_A_UNIT,
        unit_rows=ROWS_A_UNIT,
        teachers=(spec,),
    )
    ends: list[float] = []
    add = Report.add_unit

    def note(self: Report, facts) -> None:
        ends.append(time.perf_counter())
        add(self, facts)

    Report.add_unit = note  # type: ignore[method-assign]
    try:
        began = time.perf_counter()
        reinforce(store, config, filler=filler)
    finally:
        Report.add_unit = add  # type: ignore[method-assign]
    middle = ends[EDGE - 1 : -EDGE + 1]
    return {
        "samples_per_s": (len(middle) - 1) * ROWS_A_UNIT / (middle[-1] - middle[0]),
        "unit_s": (middle[-1] - middle[0]) / (len(middle) - 1),
        "start_s": ends[0] - began,
        "content": store.refresh().content_hash(),
    }


def main() -> None:
    """Run the arms and print the rates."""
    quick = "--quick" in sys.argv
    rounds, units, seconds = (1, 10, 0.3) if quick else (3, 24, 1.5)
    here = str(Path(__file__).parent)
    sys.path.insert(0, here)
    os.environ["PYTHONPATH"] = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
    os.environ["BENCHMARK_TURNS"] = str(turns_for(seconds))
    os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")
    import ray

    from understudy.reinforce.fill import Filler
    from understudy.reinforce.ray_workers import PoolConfig, RayWorkers

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
             object_store_memory=100_000_000, logging_level="error")  # fmt: skip
    arms = {
        "here": Filler(),
        "ray_1": RayWorkers(None, PoolConfig(least=1, most=1)),
        "ray_2": RayWorkers(None, PoolConfig(least=2, most=2)),
    }
    found: dict[str, list[dict]] = {name: [] for name in arms}
    try:
        with tempfile.TemporaryDirectory() as folder:
            for number in range(rounds):
                for name, filler in list(arms.items())[:: 1 if number % 2 == 0 else -1]:
                    found[name].append(timed(Path(folder, f"{name}-{number}"), units, filler))
    finally:
        ray.shutdown()
    assert len({run["content"] for runs in found.values() for run in runs}) == 1
    rates = {name: [float(r["samples_per_s"]) for r in runs] for name, runs in found.items()}

    def over(a: str, b: str) -> float:
        return statistics.median(x / y for x, y in zip(rates[a], rates[b], strict=True))

    two, overhead = over("ray_2", "ray_1"), over("here", "ray_1") - 1
    for name, runs in found.items():
        print(
            f"{name:<6} {statistics.median(rates[name]):8.2f} samples/s, start "
            f"{statistics.median(float(r['start_s']) for r in runs):5.1f} s"
        )
    print(f"two workers over one {two:.2f} (goal {GOAL_TWO}), Ray's overhead {overhead:+.1%}")
    if quick:
        return
    from common import write_result

    result = {
        "goal": f"two workers >= {GOAL_TWO} of one; overhead <= {GOAL_OVERHEAD:.0%} at equal cores",
        "rounds": rounds,
        "units": units,
        "unit_s": round(statistics.median(float(r["unit_s"]) for r in found["here"]), 3),
        "samples_per_s": {n: round(statistics.median(r), 3) for n, r in rates.items()},
        "start_s": {
            n: round(statistics.median(float(r["start_s"]) for r in runs), 2)
            for n, runs in found.items()
        },
        "two_over_one": round(two, 4),
        "overhead": round(overhead, 4),
    }
    write_result("reinforce_workers", result)
    sys.exit(0 if two >= GOAL_TWO and overhead <= GOAL_OVERHEAD else 1)


if __name__ == "__main__":
    main()
