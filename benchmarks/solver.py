"""The hierarchical solver beside SuperLU, ILU and algebraic multigrid.

Every system is solved to a relative residual of 1e-10 by every method that can: setup and solve in
processor seconds of one thread, iterations, stored numbers an entry, one application of the
preconditioner in units of a sparse product and of a V-cycle. Growth exponents are fitted over the
sizes of a family. At last 64 right-hand sides on a medium of contrast 1e6, in wall seconds.

    .venv/bin/python benchmarks/solver.py [--quick | --full] [--only NAME]

`--only many` runs the last part alone and keeps the rest of an earlier result.
`--full` goes up to 1,048,576 unknowns in 2D and 262,144 in 3D (about half an hour).
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

from common import RESULTS, write_result
from solver_plots import draw

MAX_ITERATIONS = 500
KEYS = ("setup_s", "setup_in_products", "apply_s", "apply_in_products", "iterations",
        "floats_per_entry")  # fmt: skip
OURS: dict[str, dict[str, Any]] = {
    "spand, nothing kept": {"eps": 0.1, "phi": None},
    "spand": {"eps": 0.1},
    "spand 2nd order": {"eps": 0.01, "second_order": True},
    "spand 2nd, METIS": {"eps": 0.01, "second_order": True, "coords": None},
    "hsolve": {"eps": 0.1, "method": "hsolve"},
}


def families(size: str) -> dict[str, list[Callable[[], Any]]]:
    """Return the problems of each family, smallest first."""
    from understudy.solve import problems as make

    flat = {"quick": (64, 128), "usual": (64, 128, 256, 512), "full": (64, 128, 256, 512, 1024)}
    deep = {"quick": (16,), "usual": (16, 25, 40), "full": (16, 25, 40, 64)}
    hard = {"quick": (128,), "usual": (128, 256, 512), "full": (128, 256, 512, 1024)}

    def each(function: Callable[..., Any], sides: Any, *rest: Any) -> list[Callable[[], Any]]:
        return [lambda side=side: function(side, *rest) for side in sides]

    found = {
        "poisson 2d": each(make.poisson, flat[size]),
        "poisson 3d": each(make.poisson, deep[size], 3),
        **{f"contrast {c:g}": each(make.contrast_media, hard[size], c, 0) for c in (1e2, 1e4, 1e6)},
        "anisotropic 0.01": each(make.anisotropic, hard[size][:2], 1e-2),
        "anisotropic 0.0001": each(make.anisotropic, hard[size][:2], 1e-4),
        "elasticity": each(make.elasticity, (40, 80)[: 1 if size == "quick" else 2]),
        "convection 100": each(make.convection, (64, 128)[: 1 if size == "quick" else 2], 100.0),
        "digits": [lambda: graph("digits", digits())],
        "swiss roll": [
            lambda n=n: graph("swiss roll", make.swiss_roll(n))
            for n in ((4000,) if size == "quick" else (8000, 32000))
        ],
    }
    return found


def digits() -> Any:
    from sklearn.datasets import load_digits

    return load_digits().data


def graph(name: str, points: Any) -> Any:
    """Return `L + 1e-5 D` of a graph of ten neighbours."""
    import numpy as np

    from understudy.solve.graph import KnnConfig, build_graph
    from understudy.solve.problems import Problem, laplacian

    affinity = build_graph(points, KnnConfig(k=10, search="exact")).weights
    matrix = laplacian(affinity, 1e-5)
    return Problem(name=name, matrix=matrix, coords=None, phi=np.ones((len(points), 1)))


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    found = function()
    return found, time.process_time() - start


def least(function: Callable[[], Any], rounds: int = 5) -> float:
    """Return the least processor seconds of a few calls."""
    return min(timed(function)[1] for _ in range(rounds))


def prepare(problem: Any, method: str) -> Any:
    """Return a preconditioner with `apply`, `floats`, and whether CG may use it."""
    from understudy.solve import baselines
    from understudy.solve.factorization import without_warnings

    matrix = problem.matrix
    if method in OURS:
        options = {"coords": problem.coords, "phi": problem.phi, "threads": 1, **OURS[method]}
        if not problem.symmetric:
            options["method"] = options.get("method", "spand") + "_lu"
            options.pop("second_order", None)
        made = without_warnings(matrix, **options)
        return baselines.Prepared(apply=made.solve, floats=made.floats), made.spd
    if method == "splu":
        return baselines.direct(matrix, True), True
    if method in ("rs", "sa"):
        return baselines.multigrid(matrix, method, problem.phi), True
    if method == "ilu":
        from scipy.sparse.linalg import spilu

        lu = spilu(matrix.tocsc(), drop_tol=1e-3, fill_factor=10)
        return baselines.Prepared(apply=lu.solve, floats=lu.nnz), False
    return baselines.diagonal(matrix), True


def measure(problem: Any, method: str, product: float) -> dict[str, Any]:
    """Set up and solve by one method."""
    import numpy as np

    from understudy.solve.checks import checked_matrix
    from understudy.solve.krylov import cg, gmres

    matrix = checked_matrix(problem.matrix)
    b = np.random.default_rng(0).standard_normal((problem.n, 1))
    smooth = matrix @ np.sin(np.linspace(0, 3, problem.n))[:, None]
    (made, spd), setup = timed(lambda: prepare(problem, method))
    iterate = cg if spd and problem.symmetric else gmres
    found, solve = timed(lambda: iterate(matrix, b, made.apply, 1e-10, MAX_ITERATIONS))
    again = iterate(matrix, smooth, made.apply, 1e-10, MAX_ITERATIONS)
    once = least(lambda: made.apply(b), 3)
    return {
        "setup_s": setup,
        "solve_s": solve,
        "total_s": setup + solve,
        "iterations": int(found.iterations[0]),
        "iterations_smooth": int(again.iterations[0]),
        "residual": float(found.residual[0]),
        "kappa": found.kappa,
        "floats_per_entry": made.floats / matrix.nnz,
        "apply_s": once,
        "apply_in_products": once / product,
        "setup_in_products": setup / product,
    }


def methods_for(problem: Any) -> list[str]:
    names = ["splu", *OURS]
    if problem.n <= 70_000:
        names += ["jacobi", "ilu"]
    if problem.symmetric:
        names += ["rs", "sa"]
    elif problem.n > 5_000:
        names = ["splu", "spand", "jacobi", "ilu"]
    return [n for n in names if n != "spand 2nd, METIS" or problem.coords is not None]


def exponents(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return the slopes of logarithms over the sizes of a family, by method."""
    import numpy as np

    found: dict[str, dict[str, float]] = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        part = [row for row in rows if row["method"] == method]
        if len(part) >= 3:
            n = np.log([row["n"] for row in part])
            found[method] = {
                key: float(np.polyfit(n, np.log([row[key] for row in part]), 1)[0])
                for key in KEYS
                if min(row[key] for row in part) > 0
            }
    return found


