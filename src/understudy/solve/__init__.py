"""Large sparse linear systems: a hierarchical solver, and a choice between it and what else fits.

    >>> from understudy.solve import factorize, solve
    >>> solution = solve(A, b)                       # doctest: +SKIP
    >>> solution.method, solution.reason             # doctest: +SKIP
    >>> F = factorize(A, eps=0.1)                    # doctest: +SKIP
    >>> F.solve(b)                                   # the preconditioner alone   # doctest: +SKIP

Importing this room costs nothing: SciPy and numba are imported when something is factored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from understudy.solve.factorization import Factorization, factorize, load
    from understudy.solve.options import FactorConfig
    from understudy.solve.system import Solution, solve

_WHERE = {
    "Factorization": "factorization",
    "factorize": "factorization",
    "load": "factorization",
    "FactorConfig": "options",
    "Solution": "system",
    "solve": "system",
}

__all__ = ["FactorConfig", "Factorization", "Solution", "factorize", "load", "solve"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'understudy.solve' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(f"understudy.solve.{_WHERE[name]}"), name)
