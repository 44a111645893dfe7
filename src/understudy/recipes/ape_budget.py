"""What one run of `ape` costs, counted before it trains, and what it would do: its preview."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.data.features import token_column
from understudy.evaluate.plans import Plan
from understudy.models.count import macs
from understudy.recipes.ape_arm_config import CLOSED
from understudy.recipes.ape_plan import Budget, add_budget
from understudy.reinforce.features import read_inputs

if TYPE_CHECKING:
    from understudy.recipes.ape import Config
    from understudy.recipes.ape_steps import Steps

SAMPLES = 8
"""Pairs that encoders are shown to count their arithmetic."""


def budget_plan(steps: Steps, rows: np.ndarray) -> Plan:
    """Return what training the arm on rows costs, encoders and towers included."""
    plan = Plan(recipe="ape", scale="this run")
    add_budget(plan, run_budget(steps, rows))
    return plan


def run_budget(steps: Steps, rows: np.ndarray) -> Budget:
    """Return the budget of a run.

    Args:
        steps: the run.
        rows: pairs that are trained on.
    """
    config, pairing = steps.config, steps.pairing
    cached = {"lit": ("image",), "scratch": ()}.get(config.arm, ("image", "text"))
    image, text = pairing.modalities()
    column = token_column(text.encoder, "text")
    tokens = getattr(steps.encoder("text"), "token_length", 0) if pairing.tokens else 0
    if pairing.tokens and steps.store.has(column):
        tokens = steps.store.card(column).config["shape"][0]
    few = rows[:SAMPLES]
    counted = {side: _encoder_macs(steps, side, few) for side in cached}
    return Budget(
        pairs=len(rows),
        image_dim=image.in_dim,
        text_dim=text.in_dim,
        batch=min(config.train.batch_size or len(rows), len(rows)),
        steps=config.train.steps,
        dim=pairing.dim,
        tokens=int(tokens),
        image_head=image.head,
        text_head=text.head,
        itemsize=4 if config.dtype == "float32" else 2,
        encoder_macs=sum(counted.values()),
        tower_macs=_tower_macs(steps, few) if len(cached) < 2 else 0.0,
        cached=cached,
        uncounted=tuple(steps.encoder(s).name for s, found in counted.items() if not found),
    )


def _encoder_macs(steps: Steps, side: str, rows: np.ndarray) -> float:
    """Return an encoder's multiply-accumulates for one input, by showing it a few."""
    if side == "text":
        batch: Any = steps.texts.of(rows)
    else:
        batch = read_inputs(steps.store, steps.config.image_column, side, rows)
    return macs(steps.encoder(side).encode, batch) / len(rows)


def _tower_macs(steps: Steps, rows: np.ndarray) -> float:
    """Return the multiply-accumulates of the towers that learn, for one pair."""
    import torch

    model: Any = steps.pairing.model()
    total = 0
    for name, tower in model.towers.items():
        inputs = torch.as_tensor(steps.pairing.side(name, rows).values)
        tower.eval()
        total += macs(tower, inputs)
        tower.train()
    return total / len(rows)


def flop_facts(plan: Plan) -> dict[str, float]:
    """Return operations of the whole run by what they are for, and both sums.

    `cached` counts the encoders' forward passes once, `uncached` at every step.
    """
    named = {
        "heads": "training",
        "towers": "training the towers",
        "encoders_once": "encoders, each pair once (cached)",
        "encoders_every_step": "encoders, at every step (uncached)",
    }
    there = {row.label for row in plan.rows}
    found = {key: plan.value(label) for key, label in named.items() if label in there}
    learned = found.get("heads", 0.0) + found.get("towers", 0.0)
    found["cached"] = learned + found.get("encoders_once", 0.0)
    found["uncached"] = learned + found.get("encoders_every_step", 0.0)
    return found


def preview(config: Config) -> Plan:
    """Count what `run` would cache, choose and train on the user's data; write nothing.

    Raises:
        UnderstudyError: whatever `run` would refuse before it caches.
    """
    from understudy.data.knowledge import feature_column
    from understudy.data.store import Store
    from understudy.recipes.ape import check_store, preset
    from understudy.recipes.ape_steps import Steps

    config = preset(config)
    check_store(config)
    steps = Steps(config, Store.open(config.store))
    made = Plan(recipe="ape", scale="this run")
    for part, rows in steps.rows.items():
        left = steps.empty[part]
        formula = f"{left:,} more have an empty caption" if left else ""
        made.add(f"pairs: {part}", len(rows), "pairs", formula=formula)
    used = sum(len(rows) for rows in steps.rows.values())
    for side, encoders in steps.encoders.items():
        for encoder in encoders:
            column = feature_column(encoder.name, side)
            there = steps.store.has(column)
            done = int(steps.store.filled(column).sum()) if there else 0
            open_ = max(used - done, 0)
            formula = f"{encoder.dim:,} numbers each"
            made.add(f"{side}s still to encode by {encoder.name}", open_, "", formula=formula)
    pool = steps.rows["pool"]
    rows = pool[: config.total] if config.total else pool
    if config.arm not in CLOSED and config.mode in ("run", "train"):
        add_budget(made, run_budget(steps, rows))
    pairs = {side: len(some) for side, some in steps.encoders.items()}
    if pairs["image"] * pairs["text"] > 1:
        made.notes.append("of several encoders the first of each side is counted; ranking decides.")
    made.notes.append(f"everything goes to {config.out}; nothing has been written.")
    return made
