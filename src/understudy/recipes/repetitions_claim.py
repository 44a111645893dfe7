"""The claim of the repetition study at small scale: few good documents often, or many once.

A: the best tenth of a curated pool, repeated ten times, against ten times as many unique tokens of
what it was chosen from, each under the weight decay that suits it best. B: in a pool of three
grades of documents, counts by quality against equal counts of as many unique tokens, and against
the same counts dealt out at random.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from understudy.core.files import write_json
from understudy.evaluate.claims import Arm, Check, Claim, Context, Difference, Predicate, Results
from understudy.recipes.repetitions_arms import (
    ARMS,
    DECAYS,
    FILTERED,
    SUPERSET,
    counts_of,
    documents_config,
    prepare,
    sets_of,
)

METRIC = "clean_nll"
A1, B = 0.05, 0.02
"""Margins in nats a token."""

SETTINGS: dict[str, Any] = {
    "pool_documents": 40_000,
    "graded_documents": 8_000,
    "reference": 2_000,
    "held_out": 400,
    "code": 200,
    "vocab_size": 2_048,
    "model": "openlm-nano",
    "precision": "bf16",
    "budget": 2_000_000,
    "keep": 0.1,
    "context": 512,
    "tokens_per_step": 8_192,
    "lr": 3e-3,
    "weight_decay": 0.03,
    "c_max": 10,
    "most_repeats": 60,
}


def run_arm(arm: str, seed: int, context: Context) -> dict[str, float]:
    """Train on one arm's documents, counted as it says, and read the held-out ones."""
    from understudy.data.tokens import TokenStore
    from understudy.evaluate.held_out_text import file_losses
    from understudy.train.lm_documents import train_documents

    settings, sets = context.settings, sets_of(arm, context)
    name, counts, plan = counts_of(arm, seed, settings, sets)
    tokens, coder = TokenStore.open(sets.tokens(name)), sets.coder()
    config = documents_config(arm, seed, settings)
    model, facts = train_documents(tokens, counts, config, coder, context.arm_dir)
    write_json(context.arm_dir / "facts.json", {**facts, "plan": plan})
    found = {
        "epochs": facts["epochs"],
        "unique_tokens": float(facts["unique_tokens"]),
        "train_nll": facts["train_nll"],
    }
    files = {part: sets.held_out(part) for part in ("clean", "code")}
    found |= file_losses(model, files, coder)
    return {**found, "gap": found[METRIC] - found["train_nll"]}


def _losses(results: Results, arms: tuple[str, ...]) -> np.ndarray:
    """Return losses [weight decays, seeds]."""
    return np.stack([np.asarray(results[arm][METRIC]) for arm in arms])


def repeats_win(results: Results) -> tuple[bool, str]:
    """Compare both sides at the weight decay with the lowest mean loss of each."""
    few, many = _losses(results, FILTERED), _losses(results, SUPERSET)
    a, b = int(few.mean(1).argmin()), int(many.mean(1).argmin())
    gain = many[b] - few[a]
    text = (
        f"filtered at {DECAYS[a]:g} against the superset at {DECAYS[b]:g}: gain {gain.mean():+.4f} "
        f"({', '.join(f'{g:+.4f}' for g in gain)})"
    )
    return bool(gain.mean() >= A1), text


def decay_grows(results: Results) -> tuple[bool, str]:
    """Say whether repeats want more weight decay, by at least a step of the grid."""
    few = _losses(results, FILTERED).argmin(0)
    many = _losses(results, SUPERSET).argmin(0)
    grown = int((few > many).sum())
    pairs = ", ".join(f"{DECAYS[f]:g} > {DECAYS[m]:g}" for f, m in zip(few, many, strict=True))
    need = -(-2 * len(few) // 3)
    return grown >= need, f"larger in {grown} of {len(few)} seeds (repeated > once: {pairs})"


def gain_shrinks(results: Results) -> tuple[bool, str]:
    """Say whether 40 repeats gain less than 10 over the superset, at the usual weight decay."""
    once = np.asarray(results[SUPERSET[0]][METRIC])
    ten = once - np.asarray(results[FILTERED[0]][METRIC])
    forty = once - np.asarray(results["filtered-40"][METRIC])
    text = f"gain {ten.mean():+.4f} at 10 repeats, {forty.mean():+.4f} at 40"
    return bool(forty.mean() < ten.mean()), text


CHECKS: tuple[Check, ...] = (
    Predicate(
        name="A1: ten repeats of the filtered set beat the superset",
        statement=f"{METRIC}: superset - filtered >= {A1:g}, each at its best weight decay",
        fn=repeats_win,
        reads=(*FILTERED, *SUPERSET),
    ),
    Predicate(
        name="A2: repeats want more weight decay",
        statement="the best weight decay of ten repeats is larger than of one pass, 2 of 3 seeds",
        fn=decay_grows,
        reads=(*FILTERED, *SUPERSET),
    ),
    Predicate(
        name="A3: forty repeats gain less than ten",
        statement="at the usual weight decay the gain over the superset shrinks from 10 to 40",
        fn=gain_shrinks,
        reads=(FILTERED[0], SUPERSET[0], "filtered-40"),
        required=False,
    ),
    Difference(
        name="B: counts by quality beat equal counts",
        metric=METRIC,
        better="greedy",
        worse="uniform",
        margin=B,
        lower_is_better=True,
    ),
    Difference(
        name="B: it is whose counts they are",
        metric=METRIC,
        better="greedy",
        worse="permuted",
        margin=B,
        lower_is_better=True,
    ),
)

CLAIM = Claim(
    recipe="repetitions",
    statement=(
        "At equal tokens a small language model gains at least 0.05 nat a token on clean documents "
        "of unseen packages from ten passes over a filtered set, instead of one pass over ten "
        "times as many tokens of its superset, if each has the weight decay that suits it; the "
        "repeated set wants more of it; and counts by quality beat equal counts, and the same "
        "counts dealt out at random, by 0.02."
    ),
    arms=tuple(Arm(name=name, description=text) for name, text in ARMS.items()),
    seeds=(71, 72, 73),
    metrics=(METRIC, "code_nll", "gap"),
    checks=CHECKS,
    budget=(
        "2,000,000 tokens in sequences of 512 for every arm, the same model of 1.4 M parameters "
        "and schedule; only documents, counts and the weight decay differ"
    ),
    failure=(
        "the filtered set gains less than 0.05 nat, its best weight decay is no larger in two of "
        "three seeds, or counts dealt out at random do as well as those by quality"
    ),
    run_arm=run_arm,
    prepare=prepare,
    scales={"laptop": SETTINGS},
)
