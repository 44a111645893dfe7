"""Train a language model on documents that come counted times: one arm of a comparison of data.

Everything but the documents and their counts is equal between arms: model, start, tokenizer,
tokens, steps, schedule. So what differs in the held-out loss is the choice of documents, or the
weight decay where that is what is compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.core.errors import ConfigError
from understudy.data.sampler_counts import CountSampler
from understudy.data.tokens import TokenStore
from understudy.models import io
from understudy.train.config import TrainConfig
from understudy.train.lm import LMStep
from understudy.train.lm_config import lm_train_config
from understudy.train.lm_counts import CountLoader
from understudy.train.loop import fit

if TYPE_CHECKING:
    from understudy.models.language.coder import Coder
    from understudy.models.language.language_model import LanguageModel


@dataclass(frozen=True, kw_only=True, slots=True)
class DocumentsConfig:
    """Describe the model and the budget that all arms share.

    Attributes:
        model: name of a language model.
        changes: of its configuration, by dotted key.
        budget: tokens to train on.
        context: tokens of a sequence.
        tokens_per_step: of a batch; a multiple of `context`.
        lr: peak learning rate; cosine to a hundredth of it.
        warmup: share of the steps with a growing rate.
        weight_decay: decoupled; a step shrinks a matrix by lr * weight_decay.
        z_loss: weight of the mean squared logsumexp.
        clip_norm: largest gradient norm.
        mask_documents: documents in a row do not see each other.
        precision: `"fp32"` or `"bf16"`, which halves the time where the processor has it.
        seed: of weights and order.
    """

    model: str = "openlm-nano"
    changes: Mapping[str, Any] = field(default_factory=dict)
    budget: int = 3_000_000
    context: int = 256
    tokens_per_step: int = 8_192
    lr: float = 3e-3
    warmup: float = 0.1
    weight_decay: float = 0.033
    z_loss: float = 1e-4
    clip_norm: float = 1.0
    mask_documents: bool = False
    precision: str = "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.context < 1 or self.tokens_per_step % self.context:
            raise ConfigError(
                f"DocumentsConfig.tokens_per_step: {self.tokens_per_step:,} is not a multiple of "
                f"the context of {self.context}."
            )
        if self.steps < 2:
            raise ConfigError(
                f"DocumentsConfig.budget: {self.budget:,} tokens are {self.steps} steps of "
                f"{self.tokens_per_step:,}; at least 2 are needed."
            )

    @property
    def steps(self) -> int:
        """Optimiser steps."""
        return self.budget // self.tokens_per_step

    def stream_tokens(self, tokens: TokenStore) -> int:
        """Return the tokens of copies that surely fill the budget.

        The stream's last sequences are cut short: a step and a document more than the budget.
        """
        return self.budget + 2 * self.tokens_per_step + int(tokens.lengths.max())

    def train(self) -> TrainConfig:
        """Return the loop's configuration: DataComp-LM's optimiser (arXiv 2406.11794, table 10)."""
        return lm_train_config(
            self.steps,
            warmup_steps=round(self.steps * self.warmup),
            lr=self.lr,
            min_lr=self.lr / 100,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
            precision=self.precision,
            batch_size=self.tokens_per_step // self.context,
            log_every=max(self.steps // 20, 1),
            checkpoint_every=max(self.steps // 3, 1),
            keep_checkpoints=1,
        ).seeded(self.seed)


def train_documents(
    tokens: TokenStore,
    counts: np.ndarray,
    config: DocumentsConfig,
    coder: Coder,
    out: str | Path,
) -> tuple[LanguageModel, dict[str, Any]]:
    """Train a fresh model on documents, each as often as its count says.

    Args:
        tokens: one row a document.
        counts: int64 [rows]; 0 leaves a document out.
        config: shared by the arms; the copies must hold its budget.
        coder: the tokenizer of the tokens.
        out: the run's folder.

    Returns:
        The model in eval mode, and facts: steps, tokens and unique tokens seen, losses.

    Raises:
        ConfigError: the copies do not fill the budget.
        DataError: the tokens are another tokenizer's.
    """
    from understudy import models

    tokens.check_tokenizer(config.model, coder.fingerprint())
    used = np.flatnonzero(counts)
    sampler = CountSampler(
        tokens.lengths[used] + 1,
        counts[used],
        config.context,
        config.tokens_per_step // config.context,
        config.seed,
        rows=used,
    )
    if sampler.steps < config.steps:
        raise ConfigError(
            f"train_documents: the copies fill {sampler.steps:,} steps of "
            f"{config.tokens_per_step:,} tokens, the budget of {config.budget:,} needs "
            f"{config.steps:,}; raise the counts or lower the budget."
        )
    tokenizer: Any = coder
    model: Any = models.create(
        config.model,
        tokenizer=tokenizer,
        seed=config.seed,
        **{"decoder.context": config.context, **config.changes},
    )
    result = fit(
        model,
        LMStep(z_loss=config.z_loss),
        CountLoader(tokens, sampler, mask_documents=config.mask_documents),
        config.train(),
        out,
    )
    io.load_weights(model, Path(out) / "model.safetensors")  # also of a run that was done before
    seen = sampler.seen(config.steps - 1)
    facts = {
        "steps": result.steps,
        "tokens": seen["tokens"],
        "unique_tokens": seen["unique_tokens"],
        "epochs": seen["tokens"] / seen["unique_tokens"],
        "train_nll": result.metrics["train/nll"],
        "seconds": result.seconds,
    }
    return model.eval(), facts
