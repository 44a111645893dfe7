"""`understudy curate counts` and `understudy curate repeats`: how often documents are repeated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from understudy.cli.common import note, parse, parse_config, positional_store, show, table
from understudy.curate.counts.plan import CountConfig


@dataclass(kw_only=True)
class CountsCommand:
    """Choose how often each document of a store is used for a budget of tokens.

    Attributes:
        store: one row a document; also the first word of the command.
        counts: budget, preset and its numbers.
        score: column of quality scores, such as score.quality.
        tokens: column of token counts.
        duplicates: column of near-duplicate cluster sizes; all 1 if the store has none.
        where: count only rows that this condition holds for.
        column: knowledge column to write; empty writes none.
        out: folder for counts.parquet and plan.json; empty writes none.
        dry_run: print the plan, write nothing.
        overwrite: replace another plan's column.
        json: print the plan as JSON.
    """

    store: str
    counts: CountConfig = field(default_factory=lambda: CountConfig(preset="uniform", epochs=1))
    score: str = ""
    tokens: str = "length"
    duplicates: str = "dup_count"
    where: str = ""
    column: str = "count"
    out: str = ""
    dry_run: bool = False
    overwrite: bool = False
    json: bool = False


def counts(argv: Sequence[str], prog: str) -> int:
    """Plan counts, print them, write them as a column and as files."""
    from understudy.curate.counts.plan import plan_counts
    from understudy.curate.counts.store import documents_of, write_counts
    from understudy.data.store import Store

    command = parse_config(CountsCommand, positional_store(argv), prog)
    store = Store.open(command.store)
    documents = documents_of(
        store,
        score=command.score,
        tokens=command.tokens,
        duplicates=command.duplicates,
        where=command.where,
    )
    config = command.counts
    if not config.tokenizer_hash and "tokens" in store.meta:
        config = replace(config, tokenizer_hash=store.meta["tokens"]["tokenizer_hash"])
    plan = plan_counts(documents, config)
    show(plan.facts, command.json, _text)
    if command.dry_run:
        return 0
    if command.column:
        write_counts(store, plan, column=command.column, overwrite=command.overwrite)
        note(f"wrote column '{command.column}' of {command.store}")
    if command.out:
        note(f"wrote {plan.write(Path(command.out))}")
    return 0


def _text(facts: dict[str, Any]) -> str:
    names = {
        "tokens": "tokens of all copies",
        "unique_tokens": "unique tokens",
        "effective_tokens": "worth in fresh tokens (arXiv 2305.16264)",
        "documents": "documents",
        "documents_used": "documents used",
        "mean_repeats": "mean repeats of a token",
        "max_repeats": "largest count",
        "lambda": "value per token of the last copy",
    }
    rows = [(words, facts[name]) for name, words in names.items()]
    rows += [(f"repeats, percentile {p}", v) for p, v in facts["repeat_percentiles"].items()]
    return table(rows, ("count plan", facts["preset"]))


def repeats(argv: Sequence[str], prog: str) -> int:
    """Say what repeating a whole set is worth."""
    return parse(_repeats, argv, prog)


def _repeats(
    unique: int, budget: int, weight_decay: float = 0.033, r_star: float = 15.39, json: bool = False
) -> int:
    """Say what a budget of tokens over a smaller set is worth.

    Args:
        unique: tokens of the set.
        budget: tokens to train on.
        weight_decay: the usual one; sweep factors 1, 2, 4, 8, 16 of it on a smaller model at the
            same number of epochs.
        r_star: how fast repeats lose their worth; 15.39 is published for the usual weight decay.
        json: print JSON.
    """
    from understudy.curate.counts.repeats import DECAY_FACTORS, plan_repeat

    plan = plan_repeat(unique, budget, weight_decay=weight_decay, r_star=r_star)
    plan["weight_decays_to_sweep"] = [weight_decay * g for g in DECAY_FACTORS]
    words = {k: v if not isinstance(v, list) else ", ".join(f"{x:g}" for x in v)
             for k, v in plan.items()}  # fmt: skip
    show(plan, json, lambda _: table(list(words.items()), ("repeat plan", "")))
    return 0
