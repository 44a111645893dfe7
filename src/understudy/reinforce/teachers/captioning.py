"""Writing captions: options that captioners share, a seed for each caption, where one ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.core.seeds import seed_for
from understudy.models.language.generate import GenerateConfig, Step, generate
from understudy.models.language.sampling import TOP_P, nucleus, token_draws
from understudy.models.language.stops import first_sentence, full_stop


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptionOptions:
    """Options of everything that writes captions.

    Attributes:
        method: `sample`, `beam` (the likeliest captions, different ones) or `greedy` (one caption).
        top_p: share of the probability kept when captions are sampled.
        top_k: tokens kept at most when captions are sampled; 0 for all.
        temperature: of the sampling.
        beams: captions that beam search follows; at least as many as are asked for.
        max_tokens: tokens of a caption at most.
        fixed_length: write `max_tokens` in any case, as published, and cut afterwards; captions are
            the same, batches take equally long.
    """

    method: Literal["sample", "greedy", "beam"] = "sample"
    top_p: float = TOP_P
    top_k: int = 0
    temperature: float = 1.0
    beams: int = 5
    max_tokens: int = 30
    fixed_length: bool = False


def check_captions(options: CaptionOptions, num: int, where: str) -> None:
    """Refuse a method that cannot write `num` different captions of an image.

    Raises:
        ConfigError: greedy writes one, beam search as many as it has beams.
    """
    if options.method == "greedy" and num > 1:
        raise ConfigError(
            f"{where}.method: greedy writes one caption an image and {num} are asked for; use "
            "sample or beam, or ask for one (captions: 1)."
        )
    if options.method == "beam" and num > options.beams:
        raise ConfigError(
            f"{where}.beams: {options.beams} beams give at most as many captions and {num} are "
            f"asked for; set beams to at least {num}."
        )


def sampling_settings(options: CaptionOptions) -> dict[str, Any]:
    """Return what of the options decides captions, for fingerprints.

    Options that change nothing (the number of beams when sampling, say) are left out.
    """
    found: dict[str, Any] = {"max_tokens": options.max_tokens}
    if options.method == "sample":
        found |= {"top_p": options.top_p, "temperature": options.temperature}
        return found | ({"top_k": options.top_k} if options.top_k else {})
    return found | {"method": options.method, "beams": options.beams}


def caption_seeds(seeds: Sequence[int], num: int) -> list[int]:
    """Return a seed a caption; that of caption j depends on its image's seed and j alone."""
    return [seed_for("caption", seed, j) for seed in seeds for j in range(num)]


def caption_draws(seeds: Sequence[int], num: int, length: int) -> np.ndarray:
    """Return the uniform numbers `float64 [B * num, length]` that decide captions."""
    return token_draws(caption_seeds(seeds, num), length)


def write_captions(
    step: Step,
    begin: Callable[[int], tuple[Tensor, Any]],
    options: CaptionOptions,
    seeds: Sequence[int],
    num: int,
    *,
    end_ids: tuple[int, ...],
    decode: Callable[[list[int]], str],
    where: str,
) -> list[list[str]]:
    """Return `num` captions an image, cut at the end token and at the first full stop.

    Args:
        step: the captioner's; see `understudy.models.language.options.Step`.
        begin: `begin(n)` returns logits and cache after the start, every image's row n times.
        options: how captions are chosen.
        seeds: one an image.
        num: captions an image.
        end_ids: tokens that end a caption.
        decode: ids to text.
        where: what to call the options in errors.
    """
    check_captions(options, num, where)
    config = GenerateConfig(
        method=options.method,
        max_tokens=options.max_tokens,
        top_p=options.top_p,
        top_k=options.top_k,
        temperature=options.temperature,
        beams=options.beams,
        end_ids=end_ids,
        fixed_length=options.fixed_length,
    )
    sampled = options.method == "sample"
    found = generate(
        step,
        begin(num if sampled else 1),
        config,
        seeds=caption_seeds(seeds, num) if sampled else None,
        stop=full_stop(decode),
        num_returns=1 if sampled else num,
    )
    texts = [first_sentence(decode(row)) for row in found.rows()]
    return [texts[i : i + num] for i in range(0, len(texts), num)]


class DrawnTokens:
    """A logits processor that leaves one token: the one that the row's next draw chooses.

    With it, greedy `generate` of any Transformers model samples, and each row's tokens depend on
    its own seed alone.

    Args:
        draws: `float64 [rows, length]`.
        prompt_length: tokens before the first drawn one.
        options: see `understudy.models.language.sampling.nucleus`.
    """

    def __init__(self, draws: np.ndarray, prompt_length: int, options: CaptionOptions) -> None:
        self.draws = torch.from_numpy(draws)
        self.prompt_length, self.options = prompt_length, options

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores with all but the drawn token at minus infinity."""
        step = input_ids.shape[1] - self.prompt_length
        draws = self.draws[:, min(step, self.draws.shape[1] - 1)].to(scores.device)
        given = self.options
        chosen = nucleus(scores, draws, given.top_p, given.temperature, given.top_k)
        out = torch.full_like(scores, float("-inf"))
        return out.scatter_(1, chosen[:, None], 0.0)


def check_task(task: str, where: str) -> None:
    """Raise `ConfigError` unless `task` is one that a Transformers model can be used for."""
    check_choice(task, ("auto", "clip", "caption", "classify"), where)
