"""What training on buckets of lengths counts up to, beside glued chunks."""

from __future__ import annotations

from typing import Any

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.evaluate.plans import Plan, add_cost, hours_for

PAPER = "2405.13226"
TOKENS = 28_795_904_000
CONTEXT = 8_192
PER_STEP = 64 * CONTEXT
SHARES = {6: 3, 7: 6, 8: 10, 9: 17, 10: 21, 11: 17, 12: 13, 13: 9}
"""The natural mixture of RefinedWeb, percent of the tokens in 2^6 ... 2^13 (table 1)."""
PEAK_FLOP_PER_S = 989e12
UTILISATION = 0.4
"""Share of an H100's peak that is reached: an assumption."""


def plan(scale: str = "paper", price_per_hour: float = 2.0, model: str = "openlm-1b") -> Plan:
    """Count a run on the natural mixture and on chunks of 8,192 tokens; run nothing.

    Args:
        scale: `"paper"`.
        price_per_hour: money per device hour.
        model: a language model.

    Raises:
        ConfigError: an unknown scale, or a model that is no language model.
    """
    from understudy import models
    from understudy.curate.tokens.stats import mean_context, mean_length, weighted_length
    from understudy.models.language.cost import matmul_parameters, training_flop
    from understudy.models.language.language_config import LanguageConfig

    check_choice(scale, ("paper",), "plan of dataset-decomposition, scale")
    config: Any = models.config(model)
    if not isinstance(config, LanguageConfig):
        raise ConfigError(
            f"plan of dataset-decomposition: '{model}' is no language model; try openlm-1b."
        )
    decoder, shares = config.decoder, {k: float(v) for k, v in SHARES.items()}
    equal = weighted_length(shares)
    made = Plan(recipe="dataset-decomposition", scale=scale)
    made.add("parameters that multiply a token", matmul_parameters(decoder), "", formula=model)
    made.add("tokens of a run", TOKENS, "tokens", formula="20 a parameter of OpenLM-1B")
    made.add("steps", round(TOKENS / PER_STEP), "steps", formula=f"{PER_STEP:,} tokens each")
    made.add(
        "mean length of a sequence", mean_length(shares), "tokens", published=482,
        source=f"{PAPER}, table 1",
    )  # fmt: skip
    made.add(
        "mean context of a token", mean_context(shares), "tokens", published=1018,
        source=f"{PAPER}, table 1",
    )  # fmt: skip
    made.add("length that a token sits in", equal, "tokens", formula="token-weighted mean")
    ours, theirs = training_flop(decoder, equal), training_flop(decoder, CONTEXT)
    made.add("a token, natural mixture", ours, "FLOP", formula="6 N + 6 L d s")
    made.add("a token, chunks of 8,192", theirs, "FLOP", formula="6 N + 6 L d s")
    made.add(
        "saved", 1 - ours / theirs, "", published=0.2 if model == "openlm-1b" else None,
        formula="by operations; published: measured time, 304 to 244", source=f"{PAPER}, table 2",
    )  # fmt: skip
    hours = {
        name: hours_for(flop * TOKENS, peak_flop_per_s=PEAK_FLOP_PER_S, utilisation=UTILISATION)
        for name, flop in (("buckets", ours), ("chunks of 8,192", theirs))
    }
    add_cost(made, hours, price_per_hour)
    made.notes += [
        f"device hours assume {UTILISATION:.0%} of an H100's 989 TFLOP/s; real kernels are flat "
        "for short sequences: measure the steps.",
        "`understudy curate buckets STORE` plans a run over one's own buckets.",
    ]
    return made
