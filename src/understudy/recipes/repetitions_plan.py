"""What repeating a filtered set counts up to at DataComp-LM's scales."""

from __future__ import annotations

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.curate.counts.repeats import DECAY_FACTORS, R_STAR, effective_tokens
from understudy.evaluate.plans import Plan, add_cost

EPOCHS = (2, 4, 10, 16, 40)
STUDIED = 10
"""Passes over the filtered set that the paper shows ahead of one pass over the superset."""
PROXY = 16
"""The decay is searched on a model so many times smaller, at equal repeats and tokens a parameter;
its operations are this number squared times fewer."""


def plan(scale: str = "paper", price_per_hour: float = 2.0, model: str = "7b-1x") -> Plan:
    """Count a run of ten passes, the search of its weight decay, and what repeats are worth.

    Args:
        scale: `"paper"`.
        price_per_hour: money per device hour.
        model: a scale of DataComp-LM (`400m-1x`, `1b-1x`, `3b-1x`, `7b-1x`, `7b-2x`).

    Raises:
        ConfigError: an unknown scale.
    """
    from understudy.train.presets_lm import DCLM_SCALES

    check_choice(scale, ("paper",), "plan of repetitions, scale")
    if model not in DCLM_SCALES:
        raise ConfigError(
            f"plan of repetitions: no scale '{model}'; there are {', '.join(DCLM_SCALES)}."
        )
    found = DCLM_SCALES[model]
    made = Plan(recipe="repetitions", scale=scale)
    made.add("tokens of a run", found.tokens, "tokens", formula=f"scale {found.name}")
    unique = found.tokens / STUDIED
    made.add("unique tokens, ten passes", unique, "tokens", formula="tokens / 10")
    made.add("unique tokens, one pass of the superset", found.tokens, "tokens")
    for epochs in EPOCHS:
        made.add(
            f"worth of {epochs} passes", effective_tokens(1.0, epochs) / epochs, "",
            formula=f"fresh tokens a token seen, R* = {R_STAR}", source="2305.16264",
        )  # fmt: skip
    made.add(
        "candidates of the weight decay", len(DECAY_FACTORS), "",
        formula=", ".join(f"{found.weight_decay * f:g}" for f in DECAY_FACTORS),
    )  # fmt: skip
    search = len(DECAY_FACTORS) * found.h100_hours / PROXY**2
    hours = {
        "filtered, ten passes": float(found.h100_hours),
        "superset, one pass": float(found.h100_hours),
        f"search of the decay, {len(DECAY_FACTORS)} models {PROXY} times smaller": search,
    }
    add_cost(made, hours, price_per_hour)
    made.notes += [
        "R* was fitted under the usual weight decay; stronger decay makes repeats worth more.",
        "the paper's schedule of weight decay over repeats could not be read; the factors are this "
        "project's.",
    ]
    return made
