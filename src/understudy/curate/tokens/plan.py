"""What a run over buckets will take, before it starts: tokens, steps, lengths, cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from understudy.curate.tokens.cost import mixture_flop, saving
from understudy.curate.tokens.stats import mean_context, mean_length, weighted_length
from understudy.data.sampler_buckets_checks import bucket_batches, check_tokens_per_step
from understudy.data.sampler_buckets_curricula import Odds, check_odds, curriculum_odds
from understudy.models.language.cost import training_flop
from understudy.models.language.decoder_config import DecoderConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class BucketPlan:
    """A run over buckets in numbers.

    Attributes:
        sequences: what each bucket holds.
        steps: optimiser steps of an epoch, by bucket.
        odds: of the draws, by bucket; `None` for natural.
        curriculum: its name.
        cycles: rounds of the curriculum.
        tokens_per_step: input tokens.
        context: of the concat-and-chunk rows to compare with.
        model: the network, if its cost is wanted.
    """

    sequences: Mapping[int, int]
    steps: Mapping[int, int]
    odds: Mapping[int, float] | None
    curriculum: str
    cycles: int
    tokens_per_step: int
    context: int
    model: DecoderConfig | None = None

    @property
    def tokens(self) -> dict[int, int]:
        """Input tokens of an epoch, by bucket."""
        return {k: n * self.tokens_per_step for k, n in self.steps.items()}

    @property
    def total_steps(self) -> int:
        """Optimiser steps of an epoch."""
        return sum(self.steps.values())

    @property
    def mean_length(self) -> float:
        """Mean tokens of a sequence."""
        return mean_length(self.tokens)

    @property
    def mean_context(self) -> float:
        """Mean number of earlier tokens that a token sees."""
        return mean_context(self.tokens)

    @property
    def equal_context(self) -> float:
        """Context at which concat-and-chunk costs the same: the token-weighted mean length."""
        return weighted_length(self.tokens)

    def lines(self) -> list[str]:
        """Return the plan as a table for people."""
        head = f"{'bucket':>8}{'length':>8}{'sequences':>14}{'a step':>9}{'steps':>9}{'tokens':>18}"
        found = [head + f"{'share':>8}{'odds':>9}"]
        for k, steps in self.steps.items():
            odds = "natural" if self.odds is None else f"{self.odds[k]:g}"
            found.append(
                f"{f'D_{k}':>8}{1 << k:>8,}{self.sequences[k]:>14,}"
                f"{self.tokens_per_step >> k:>9,}{steps:>9,}{self.tokens[k]:>18,}"
                f"{steps / self.total_steps:>8.1%}{odds:>9}"
            )
        total = self.total_steps
        found.append(
            f"{total:,} steps of {self.tokens_per_step:,} tokens = "
            f"{total * self.tokens_per_step:,} tokens; {self.curriculum}, {self.cycles} cycles"
        )
        found.append(
            f"mean length {self.mean_length:,.0f}, mean context {self.mean_context:,.0f}, length a "
            f"token sits in {self.equal_context:,.0f}"
        )
        return [*found, *self._cost()]

    def _cost(self) -> list[str]:
        if self.model is None:
            return []
        ours, theirs = (
            mixture_flop(self.tokens, self.model),
            training_flop(self.model, self.context),
        )
        less = saving(self.tokens, self.context, self.model)
        return [
            f"{ours:.3e} FLOP a token, {theirs:.3e} for concat-and-chunk at {self.context:,}: "
            f"{abs(less):.1%} {'saved' if less >= 0 else 'more'}; as much as concat-and-chunk at "
            f"{self.equal_context:,.0f} (by formula; measure the steps too)"
        ]


def plan_buckets(
    sequences: Mapping[int, int],
    tokens_per_step: int,
    *,
    tokens: Mapping[int, int] | int | None = None,
    curriculum: str = "grow-p2",
    odds: Odds | None = None,
    cycles: int = 8,
    repeat: bool = False,
    context: int = 0,
    model: DecoderConfig | None = None,
    world: int = 1,
    accumulate: int = 1,
) -> BucketPlan:
    """Plan a run as `BucketSampler` would do it, from counts alone.

    Args:
        sequences: what each bucket (log2 of the length) holds.
        tokens_per_step: input tokens of a step.
        tokens: of an epoch: by bucket, in all, or everything.
        curriculum: its name.
        odds: instead of a named curriculum.
        cycles: rounds of the curriculum.
        repeat: allow more tokens than there are.
        context: of the concat-and-chunk rows to compare with; 0 for the longest bucket.
        model: the network, for the cost.
        world: ranks.
        accumulate: micro-batches of a step.

    Raises:
        ConfigError: as `BucketSampler`.
    """
    held = {int(k): int(sequences[k]) for k in sorted(sequences)}
    chosen = (
        curriculum_odds(curriculum, list(held)) if odds is None else check_odds(odds, list(held))
    )
    kept = [k for k in held if chosen is None or chosen[k] > 0]
    check_tokens_per_step(tokens_per_step, kept[-1], world, accumulate)
    return BucketPlan(
        sequences={k: held[k] for k in kept},
        steps=bucket_batches(held, kept, tokens_per_step, tokens, repeat),
        odds=None if chosen is None else {k: chosen[k] for k in kept},
        curriculum=curriculum if odds is None else "given odds",
        cycles=cycles,
        tokens_per_step=tokens_per_step,
        context=context or 1 << kept[-1],
        model=model,
    )
