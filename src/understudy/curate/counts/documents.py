"""What a count plan knows about documents: tokens, quality, duplicates; checked once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from understudy.core.errors import DataError
from understudy.core.hashing import hash_bytes
from understudy.core.seeds import seed_for

Missing = Literal["error", "drop", "lowest"]


@dataclass(frozen=True, kw_only=True)
class Documents:
    """Facts of N documents, in any order.

    Attributes:
        ids: stable names, unique.
        tokens: int64 [N], at least 1.
        score: float32 [N], larger is better; NaN where unknown.
        duplicates: int64 [N], copies in the raw pool, the document itself included; at least 1.
        source: where each comes from; empty if it does not matter.
        classifier: what scored each source, by source; scores of different ones are on different
            scales.
        cluster: near-duplicate cluster of each; empty if unknown.
    """

    ids: Sequence[str]
    tokens: np.ndarray
    score: np.ndarray
    duplicates: np.ndarray
    source: Sequence[str] = ()
    classifier: dict[str, str] = field(default_factory=dict)
    cluster: Sequence[str] = ()

    def __post_init__(self) -> None:
        count = len(self.ids)
        for name in ("tokens", "score", "duplicates"):
            if len(getattr(self, name)) != count:
                raise DataError(
                    f"documents: {count:,} ids, but {len(getattr(self, name)):,} values of {name}."
                )
        for name in ("source", "cluster"):
            if len(getattr(self, name)) not in (0, count):
                raise DataError(
                    f"documents: {count:,} ids, but {len(getattr(self, name)):,} values of {name}."
                )
        if not count:
            raise DataError("documents: there are none to count.")
        self._check_ids()
        self._name_bad("tokens", self.tokens < 1, "must be at least 1")
        self._name_bad("duplicates", self.duplicates < 1, "counts the document itself: at least 1")

    def _check_ids(self) -> None:
        seen: set[str] = set()
        twice = [i for i in self.ids if i in seen or seen.add(i)]
        if twice:
            raise DataError(
                f"documents: {len(twice):,} ids come more than once ({_few(twice)}); counts would "
                "be ambiguous. Deduplicate first, or give occurrences ids of their own."
            )

    def _name_bad(self, name: str, bad: np.ndarray, rule: str) -> None:
        if bad.any():
            ids = _pick(self.ids, np.flatnonzero(bad)[:3])
            raise DataError(f"documents: {name} of {int(bad.sum()):,} ({_few(ids)}): {rule}.")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def total(self) -> int:
        """Tokens of all documents, each once."""
        return int(self.tokens.sum())

    def identity(self) -> str:
        """Return a hash of the facts that does not depend on the order of documents."""
        order = np.argsort(np.asarray(self.ids, dtype=object).astype(str), kind="stable")
        names = "\n".join(_pick(self.ids, order)).encode()
        arrays = (
            self.tokens[order].astype(np.int64),
            self.score[order].astype(np.float32),
            self.duplicates[order].astype(np.int64),
        )
        return hash_bytes(names, *(a.tobytes() for a in arrays))

    def take(self, rows: np.ndarray) -> Documents:
        """Return some of the documents."""
        return Documents(
            ids=_pick(self.ids, rows),
            tokens=self.tokens[rows],
            score=self.score[rows],
            duplicates=self.duplicates[rows],
            source=_pick(self.source, rows) if self.source else (),
            classifier=self.classifier,
            cluster=_pick(self.cluster, rows) if self.cluster else (),
        )


def _pick(values: Sequence[str], rows: np.ndarray) -> list[str]:
    return [values[int(row)] for row in rows]


def _few(ids: Sequence[str]) -> str:
    more = ", ..." if len(ids) > 3 else ""
    return ", ".join(ids[:3]) + more


def unit_hash(ids: Sequence[str], seed: int = 0) -> np.ndarray:
    """Return one number in [0, 1) an id, float64: the order in which ties are filled.

    It depends on the id and the seed alone, never on order or sharding.
    """
    return np.array([seed_for("count", seed, i) for i in ids], np.float64) / float(1 << 63)


def with_scores(documents: Documents, missing: Missing = "error") -> Documents:
    """Return the documents with every score known.

    Args:
        documents: scores may be NaN.
        missing: `"error"`, `"drop"` the document, or give it the `"lowest"` rank.

    Raises:
        DataError: scores are missing and the policy is to say so.
    """
    unknown = ~np.isfinite(documents.score)
    if not unknown.any():
        return documents
    if missing == "drop":
        return documents.take(np.flatnonzero(~unknown))
    if missing == "lowest":
        known = documents.score[~unknown]
        floor = float(known.min()) - 1.0 if len(known) else 0.0
        return Documents(
            ids=documents.ids,
            tokens=documents.tokens,
            score=np.where(unknown, np.float32(floor), documents.score),
            duplicates=documents.duplicates,
            source=documents.source,
            classifier=documents.classifier,
            cluster=documents.cluster,
        )
    ids = _pick(documents.ids, np.flatnonzero(unknown)[:3])
    raise DataError(
        f"documents: {int(unknown.sum()):,} have no score ({_few(ids)}); score them, or choose "
        "missing='drop' or 'lowest'."
    )


def quality(documents: Documents, *, by_source: bool = False) -> np.ndarray:
    """Return rank-normalised scores in (0, 1), float64 [N]; equal scores give equal ranks.

    Args:
        documents: with finite scores.
        by_source: rank within each source, for scores that cannot be compared across sources.

    Raises:
        DataError: sources were scored by different classifiers and are ranked together.
    """
    judges = {documents.classifier.get(s, "") for s in set(documents.source)}
    if not by_source and len(judges) > 1:
        names = sorted(set(documents.source))
        pairs = ", ".join(f"{s}: {documents.classifier.get(s, 'unknown')}" for s in names)
        raise DataError(
            f"documents: scores of different classifiers are not comparable ({pairs}); rank them "
            "within each source (by_source)."
        )
    groups = np.zeros(len(documents), np.int64)
    if by_source and documents.source:
        groups = np.unique(np.asarray(documents.source), return_inverse=True)[1]
    ranks = np.empty(len(documents))
    for group in range(int(groups.max()) + 1):
        rows = np.flatnonzero(groups == group)
        ranks[rows] = _mid_ranks(documents.score[rows])
    return ranks


def _mid_ranks(score: np.ndarray) -> np.ndarray:
    _, place, number = np.unique(score.astype(np.float32), return_inverse=True, return_counts=True)
    before = np.cumsum(number) - number
    return ((before + number / 2) / len(score))[place]
