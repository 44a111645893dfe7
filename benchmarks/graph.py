"""Label spreading on a graph of neighbours, beside scikit-learn's: time, memory, agreement.

    python benchmarks/graph.py [--sizes 2000 8000 32000] [--large 700000] [--peer-limit 4000]

Points lie near ten curved sheets of two dimensions in 16; five labels a class, alpha 0.99, k = 10.
Every arm runs in a process of its own, so that its peak memory is its own (the memory of the
process after imports is subtracted). Arms: scikit-learn with its RBF kernel (n x n), with its graph
of neighbours, and this package's estimator. Writes benchmarks/results/graph.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")

ARMS = ("ours", "sklearn_knn", "sklearn_rbf")
CLASSES, WIDTH, K, ALPHA = 10, 16, 10, 0.99


def points(n: int):
    import numpy as np

    draw = np.random.default_rng(0)
    kind = draw.integers(0, CLASSES, n)
    sheet = draw.standard_normal((CLASSES, 4, WIDTH))
    u = draw.uniform(0, 1, (n, 2))
    basis = np.stack([u[:, 0], u[:, 1], np.sin(3 * u[:, 0]), np.cos(3 * u[:, 1])], axis=1)
    x = np.einsum("nb,nbw->nw", basis, sheet[kind]) + 0.02 * draw.standard_normal((n, WIDTH))
    y = np.full(n, -1)
    for c in range(CLASSES):
        y[np.flatnonzero(kind == c)[:5]] = c
    return x.astype(np.float32), y, kind


def peak_bytes() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run_arm(arm: str, n: int) -> dict[str, float | str]:
    import time
    import warnings

    x, y, kind = points(n)
    if arm == "ours":
        import numba  # noqa: F401
        import scipy.sparse.linalg  # noqa: F401

        from understudy.solve.graph import LabelSpreading

        model = LabelSpreading(alpha=ALPHA, n_neighbors=K)
        LabelSpreading(n_neighbors=K, search="approximate").fit(x[:500], y[:500])  # compiled
    else:
        from sklearn.semi_supervised import LabelSpreading as Peer

        kernel = {"kernel": "knn", "n_neighbors": K} if arm == "sklearn_knn" else {
            "kernel": "rbf", "gamma": 20.0
        }  # fmt: skip
        model = Peer(alpha=ALPHA, max_iter=1000, tol=1e-6, **kernel)
    before, start, cpu = peak_bytes(), time.perf_counter(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x, y)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    found: dict[str, float | str] = {
        "seconds": round(seconds, 3),
        "cpu_seconds": round(cpu, 3),
        "mebibytes": round((peak_bytes() - before) / 2**20, 1),
        "accuracy": round(float((model.transduction_ == kind).mean()), 4),
        "iterations": int(model.n_iter_),
    }
    if arm == "ours":
        found["solver"] = model.result_.report["method"]
        found["solve_seconds"] = round(sum(model.result_.report["seconds"].values()), 3)
        found["not_reached"] = model.result_.report["not_reached"]
    return found


def measure(arm: str, n: int, limit_s: int) -> dict[str, float | str]:
    command = [sys.executable, __file__, "--arm", arm, "--sizes", str(n)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {limit_s} s"}
    if done.returncode:
        return {
            "failed": (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1][:120]
        }
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 8000, 32000])
    parser.add_argument("--large", type=int, nargs="*", default=[700_000])
    parser.add_argument("--peer-limit", type=int, default=4_000, help="largest n of n x n")
    parser.add_argument("--limit-s", type=int, default=1500)
    parser.add_argument("--arm", choices=ARMS)
    options = parser.parse_args()
    if options.arm:
        print(json.dumps(run_arm(options.arm, options.sizes[0])))
        return
    rows = []
    for n in [*options.sizes, *options.large]:
        for arm in ARMS:
            if arm == "sklearn_rbf" and n > options.peer_limit:
                gib = round(n * n * 8 / 2**30, 1)
                rows.append({"n": n, "arm": arm, "not_run": f"n x n takes {gib:,} GiB"})
            elif arm != "ours" and n in options.large:
                rows.append({"n": n, "arm": arm, "not_run": "not tried"})
            else:
                rows.append({"n": n, "arm": arm, **measure(arm, n, options.limit_s)})
            print(rows[-1], flush=True)
    from common import write_result

    settings = {"classes": CLASSES, "width": WIDTH, "k": K, "alpha": ALPHA}
    print(write_result("graph", {"settings": settings, "rows": rows}))


if __name__ == "__main__":
    main()
