"""Train a language model on token stores, with sequences of one length or of many.

    >>> from understudy.data.tokens import TokenStore
    >>> from understudy.train.lm import train_lm
    >>> from understudy.train.lm_config import LMConfig
    >>> store = TokenStore.open("tokens")                          # doctest: +SKIP
    >>> train_lm(store, "openlm-nano", LMConfig(), "runs/lm")      # doctest: +SKIP

The loss is a mean over the targets of a step, so neither the length of its sequences nor how they
are spread over ranks changes what a token counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from understudy.core.config import to_dict
from understudy.core.errors import ConfigError, DataError, ModelError
from understudy.data.sampler_buckets import BucketSampler
from understudy.data.samplers import Sampler, ShuffledSampler
from understudy.models import io
from understudy.models.language.language_model import LanguageModel
from understudy.models.runs import load_run, names_weights
from understudy.objectives.language import IGNORE, head_causal_lm
from understudy.train.distributed import join
from understudy.train.lm_batches import LMBatches, TokenRows
from understudy.train.lm_config import LMConfig

if TYPE_CHECKING:
    from understudy.models.language.coder import Coder
    from understudy.train.result import RunResult

Evaluate = Callable[[LanguageModel], Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class LMStep:
    """The next-token loss, bound to a model's call.

    The head's logits are made in pieces inside the model's forward pass and never held at once.

    Attributes:
        z_loss: weight of the squared logsumexp.
        chunk: tokens whose logits are held at once; 0 for as many as suit the device.
        static: the model is compiled: once per length of sequences, and without the head, whose
            pieces it would unroll.
    """

    z_loss: float = 0.0
    chunk: int = 0
    static: bool = False

    def check(self, batch: Mapping[str, Any]) -> None:
        """Refuse a batch in which nothing is learned.

        Raises:
            DataError: every target is ignored.
        """
        if not bool((batch["targets"] != IGNORE).any()):
            raise DataError(
                "a batch has no token to learn: every document in it has a single token. Leave "
                "such documents out, or do not mask documents."
            )

    def __call__(self, model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return `loss`, and detached `nll`, `z_loss`, `token_accuracy` and `tokens`."""
        ids, segments = batch["ids"], batch.get("segments")

        def finish(states: Tensor, table: Tensor) -> dict[str, Tensor]:
            return head_causal_lm(states, table, batch, z_loss=self.z_loss, chunk=self.chunk)

        if self.static:
            torch._dynamo.mark_static(ids)  # type: ignore[attr-defined]
            found = finish(*model(ids, segments, _both).values())
        else:
            found = model(ids, segments, finish)
        return {**found, "loss": found["loss"] * rank_share(found["tokens"])}


def _both(states: Tensor, table: Tensor) -> dict[str, Tensor]:
    return {"states": states, "table": table}