def many(side: int) -> dict[str, Any]:
    """Solve 64 right-hand sides and one on a medium of contrast 1e6, in wall seconds."""
    import numpy as np

    from understudy.solve import solve
    from understudy.solve.problems import contrast_media

    problem = contrast_media(side, 1e6, 0)
    b = np.random.default_rng(1).standard_normal((problem.n, 64))
    ours = {"coords": problem.coords}
    arms: dict[str, Callable[[Any], Any]] = {
        "splu": lambda r: solve(problem.matrix, r, method="direct", rtol=1e-8),
        "spand": lambda r: solve(problem.matrix, r, method="spand", rtol=1e-8, **ours),
        "spand, METIS": lambda r: solve(problem.matrix, r, method="spand", rtol=1e-8),
        "rs": lambda r: solve(problem.matrix, r, method="rs", rtol=1e-8),
        "sa": lambda r: solve(problem.matrix, r, method="sa", rtol=1e-8),
    }
    found: dict[str, Any] = {"n": problem.n}
    arms["spand"](b[:, :2])
    for columns in (1, 64):
        for name, run in arms.items():
            few = columns if name not in ("rs", "sa") else min(columns, 4)
            right = b[:, :few] if few > 1 else b[:, 0]
            start, cpu = time.perf_counter(), time.process_time()
            made = run(right)
            wall, cpu = time.perf_counter() - start, time.process_time() - cpu
            if few < columns:  # one column after the other: the rest takes as long each
                more = made.seconds["solve"] * (columns / few - 1)
                wall, cpu = wall + more, cpu + more
            found[f"{name}, {columns}"] = {
                "wall_s": wall,
                "cpu_s": cpu,
                "iterations": made.iterations,
                "residual": made.residual,
            }
            print(
                f"  {name}, {columns} columns: {wall:.2f} s wall, {cpu:.2f} s of processor, "
                f"{made.iterations} iterations, residual {made.residual:.1e}",
                flush=True,
            )
    return found


