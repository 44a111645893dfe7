r"""Repetitions: how often each document is used, and which weight decay goes with it.

"Datasets, Documents, and Repetitions: The Practicalities of Unequal Data Quality" (NeurIPS 2025).
Few good documents often beat many once, if weight decay grows with the repeats; and documents are
unequal even inside a filtered set, so counts of single documents do better than equal ones.

    understudy run repetitions TOKENS --score score.quality --held-out held.jsonl --budget 3000000
    understudy verify repetitions --jobs 2
    understudy plan repetitions --scale paper

`TOKENS` is a token store of documents (`understudy curate tokenise`), with scores where counts
follow quality. The schedule of weight decay over repeats and the paper's own greedy function could
not be read: both are this project's, and can be exchanged. The claim (14 arms, 3 seeds) takes
about an hour and a half on two cores.

The algorithm, as `run` goes through it:

1. counts: greedy by value per token, or a simple preset (`understudy curate counts`);
2. weight decay: a smaller budget with the same number of repeats, once for each candidate;
   the lowest held-out loss decides;
3. the model on the counted documents under that decay, copies of a document far apart;
4. held-out loss, the gap to the training loss, and how much is recited by repeat count.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from understudy.core.config import to_dict
from understudy.core.errors import ConfigError
from understudy.core.files import write_json
from understudy.curate.counts.plan import CountConfig, Missing, Preset
from understudy.curate.counts.repeats import DECAY_FACTORS
from understudy.evaluate.plans import Plan
from understudy.recipes.repetitions_claim import CLAIM
from understudy.recipes.repetitions_plan import plan as PLAN
from understudy.train.lm_documents import DocumentsConfig

__all__ = ["CLAIM", "PLAN", "Config", "preview", "run"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Say what is repeated, by which counts, and how the decay is chosen.

    Attributes:
        store: token store of documents.
        held_out: JSON lines of documents to measure the loss on; none of them may be in the store.
        tokenizer: the tokenizer of the tokens, as this project saves it, or a `tokenizer.json`.
        out: folder of everything, and of `result.json`.
        score: column of quality scores; empty for equal counts.
        preset: how counts are chosen; empty takes `greedy` with scores, else `uniform`.
        gamma: greedy: weight of quality.
        eta: greedy: weight of duplicates in the raw pool.
        delta: greedy: what each further copy keeps of the value.
        c_max: largest count.
        missing: what to do with documents without a score.
        documents: model and budget; its `weight_decay` is the usual one.
        factors: candidates of the weight decay, over the usual one; one candidate is not searched.
        proxy: share of budget and documents that the search uses.
        recite: documents to ask for their own continuation; 0 leaves it out.
        seed: of weights, order and ties.
    """

    store: Path
    held_out: Path
    tokenizer: str
    out: Path = Path("runs/repetitions")
    score: str = ""
    preset: Preset | None = None
    gamma: float = 2.0
    eta: float = 0.25
    delta: float = 0.7
    c_max: int = 10
    missing: Missing = "error"
    documents: DocumentsConfig = field(default_factory=DocumentsConfig)
    factors: tuple[float, ...] = DECAY_FACTORS
    proxy: float = 0.25
    recite: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.factors or min(self.factors) <= 0:
            raise ConfigError("repetitions: factors: name at least one, all above 0.")
        if not 0 < self.proxy <= 1:
            raise ConfigError(f"repetitions: proxy: expected a share in (0, 1], got {self.proxy}.")

    def counts(self, budget: int) -> CountConfig:
        """Return how counts are chosen for a budget."""
        return CountConfig(
            budget=budget,
            preset=self.preset or ("greedy" if self.score else "uniform"),
            gamma=self.gamma,
            eta=self.eta,
            delta=self.delta,
            c_max=self.c_max,
            missing=self.missing,
            seed=self.seed,
        )


def preview(config: Config) -> Plan:
    """Plan counts and count what `run` would train; write nothing.

    Raises:
        UnderstudyError: whatever `run` would refuse before its first step.
    """
    from understudy import models
    from understudy.curate.counts.plan import plan_counts
    from understudy.curate.counts.store import documents_of
    from understudy.curate.tokens.encoders import load_coder
    from understudy.data.tokens import TokenStore
    from understudy.evaluate.plan_runs import add_inputs, add_language_training

    tokens, coder = TokenStore.open(config.store), load_coder(config.tokenizer)
    shared = config.documents
    tokens.check_tokenizer(shared.model, coder.fingerprint())
    documents = documents_of(tokens.store, score=config.score)
    counts = plan_counts(documents, config.counts(shared.stream_tokens(tokens)))
    made = Plan(recipe="repetitions", scale="this run")
    made.add("documents", tokens.num_rows, "documents")
    made.add("documents used", int((counts.counts > 0).sum()), "documents")
    made.add("mean repeats", counts.facts["mean_repeats"], "")
    add_inputs(made, "held-out documents", config.held_out)
    changes = {"decoder.context": shared.context, **shared.changes}
    changes.setdefault("decoder.vocab_size", tokens.info.vocab_size)
    language: Any = models.config(shared.model, **changes)
    searched = len(config.factors) if len(config.factors) > 1 else 0
    add_language_training(
        made,
        config=language,
        context=shared.context,
        tokens=int(shared.budget * (1 + searched * config.proxy)),
        tokens_per_step=shared.tokens_per_step,
        arms=["final, with the search before it"] if searched else ["final"],
    )
    made.notes.append(
        f"{searched} weight decays are tried on {config.proxy:.0%} of the budget each."
        if searched
        else "the weight decay is given and not searched."
    )
    return made


