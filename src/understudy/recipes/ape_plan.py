"""What aligning two frozen encoders costs: cache, heads, logits, and the encoders counted once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.evaluate.plans import Plan, add_cost, hours_for, inference_flop, training_flop
from understudy.models.multimodal.heads import HeadConfig, head_parameters

PAPER = "2210.03927"
PEAK_FLOP_PER_S, UTILISATION = 312e12, 0.35
"""One A100 in bfloat16, and the share of it that encoders reach: an assumption."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """Describe an alignment run by numbers alone.

    Attributes:
        pairs: N, distinct pairs.
        image_dim: width of the image features.
        text_dim: width of the text features.
        tokens: T, cached text tokens per caption; 0 caches pooled vectors.
        batch: B.
        steps: optimiser steps.
        dim: d, width of the shared space.
        image_head: on the image side.
        text_head: on the text side.
        itemsize: bytes per cached number.
        encoder_macs: multiply-accumulates of the frozen encoders for one pair; 0 if not counted.
        tower_macs: multiply-accumulates of the towers that learn, for one pair; 0 for none.
        cached: sides whose features are cached.
        uncounted: encoders whose cost is not known: table look-ups, or not computed by torch.
    """

    pairs: float
    image_dim: int
    text_dim: int
    batch: int
    steps: int
    dim: int
    tokens: int = 0
    image_head: HeadConfig = field(default_factory=lambda: HeadConfig(kind="identity"))
    text_head: HeadConfig = field(default_factory=HeadConfig)
    itemsize: int = 2
    encoder_macs: float = 0.0
    tower_macs: float = 0.0
    cached: tuple[str, ...] = ("image", "text")
    uncounted: tuple[str, ...] = ()

    @property
    def cache_numbers(self) -> dict[str, int]:
        """Cached numbers of a pair, by side."""
        numbers = {"image": self.image_dim, "text": self.text_dim * (1 + self.tokens)}
        return {side: numbers[side] for side in self.cached}

    @property
    def cache_bytes(self) -> float:
        """N (d_I + d_T) x itemsize pooled; token level adds T d_T per caption."""
        return self.pairs * self.itemsize * sum(self.cache_numbers.values())

    @property
    def head_parameters(self) -> tuple[int, int]:
        """Weights of the image and of the text head."""
        placement = "tokens" if self.tokens else "pooled"
        return (
            head_parameters(self.image_head, self.image_dim, self.dim),
            head_parameters(self.text_head, self.text_dim, self.dim, placement),
        )

    @property
    def head_flop(self) -> float:
        """Operations of the heads in one step: 6 B P, the text head once per token."""
        image, text = self.head_parameters
        return 6.0 * self.batch * (image + text * max(self.tokens, 1))

    @property
    def logit_flop(self) -> float:
        """Operations of the logit matrix in one step: 4 B B d."""
        return 4.0 * self.batch * self.batch * self.dim


SIZES: Mapping[str, Budget] = {
    "paper": Budget(
        pairs=0.02 * 25e6,
        image_dim=1024,
        text_dim=1024,
        batch=16_384,
        steps=500,
        dim=1024,
        text_head=HeadConfig(depth=6, hidden=4096),
        encoder_macs=81e9 + 24 * 12 * 1024**2 * 32,
    ),
    "laptop": Budget(
        pairs=1_000_000,
        image_dim=1024,
        text_dim=1024,
        batch=4096,
        steps=5000,
        dim=768,
        image_head=HeadConfig(kind="linear"),
        text_head=HeadConfig(depth=4, hidden=1024),
        encoder_macs=5e9,
    ),
}


def add_budget(made: Plan, budget: Budget) -> None:
    """Append the rows of a run's budget; what `run` writes before it trains."""
    image, text = budget.head_parameters
    made.add("pairs", budget.pairs, "pairs")
    if budget.cached:
        numbers = " + ".join(f"{n:,} ({side})" for side, n in budget.cache_numbers.items())
        formula = f"N x ({numbers}) x {budget.itemsize}"
        made.add("feature cache", budget.cache_bytes, "B", formula=formula)
    made.add("weights of the image head", image, "", formula=budget.image_head.kind)
    made.add("weights of the text head", text, "", formula=budget.text_head.kind)
    made.add("heads per step", budget.head_flop, "FLOP", formula="6 B P")
    made.add("logits per step", budget.logit_flop, "FLOP", formula="4 B B d")
    made.add(
        "training", budget.steps * (budget.head_flop + budget.logit_flop), "FLOP",
        formula=f"{budget.steps:,} steps of {budget.batch:,}",
    )  # fmt: skip
    seen = budget.steps * budget.batch
    if budget.tower_macs:
        flop = training_flop(budget.tower_macs, seen)
        made.add("training the towers", flop, "FLOP", formula="6 x MAC x steps x B")
    if budget.encoder_macs:
        once = inference_flop(budget.encoder_macs, budget.pairs)
        every = inference_flop(budget.encoder_macs, seen)
        made.add("encoders, each pair once (cached)", once, "FLOP", formula="2 x MAC x N")
        made.add("encoders, at every step (uncached)", every, "FLOP", formula="2 x MAC x steps x B")
        made.notes.append(
            "costs count the encoders' forward passes once, as a cache makes them; uncached "
            "training pays them at every step."
        )
    if budget.batch > 8000:
        made.notes.append("above 8,000 pairs a batch, split the logits (chunk).")
    for name in budget.uncounted:
        made.notes.append(
            f"the cost of encoder '{name}' is not in it: it looks up a table, or torch does not "
            "compute it."
        )


def plan(scale: str = "paper", price_per_hour: float = 2.0, model: str = "") -> Plan:
    """Count cache, heads, logits and hours; run nothing.

    Args:
        scale: `"paper"` (2 % of LiT's 25 M public pairs, ViT-L sized encoders) or `"laptop"` (a
            million pairs in a cache).
        price_per_hour: money per device hour.
        model: not used: APE trains no tower.

    Raises:
        ConfigError: an unknown scale, or a model.
    """
    check_choice(scale, SIZES, "plan of ape, scale")
    if model:
        raise ConfigError("plan of ape: it trains heads on frozen encoders; leave --model out.")
    budget = SIZES[scale]
    made = Plan(recipe="ape", scale=scale)
    add_budget(made, budget)
    tower = 330e6
    trained = sum(budget.head_parameters) + 1
    made.add(
        "trained weights, of a BERT-large text tower",
        trained / tower,
        "",
        formula=f"{trained:,} / 330 M",
        source=f"{PAPER}, abstract",
        published=0.23 if scale == "paper" else None,
    )
    hours = {
        "encoders, once": hours_for(
            made.value("encoders, each pair once (cached)"),
            peak_flop_per_s=PEAK_FLOP_PER_S,
            utilisation=UTILISATION,
        ),
        "heads": hours_for(
            made.value("training"), peak_flop_per_s=PEAK_FLOP_PER_S, utilisation=UTILISATION
        ),
    }
    add_cost(made, hours, price_per_hour)
    made.notes += [
        "the paper does not print encoders, widths or schedule: hidden width 4,096 and 6 layers "
        "are what 77 % fewer trained weights than LiT's text tower amounts to.",
        f"hours assume an A100 at {UTILISATION:.0%} of its peak.",
    ]
    return made
