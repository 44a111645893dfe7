"""Counts from a store and back into it: facts of documents in, a knowledge column `count` out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from understudy.core.config import to_dict
from understudy.core.errors import DataError
from understudy.core.provenance import versions
from understudy.curate.counts.documents import Documents
from understudy.curate.counts.plan import CountConfig, CountPlan, plan_counts
from understudy.data.card import Card
from understudy.data.tokens_info import META

if TYPE_CHECKING:
    from understudy.data.store import Store
    from understudy.data.tokens import TokenStore

COLUMN = "count"


def documents_of(
    store: Store,
    *,
    score: str = "",
    tokens: str = "length",
    duplicates: str = "dup_count",
    cluster: str = "",
    classifier: dict[str, str] | None = None,
    where: str = "",
    rows: np.ndarray | None = None,
) -> Documents:
    """Return the facts of a store's documents.

    Args:
        store: one row a document, such as a token store of kind `documents`.
        score: column of quality scores; empty for none (all equal).
        tokens: column of token counts.
        duplicates: column of cluster sizes; all 1 if the store has no such column.
        cluster: column of near-duplicate clusters; empty for none.
        classifier: what scored each source; by default the scored column's card, for all.
        where: only rows that this condition holds for.
        rows: only these row numbers, instead of a condition.

    Raises:
        DataError: a column is missing.
    """
    for name in (tokens, *([score] if score else []), *([cluster] if cluster else [])):
        if not store.has(name):
            near = ", ".join(store.columns)
            raise DataError(f"{store.path}: no column '{name}' (it has {near}).")
    if rows is None:
        rows = store.where(where) if where else np.arange(store.num_rows)
    names = ["id", tokens]
    names += [n for n in (score, duplicates, cluster, "source") if n and store.has(n)]
    table = store.take(rows, list(dict.fromkeys(names)))

    def number(name: str, kind: pa.DataType, missing: float) -> np.ndarray:
        column = table.column(name).combine_chunks().cast(kind)
        return column.fill_null(missing).to_numpy(zero_copy_only=False)

    source = table.column("source").to_pylist() if "source" in names else []
    # a token store's length leaves out the last token, which is only a target
    extra = int(tokens == "length" and META in store.meta)
    return Documents(
        ids=table.column("id").to_pylist(),
        tokens=number(tokens, pa.int64(), 0) + extra,
        score=number(score, pa.float32(), np.nan) if score else np.zeros(len(rows), np.float32),
        duplicates=(
            number(duplicates, pa.int64(), 1)
            if duplicates in names
            else np.ones(len(rows), np.int64)
        ),
        source=[s or "" for s in source],
        classifier=dict(classifier or {}),
        cluster=[c or "" for c in table.column(cluster).to_pylist()] if cluster else (),
    )


def uniform_counts(
    tokens: TokenStore, rows: np.ndarray, budget: int, *, most: int, seed: int
) -> tuple[np.ndarray, CountPlan]:
    """Use some rows all equally often, for a budget; the others not at all.

    Args:
        tokens: one row a document.
        rows: which documents.
        budget: tokens of all copies.
        most: largest count.
        seed: of which documents are used once more than others.

    Returns:
        Counts int64 [num_rows], and the plan of the rows.

    Raises:
        ConfigError: even `most` copies do not fill the budget.
    """
    config = CountConfig(budget=budget, preset="uniform", c_max=most, seed=seed)
    plan = plan_counts(documents_of(tokens.store, rows=rows), config)
    counts = np.zeros(tokens.num_rows, np.int64)
    counts[rows] = plan.counts
    return counts, plan


def write_counts(
    store: Store, plan: CountPlan, *, column: str = COLUMN, overwrite: bool = False
) -> None:
    """Write a plan's counts into a store as a knowledge column; rows without one get 0.

    Args:
        store: whose `id`s the plan counted.
        plan: the counts.
        column: name of the column, int32.
        overwrite: replace the counts of another plan.

    Raises:
        DataError: the plan has ids that the store does not have.
        CardError: the column holds another plan's counts.
    """
    ids = store.take(np.arange(store.num_rows), ["id"]).column("id").to_pylist()
    count = dict(zip(plan.ids, plan.counts.tolist(), strict=True))
    strange = count.keys() - set(ids)
    if strange:
        raise DataError(
            f"{store.path}: the plan counts {len(strange):,} documents that are not there "
            f"({sorted(strange)[0]}, ...); it was made for another store."
        )
    card = Card(
        column=column,
        writer=f"count plan {plan.config.preset}",
        fingerprint=plan.facts["counts_hash"],
        config=to_dict(plan.config),
        versions=versions(),
        seed=plan.config.seed,
        facts={k: plan.facts[k] for k in ("tokens", "unique_tokens", "mean_repeats", "lambda")},
    )
    with store.job([card], {column: pa.int32()}, overwrite=overwrite) as job:
        for unit in job.todo():
            values = [count.get(ids[row], 0) for row in job.rows(unit).tolist()]
            job.write(unit, {column: pa.array(values, pa.int32())})
