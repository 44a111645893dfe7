"""Count plans: how often each document is used for a budget of tokens, and why."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from understudy.core.config import check_choice, to_dict
from understudy.core.errors import ConfigError, DataError
from understudy.core.files import atomic_path, read_json, write_json
from understudy.core.hashing import hash_bytes, hash_data
from understudy.curate.counts import presets
from understudy.curate.counts.documents import (
    Documents,
    Missing,
    quality,
    unit_hash,
    with_scores,
)
from understudy.curate.counts.greedy import greedy_with_floor, log_value
from understudy.curate.counts.repeats import effective_tokens

Preset = Literal["greedy", "uniform", "threshold-steps", "score-linear", "dup-count"]
PRESETS = ("greedy", "uniform", "threshold-steps", "score-linear", "dup-count")
MANY, SHARE = 40, 0.01
"""More repeats than this, for more than this share of the tokens, is warned about."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CountConfig:
    """Say how counts are chosen.

    Attributes:
        budget: tokens to train on; 0 leaves it to the preset (`uniform` by `epochs`,
            `threshold-steps` and `dup-count` as they are).
        preset: `"greedy"`, `"uniform"`, `"threshold-steps"`, `"score-linear"` or `"dup-count"`.
        gamma: greedy: weight of quality; 0 ignores it, very large is the best documents only.
        eta: greedy: weight of duplicates in the raw pool.
        delta: greedy: what each further copy keeps of the value, in (0, 1].
        c_max: largest count.
        unique_tokens: greedy: least tokens of documents that are used; 0 asks for none.
        epochs: uniform without a budget: passes, fractions allowed.
        steps: threshold-steps: shares of the documents from the best down, and their repeats.
        missing: what to do with documents without a score: `"error"`, `"drop"` or `"lowest"`.
        by_source: rank scores within each source.
        seed: of which documents are taken among equals.
        tokenizer_hash: of the tokenizer that counted the tokens.
    """

    budget: int = 0
    preset: Preset = "greedy"
    gamma: float = 2.0
    eta: float = 0.25
    delta: float = 0.7
    c_max: int = 10
    unique_tokens: int = 0
    epochs: float = 0.0
    steps: tuple[tuple[float, float], ...] = presets.STEPS
    missing: Missing = "error"
    by_source: bool = False
    seed: int = 0
    tokenizer_hash: str = ""

    def __post_init__(self) -> None:
        check_choice(self.preset, PRESETS, "CountConfig.preset")
        check_choice(self.missing, ("error", "drop", "lowest"), "CountConfig.missing")
        if self.budget < 0 or self.c_max < 1:
            raise ConfigError(
                f"CountConfig: expected a budget of at least 0 and c_max of at least 1, got "
                f"{self.budget} and {self.c_max}."
            )
        if not 0 < self.delta <= 1 or self.gamma < 0 or self.eta < 0:
            raise ConfigError(
                "CountConfig: expected delta in (0, 1], gamma and eta of at least 0, got "
                f"{self.delta}, {self.gamma} and {self.eta}."
            )
        if self.budget == 0 and self.preset in ("greedy", "score-linear"):
            raise ConfigError(f"CountConfig.budget: preset {self.preset} needs one, got 0.")
        if self.budget == 0 and self.preset == "uniform" and self.epochs <= 0:
            raise ConfigError("CountConfig: preset uniform needs a budget or a number of epochs.")


