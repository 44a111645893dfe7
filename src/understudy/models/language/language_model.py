"""A causal language model with its tokenizer: logits of texts, and texts that it writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from understudy.core.errors import ConfigError, DataError, ModelError
from understudy.models.base import Model
from understudy.models.language.coder import Coder, read_coder
from understudy.models.language.decoder import Decoder
from understudy.models.language.generate import GenerateConfig, Generated, generate
from understudy.models.language.language_config import LanguageConfig
from understudy.models.language.stops import Stop
from understudy.models.preprocess import Preprocess

Finish = Callable[[Tensor, Tensor], dict[str, Tensor]]
"""`finish(states [B, L, width], table [vocabulary, width])`: what to do instead of logits."""
TEXT = GenerateConfig(method="greedy", max_tokens=64)
"""How texts are written by default."""


class LanguageModel(Model):
    """Token ids to the next tokens' logits.

    Args:
        config: the network.
        tokenizer: its own; may be set later with `set_tokenizer`.

    Attributes:
        decoder: the network.
    """

    config: LanguageConfig
    tokenizer: Coder | None = None
    read_tokenizer = staticmethod(read_coder)

    def __init__(self, config: LanguageConfig, tokenizer: Coder | None = None) -> None:
        super().__init__()
        self.config = config
        self.decoder = Decoder(config.decoder)
        if tokenizer is not None:
            self.set_tokenizer(tokenizer)

    @property
    def context(self) -> int:
        """Tokens of a sequence at most."""
        return self.decoder.context

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self.decoder.vocab_size

    @property
    def preprocess(self) -> Preprocess:
        """Nothing: there are no images.

        Raises:
            ModelError: always.
        """
        raise ModelError(f"{self.config.name} is a language model: it reads no images.")

    @property
    def coder(self) -> Coder:
        """The tokenizer.

        Raises:
            ModelError: none is attached.
        """
        if self.tokenizer is None:
            raise ModelError(
                f"{self.config.name} has no tokenizer: call model.set_tokenizer(...) with the one "
                "that its texts were tokenised with."
            )
        return self.tokenizer

    def set_tokenizer(self, tokenizer: Coder) -> None:
        """Attach a tokenizer; it is saved with the weights.

        Raises:
            ModelError: it has more ids than the model has embeddings.
        """
        if tokenizer.vocab_size > self.vocab_size:
            raise ModelError(
                f"tokenizer: {tokenizer.vocab_size} ids, but {self.config.name} has "
                f"{self.vocab_size}; take the model's own tokenizer or set decoder.vocab_size."
            )
        self.tokenizer = tokenizer

    def forward(
        self,
        ids: Int[Tensor, "rows length"],
        segments: Int[Tensor, "rows length"] | None = None,
        finish: Finish | None = None,
    ) -> dict[str, Tensor]:
        """Return the logits of the token after each place.

        Args:
            ids: token ids; a row is one text, or several one after the other.
            segments: document number of each token; attention stays inside documents and their
                positions restart. None lets every token see all tokens before it.
            finish: called with the hidden states and the head's weights instead of making logits;
                what it returns is returned. Losses that never hold all logits come in here.

        Returns:
            `logits` [rows, length, vocabulary], or what `finish` returns.

        Raises:
            ModelError: rows longer than the context.
            DataError: segments of another shape.
        """
        if ids.shape[-1] > self.context:
            raise ModelError(
                f"{self.config.name}: rows of {ids.shape[-1]} tokens, but its context is "
                f"{self.context}; use shorter rows, or raise decoder.context (and rope_scaling)."
            )
        states = self.decoder.states(self.decoder.embed(ids), segments=segments)
        if finish is not None:
            return finish(states, self.decoder.table)
        return {"logits": self.decoder.logits(states)}

    # -- writing

    def prefill(
        self, prompts: Sequence[Sequence[int]]
    ) -> tuple[Float[Tensor, "rows vocabulary"], dict[str, Any]]:
        """Read prompts of any lengths; return the logits after each, and the cache.

        Args:
            prompts: token ids, at least one a row.

        Raises:
            DataError: an empty prompt, or an id that the model does not have.
        """
        device = self.decoder.tokens.weight.device
        for i, row in enumerate(prompts):
            if not len(row):
                raise DataError(
                    f"prompt {i}: no tokens; begin with the end-of-text token to write freely."
                )
            if not 0 <= min(row) <= max(row) < self.vocab_size:
                raise DataError(
                    f"prompt {i}: ids from {min(row)} to {max(row)}; the model has 0 to "
                    f"{self.vocab_size - 1}."
                )
        lengths = torch.tensor([len(row) for row in prompts], device=device)
        longest = max((len(row) for row in prompts), default=0)
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        for i, row in enumerate(prompts):
            ids[i, : len(row)] = torch.tensor(list(row))
        places = torch.arange(longest, device=device)
        valid = places < lengths[:, None]
        kept = self.decoder.new_cache()
        embedded = self.decoder.embed(ids.to(device))
        logits = self.decoder(embedded, valid, None, kept, lengths - 1)
        return logits, {"kept": kept, "valid": valid, "next": lengths}

    def step(
        self, tokens: Int[Tensor, "rows new"], cache: Mapping[str, Any]
    ) -> tuple[Float[Tensor, "rows vocabulary"], dict[str, Any]]:
        """Return the logits after new tokens; the `step` of `understudy.models.language.generate`.

        A row's positions go on where its own prompt ended, whatever padding stands in between.
        """
        new = tokens.shape[1]
        valid = torch.cat([cache["valid"], torch.ones_like(tokens, dtype=torch.bool)], 1)
        positions = cache["next"][:, None] + torch.arange(new, device=tokens.device)
        last = torch.full((len(tokens),), new - 1, device=tokens.device)
        embedded = self.decoder.embed(tokens)
        logits = self.decoder(embedded, valid, positions, cache["kept"], last)
        return logits, {"kept": cache["kept"], "valid": valid, "next": cache["next"] + new}

    @torch.no_grad()
    def continue_ids(
        self,
        prompts: Sequence[Sequence[int]],
        options: GenerateConfig = TEXT,
        *,
        seeds: Sequence[int] | None = None,
        stop: Stop | None = None,
        num_returns: int = 1,
    ) -> Generated:
        """Continue rows of token ids.

        Args:
            prompts: token ids, at least one a row.
            options: how tokens are chosen, and the ids that end a text.
            seeds: of sampling, one a row.
            stop: also ends a row; called with its generated ids after each token.
            num_returns: texts a row, for beam search.

        Raises:
            ConfigError: prompt and text do not fit the context, or options that do not fit.
            DataError: an empty prompt, or an id that the model does not have.
            ModelError: training mode.
        """
        if self.training:
            raise ModelError("generate: the model is in training mode; call model.eval() first.")
        longest = max((len(row) for row in prompts), default=0)
        if longest + options.max_tokens > self.context:
            raise ConfigError(
                f"generate: a prompt of {longest} and {options.max_tokens} new tokens do not fit "
                f"the context of {self.context}; shorten the prompt or lower max_tokens."
            )
        start = self.prefill(prompts)
        return generate(self.step, start, options, seeds=seeds, stop=stop, num_returns=num_returns)

    def generate(
        self,
        prompt: str | Sequence[str],
        options: GenerateConfig | None = None,
        *,
        seeds: Sequence[int] | None = None,
        stop: Stop | None = None,
    ) -> str | list[str]:
        """Continue a text, or several at once.

        An empty text begins after the end-of-text token, as documents of the training data do.

        Args:
            prompt: the text, or several.
            options: how the text is written; greedy, up to 64 tokens, by default. Without `end_ids`
                of its own the tokenizer's end-of-text token ends a text.
            seeds: of sampling, one a text.
            stop: see `continue_ids`.

        Returns:
            what follows the text, or each text.

        Raises:
            ConfigError: see `continue_ids`.
            ModelError: training mode, or no tokenizer.
        """
        coder = self.coder
        single = isinstance(prompt, str)
        texts = [prompt] if isinstance(prompt, str) else list(prompt)
        options = options or TEXT
        if not options.end_ids:
            options = replace(options, end_ids=(coder.end_id,))
        rows = [coder.encode(text) or [coder.end_id] for text in texts]
        found = self.continue_ids(rows, options, seeds=seeds, stop=stop)
        written = [coder.decode(row) for row in found.rows()]
        return written[0] if single else written
