"""How a matrix is factored."""

from __future__ import annotations

from dataclasses import dataclass

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError

METHODS = ("spand", "spand_ldl", "spand_lu", "hsolve", "hsolve_ldl", "hsolve_lu")
ON_INDEFINITE = ("ladder", "raise")
ENGINES = ("compiled", "reference")


@dataclass(frozen=True, kw_only=True, slots=True)
class FactorConfig:
    """Settings of `factorize`.

    Attributes:
        eps: what is dropped from compressed blocks, relative to a cluster scaled to the identity
            (`spand`) or to the cluster's far blocks (`hsolve`); 0 factors exactly.
        method: the driver, `spand` (nested dissection) or `hsolve` (near and far blocks), and the
            kind of matrix: symmetric positive definite without ending, `_ldl` symmetric
            indefinite, `_lu` unsymmetric values.
        leaf: unknowns in a leaf of the tree.
        skip: levels, from the leaves on, that eliminate but do not compress; None skips while
            clusters are tiny.
        on_indefinite: what a pivot lost by truncation does: walk the `ladder` of remedies, or
            `raise`.
        second_order: keep what is dropped in the factors, which squares its error; `spand` only.
        compensate: add to the far diagonal blocks what keeps every matrix positive definite;
            `hsolve` only. The ladder switches it on where it has to.
        threads: of the factorization and of solves.
        engine: `compiled`, or the `reference` in NumPy (always used by `_ldl` and `_lu`).
    """

    eps: float = 0.1
    method: str = "spand"
    leaf: int = 32
    skip: int | None = None
    on_indefinite: str = "ladder"
    second_order: bool = False
    compensate: bool = False
    threads: int = 2
    engine: str = "compiled"

    def __post_init__(self) -> None:
        check_choice(self.method, METHODS, "factorize: method")
        check_choice(self.on_indefinite, ON_INDEFINITE, "factorize: on_indefinite")
        check_choice(self.engine, ENGINES, "factorize: engine")
        if not 0 <= self.eps < 1:
            raise ConfigError(f"factorize: eps: expected a number in [0, 1), got {self.eps}.")
        for name in ("leaf", "threads"):
            if getattr(self, name) < 1:
                got = getattr(self, name)
                raise ConfigError(f"factorize: {name}: expected at least 1, got {got}.")
        if self.skip is not None and self.skip < 0:
            raise ConfigError(f"factorize: skip: expected at least 0, got {self.skip}.")
        if self.second_order and self.method != "spand":
            raise ConfigError(
                "factorize: second_order needs method='spand', where nothing else couples to what "
                f"is dropped; got method='{self.method}'."
            )
        if self.compensate and self.method != "hsolve":
            raise ConfigError(
                "factorize: compensate needs method='hsolve'; spand stays positive definite "
                f"without it; got method='{self.method}'."
            )

    @property
    def driver(self) -> str:
        """`spand` or `hsolve`."""
        return self.method.partition("_")[0]

    @property
    def pivot(self) -> str:
        """`chol`, `ldl` or `lu`."""
        return self.method.partition("_")[2] or "chol"


def alpha_of(eps: float) -> float:
    """Return the compensation's alpha: `eps`, kept away from 0 where nothing is dropped."""
    return max(eps, 1e-12)