@dataclass(frozen=True, kw_only=True)
class CountPlan:
    """Counts of documents.

    Attributes:
        ids: of the documents, in the order given.
        counts: int64 [N].
        tokens: int64 [N].
        facts: budget, lambda, unique tokens, repeats, D', hash of the inputs and others, as
            `plan.json` holds them.
        config: how they were chosen.
    """

    ids: Sequence[str]
    counts: np.ndarray
    tokens: np.ndarray
    facts: dict[str, Any] = field(default_factory=dict)
    config: CountConfig

    @property
    def total(self) -> int:
        """Tokens of all copies."""
        return int((self.counts * self.tokens).sum())

    def write(self, folder: str | Path) -> Path:
        """Write `counts.parquet` (id, count, tokens, reason) and `plan.json`; return the folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        reason = np.where(self.counts > 0, self.config.preset, "below lambda or threshold")
        table = pa.table(
            {
                "id": pa.array(list(self.ids), pa.string()),
                "count": pa.array(self.counts, pa.int32()),
                "tokens": pa.array(self.tokens, pa.int64()),
                "reason": pa.array(reason.tolist(), pa.string()),
            }
        )
        with atomic_path(folder / "counts.parquet") as path:
            parquet.write_table(table, path)
        write_json(folder / "plan.json", {"config": to_dict(self.config), **self.facts})
        return folder

    @classmethod
    def read(cls, folder: str | Path) -> CountPlan:
        """Read a plan that `write` wrote.

        Raises:
            DataError: a file is missing, or counts and facts are of different plans.
        """
        from understudy.core.config import from_dict

        folder = Path(folder)
        facts = dict(read_json(folder / "plan.json"))
        config = from_dict(CountConfig, facts.pop("config"), f"{folder}/plan.json")
        try:
            table = parquet.read_table(folder / "counts.parquet")
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"{folder}/counts.parquet: cannot be read ({error}).") from error
        plan = cls(
            ids=table.column("id").to_pylist(),
            counts=table.column("count").to_numpy().astype(np.int64),
            tokens=table.column("tokens").to_numpy().astype(np.int64),
            facts=facts,
            config=config,
        )
        if facts.get("counts_hash") != _counts_hash(plan.ids, plan.counts):
            raise DataError(f"{folder}: counts.parquet is not the one of plan.json; plan again.")
        return plan

    def check_tokenizer(self, tokenizer_hash: str) -> None:
        """Refuse to train with another tokenizer than the one that counted.

        Raises:
            ConfigError: the hashes differ.
        """
        known = self.config.tokenizer_hash
        if known and known != tokenizer_hash:
            raise ConfigError(
                f"count plan: tokens were counted with tokenizer {known}, the trainer has "
                f"{tokenizer_hash}; plan again with its token counts."
            )


def _counts_hash(ids: Sequence[str], counts: np.ndarray) -> str:
    pairs = sorted(zip(ids, counts.tolist(), strict=True))
    return hash_bytes("\n".join(f"{i}\t{c}" for i, c in pairs).encode())


def plan_counts(documents: Documents, config: CountConfig) -> CountPlan:
    """Choose how often each document is used.

    Args:
        documents: their facts, in any order.
        config: how.

    Returns:
        The plan; the tokens of a greedy one are at most the budget and less than one document
        short of it.

    Raises:
        ConfigError: the budget cannot be reached; the message has the largest one that can.
        DataError: scores are missing, or of different classifiers.
    """
    ranked = config.preset in ("greedy", "threshold-steps", "score-linear")
    if ranked:
        documents = with_scores(documents, config.missing)
    rank = quality(documents, by_source=config.by_source) if ranked else np.empty(0)
    order = unit_hash(documents.ids, config.seed)
    tokens, level = documents.tokens.astype(np.int64), None
    if config.preset == "greedy":
        counts, level = greedy_with_floor(
            log_value(rank, documents.duplicates, config.gamma, config.eta),
            tokens,
            order,
            config.budget,
            config.unique_tokens,
            delta=config.delta,
            most=config.c_max,
        )
    else:
        counts = _by_wish(config, documents, rank, order)
    facts = _facts(documents, counts, config, level)
    return CountPlan(ids=documents.ids, counts=counts, tokens=tokens, facts=facts, config=config)


def _by_wish(
    config: CountConfig, documents: Documents, rank: np.ndarray, order: np.ndarray
) -> np.ndarray:
    tokens, budget = documents.tokens.astype(np.int64), config.budget or None
    if config.preset == "uniform":
        wish = presets.uniform(len(documents)) * (config.epochs or 1.0)
    elif config.preset == "threshold-steps":
        wish = presets.threshold_steps(rank, config.steps)
    elif config.preset == "score-linear":
        wish = presets.score_linear(rank)
    else:
        wish = presets.dup_count(documents.duplicates, config.c_max)
    if budget is not None:
        wish = presets.fit(wish, tokens, budget, config.c_max)
    elif wish.max() > config.c_max:
        raise ConfigError(
            f"CountConfig.c_max: {config.c_max}, but the preset asks for {wish.max():g} copies; "
            "raise c_max or lower epochs or steps."
        )
    return presets.rounded(wish, tokens, order, budget)


def _facts(
    documents: Documents, counts: np.ndarray, config: CountConfig, level: float | None
) -> dict[str, Any]:
    tokens = documents.tokens.astype(np.int64)
    used, spent = counts > 0, counts * tokens
    unique, total = int(tokens[used].sum()), int(spent.sum())
    if not total:
        raise ConfigError(
            f"budget: {config.budget:,} tokens do not hold one document of the smallest size, "
            f"{int(tokens.min()):,}."
        )
    # each document's own repeats, weighted: the value of fresh tokens that the plan is worth
    worth = sum(
        effective_tokens(float(tokens[counts == c].sum()), float(c))
        for c in np.unique(counts[used])
    )
    many = int(spent[counts > MANY].sum())
    if many > SHARE * total:
        warnings.warn(
            f"count plan: {many / total:.1%} of the tokens are in documents repeated more than "
            f"{MANY} times; {total:,} tokens are worth about {worth:,.0f} fresh ones.",
            stacklevel=3,
        )
    points = (50, 90, 99)
    repeats = np.percentile(counts[used], points)
    return {
        "preset": config.preset,
        "budget": config.budget,
        "tokens": total,
        "unique_tokens": unique,
        "documents": len(documents),
        "documents_used": int(used.sum()),
        "lambda": level,
        "mean_repeats": total / unique,
        "repeat_percentiles": {str(p): float(v) for p, v in zip(points, repeats, strict=True)},
        "max_repeats": int(counts.max()),
        "effective_tokens": worth,
        "inputs_hash": documents.identity(),
        "config_hash": hash_data(to_dict(config)),
        "counts_hash": _counts_hash(documents.ids, counts),
    }
