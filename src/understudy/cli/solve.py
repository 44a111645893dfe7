"""`understudy solve A.mtx b.npy`: a sparse linear system from files to a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from understudy.cli.common import note, parse
from understudy.core.errors import DataError
from understudy.core.files import write_json

Positional = tyro.conf.Positional


def solve(argv: Sequence[str], prog: str) -> None:
    """Parse and run `solve`."""

    def command(
        matrix: Positional[Path],
        right: Positional[Path],
        o: Path = Path("x.npy"),
        method: str = "auto",
        eps: float | None = None,
        rtol: float = 1e-10,
        null: str | None = None,
        phi: Path | None = None,
        coords: Path | None = None,
        leaf: int | None = None,
        max_iterations: int = 1000,
        threads: int | None = None,
        report: Path | None = None,
        save: Path | None = None,
        factorization: Path | None = None,
        json: bool = False,
    ) -> None:
        """Solve A x = b for one or many right-hand sides.

        Args:
            matrix: A, Matrix Market (.mtx, .mtx.gz) or SciPy's .npz.
            right: b, .npy of shape [n] or [n, r].
            o: where x goes, .npy.
            method: auto, direct, rs, sa, jacobi, spand, hsolve, with _ldl for symmetric
                indefinite and _lu for unsymmetric matrices (spand_ldl, hsolve_lu, ...).
            eps: what the factorization may drop; 0.01 by default, 1e-6 with many columns.
            rtol: relative residual of every column.
            null: constant, if the rows of A sum to zero.
            phi: near-null vectors, .npy of shape [n] or [n, q]; ones by default.
            coords: coordinates of the unknowns, .npy of shape [n, d]; METIS cuts without.
            leaf: unknowns in a leaf of the tree, 32 by default.
            max_iterations: of CG or GMRES.
            threads: of the factorization and its solves, 2 by default.
            report: write how it went as JSON into this file.
            save: keep the factorization in this .npz file.
            factorization: use one that was kept, of the same matrix.
            json: print the report as JSON.
        """
        from understudy.solve import load
        from understudy.solve import solve as run
        from understudy.solve.files import read_array, read_matrix, write_array

        more: dict[str, Any] = {"leaf": leaf, "threads": threads}
        found = run(
            read_matrix(matrix),
            read_array(right),
            method=method,
            eps=eps,
            rtol=rtol,
            null=null,
            phi="ones" if phi is None else read_array(phi),
            coords=None if coords is None else read_array(coords),
            max_iterations=max_iterations,
            factorization=None if factorization is None else load(factorization),
            **{name: value for name, value in more.items() if value is not None},
        )
        write_array(o, found.x)
        facts = found.report()
        if report is not None:
            note(f"report: {write_json(report, facts)}")
        if save is not None:
            if found.factorization is None:
                raise DataError(f"--save: method '{found.method}' keeps no factorization.")
            note(f"factorization: {found.factorization.save(save)}")
        if json:
            import json as as_json

            print(as_json.dumps(facts, indent=2))
        else:
            print(_text(facts))
            print(f"written: {o}")

    parse(command, ["--o" if word == "-o" else word for word in argv], prog)


def _text(facts: dict[str, Any]) -> str:
    seconds = facts["seconds"]
    lines = [
        f"method: {facts['method']} ({facts['reason']})",
        f"iterations {facts['iterations']}, residual {facts['residual']:.2g}, "
        f"setup {seconds['setup']:.2f} s, solve {seconds['solve']:.2f} s",
    ]
    return "\n".join([*lines, *(f"note: {text}" for text in facts["notes"])])