def rank_share(tokens: Tensor) -> Tensor | float:
    """Return tokens of this rank / mean tokens of a rank; 1 where there is one rank.

    Ranks average their gradients; with their losses multiplied by this, the average is that of all
    tokens, however they are spread.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return 1.0
    total = tokens.detach().clone()
    dist.all_reduce(total)
    return tokens * dist.get_world_size() / total.clamp(min=1)


def make_language_model(
    config: LMConfig, tokens: Any, tokenizer: Coder | None = None
) -> LanguageModel:
    """Make the model that a configuration describes, or load the one that it names.

    Args:
        config: see `LMConfig.model`.
        tokens: what it will learn from; without a tokenizer, a small model takes the vocabulary
            size that a token store knows.
        tokenizer: to attach.

    Raises:
        ConfigError: no such model, or changes of a model that has weights.
        ModelError: not a language model.
    """
    from understudy import models

    if names_weights(config.model):
        if config.changes:
            raise ConfigError(
                f"changes: {config.model} holds weights, whose configuration cannot change."
            )
        return _language(load_run(config.model, folded=False))
    changes, info = dict(config.changes), getattr(tokens, "info", None)
    settings = models.config(config.model)
    if tokenizer is None and info is not None and getattr(settings, "tokenizer", "") == "own":
        changes.setdefault("decoder.vocab_size", info.vocab_size)
    return _language(
        models.create(config.model, seed=config.seed, tokenizer=tokenizer, **changes)  # type: ignore[arg-type]
    )


def _language(model: Any) -> LanguageModel:
    if not isinstance(model, LanguageModel):
        raise ModelError(
            f"train_lm: {model.config.name} is a {type(model).__name__}, not a language model; use "
            "openlm-nano, say."
        )
    return model


def lm_sampler(tokens: Any, config: LMConfig) -> Sampler:
    """Return the sampler of a source: a curriculum for buckets, all rows in new orders otherwise.

    Args:
        tokens: what is drawn from.
        config: says how many tokens a step has, and the curriculum.

    Raises:
        ConfigError: tokens per step that rows, ranks and micro-batches do not divide.
    """
    ranks, parts = join(config.train.device, config.train.strategy), config.train.accumulate
    if config.tokens_per_step < 1:
        raise ConfigError("LMConfig.tokens_per_step: give it, or a sampler.")
    if getattr(getattr(tokens, "info", None), "kind", "") == "buckets":
        return BucketSampler(
            tokens.buckets,
            config.tokens_per_step,
            config.seed,
            curriculum=config.curriculum,
            cycles=config.cycles,
            tokens=config.tokens or None,
            repeat=config.repeat,
            rank=ranks.rank,
            world=ranks.world,
            accumulate=parts,
            fingerprint=tokens.fingerprint,
        )
    lengths = np.asarray(tokens.lengths)
    longest = int(lengths.max(initial=0))
    share = longest * ranks.world * parts
    if not longest or config.tokens_per_step % share or (lengths != longest).mean() > 0.5:
        below = config.tokens_per_step // share * share if share else 0
        raise ConfigError(
            f"LMConfig.tokens_per_step: {config.tokens_per_step} tokens are not whole rows of "
            f"{longest} (the longest) on {ranks.world} ranks in {parts} micro-batches; take "
            f"{max(below, share)} or {below + share}, or give a sampler where rows differ in "
            "length."
        )
    size = config.tokens_per_step // share
    return ShuffledSampler(len(lengths), size, config.seed, rank=ranks.rank, world=ranks.world)


def check_tokens(tokens: Any, model: LanguageModel, *, lengths: bool = True) -> None:
    """Refuse tokens that a model cannot read.

    Args:
        tokens: what it will learn from.
        model: the model.
        lengths: look at all rows; False where a sampler may leave out the long ones.

    Raises:
        ModelError: rows longer than its context, or more token ids than it has.
        DataError: tokens of another tokenizer than the model's.
    """
    longest = int(np.asarray(tokens.lengths).max(initial=0))
    if lengths and longest > model.context:
        raise ModelError(
            f"{_where(tokens)}: rows of up to {longest} tokens, but {model.config.name} has a "
            f"context of {model.context}; pack shorter rows (a smaller max_log2), or raise "
            "decoder.context."
        )
    info = getattr(tokens, "info", None)
    if info is None:
        return
    if model.tokenizer is not None and hasattr(tokens, "check_tokenizer"):
        tokens.check_tokenizer(model.config.name, model.tokenizer.fingerprint())
    if info.vocab_size > model.vocab_size:
        raise ModelError(
            f"{_where(tokens)}: its tokenizer {info.tokenizer} has {info.vocab_size} ids, but "
            f"{model.config.name} has {model.vocab_size}; set decoder.vocab_size."
        )


def _where(tokens: Any) -> str:
    return str(getattr(tokens, "path", "tokens"))


def train_lm(
    tokens: TokenRows,
    model: LanguageModel | str | None,
    config: LMConfig,
    out: str | Path,
    *,
    sampler: Sampler | None = None,
    tokenizer: Coder | None = None,
    evaluate: Evaluate | None = None,
    resume: bool = True,
    context: Mapping[str, Any] | None = None,
) -> RunResult:
    """Train a language model.

    Args:
        tokens: a `TokenStore`, or anything with its `lengths`, `take` and `segments`; several are
            joined by `understudy.train.lm_batches.JoinedTokens`.
        model: trained in place; a name or path instead of `config.model`; None takes that.
        config: what it learns, how long and how fast.
        out: the run's folder; see `understudy.train.loop.fit`.
        sampler: draws rows: its `batch(n).rows` are the rows of micro-batch n of this rank. None
            takes `lm_sampler`.
        tokenizer: attached to a model that is made here.
        evaluate: `evaluate(model) -> metrics`, at `train.eval_every` and at the end.
        resume: go on from the newest checkpoint in `out`.
        context: facts for the run's record.

    Returns:
        where everything is, and the metrics. The model has the final weights, in eval mode.

    Raises:
        ConfigError: options that do not fit each other or the source.
        DataError: tokens of another tokenizer, or a batch in which nothing is learned.
        ModelError: rows or ids that the model cannot read.
    """
    from understudy.train.loop import fit

    if isinstance(model, str):
        config = replace(config, model=model)
    config = replace(config, train=config.train.seeded(config.seed))
    found = model if isinstance(model, LanguageModel) else None
    learner = found or make_language_model(config, tokens, tokenizer)
    check_tokens(tokens, learner, lengths=sampler is None)
    learner.decoder.documents = config.documents
    batches = LMBatches(
        tokens,
        sampler or lm_sampler(tokens, config),
        mask_documents=config.mask_documents,
        workers=config.workers,
    )
    step = LMStep(z_loss=config.z_loss, chunk=config.chunk, static=config.train.compile)
    run = fit(
        learner,
        step,
        batches,
        config.train,
        out,
        evaluate=None if evaluate is None else lambda m, _: evaluate(m),  # type: ignore[arg-type]
        resume=resume,
        context={"lm": to_dict(config), "tokens": _where(tokens), **(context or {})},
        data={"loader": batches.describe(), "objective": {"z_loss": config.z_loss}},
    )
    if run.finished and not any(hasattr(p, "full_tensor") for p in learner.parameters()):
        # also where the run was done before and only its weights are wanted
        io.load_weights(learner, Path(out) / "model.safetensors")
    learner.eval()
    return run
