r"""DataComp-LM: the same model on ever better documents.

"DataComp-LM: In search of the next generation of training sets for language models" (arXiv
2406.11794). Training is fixed and data is the variable: extract, filter by heuristics, remove what
was seen, keep what a classifier finds best; then the model tells how good the documents are.

    understudy run dclm PAGES/ --reference clean.jsonl --held-out held.jsonl --out runs/dclm
    understudy verify dclm --jobs 2
    understudy plan dclm --scale paper

`PAGES/` holds JSON lines, WARC, HTML, Parquet, or is a store with texts. Expect the classifier's
best tenth ahead of heuristics alone (the paper, 1B-1x: CORE 30.2 against 27.5). The claim (6 arms,
3 seeds) takes about an hour on two cores.

The algorithm, as `run` goes through it:

1. heuristics of RefinedWeb in the published order, then the Bloom filter over 13-grams, paragraphs
   and documents at once;
2. a fastText classifier: the reference documents against random documents of the pool; each
   document's P(hq);
3. the best `keep` of what is left, a percentile of this pool and never a number of another one;
4. tokens: a byte-level BPE trained on the raw pool, or the tokenizer that is given;
5. for each compared set the same model, start, tokens and schedule; smaller sets are repeated;
6. the loss on held-out documents.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from understudy.core.config import check_choice, to_dict
from understudy.core.errors import ConfigError
from understudy.core.files import write_json
from understudy.evaluate.plans import Plan
from understudy.recipes.dclm_claim import CLAIM
from understudy.recipes.dclm_plan import plan as PLAN
from understudy.train.lm_documents import DocumentsConfig

__all__ = ["CLAIM", "PLAN", "Config", "preview", "run"]

ARMS = ("raw", "heuristics", "dedup", "best")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Say what is curated and what is trained on it.

    Attributes:
        store: pages: a folder, a file or a store with texts.
        out: folder of everything, and of `result.json`.
        reference: JSON lines of documents as good as wanted; the classifier learns from them.
        held_out: JSON lines of documents to measure the loss on; none of them may be in the pool.
        keep: share of the filtered pool that the classifier keeps.
        arms: sets to train on: `raw`, `heuristics`, `dedup`, `best`.
        language: how the language is told: `words` needs no model, `fasttext` takes lid.176.
        tokenizer: `tokenizer.json` or a folder with one; empty trains a byte-level BPE.
        vocab_size: of that BPE.
        documents: model and budget, the same for every arm.
        most_repeats: refuse a set that the budget repeats more often.
        workers: processes, 0 for one a core.
        seed: of weights, order, classifier.
    """

    store: Path
    reference: Path
    held_out: Path
    out: Path = Path("runs/dclm")
    keep: float = 0.1
    arms: tuple[str, ...] = ARMS
    language: str = "words"
    tokenizer: str = ""
    vocab_size: int = 4_096
    documents: DocumentsConfig = field(default_factory=DocumentsConfig)
    most_repeats: int = 100
    workers: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for arm in self.arms:
            check_choice(arm, ARMS, "dclm: arms")
        if not self.arms:
            raise ConfigError("dclm: arms: name at least one.")
        if not 0 < self.keep <= 1:
            raise ConfigError(f"dclm: keep: expected a share in (0, 1], got {self.keep}.")
        check_choice(self.language, ("words", "fasttext"), "dclm: language")


def preview(config: Config) -> Plan:
    """Count what `run` would read and train; curate and write nothing.

    Raises:
        DataError: no pages, reference or held-out documents there.
        ConfigError: no such model.
    """
    from understudy import models
    from understudy.evaluate.plan_runs import add_inputs, add_language_training

    made = Plan(recipe="dclm", scale="this run")
    for label, path in (
        ("pages", config.store),
        ("reference documents", config.reference),
        ("held-out documents", config.held_out),
    ):
        add_inputs(made, label, path)
    shared = config.documents
    changes = {"decoder.context": shared.context, **shared.changes}
    if not config.tokenizer:
        changes.setdefault("decoder.vocab_size", config.vocab_size)
    language: Any = models.config(shared.model, **changes)
    add_language_training(
        made,
        config=language,
        context=shared.context,
        tokens=shared.steps * shared.tokens_per_step,
        tokens_per_step=shared.tokens_per_step,
        arms=config.arms,
    )
    made.notes.append(
        f"a set is repeated until it fills {shared.budget:,} tokens, at most "
        f"{config.most_repeats} times; how large the sets are, curation tells."
    )
    return made


def run(config: Config) -> Path:
    """Curate, train on every arm's documents, measure held-out losses.

    Returns:
        the folder, with `sets/` (stores, tokens, classifier), a run an arm, and `result.json`.

    Raises:
        ConfigError: options that do not fit each other, or a set that the budget repeats too often.
        DataError: pages or documents that cannot be read.
    """
    from understudy.curate.pool_sets import curate_pages

    sets, facts = curate_pages(
        config.store,
        config.reference,
        config.out / "sets",
        vocab_size=config.vocab_size,
        tokenizer=config.tokenizer,
        language=config.language,
        workers=config.workers,
        seed=config.seed,
    )
    arms = {arm: _arm(config, arm, sets) for arm in config.arms}
    result = {"recipe": "dclm", "config": to_dict(config), **facts, "arms": arms}
    write_json(config.out / "result.json", result)
    return config.out


def _arm(config: Config, arm: str, sets: Any) -> dict[str, Any]:
    """Train on one set; return its losses and facts."""
    from dataclasses import replace

    from understudy.curate.counts.store import uniform_counts
    from understudy.curate.pool_sets import SCORE, best
    from understudy.data.tokens import TokenStore
    from understudy.evaluate.held_out_text import file_losses
    from understudy.train.lm_documents import train_documents

    tokens = TokenStore.open(sets.tokens("dedup" if arm == "best" else arm))
    rows = np.arange(tokens.num_rows)
    if arm == "best":
        rows = best(tokens.store.array(SCORE), config.keep)
    shared = replace(config.documents, seed=config.seed)
    counts, plan = uniform_counts(
        tokens, rows, shared.stream_tokens(tokens), most=config.most_repeats, seed=config.seed
    )
    coder = sets.coder()
    model, facts = train_documents(tokens, counts, shared, coder, config.out / arm)
    losses = file_losses(model, {"held_out": config.held_out}, coder)
    return {"documents": len(rows), **losses, **facts, "plan": plan.facts}