def main() -> None:
    import numpy as np

    from understudy.core.files import read_json
    from understudy.solve.checks import checked_matrix

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    name = "solver" if options.only in ("", "many") else "solver_only"
    size = "quick" if options.quick else "full" if options.full else "usual"
    warnings.simplefilter("ignore")
    warm = families("quick")["poisson 2d"][0]()
    for method in OURS:
        prepare(warm, method)[0].apply(np.ones((warm.n, 1)))
    rows: list[dict[str, Any]] = []
    grown: dict[str, Any] = {}
    header = "setup s  solve s  its  smooth  numbers/entry  apply/product  apply/V-cycle"
    for family, members in families(size).items():
        if options.only and options.only not in family:
            continue
        own = []
        for member in members:
            problem = member()
            matrix, x = checked_matrix(problem.matrix), np.ones(problem.n)
            product = least(lambda m=matrix, v=x: [m @ v for _ in range(5)]) / 5
            print(f"\n{family}, n = {problem.n:,}, product {product * 1e3:.2f} ms\n"
                  f"{'':22}{header}", flush=True)  # fmt: skip
            part = []
            for method in methods_for(problem):
                try:
                    row = measure(problem, method, product)
                except Exception as error:
                    print(f"{method:22}{type(error).__name__}: {str(error)[:60]}", flush=True)
                    continue
                part.append({"family": family, "n": problem.n, "method": method, **row})
            cycle = next((r["apply_s"] for r in part if r["method"] == "sa"), None)
            for row in part:
                row["apply_in_cycles"] = row["apply_s"] / cycle if cycle else None
                print(
                    f"{row['method']:22}{row['setup_s']:7.3f}{row['solve_s']:9.3f}"
                    f"{row['iterations']:5d}{row['iterations_smooth']:8d}"
                    f"{row['floats_per_entry']:15.1f}{row['apply_in_products']:15.1f}"
                    f"{row['apply_in_cycles'] or float('nan'):15.2f}",
                    flush=True,
                )
            own += part
        grown[family] = exponents(own)
        for method, slopes in grown[family].items():
            print(f"  n^ {method}: " + ", ".join(f"{k} {v:.2f}" for k, v in slopes.items()))
        rows += own
        write_result(f"{name}_part", {"size": size, "rows": rows, "exponents": grown})
    result: dict[str, Any] = {"size": size, "rows": rows, "exponents": grown}
    if options.only in ("", "many"):
        result["many"] = []
        for side in {"quick": (128,), "usual": (512,), "full": (512, 1024)}[size]:
            print(f"\ncontrast 1e6, n = {side * side:,}, residual 1e-8")
            result["many"].append(many(side))
    if options.only == "many":
        found = read_json(RESULTS / "solver.json")
        result["rows"], result["exponents"] = found["rows"], found["exponents"]
    write_result(name, result)
    draw(result["rows"], RESULTS / f"{name}.svg")
    (RESULTS / f"{name}_part.json").unlink(missing_ok=True)


if __name__ == "__main__":
    main()
