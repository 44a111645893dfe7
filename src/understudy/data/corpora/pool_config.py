"""What a pool is made of: kinds of documents with their quality tier, and the shares of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from understudy.core.config import check_keys
from understudy.core.errors import ConfigError

PROSE, MIXED, NOISE = 2, 1, 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A kind of document.

    Attributes:
        tier: 2 prose, 1 mixed, 0 noise.
        clean: belongs to the class that curation is to find; its packages are dealt out to roles.
        about: what it is, for the funnel.
    """

    tier: int
    clean: bool
    about: str


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "docstrings": Kind(tier=PROSE, clean=True, about="prose in docstrings"),
        "readme": Kind(tier=PROSE, clean=True, about="READMEs of packages"),
        "docs": Kind(tier=PROSE, clean=True, about="fetched documentation"),
        "man": Kind(tier=MIXED, clean=False, about="manual pages, macros stripped"),
        "changelog": Kind(tier=MIXED, clean=False, about="Debian changelog entries"),
        "source": Kind(tier=MIXED, clean=False, about="Python sources with docstrings"),
        "translated": Kind(tier=NOISE, clean=False, about="manual pages in other languages"),
        "licence": Kind(tier=NOISE, clean=False, about="licence texts"),
        "dump": Kind(tier=NOISE, clean=False, about="JSON, CSV and XML files"),
        "minified": Kind(tier=NOISE, clean=False, about="minified code"),
        "log": Kind(tier=NOISE, clean=False, about="log lines, generated"),
    }
)

PRESETS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "dclm": MappingProxyType(
            {
                "docstrings": 0.105,
                "readme": 0.02,
                "man": 0.20,
                "translated": 0.05,
                "licence": 0.085,
                "dump": 0.20,
                "minified": 0.14,
                "log": 0.20,
            }
        ),
        "graded": MappingProxyType(
            {
                "docstrings": 0.28,
                "readme": 0.05,
                "man": 0.14,
                "changelog": 0.09,
                "source": 0.10,
                "licence": 0.08,
                "dump": 0.09,
                "minified": 0.08,
                "log": 0.09,
            }
        ),
    }
)
"""Shares among the originals. A fifth of `dclm` are copies, so 10 % of it are clean originals."""


def _check_share(value: float, name: str, high: float = 1.0) -> None:
    if not 0 <= value <= high:
        raise ConfigError(f"pool: '{name}' must lie in 0 to {high:g}, got {value}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolConfig:
    """How to make a pool.

    Attributes:
        documents: documents in the pool.
        seed: another seed is another draw, other roles of packages and other copies.
        preset: `dclm` (10 % clean, a fifth copies) or `graded` (three tiers, no copies).
        mix: shares of the kinds among the originals, to use instead of the preset's.
        copies: share of the pool that are copies of other documents in it; by default the preset's.
        near: share of the copies in which words are changed.
        max_rate: near copies have up to this share of their words changed.
        cluster: copies that an original which is copied has, on average.
        median_chars: median length of a document (lognormal, sigma 0.6; 400 to 8,000 characters).
        group_share: no package has more than this share of a kind while others are left.
        reference: clean documents of packages of their own, to train a classifier on.
        held_out: clean documents of packages of their own, to evaluate on.
        code: pieces of standard-library source of held-out modules, to evaluate on.
        packages: use only these installed packages (and the standard library); empty for all.
        fetched: fetched text assets whose documents are the kind `docs` (they must be cached).
    """

    documents: int = 20_000
    seed: int = 0
    preset: str = "dclm"
    mix: Mapping[str, float] = field(default_factory=dict)
    copies: float | None = None
    near: float = 0.5
    max_rate: float = 0.02
    cluster: float = 3.0
    median_chars: int = 1200
    group_share: float = 0.1
    reference: int = 2000
    held_out: int = 400
    code: int = 400
    packages: tuple[str, ...] = ()
    fetched: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ConfigError(f"pool: preset '{self.preset}' is not one of {', '.join(PRESETS)}.")
        if self.documents < 100:
            raise ConfigError(f"pool: 'documents' must be at least 100, got {self.documents}.")
        for name in ("reference", "held_out", "code"):
            if getattr(self, name) < 0:
                raise ConfigError(f"pool: '{name}' must not be negative.")
        check_keys(self.mix, list(KINDS), "pool, mix")
        for kind, share in self.shares.items():
            _check_share(share, f"mix.{kind}")
        total = sum(self.shares.values())
        if abs(total - 1) > 1e-6:
            raise ConfigError(f"pool: the shares in 'mix' must sum to 1, got {total:g}.")
        if "docs" in self.shares and not self.fetched:
            raise ConfigError("pool: the kind 'docs' needs 'fetched' (names of fetched texts).")
        _check_share(self.copy_share, "copies", 0.9)
        _check_share(self.near, "near")
        _check_share(self.max_rate, "max_rate", 0.5)
        _check_share(self.group_share, "group_share")
        if self.cluster < 1:
            raise ConfigError(f"pool: 'cluster' must be at least 1, got {self.cluster}.")
        if not 400 <= self.median_chars <= 8000:
            raise ConfigError(
                f"pool: 'median_chars' must lie in 400 to 8000, got {self.median_chars}."
            )

    @property
    def shares(self) -> Mapping[str, float]:
        """Shares of the kinds among the originals."""
        return self.mix or PRESETS[self.preset]

    @property
    def copy_share(self) -> float:
        """Share of the pool that are copies."""
        if self.copies is not None:
            return self.copies
        return 0.2 if self.preset == "dclm" else 0.0


def quotas(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """Return whole numbers in proportion to the shares that sum to `total` (largest remainder)."""
    whole = {kind: int(share * total + 1e-9) for kind, share in shares.items()}
    rest = sorted(shares, key=lambda kind: (whole[kind] - shares[kind] * total, kind))
    for kind in rest[: total - sum(whole.values())]:
        whole[kind] += 1
    return whole