def run(config: Config) -> Path:
    """Plan counts, choose the decay, train, measure.

    Returns:
        the folder, with `counts.parquet`, `plan.json`, the runs and `result.json`.

    Raises:
        ConfigError: a budget out of reach; the message has the largest one that can be reached.
        DataError: scores are missing, or tokens of another tokenizer.
    """
    from understudy.curate.counts.plan import plan_counts
    from understudy.curate.counts.repeats import choose_decay
    from understudy.curate.counts.store import documents_of
    from understudy.curate.tokens.encoders import load_coder
    from understudy.data.tokens import TokenStore
    from understudy.evaluate.held_out_text import file_losses
    from understudy.train.lm_documents import train_documents

    tokens, coder = TokenStore.open(config.store), load_coder(config.tokenizer)
    shared = replace(config.documents, seed=config.seed)
    documents = documents_of(tokens.store, score=config.score)
    plan = plan_counts(documents, config.counts(shared.stream_tokens(tokens)))
    plan.write(config.out)
    place = dict(zip(plan.ids, plan.counts.tolist(), strict=True))
    counts = np.array([place.get(i, 0) for i in documents.ids], np.int64)

    def train(name: str, budget: DocumentsConfig, chosen: np.ndarray) -> dict[str, Any]:
        model, facts = train_documents(tokens, chosen, budget, coder, config.out / name)
        losses = file_losses(model, {"held_out": config.held_out}, coder)
        gap = losses["held_out_nll"] - facts["train_nll"]
        return {**facts, **losses, "gap": gap, "weight_decay": budget.weight_decay}

    base = shared.weight_decay
    swept: dict[float, dict[str, Any]] = {}
    if len(config.factors) > 1:
        small = replace(shared, budget=int(shared.budget * config.proxy))
        part = _part(counts, tokens.lengths + 1, small.stream_tokens(tokens), config.seed)
        for factor in config.factors:
            name = f"decay-{base * factor:g}"
            swept[base * factor] = train(name, replace(small, weight_decay=base * factor), part)
    losses = {decay: [found["held_out_nll"]] for decay, found in swept.items()}
    choice = choose_decay(losses or {base * config.factors[0]: [0.0]}, base=base,
                          epochs=plan.facts["mean_repeats"])  # fmt: skip
    final = train("final", replace(shared, weight_decay=choice.weight_decay), counts)
    result = {
        "recipe": "repetitions",
        "config": to_dict(config),
        "plan": plan.facts,
        "decays": {f"{decay:g}": found for decay, found in swept.items()},
        "weight_decay": {"chosen": choice.weight_decay, "factor": choice.factor},
        "final": final,
    }
    if config.recite:
        result["recited"] = _recited(config, tokens, counts, coder)
    write_json(config.out / "result.json", result)
    return config.out


def _part(counts: np.ndarray, sizes: np.ndarray, budget: int, seed: int) -> np.ndarray:
    """Return the counts of random documents that fill a smaller budget: as many repeats of each."""
    from understudy.core.seeds import rng

    used = rng("proxy", seed).permutation(np.flatnonzero(counts))
    total = np.cumsum(counts[used] * sizes[used].astype(np.int64))
    kept = used[: int(np.searchsorted(total, budget)) + 1]
    found = np.zeros_like(counts)
    found[kept] = counts[kept]
    return found


def _recited(config: Config, tokens: Any, counts: np.ndarray, coder: Any) -> dict[str, Any]:
    """Ask the final model for the continuation of documents of every count."""
    from understudy.core.seeds import rng
    from understudy.evaluate.lm_tasks_generate import greedy
    from understudy.evaluate.memorisation import PROMPT_TOKENS, memorisation
    from understudy.models.runs import load_run

    model: Any = load_run(config.out / "final", "final", folded=False)
    rows = np.sort(rng("recite", config.seed).permutation(len(counts))[: config.recite])
    half = min(PROMPT_TOKENS, model.context // 2)
    found = memorisation(
        tokens.take(rows),
        counts[rows].tolist(),
        greedy(model.eval()),
        prompt_tokens=half,
        continuation_tokens=half,
    )
    return found.to_plain()
