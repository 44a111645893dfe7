"""Sentence encoders: a Transformers encoder, pooled over tokens, of unit length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from understudy.core.config import check_choice, from_dict
from understudy.reinforce.config import TeacherSpec
from understudy.reinforce.teachers import hub_files
from understudy.reinforce.teachers.torch_teacher import TorchTeacher, numpy


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Options of kind `sentence`.

    Attributes:
        pooling: `mean` over the text's tokens, or the first token (`cls`).
        max_length: tokens of a text at most; longer ones are cut.
        device: `cpu`, `cuda`, ... or `auto`.
        compute: `float32`, `bfloat16` or `float16`.
    """

    pooling: str = "mean"
    max_length: int = 128
    device: str = "auto"
    compute: str = "float32"


class SentenceTeacher(TorchTeacher):
    """A sentence encoder such as MiniLM; it embeds texts only.

    Args:
        name: what its columns are called.
        module: a Transformers encoder whose output has `last_hidden_state`.
        tokenizer: its tokenizer.
        options: pooling and length.
        logit_scale: factor of its logits in distillation.
    """

    kind: ClassVar[str] = "sentence"
    capabilities = frozenset({"embed_texts"})

    def __init__(
        self,
        name: str,
        module: torch.nn.Module,
        tokenizer: Any,
        *,
        options: Options | None = None,
        logit_scale: float | None = None,
    ) -> None:
        self.options = options or Options()
        check_choice(self.options.pooling, ("mean", "cls"), f"teacher '{name}'.options.pooling")
        super().__init__(
            name,
            module,
            logit_scale=logit_scale,
            device=self.options.device,
            compute=self.options.compute,
        )
        self.tokenizer = tokenizer

    @classmethod
    def from_spec(cls, spec: TeacherSpec) -> SentenceTeacher:
        """Load the folder `path` (config, weights, tokenizer), or the hub checkpoint `model`."""
        where = f"teacher '{spec.name}'"
        options = from_dict(Options, spec.options, f"{where}.options")
        library = hub_files.transformers(where)
        source = hub_files.source_of(spec.path, spec.model, where)
        module = hub_files.load(
            library.AutoModel.from_pretrained, source, where, dtype=torch.float32
        )
        tokenizer = hub_files.load(library.AutoTokenizer.from_pretrained, source, where)
        return cls(spec.name, module, tokenizer, options=options, logit_scale=spec.logit_scale)

    def _settings(self) -> dict[str, Any]:
        return {
            "pooling": self.options.pooling,
            "max_length": self.options.max_length,
            "tokenizer": hub_files.tokenizer_hash(self.tokenizer),
        }

    def _hidden(self, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = self.tokenizer(
            texts,
            padding=True,
            truncation=True,
            max_length=self.options.max_length,
            return_tensors="pt",
        ).to(self.device)
        with self._asking():
            return self.module(**tokens).last_hidden_state.float(), tokens["attention_mask"]

    def text_tokens(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return token features float32 `[B, T, D]` and which are real `bool [B, T]`."""
        hidden, mask = self._hidden(list(texts))
        return numpy(hidden), mask.bool().cpu().numpy()

    def _text_features(self, texts: list[str]) -> Any:
        hidden, mask = self._hidden(texts)
        if self.options.pooling == "cls":
            return numpy(hidden[:, 0])
        weights = mask[..., None].to(hidden.dtype)
        return numpy((hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0))
