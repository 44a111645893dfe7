"""Greedy continuation of prompts with whatever a language model offers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from understudy.core.errors import ConfigError, ModelError
from understudy.evaluate.token_losses import device_of, logits_of
from understudy.models.language.coder import Coder
from understudy.models.language.generate import GenerateConfig, generate
from understudy.models.language.stops import Stop


class Generate(Protocol):
    """Continues prompts: a model of ours (`greedy`), or anything else with this signature."""

    def __call__(
        self, prompts: Sequence[Sequence[int]], max_tokens: int, stop: Stop | None = None
    ) -> list[list[int]]:
        """Return the ids that follow each prompt, without the end token."""
        ...


def greedy(
    model: Any, *, end_ids: Sequence[int] = (), batch_size: int = 16, context: int = 0
) -> Generate:
    """Return greedy decoding by a model.

    A model with `prefill` and `step` (`understudy.models.language.language_model`) keeps keys and
    values of earlier tokens; any other is called anew for each token.

    Args:
        model: in eval mode.
        end_ids: tokens that end a text.
        batch_size: prompts at once; without `prefill` those of equal length only.
        context: tokens that the model reads at once; 0 takes its own.
    """
    limit = context or getattr(model, "context", 0)

    def run(
        prompts: Sequence[Sequence[int]], max_tokens: int, stop: Stop | None = None
    ) -> list[list[int]]:
        if getattr(model, "training", False):
            raise ModelError("evaluate: the model is in training mode; call model.eval() first.")
        config = GenerateConfig(method="greedy", max_tokens=max_tokens, end_ids=tuple(end_ids))
        found: list[list[int]] = [[] for _ in prompts]
        for part in _groups(prompts, batch_size, mixed=hasattr(model, "prefill")):
            rows = [list(prompts[i]) for i in part]
            longest = max(map(len, rows))
            if limit and longest + max_tokens > limit:
                raise ConfigError(
                    f"generate: a prompt of {longest} and {max_tokens} new tokens do not fit the "
                    f"context of {limit}; shorten the prompt."
                )
            made = _continue(model, rows, config, stop)
            for i, ids in zip(part, made, strict=True):
                found[i] = ids
        return found

    return run


def _groups(prompts: Sequence[Sequence[int]], batch_size: int, mixed: bool) -> list[list[int]]:
    """Return numbers of prompts that are continued together, similar lengths first."""
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    groups: list[list[int]] = []
    for i in order:
        last = groups[-1] if groups else []
        fits = last and len(last) < batch_size
        if fits and (mixed or len(prompts[last[0]]) == len(prompts[i])):
            last.append(i)
        else:
            groups.append([i])
    return groups


@torch.no_grad()
def _continue(
    model: Any, rows: list[list[int]], config: GenerateConfig, stop: Stop | None
) -> list[list[int]]:
    if hasattr(model, "prefill") and hasattr(model, "step"):
        return generate(model.step, model.prefill(rows), config, stop=stop).rows()

    def step(tokens: Tensor, cache: Any) -> tuple[Tensor, Any]:
        ids = tokens if cache is None else torch.cat([cache, tokens], 1)
        return logits_of(model(ids))[:, -1], ids

    ids = torch.tensor(rows, dtype=torch.long, device=device_of(model))
    return generate(step, step(ids, None), config, stop=stop).rows()


def stop_at(texts: Sequence[str], tokenizer: Coder, start: int = 0) -> Stop | None:
    """Return a rule that ends a text once one of some texts is in it; None for none.

    Args:
        texts: what ends it.
        tokenizer: the model's.
        start: tokens of the generated ids that are not looked at.
    """
    wanted: tuple[str, ...] = tuple(text for text in texts if text)
    if not wanted:
        return None
    decode: Callable[[Sequence[int]], str] = tokenizer.decode

    def ended(ids: Sequence[int]) -> bool:
        written = decode(ids[start:])
        return any(text in written for text in wanted)

    return ended
