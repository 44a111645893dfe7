"""Generate text with any model that turns tokens into the next token's logits.

A model takes part through one function, `step(tokens, cache) -> (logits, cache)`: it takes new
token ids `[rows, n]` and whatever it kept, and returns the logits `[rows, vocabulary]` that follow
the last of them. The first call may be the caller's own (a prompt with an image, say):

    >>> from understudy.models.language.generate import GenerateConfig, generate
    >>> config = GenerateConfig(max_tokens=30, end_ids=(2,))
    >>> found = generate(step, step(prompt, None), config, seeds=[0, 1])    # doctest: +SKIP
    >>> found.rows()                                                        # doctest: +SKIP

Sampling is seeded a row: a row's tokens depend on its seed and its logits, never on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from understudy.core.errors import ConfigError
from understudy.models.language.beam import beam_search
from understudy.models.language.options import (
    GenerateConfig,
    Generated,
    Step,
    check_logits,
)
from understudy.models.language.sampling import nucleus, token_draws
from understudy.models.language.stops import Stop

__all__ = ["GenerateConfig", "Generated", "Step", "generate", "transformers_step"]


@torch.no_grad()
def generate(
    step: Step,
    start: tuple[Float[Tensor, "rows vocabulary"], Any],
    config: GenerateConfig,
    *,
    seeds: Sequence[int] | None = None,
    stop: Stop | None = None,
    num_returns: int = 1,
) -> Generated:
    """Generate a text for every row.

    Args:
        step: the model; see `Step`.
        start: logits and cache after the prompt.
        config: method and limits.
        seeds: of sampling, one a row; needed for `sample`.
        stop: also ends a row; called with its generated ids after each token.
        num_returns: for `beam`: how many texts a row, the best first; the result has `rows *
            num_returns` rows. Other methods give one text a row: repeat the rows of `start` for
            more.

    Raises:
        ConfigError: no seed a row, or `num_returns` that the method cannot give.
    """
    logits, cache = start
    if config.method == "beam":
        return beam_search(step, (logits, cache), config, stop=stop, num_returns=num_returns)
    if num_returns != 1:
        raise ConfigError(
            f"generate: '{config.method}' gives one text a row, {num_returns} were asked for; "
            "repeat the rows, each with a seed of its own."
        )
    draws: Tensor | None = None
    if config.method == "sample":
        if seeds is None or len(seeds) != len(logits):
            given = "none" if seeds is None else len(seeds)
            raise ConfigError(f"generate: {len(logits)} rows need a seed each, got {given}.")
        draws = torch.from_numpy(token_draws(seeds, config.max_tokens)).to(logits.device)
    return _follow(step, logits, cache, config, draws, stop)


def _follow(
    step: Step,
    logits: Tensor,
    cache: Any,
    config: GenerateConfig,
    draws: Tensor | None,
    stop: Stop | None,
) -> Generated:
    """Choose tokens one by one until every row has ended."""
    count, device = len(logits), logits.device
    ends = torch.tensor(config.end_ids, dtype=torch.long, device=device)
    done = torch.zeros(count, dtype=torch.bool, device=device)
    lengths = torch.zeros(count, dtype=torch.long, device=device)
    scores = torch.zeros(count, device=device)
    chosen: list[Tensor] = []
    for place in range(config.max_tokens if count else 0):
        check_logits(logits)
        if draws is None:
            token = logits.argmax(dim=-1)
        else:
            token = nucleus(logits, draws[:, place], config.top_p, config.temperature, config.top_k)
        if chosen:
            token = torch.where(done, chosen[-1], token)
        log_p = logits.float().log_softmax(-1).gather(-1, token[:, None])[:, 0]
        scores += log_p.masked_fill(done, 0.0)
        lengths += (~done).long()
        chosen.append(token)
        done = done | torch.isin(token, ends)
        if stop is not None:
            done = done | _stopped(stop, torch.stack(chosen, dim=1), done)
        last = place == config.max_tokens - 1
        if last or (bool(done.all()) and not config.fixed_length):
            break
        logits, cache = step(token[:, None], cache)
    ids = torch.stack(chosen, dim=1) if chosen else torch.zeros(count, 0, dtype=torch.long)
    return Generated(ids, lengths, scores, config.end_ids)


def _stopped(stop: Stop, ids: Tensor, done: Tensor) -> Tensor:
    """Return bool [rows], true where the rule ends a row that has not ended yet."""
    live = (~done).tolist()
    found = [alive and stop(row) for row, alive in zip(ids.tolist(), live, strict=True)]
    return torch.tensor(found, dtype=torch.bool, device=ids.device)


def transformers_step(module: Any) -> Step:
    """Return the step of a Transformers causal language model with its own cache.

    `transformers_step(module)(prompt, None)` is a start; prompts of one call have equal lengths.

    Args:
        module: called with `input_ids`, `past_key_values` and `use_cache`.
    """

    def step(tokens: Tensor, cache: Any) -> tuple[Tensor, Any]:
        out = module(input_ids=tokens, past_key_values=cache, use_cache=True)
        return out.logits[:, -1], out.past_key_values

    return step
