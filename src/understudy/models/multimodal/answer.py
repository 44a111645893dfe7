"""Answering questions about images, one or several at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from understudy.core.errors import DataError, ModelError
from understudy.models.language.generate import GenerateConfig, generate
from understudy.models.multimodal.chat import encode_prompt, end_ids
from understudy.models.multimodal.splice import fit_context

ANSWER = GenerateConfig(method="greedy", max_tokens=64)
"""How answers are written by default."""


def _listed(image: Any) -> list[np.ndarray]:
    if image is None:
        return []
    return list(image) if isinstance(image, list | tuple) else [image]


class Answering:
    """The part of a `VLM` that writes."""

    config: Any
    coder: Any
    context: int
    training: bool
    projector: Any
    views: Any
    splice: Any
    prefill: Any
    step: Any

    @torch.no_grad()
    def generate(
        self,
        image: np.ndarray | Sequence[Any] | None,
        prompt: str | Sequence[str],
        options: GenerateConfig | None = None,
        *,
        seeds: Sequence[int] | None = None,
    ) -> str | list[str]:
        """Answer a prompt, or several at once.

        Args:
            image: for one prompt: uint8 [H, W, 3], a list of such, or None; for several prompts: a
                list with one of these a prompt.
            prompt: the question; `<image>` in it says where the images stand, else they come first.
            options: how answers are written; greedy, up to 64 tokens, by default.
            seeds: of sampling, one a prompt.

        Returns:
            the answer, or one a prompt.

        Raises:
            ConfigError: prompt and answer do not fit the context.
            DataError: another number of image marks than images.
            ModelError: training mode, or no tokenizer.
        """
        if self.training:
            raise ModelError("generate: the model is in training mode; call model.eval() first.")
        single = isinstance(prompt, str)
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        given: list[Any] = [image] if single else list(image or [None] * len(prompts))
        if len(given) != len(prompts):
            raise DataError(f"generate: {len(given)} images for {len(prompts)} prompts.")
        options = options or ANSWER
        device = self.projector.layers[0].weight.device
        ids, pixels, views = [], [], []
        for number, (text, pictures) in enumerate(zip(prompts, map(_listed, given), strict=True)):
            shown = [self.views(picture) for picture in pictures]
            row = self.prompt_ids(
                text, [len(v) for v in shown], options.max_tokens, f"prompt {number}"
            )
            ids.append(torch.tensor(row, device=device))
            pixels += shown
            views += [len(v) for v in shown]
        joined = torch.cat(pixels).to(device) if pixels else None
        made = self.splice(ids, joined, views=views)
        ends = tuple(dict.fromkeys([*options.end_ids, *end_ids(self.coder, self.config.template)]))
        found = generate(self.step, self.prefill(made), replace(options, end_ids=ends), seeds=seeds)
        answers = [self.coder.decode(row).strip() for row in found.rows()]
        return answers[0] if single else answers

    def prompt_ids(
        self, text: str, views: Sequence[int], reserve: int, where: str = "prompt"
    ) -> list[int]:
        """Return a question's ids after checking that it fits together with its answer.

        Args:
            text: the question.
            views: number of views of each image.
            reserve: tokens of the answer at most.
            where: what to call it in errors.

        Raises:
            ConfigError: it does not fit; nothing is cut from a question.
        """
        ids = encode_prompt(text, self.coder, self.config.template, len(views), where)
        tokens = [count * self.config.tokens_per_view for count in views]
        return fit_context(ids, ids, tokens, self.context, where, reserve=reserve, cut=False).ids
