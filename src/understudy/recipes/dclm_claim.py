"""The claim of DataComp-LM at small scale: a model is as good as the documents it is trained on.

The pool has ten kinds of real documents, one in ten of them clean prose, a fifth of them copies.
The same small model is trained on as many tokens of each step's documents and asked about clean
documents of packages that neither the pool nor the classifier saw.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from understudy.core.files import write_json
from understudy.evaluate.claims import Arm, Check, Claim, Context, Difference

SETTINGS: dict[str, Any] = {
    "documents": 40_000,
    "reference": 2_000,
    "held_out": 400,
    "code": 200,
    "vocab_size": 2_048,
    "model": "openlm-nano",
    "precision": "bf16",
    "budget": 2_000_000,
    "context": 512,
    "tokens_per_step": 8_192,
    "lr": 3e-3,
    "weight_decay": 0.033,
    "most_repeats": 1_000,
}

ARMS: dict[str, tuple[str, str, float]] = {
    "random": ("raw", "random documents of the pool", 1.0),
    "heuristics": ("heuristics", "what the heuristic filters leave", 1.0),
    "dedup": ("dedup", "of these, what the Bloom filter leaves", 1.0),
    "top-40": ("dedup", "of these, the classifier's best 40 %", 0.4),
    "top-10": ("dedup", "of these, the classifier's best 10 %", 0.1),
    "top-1": ("dedup", "of these, the classifier's best 1 %", 0.01),
}
"""Arm -> set, description, share that the classifier keeps."""


def prepare(seed: int, context: Context) -> dict[str, Any]:
    """Make the seed's pool, curate it and tokenise every step's documents."""
    from understudy.curate.pool_sets import SetsConfig, make_sets
    from understudy.data.corpora.pool_config import PoolConfig

    settings = context.settings
    pool = PoolConfig(
        documents=settings["documents"],
        seed=seed,
        reference=settings["reference"],
        held_out=settings["held_out"],
        code=settings["code"],
    )
    config = SetsConfig(
        pool=pool, vocab_size=settings["vocab_size"], negatives=settings["reference"]
    )
    sets, facts = make_sets(context.seed_dir / "sets", config)
    return {"folder": str(sets.folder), **facts}


def run_arm(arm: str, seed: int, context: Context) -> dict[str, float]:
    """Train on one arm's documents, repeated as a whole as often as the budget needs."""
    from pathlib import Path

    from understudy.curate.counts.store import uniform_counts
    from understudy.curate.pool_sets import SCORE, Sets, best
    from understudy.data.tokens import TokenStore
    from understudy.evaluate.held_out_text import file_losses
    from understudy.train.lm_documents import DocumentsConfig, train_documents

    settings = context.settings
    sets = Sets(folder=Path(context.prepared["folder"]))
    name, _, keep = ARMS[arm]
    tokens = TokenStore.open(sets.tokens(name))
    rows = np.arange(tokens.num_rows)
    if keep < 1:
        rows = best(tokens.store.array(SCORE), keep)
    config = DocumentsConfig(
        model=settings["model"],
        budget=settings["budget"],
        context=settings["context"],
        tokens_per_step=settings["tokens_per_step"],
        lr=settings["lr"],
        weight_decay=settings["weight_decay"],
        precision=settings["precision"],
        seed=seed,
    )
    counts, plan = uniform_counts(
        tokens, rows, config.stream_tokens(tokens), most=settings["most_repeats"], seed=seed
    )
    coder = sets.coder()
    model, facts = train_documents(tokens, counts, config, coder, context.arm_dir)
    write_json(context.arm_dir / "facts.json", {**facts, "plan": plan.facts})
    found = {
        "epochs": facts["epochs"],
        "unique_tokens": float(facts["unique_tokens"]),
        "train_nll": facts["train_nll"],
        "documents": float(len(rows)),
    }
    files = {part: sets.held_out(part) for part in ("clean", "code")}
    return found | file_losses(model, files, coder)


def _lower(name: str, better: str, worse: str, margin: float = 0.0, **options: Any) -> Check:
    return Difference(
        name=name,
        metric="clean_nll",
        better=better,
        worse=worse,
        margin=margin,
        lower_is_better=True,
        **options,
    )


CHECKS: tuple[Check, ...] = (
    _lower("the whole pipeline against random documents", "top-10", "random", 0.1),
    _lower("the classifier against heuristics alone", "top-10", "heuristics"),
    _lower("heuristics against random documents", "heuristics", "random"),
    _lower("deduplication against heuristics", "dedup", "heuristics"),
    _lower("the classifier against deduplication", "top-10", "dedup"),
    _lower("the best tenth against the best 40 %", "top-10", "top-40"),
    _lower("the best hundredth is too little", "top-10", "top-1"),
)

CLAIM = Claim(
    recipe="dclm",
    statement=(
        "At equal tokens a small language model reads clean documents of unseen packages at least "
        "0.1 nat a token better after training on the classifier's best tenth of a filtered and "
        "deduplicated pool than on random documents of it; every step of the pipeline helps, and "
        "the best hundredth, repeated often, is too little."
    ),
    arms=tuple(Arm(name=name, description=text) for name, (_, text, _) in ARMS.items()),
    seeds=(61, 62, 63),
    metrics=("clean_nll", "code_nll"),
    checks=CHECKS,
    budget=(
        "2,000,000 tokens in sequences of 512 for every arm, the same model of 1.4 M parameters, "
        "schedule and weight decay; smaller sets are repeated"
    ),
    failure=(
        "the classifier's tenth is not better than heuristics alone beyond its interval, gains "
        "less than 0.1 nat over random documents, or a step of the pipeline does not help"
    ),
    run_arm=run_arm,
    prepare=prepare,
    scales={"laptop": SETTINGS},
)
