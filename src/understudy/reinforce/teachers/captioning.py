"""Sampling captions: nucleus sampling with a seed for each caption, and where a caption ends."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.core.seeds import rng, seed_for

_STOP = re.compile(r"\.(?=\s|$)")
TOP_P = 0.9
"""Share of the probability that sampling keeps (arXiv 2311.17049, arXiv 2508.20691)."""


def first_sentence(text: str) -> str:
    """Return a caption up to its first full stop, without it, with single spaces.

    A stop counts at the end of a word; the one inside `2.5` does not.
    """
    return " ".join(_STOP.split(text, maxsplit=1)[0].split())


def caption_draws(seeds: Sequence[int], num: int, length: int) -> np.ndarray:
    """Return the uniform numbers `float64 [B * num, length]` that decide captions.

    Those of caption j of an image depend on the image's seed and j alone.
    """
    rows = [
        rng("tokens", seed_for("caption", s, j)).random(length) for s in seeds for j in range(num)
    ]
    return np.array(rows).reshape(-1, length)


def nucleus(
    logits: Float[Tensor, "rows vocabulary"],
    draws: Float[Tensor, " rows"],
    top_p: float = TOP_P,
    temperature: float = 1.0,
) -> Int[Tensor, " rows"]:
    """Draw a token a row from the smallest set of tokens with probability `top_p`.

    Args:
        logits: of the next token.
        draws: uniform in [0, 1), one a row; equal draws give equal tokens.
        top_p: probability that the kept tokens have at least, in (0, 1].
        temperature: divides the logits.

    References:
        arXiv 1904.09751, sec. 3.1 (nucleus sampling).
    """
    probabilities = (logits.double() / temperature).softmax(dim=-1)
    ordered, tokens = probabilities.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(dim=-1) - ordered
    kept = ordered * (before < top_p)
    cumulative = kept.cumsum(dim=-1)
    target = draws.double()[:, None] * cumulative[:, -1:]
    index = (cumulative <= target).sum(dim=-1, keepdim=True)
    index = index.clamp(max=(kept > 0).sum(dim=-1, keepdim=True) - 1)
    return tokens.gather(-1, index)[:, 0]


def check_sampling(top_p: float, temperature: float, max_tokens: int, where: str) -> None:
    """Raise `ConfigError` for sampling options that mean nothing."""
    if not 0 < top_p <= 1:
        raise ConfigError(f"{where}.top_p: expected a number above 0 and up to 1, got {top_p}.")
    if temperature <= 0:
        raise ConfigError(f"{where}.temperature: expected a number above 0, got {temperature}.")
    if max_tokens < 1:
        raise ConfigError(f"{where}.max_tokens: expected at least 1, got {max_tokens}.")


class DrawnTokens:
    """A logits processor that leaves one token: the one that the row's next draw chooses.

    With it, greedy `generate` of any Transformers model samples, and each row's tokens depend on
    its own seed alone.

    Args:
        draws: `float64 [rows, length]`.
        prompt_length: tokens before the first drawn one.
        top_p: see `nucleus`.
        temperature: see `nucleus`.
    """

    def __init__(
        self, draws: np.ndarray, prompt_length: int, top_p: float, temperature: float
    ) -> None:
        self.draws = torch.from_numpy(draws)
        self.prompt_length, self.top_p, self.temperature = prompt_length, top_p, temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores with all but the drawn token at minus infinity."""
        step = input_ids.shape[1] - self.prompt_length
        draws = self.draws[:, min(step, self.draws.shape[1] - 1)].to(scores.device)
        chosen = nucleus(scores, draws, self.top_p, self.temperature)
        out = torch.full_like(scores, float("-inf"))
        return out.scatter_(1, chosen[:, None], 0.0)


def check_task(task: str, where: str) -> None:
    """Raise `ConfigError` unless `task` is one that a Transformers model can be used for."""
    check_choice(task, ("auto", "clip", "caption", "classify"), where)
