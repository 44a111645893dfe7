"""Text encoders as towers that learn: what the LiT arm tunes from a pretrained start."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from understudy.core.errors import ConfigError
from understudy.reinforce.encoders import NgramEncoder, TeacherEncoder

Inputs = Callable[[Sequence[str]], Tensor]


class SentenceTower(nn.Module):
    """A Transformers encoder on rows of ids and masks, int64 [B, 2, T].

    Args:
        module: its output has `last_hidden_state`.
        pooling: `mean` over the tokens, or the first token (`cls`), as the encoder was trained.
    """

    def __init__(self, module: nn.Module, pooling: str = "mean") -> None:
        super().__init__()
        self.module, self.pooling = module, pooling

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor] | Tensor:
        """Return token features [B, T, D] and which are valid; or the first token's [B, D]."""
        ids, mask = rows[:, 0], rows[:, 1]
        hidden = self.module(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        return hidden[:, 0] if self.pooling == "cls" else (hidden, mask.bool())


def text_tower(encoder: Any) -> tuple[nn.Module, Inputs]:
    """Return a copy of a text encoder that can be trained, and what makes its input.

    Raises:
        ConfigError: the encoder is not a module that takes token ids.
    """
    if isinstance(encoder, NgramEncoder):
        tower = copy.deepcopy(encoder.module).requires_grad_(True)
        return tower.train(), encoder.inputs
    teacher = getattr(encoder, "teacher", None)
    if isinstance(encoder, TeacherEncoder) and hasattr(teacher, "text_tokens"):
        asked: Any = teacher
        module = copy.deepcopy(asked.module).requires_grad_(True)
        tower = SentenceTower(module, getattr(asked.options, "pooling", "mean"))
        length = encoder.token_length or asked.options.max_length

        def rows(texts: Sequence[str]) -> Tensor:
            # As long as the longest of these texts, not as the limit: padding costs steps.
            found = asked.tokenizer(
                list(texts),
                padding="longest",
                truncation=True,
                max_length=length,
                return_tensors="pt",
            )
            return torch.stack([found["input_ids"], found["attention_mask"]], dim=1)

        return tower.train(), rows
    raise ConfigError(
        f"encoder '{encoder.name}' cannot be tuned here: the LiT arm needs an n-gram or a sentence "
        "encoder on the text side."
    )
