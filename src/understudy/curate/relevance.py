"""Choose alignment pairs that fit a target: relevance to class names or to target images.

The choice of pairs matters more than their number (APE); pairs are ranked by their similarity to
class prompts or to unlabelled target images, and each class gets its share (concept coverage as in
arXiv 2409.19425).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError, DataError


def check_classes(names: Sequence[str]) -> tuple[str, ...]:
    """Return class names after checking that they can be told apart.

    Raises:
        ConfigError: none, an empty one, or one that is there twice.
    """
    seen: dict[str, int] = {}
    for i, name in enumerate(names):
        key = " ".join(name.lower().split())
        if not key:
            raise ConfigError(f"classes: class {i} has an empty name.")
        if key in seen:
            raise ConfigError(
                f"classes: '{name}' is class {seen[key]} and class {i}; merge them or give them "
                "different names."
            )
        seen[key] = i
    if not seen:
        raise ConfigError("classes: relevance needs at least one class name.")
    return tuple(names)


def class_relevance(
    pool: np.ndarray,
    prompts: np.ndarray,
    prompt_class: np.ndarray,
    num_classes: int,
    *,
    chunk: int = 65_536,
) -> np.ndarray:
    """Return float32 [N, C]: a row's largest cosine to any prompt of each class.

    Args:
        pool: [N, D] features of the pool's captions (or images).
        prompts: [Q, D] features of prompts, or of target images, by the same encoder.
        prompt_class: [Q] class of each.
        num_classes: C.
        chunk: rows at a time.

    Raises:
        DataError: widths differ, NaN, a vector of length zero, or a class without a prompt.
    """
    pool, prompts = np.asarray(pool), np.asarray(prompts)
    prompt_class = np.asarray(prompt_class)
    if pool.ndim != 2 or prompts.ndim != 2 or pool.shape[1] != prompts.shape[1]:
        raise DataError(
            f"relevance: pool {list(pool.shape)} and prompts {list(prompts.shape)} must be of one "
            "encoder."
        )
    if len(prompt_class) != len(prompts):
        raise DataError(
            f"relevance: {len(prompts)} prompts and the classes of {len(prompt_class)}; give one "
            "class a prompt."
        )
    lacking = np.setdiff1d(np.arange(num_classes), prompt_class)
    if len(lacking):
        raise DataError(f"relevance: class {int(lacking[0])} has no prompt; give it at least one.")
    targets = _unit(prompts, "prompt")
    order = np.argsort(prompt_class, kind="stable")
    starts = np.searchsorted(prompt_class[order], np.arange(num_classes))
    out = np.empty((len(pool), num_classes), np.float32)
    for at in range(0, len(pool), chunk):
        scores = _unit(pool[at : at + chunk], "pool row", at) @ targets[order].T
        out[at : at + chunk] = np.maximum.reduceat(scores, starts, axis=1)
    return out


def _unit(values: np.ndarray, what: str, first: int = 0) -> np.ndarray:
    values = values.astype(np.float32)
    norms = np.linalg.norm(values, axis=1)
    bad = ~(np.isfinite(norms) & (norms > 0))
    if bad.any():
        raise DataError(
            f"relevance: {what} {first + int(bad.argmax())} has a feature vector that is zero or "
            "not finite; cache its features again, or leave it out."
        )
    return values / norms[:, None]


def balanced_quota(total: int, num_classes: int) -> np.ndarray:
    """Return int64 [C] that sum to `total` and differ by at most one; first classes get more."""
    quota = np.full(num_classes, total // num_classes, np.int64)
    quota[: total % num_classes] += 1
    return quota


@dataclass(frozen=True, slots=True)
class Selection:
    """What was chosen.

    Attributes:
        rows: int64 [N] places in the pool, increasing.
        classes: int64 [N] the class that each was chosen for.
        scores: float32 [N] its similarity to that class.
        quota: int64 [C] what each class was to get.
    """

    rows: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    quota: np.ndarray

    @property
    def coverage(self) -> np.ndarray:
        """Return int64 [C]: rows chosen for each class."""
        return np.bincount(self.classes, minlength=len(self.quota))


def select_top(
    relevance: np.ndarray,
    total: int,
    *,
    assign: Literal["best", "any"] = "best",
    balance: bool = True,
    min_score: float = -np.inf,
    usable: np.ndarray | None = None,
) -> Selection:
    """Choose the most relevant rows of a pool.

    Args:
        relevance: [N, C], see `class_relevance`.
        total: rows to choose.
        assign: `"best"`: a row can be chosen only for the class it is most similar to; `"any"`:
            classes take turns, each taking its best row that is still free.
        balance: every class gets `total / C` rows, give or take one; otherwise the best rows over
            all classes are taken.
        min_score: rows below are never chosen; a class may then stay short, and a class without
            any is reported by `AlignmentReport`.
        usable: bool [N]: rows that may be chosen (not duplicates, not test samples).

    Raises:
        ConfigError: `total` is below 1, or an unknown `assign`.
        DataError: the pool has fewer usable rows than are asked for.
    """
    check_choice(assign, ("best", "any"), "select_top assign")
    relevance = np.asarray(relevance)
    num_rows, num_classes = relevance.shape
    allowed = np.ones(num_rows, bool) if usable is None else np.asarray(usable, bool).copy()
    if total < 1:
        raise ConfigError(f"curation: expected at least 1 row to choose, got {total}.")
    if allowed.sum() < total:
        raise DataError(
            f"curation: {total} pairs were asked of a pool with {int(allowed.sum())} usable rows; "
            "lower the number or give a larger pool."
        )
    best = relevance.argmax(1)
    if not balance:
        score = relevance.max(1)
        order = [r for r in _ranking(score) if allowed[r] and score[r] >= min_score][:total]
        return _selection(
            np.array(order, np.int64), best, relevance, balanced_quota(0, num_classes)
        )
    quota = balanced_quota(total, num_classes)
    if assign == "best":
        chosen = [
            [r for r in _ranking(relevance[:, c]) if best[r] == c and allowed[r]]
            for c in range(num_classes)
        ]
        kept = [
            [r for r in rows if relevance[r, c] >= min_score][: quota[c]]
            for c, rows in enumerate(chosen)
        ]
        rows = np.array([r for some in kept for r in some], np.int64)
        classes = np.repeat(np.arange(num_classes), [len(some) for some in kept])
        return _selection(rows, classes, relevance, quota, by_row=False)
    return _take_turns(relevance, quota, allowed, min_score)


def _take_turns(
    relevance: np.ndarray, quota: np.ndarray, allowed: np.ndarray, min_score: float
) -> Selection:
    rankings = [iter(_ranking(relevance[:, c])) for c in range(len(quota))]
    rows: list[int] = []
    classes: list[int] = []
    for turn in range(int(quota.max(initial=0))):
        for c in range(len(quota)):
            if turn >= quota[c]:
                continue
            found = next((r for r in rankings[c] if allowed[r]), None)
            if found is not None and relevance[found, c] >= min_score:
                allowed[found] = False
                rows.append(int(found))
                classes.append(c)
    return _selection(np.array(rows, np.int64), np.array(classes), relevance, quota, by_row=False)


def _ranking(scores: np.ndarray) -> np.ndarray:
    """Return rows by falling score, ties by place."""
    return np.argsort(-scores, kind="stable")


def _selection(
    rows: np.ndarray,
    classes: np.ndarray,
    relevance: np.ndarray,
    quota: np.ndarray,
    by_row: bool = True,
) -> Selection:
    own = classes[rows] if by_row else classes.astype(np.int64)
    order = np.argsort(rows, kind="stable")
    rows, own = rows[order], own[order].astype(np.int64)
    return Selection(rows, own, relevance[rows, own].astype(np.float32), quota)
