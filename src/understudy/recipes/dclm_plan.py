"""What DataComp-LM's five scales count up to: parameters, tokens, operations, hours, money."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.evaluate.plans import Plan, add_cost, hours_for

if TYPE_CHECKING:
    from understudy.train.presets_lm import DclmScale

PAPER = "2406.11794, table 10"
PEAK_FLOP_PER_S = 989e12
"""Of an H100 in 16 bits."""
KEEP = 0.1
ERROR_RATE = 0.01
"""Of the published Bloom filter, an n-gram."""


def plan(scale: str = "paper", price_per_hour: float = 2.0, model: str = "") -> Plan:
    """Count the competition's scales; run nothing.

    Args:
        scale: `"paper"`.
        price_per_hour: money per device hour.
        model: one scale (`1b-1x`, ...) or the name of its model; empty for all five.

    Raises:
        ConfigError: an unknown scale or model.
    """
    from understudy.train.presets_lm import DCLM_SCALES

    check_choice(scale, ("paper",), "plan of dclm, scale")
    chosen = [s for s in DCLM_SCALES.values() if model in ("", s.name, s.model)]
    if not chosen:
        names = ", ".join(DCLM_SCALES)
        raise ConfigError(f"plan of dclm: no scale or model '{model}'; there are {names}.")
    made = Plan(recipe="dclm", scale=scale)
    hours = {}
    for found in chosen:
        hours[found.name] = _scale(made, found)
    _filter(made, chosen[-1])
    add_cost(made, hours, price_per_hour)
    made.notes += [
        "operations are 6 N + 6 L d s a token: causal attention, N without the embedding table.",
        "device hours are the published H100 hours; the utilisation row follows from them.",
        "published parameters leave out the gains of normed queries and keys, 2 L d.",
        "the pool of 400m-1x is 469 B tokens in the paper and 137 B in its repository.",
    ]
    return made


def _scale(made: Plan, found: DclmScale) -> float:
    """Add the rows of a scale; return its device hours."""
    import torch

    from understudy import models
    from understudy.models.language.cost import training_flop
    from understudy.models.language.language_model import LanguageModel
    from understudy.train.presets_lm import SEQUENCE

    config: Any = models.config(found.model)
    with torch.device("meta"):
        count = sum(p.numel() for p in LanguageModel(config).parameters())
    decoder = config.decoder
    gains = 2 * decoder.depth * decoder.width
    name = found.name
    made.add(f"{name}: parameters", count, "", formula=found.model)
    made.add(
        f"{name}: parameters as published", count - gains, "", formula="without 2 L d gains",
        source=PAPER, published=found.parameters,
    )  # fmt: skip
    made.add(
        f"{name}: tokens", found.tokens, "tokens", source=PAPER,
        formula=f"20 x {found.parameters:,} x {found.multiplier}",
    )  # fmt: skip
    made.add(
        f"{name}: steps", found.steps, "steps",
        formula=f"{found.sequences:,} sequences of {SEQUENCE:,} tokens",
    )  # fmt: skip
    flop = training_flop(decoder, SEQUENCE) * found.tokens
    made.add(f"{name}: training", flop, "FLOP", published=found.flop, source=PAPER)
    peak = hours_for(flop, peak_flop_per_s=PEAK_FLOP_PER_S, utilisation=1.0)
    made.add(
        f"{name}: utilisation", peak / found.h100_hours, "",
        formula=f"{peak:,.0f} h at an H100's peak over {found.h100_hours:,} h published",
    )  # fmt: skip
    made.add(f"{name}: pool", found.pool_tokens, "tokens", source=PAPER)
    made.add(
        f"{name}: repeats if a tenth is kept", found.tokens / (KEEP * found.pool_tokens), "",
        formula="tokens / (0.1 x pool); above 1 the set is repeated",
    )  # fmt: skip
    return float(found.h100_hours)


def _filter(made: Plan, found: DclmScale) -> None:
    from understudy.curate.dedup.bloom import num_bits

    bits = num_bits(int(found.pool_tokens), ERROR_RATE)
    made.add(
        f"{found.name}: Bloom filter of the whole pool",
        -(-bits // 8),
        "B",
        formula=f"{bits / found.pool_tokens:.3f} bits an n-gram; shards divide it",
        source="2406.11794, app. L",
    )
