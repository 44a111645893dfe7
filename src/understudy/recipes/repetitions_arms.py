"""The arms of the repetition claim: which documents, how often, under which weight decay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from understudy.core.seeds import rng
from understudy.curate.counts.plan import CountConfig, CountPlan, plan_counts
from understudy.curate.counts.store import documents_of, uniform_counts
from understudy.curate.pool_sets import SCORE, Sets, SetsConfig, best, make_sets
from understudy.data.corpora.pool_config import PoolConfig
from understudy.data.tokens import TokenStore
from understudy.evaluate.claims import Context

DECAYS = (0.03, 0.1, 0.3, 1.0, 3.0)
"""Weight decays at the fixed learning rate, the usual one first."""
FILTERED = tuple(f"filtered-wd{wd:g}" for wd in DECAYS)
SUPERSET = tuple(f"superset-wd{wd:g}" for wd in DECAYS)
ARMS: dict[str, str] = {
    **{name: "the filtered set, 10 times" for name in FILTERED},
    **{name: "documents of the superset, once" for name in SUPERSET},
    "filtered-40": "a quarter of the filtered set, 40 times, at the usual weight decay",
    "greedy": "a graded pool, counts by quality",
    "uniform": "the graded pool, as many unique tokens, all equally often",
    "permuted": "the graded pool, the greedy counts dealt out at random",
}


def prepare(seed: int, context: Context) -> dict[str, Any]:
    """Make the seed's two pools, curated and tokenised."""
    settings, found = context.settings, {}
    for name, preset in (("pool", "dclm"), ("graded", "graded")):
        pool = PoolConfig(
            documents=settings[f"{name}_documents"],
            seed=seed,
            preset=preset,
            reference=settings["reference"],
            held_out=settings["held_out"],
            code=settings["code"],
        )
        config = SetsConfig(
            pool=pool, vocab_size=settings["vocab_size"], negatives=settings["reference"]
        )
        sets, facts = make_sets(context.seed_dir / name, config)
        found[name] = {"folder": str(sets.folder), **facts}
    return found


def sets_of(arm: str, context: Context) -> Sets:
    """Return the curated pool that an arm draws from."""
    name = "graded" if arm in ("greedy", "uniform", "permuted") else "pool"
    return Sets(folder=Path(context.prepared[name]["folder"]))


def weight_decay(arm: str, settings: Mapping[str, Any]) -> float:
    """Return an arm's weight decay: what its name says, or the usual one."""
    return float(arm.partition("-wd")[2] or settings["weight_decay"])


def counts_of(arm: str, seed: int, settings: Mapping[str, Any], sets: Sets) -> tuple[str, Any, Any]:
    """Return (set, counts int64 of its rows, facts of the plan) of an arm."""
    if arm in ("greedy", "uniform", "permuted"):
        tokens = TokenStore.open(sets.tokens("raw"))
        counts, facts = _graded(arm, seed, settings, tokens)
        return "raw", counts, facts
    tokens = TokenStore.open(sets.tokens("dedup"))
    rows = np.arange(tokens.num_rows)
    epochs, unique = 1.0, settings["budget"]
    if arm.startswith("filtered"):
        rows = best(tokens.store.array(SCORE), settings["keep"])
        epochs = 40.0 if arm == "filtered-40" else 10.0
        unique = settings["budget"] / epochs
    chosen = _subset(tokens, rows, unique, seed)
    counts, plan = _uniform(tokens, chosen, settings, seed)
    return "dedup", counts, plan.facts


def _subset(tokens: TokenStore, rows: np.ndarray, unique: float, seed: int) -> np.ndarray:
    """Return random rows of about so many tokens: unique tokens are controlled, not found."""
    order = rng("unique", seed).permutation(rows)
    held = np.cumsum(tokens.lengths[order] + 1)
    return np.sort(order[: int(np.searchsorted(held, unique)) + 1])


def _uniform(
    tokens: TokenStore, rows: np.ndarray, settings: Mapping[str, Any], seed: int
) -> tuple[np.ndarray, CountPlan]:
    budget = documents_config("uniform", seed, settings).stream_tokens(tokens)
    return uniform_counts(tokens, rows, budget, most=settings["most_repeats"], seed=seed)


def _graded(
    arm: str, seed: int, settings: Mapping[str, Any], tokens: TokenStore
) -> tuple[np.ndarray, dict[str, Any]]:
    budget = documents_config(arm, seed, settings).stream_tokens(tokens)
    config = CountConfig(budget=budget, c_max=settings["c_max"], seed=seed)
    everything = documents_of(tokens.store, score=SCORE)
    plan = plan_counts(everything, config)
    if arm == "greedy":
        return plan.counts, plan.facts
    sizes = tokens.lengths.astype(np.int64) + 1
    if arm == "uniform":
        unique = float(plan.facts["unique_tokens"])
        rows = _subset(tokens, np.arange(tokens.num_rows), unique, seed)
        counts, found = _uniform(tokens, rows, settings, seed)
        return counts, found.facts
    counts = rng("permuted", seed).permutation(plan.counts)
    # other documents have other lengths: fill up to the budget, as often as others are repeated
    short = config.budget - int((counts * sizes).sum())
    for row in rng("fill", seed).permutation(np.flatnonzero(counts)).tolist():
        if short <= 0:
            break
        counts[row] += 1
        short -= int(sizes[row])
    return counts, {**plan.facts, "tokens": int((counts * sizes).sum()),
                    "unique_tokens": int(sizes[counts > 0].sum())}  # fmt: skip


def documents_config(arm: str, seed: int, settings: Mapping[str, Any]) -> Any:
    """Return model and budget, equal for all arms but for the weight decay."""
    from understudy.train.lm_documents import DocumentsConfig

    shared = DocumentsConfig(
        model=settings["model"],
        budget=settings["budget"],
        context=settings["context"],
        tokens_per_step=settings["tokens_per_step"],
        lr=settings["lr"],
        precision=settings["precision"],
        seed=seed,
    )
    return replace(shared, weight_decay=weight_decay(arm, settings))
