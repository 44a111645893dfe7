"""Held-out loss of documents: nats a token, perplexity, bits a byte, by group.

Documents are read one by one with their full context, never glued together. Nats a token depend on
the tokenizer; bits a byte do not, and compare models of different tokenizers. Intervals resample
documents, because the tokens of one document are not independent.

References:
    arXiv 2405.13226, sec. 3 (held-out loss with full context); arXiv 2101.00027, sec. 3.1 (bits a
    byte = (T / B) * loss / ln 2).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from understudy.core.errors import DataError
from understudy.core.files import write_text
from understudy.core.seeds import rng
from understudy.evaluate.perplexity_documents import Document
from understudy.evaluate.token_losses import Model, ReadConfig, token_losses

RESAMPLES = 1000


@dataclass(frozen=True, kw_only=True, slots=True)
class LossSummary:
    """Loss over some documents.

    Attributes:
        documents: how many.
        tokens: scored tokens.
        num_bytes: bytes that they stand for.
        loss: mean over tokens, in nats.
        perplexity: exp(loss).
        bits_per_byte: summed loss in bits over bytes; NaN where bytes are not known.
        document_loss: mean over documents of their mean loss a token, in nats.
        low: lower end of the 95 % interval of `loss`, documents resampled.
        high: its upper end.
    """

    documents: int
    tokens: int
    num_bytes: int
    loss: float
    perplexity: float
    bits_per_byte: float
    document_loss: float
    low: float
    high: float


@dataclass(frozen=True)
class HeldOutLoss:
    """Losses of documents.

    Attributes:
        ids: names of the documents that were scored.
        nll: float64 [documents], summed loss of each in nats.
        tokens: int64 [documents], scored tokens of each.
        num_bytes: int64 [documents], bytes that they stand for.
        groups: facts of each document.
        skipped: documents without a token to score.
    """

    ids: tuple[str, ...]
    nll: np.ndarray
    tokens: np.ndarray
    num_bytes: np.ndarray
    groups: tuple[Mapping[str, str], ...]
    skipped: int = 0

    def summary(
        self, where: np.ndarray | None = None, *, resamples: int = RESAMPLES, seed: int = 0
    ) -> LossSummary:
        """Return the loss over all documents, or over some.

        Args:
            where: bool [documents]; all when absent.
            resamples: of the interval.
            seed: of the resampling.

        Raises:
            DataError: no documents.
        """
        chosen = np.ones(len(self.nll), bool) if where is None else where
        nll, tokens, size = self.nll[chosen], self.tokens[chosen], self.num_bytes[chosen]
        if not len(nll):
            raise DataError("held-out loss: no documents with a token to score.")
        loss = float(nll.sum() / tokens.sum())
        total = int(size.sum())
        low, high = ratio_interval(nll, tokens, resamples=resamples, seed=seed)
        return LossSummary(
            documents=len(nll),
            tokens=int(tokens.sum()),
            num_bytes=total,
            loss=loss,
            perplexity=math.exp(loss) if loss < 700 else float("inf"),
            bits_per_byte=float(nll.sum() / math.log(2) / total) if total else float("nan"),
            document_loss=float((nll / tokens).mean()),
            low=low,
            high=high,
        )

    def by(self, name: str, *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, LossSummary]:
        """Return the loss of each group, in order of its name.

        Args:
            name: the fact to group by.
            resamples: of the intervals.
            seed: of the resampling.

        Raises:
            DataError: a document without this fact.
        """
        values = []
        for document, facts in zip(self.ids, self.groups, strict=True):
            if name not in facts:
                raise DataError(f"held-out loss: document '{document}' has no '{name}'.")
            values.append(facts[name])
        column = np.asarray(values)
        return {
            str(value): self.summary(column == value, resamples=resamples, seed=seed)
            for value in np.unique(column)
        }

    def to_plain(self, by: Sequence[str] = ()) -> dict[str, Any]:
        """Return the summaries as plain data."""
        groups = {name: {k: asdict(v) for k, v in self.by(name).items()} for name in by}
        return {"all": asdict(self.summary()), "by": groups, "skipped": self.skipped}

    def write_documents(self, path: str | Path) -> Path:
        """Write a JSON line a document: `id`, `nll`, `tokens`, `num_bytes` and its facts."""
        columns = zip(self.ids, self.nll, self.tokens, self.num_bytes, self.groups, strict=True)
        lines = [
            json.dumps({**g, "id": i, "nll": float(n), "tokens": int(t), "num_bytes": int(b)})
            for i, n, t, b, g in columns
        ]
        return write_text(path, "\n".join(lines) + "\n")


def ratio_interval(
    sums: np.ndarray, counts: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of sum(sums) / sum(counts).

    Args:
        sums: float64 [n], one an independent unit.
        counts: int64 [n] of the same units.
        resamples: number of resamples of the units.
        seed: of the resampling.
    """
    generator = rng("ratio", seed, len(sums), resamples)
    ratios = np.empty(resamples)
    chunk = max(1, 2_000_000 // len(sums))
    for start in range(0, resamples, chunk):
        stop = min(start + chunk, resamples)
        draw = generator.integers(0, len(sums), size=(stop - start, len(sums)))
        ratios[start:stop] = sums[draw].sum(1) / counts[draw].sum(1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(low), float(high)


def held_out_loss(
    model: Model,
    documents: Sequence[Document],
    config: ReadConfig | None = None,
    *,
    label: str = "held-out loss",
) -> HeldOutLoss:
    """Score documents one by one.

    Args:
        model: in eval mode; see `understudy.evaluate.token_losses`.
        documents: see `understudy.evaluate.perplexity_documents`.
        config: context, stride and batches; they change the time, the first two also the result.
        label: of the progress bar.

    Raises:
        DataError: no document has a token to score.
    """
    kept = [d for d in documents if len(d.ids) > 1]
    if not kept:
        raise DataError(f"{label}: none of {len(documents)} documents has a token to score.")
    scores = token_losses(model, [d.ids for d in kept], config, label=label)
    return HeldOutLoss(
        ids=tuple(d.id for d in kept),
        nll=np.array([s.losses.sum(dtype=np.float64) for s in scores]),
        tokens=np.array([len(s.losses) for s in scores], np.int64),
        num_bytes=np.array([d.num_bytes for d in kept], np.int64),
        groups=tuple(d.groups for d in kept),
        skipped=len(documents) - len(kept),
    )
