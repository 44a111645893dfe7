"""Scores by a language model: how well it predicts a text.

A model is any function from texts to their losses, so that one of this package, of another one or a
service can be asked. The score is minus the loss a byte: larger is better, and models with other
tokenizers are comparable. Low perplexity is not quality by itself: repetition is easy to predict.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from understudy.core.errors import ConfigError, DataError, ModelError
from understudy.core.hashing import hash_file
from understudy.curate.engine.stage import Stage
from understudy.curate.quality.columns import float_column, texts_of, with_column

if TYPE_CHECKING:
    import torch

TextLosses = Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]]
"""`f(texts) -> (summed loss in nats float [N], predicted tokens int [N])`."""


@dataclass(frozen=True, slots=True)
class Perplexities:
    """What a language model says of texts.

    Attributes:
        loss: float64 [N], nats of the whole text.
        tokens: int64 [N] predicted tokens.
        bytes: int64 [N] UTF-8 bytes.
    """

    loss: np.ndarray
    tokens: np.ndarray
    bytes: np.ndarray

    @property
    def perplexity(self) -> np.ndarray:
        """float64 [N]: exp of the loss a token; NaN for a text without one."""
        return np.exp(_ratio(self.loss, self.tokens))

    @property
    def score(self) -> np.ndarray:
        """float32 [N]: minus the nats a byte; NaN for a text without a predicted token."""
        per_byte = _ratio(self.loss, np.where(self.tokens > 0, self.bytes, 0))
        return -per_byte.astype(np.float32)


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.where(bottom > 0, top / np.maximum(bottom, 1), np.nan)


def perplexity_scores(losses: TextLosses, texts: Sequence[str]) -> Perplexities:
    """Ask a language model about texts.

    Raises:
        DataError: it answers for another number of texts, or with a loss that is not finite.
    """
    loss, tokens = losses(texts)
    loss, tokens = np.asarray(loss, np.float64), np.asarray(tokens, np.int64)
    if loss.shape != (len(texts),) or tokens.shape != (len(texts),):
        raise DataError(
            f"perplexity: {len(texts)} texts, but losses {list(loss.shape)} and tokens "
            f"{list(tokens.shape)}."
        )
    if not np.isfinite(loss).all():
        raise DataError(
            f"perplexity: the loss of text {int(np.isfinite(loss).argmin())} is not finite."
        )
    sizes = np.array([len(text.encode("utf-8", "replace")) for text in texts], np.int64)
    return Perplexities(loss, tokens, sizes)


class ModelLosses:
    """The losses of a causal language model of this package, or of one that is called like it.

    A text is cut into pieces of the context; each piece but the first begins with the last token of
    the piece before, so that every token but the very first is predicted once.

    Args:
        model: `model(ids [B, L]) -> {"logits": [B, L, V]}`.
        encode: text to token ids.
        context: tokens that the model reads at once.
        first: token put before each text, so that its first token is predicted too; None for none.
        batch_tokens: tokens of a batch, padding included.
    """

    def __init__(
        self,
        model: Any,
        encode: Callable[[str], Sequence[int]],
        context: int,
        *,
        first: int | None = None,
        batch_tokens: int = 8192,
    ) -> None:
        if context < 2:
            raise ConfigError(f"perplexity: context: expected 2 tokens or more, got {context}.")
        self.model, self.encode, self.context = model, encode, context
        self.first, self.batch_tokens = first, batch_tokens

    def __call__(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return (loss float64 [N], predicted tokens int64 [N])."""
        loss, tokens = np.zeros(len(texts)), np.zeros(len(texts), np.int64)
        pieces: list[tuple[int, list[int]]] = []
        for number, text in enumerate(texts):
            ids = [] if self.first is None else [self.first]
            ids += list(self.encode(text))
            tokens[number] = max(len(ids) - 1, 0)
            for start in range(0, len(ids) - 1, self.context):
                pieces.append((number, ids[start : start + self.context + 1]))
        # Similar lengths side by side, so that little is padding.
        pieces.sort(key=lambda piece: (len(piece[1]), piece[0]))
        at = 0
        while at < len(pieces):
            longest = len(pieces[at][1])
            stop = at + 1
            while stop < len(pieces):
                longest = len(pieces[stop][1])
                if longest * (stop - at + 1) > self.batch_tokens:
                    break
                stop += 1
            for (number, _), value in zip(
                pieces[at:stop], self._losses([ids for _, ids in pieces[at:stop]]), strict=True
            ):
                loss[number] += value
            at = stop
        return loss, tokens

    def _losses(self, rows: list[list[int]]) -> list[float]:
        import torch
        import torch.nn.functional as F

        width = max(map(len, rows)) - 1
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        targets = torch.full((len(rows), width), -100)
        for i, row in enumerate(rows):
            ids[i, : len(row) - 1] = torch.tensor(row[:-1])
            targets[i, : len(row) - 1] = torch.tensor(row[1:])
        with torch.inference_mode():
            found = self.model(ids.to(_device(self.model)))
            logits = (found["logits"] if isinstance(found, dict) else found).float().cpu()
            each = F.cross_entropy(
                logits.transpose(1, 2), targets, ignore_index=-100, reduction="none"
            )
        return each.double().sum(1).tolist()


def _device(model: Any) -> torch.device | str:
    if not hasattr(model, "parameters"):
        return "cpu"
    first = next(iter(model.parameters()), None)
    return "cpu" if first is None else first.device


@dataclass(kw_only=True)
class PerplexityScore(Stage):
    """Add the score of a language model of this package to every page.

    Attributes:
        model: path of its file; it brings its tokenizer.
        column: the score's.
        max_chars: characters of a page that are read; 0 reads all.
        batch_tokens: tokens of a batch.
    """

    name = "perplexity-score"
    kind: ClassVar[Any] = "enricher"
    model: str
    column: str = "score.perplexity"
    max_chars: int = 8_192
    batch_tokens: int = 8192
    _losses: ModelLosses = field(init=False, repr=False)

    def __post_init__(self) -> None:
        from understudy import models

        if self.max_chars < 0:
            raise ConfigError(
                f"perplexity-score: max_chars: expected 0 or more, got {self.max_chars}."
            )
        self.adds = {self.column: pa.float32()}
        network = models.load(self.model).eval()
        coder, context = getattr(network, "coder", None), getattr(network, "context", None)
        if coder is None or context is None:
            raise ModelError(f"perplexity-score: {self.model} is no causal language model.")
        self._losses = ModelLosses(
            network,
            coder.encode,
            int(context),
            first=getattr(coder, "end_id", None),
            batch_tokens=self.batch_tokens,
        )

    def describe(self) -> dict[str, Any]:
        """Return the settings that decide a score, and the model's hash."""
        model = hash_file(self.model)[:32]
        return {
            "name": self.name,
            "model": model,
            "column": self.column,
            "max_chars": self.max_chars,
        }

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Add the score of every page."""
        texts = [text[: self.max_chars or None] for text in texts_of(batch).to_pylist()]
        found = perplexity_scores(self._losses, texts)
        return with_column(batch, self.column, float_column(found.score))
