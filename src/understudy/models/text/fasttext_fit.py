"""Train a fastText-form classifier: fastText's supervised rule in small batches.

fastText takes one text at a time and lets threads write over each other; here the texts of a batch
are computed from the same weights and their updates are *added*, which is what that many threads
would do, but repeatable. A batch of one is fastText's rule itself.

References:
    Joulin et al. 2016, arXiv 1607.01759. fastText 0.9.2, src/fasttext.cc (trainThread),
    model.cc (update: the gradient of a row is divided by the number of rows), args.cc (defaults).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from understudy.core.errors import ConfigError, DataError, ModelError
from understudy.core.progress import bar
from understudy.core.seeds import rng, torch_generator
from understudy.models.text.fasttext import FastText
from understudy.models.text.fasttext_bin import BinParts
from understudy.models.text.fasttext_dictionary import LABEL_PREFIX, Dictionary
from understudy.models.text.fasttext_lines import split_lines
from understudy.models.text.fasttext_matrix import DenseMatrix, SparseRows
from understudy.models.text.fasttext_runs import select_runs

_TEXTS_AT_ONCE = 8_192
_ORDERED_AT_ONCE = 4_096


@dataclass(frozen=True, kw_only=True, slots=True)
class FastTextConfig:
    """Options of the classifier and its training; defaults are fastText's `supervised`.

    Attributes:
        dim: numbers per vector.
        lr: learning rate of the first text, falling linearly to 0.
        epochs: passes over the texts.
        word_ngrams: largest order of word n-grams; 2 for the quality classifier of DataComp-LM.
        buckets: rows that n-grams share.
        min_count: occurrences that a word needs to get a row of its own.
        min_chars: smallest character n-gram.
        max_chars: largest; 0 for none. 2 to 4 suits language identification.
        batch_size: texts whose updates are added; 1 is fastText's own order of things.
        shuffle: draw a new order of the texts each epoch; fastText reads them as they lie.
        seed: of the vectors and the orders.
    """

    dim: int = 100
    lr: float = 0.1
    epochs: int = 5
    word_ngrams: int = 2
    buckets: int = 2_000_000
    min_count: int = 1
    min_chars: int = 0
    max_chars: int = 0
    batch_size: int = 32
    shuffle: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("dim", "epochs", "word_ngrams", "min_count", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"FastTextConfig.{name}: expected 1 or more, got {getattr(self, name)}."
                )
        if not self.lr > 0:
            raise ConfigError(f"FastTextConfig.lr: expected a positive number, got {self.lr}.")
        if self.max_chars and not 1 <= self.min_chars <= self.max_chars:
            raise ConfigError(
                "FastTextConfig.min_chars: expected 1 to max_chars "
                f"({self.max_chars}), got {self.min_chars}."
            )
        needs = self.word_ngrams > 1 or self.max_chars > 0
        if self.buckets < (1 if needs else 0):
            raise ConfigError(
                f"FastTextConfig.buckets: n-grams need at least 1, got {self.buckets}."
            )


@dataclass(slots=True)
class _Rows:
    """The rows of all texts, renumbered to those that occur."""

    rows: np.ndarray
    counts: np.ndarray
    used: np.ndarray


def fit(
    texts: Sequence[str], labels: Sequence[str], config: FastTextConfig | None = None
) -> FastText:
    """Train a classifier with one label per text.

    Rows of n-grams that no training text has stay zero (fastText leaves them at random), so that
    only the others need space.

    Args:
        texts: the texts; line breaks are white space.
        labels: a label for each, without prefix ("hq", "cc").
        config: see there.

    Raises:
        ConfigError: fewer than two labels, or another number of labels than of texts.
        DataError: a label with white space, or no text with a word.
        ModelError: the weights grew without bound.
    """
    config = config or FastTextConfig()
    names = _check_labels(texts, labels)
    dictionary = _dictionary(texts, names, labels, config)
    bags = _all_rows(dictionary, texts)
    place = {name: i for i, name in enumerate(dictionary.short_labels())}
    targets = np.array([place[label] for label in labels], np.int64)
    table = torch.rand(
        len(bags.used), config.dim, generator=torch_generator("fasttext", config.seed)
    )
    table = (table * 2 - 1) / config.dim
    output = torch.zeros(len(place), config.dim)
    with bar("fasttext", total=config.epochs * len(texts), unit="texts") as shown, torch.no_grad():
        done, total = 0, config.epochs * max(int(bags.counts.sum()), 1)
        for rows, sizes, wanted in _batches(bags, targets, config):
            _step(table, output, rows, sizes, wanted, config.lr * (1 - done / total))
            done += len(rows)
            shown.advance(len(sizes))
    if not (torch.isfinite(output).all() and torch.isfinite(table).all()):
        raise ModelError(
            f"fastText training: the weights are no longer finite after lr {config.lr} and batches "
            f"of {config.batch_size} texts; lower lr, or batch_size."
        )
    parts = BinParts(
        dictionary=dictionary,
        input=SparseRows(len(dictionary.words) + config.buckets, bags.used, table.numpy()),
        output=DenseMatrix(output.numpy()),
        loss="softmax",
        epochs=config.epochs,
        min_count=config.min_count,
    )
    return FastText(parts)


def _step(
    table: Tensor, output: Tensor, rows: Tensor, sizes: Tensor, wanted: Tensor, lr: float
) -> None:
    """Do one batch of softmax regression on the means of rows, in place."""
    starts = sizes.cumsum(0) - sizes
    hidden = F.embedding_bag(rows, table, starts, mode="sum").div_(sizes[:, None])
    errors = F.softmax(hidden @ output.T, dim=1).neg_()
    errors[torch.arange(len(wanted)), wanted] += 1
    errors *= lr
    # fastText adds the gradient of the vectors before it changes the output layer.
    into = (errors @ output) / sizes[:, None]
    output += errors.T @ hidden
    owner = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    table.index_add_(0, rows, into[owner])


def _check_labels(texts: Sequence[str], labels: Sequence[str]) -> list[str]:
    if len(texts) != len(labels):
        raise ConfigError(
            f"fastText training: {len(texts)} texts and {len(labels)} labels; each text needs one."
        )
    names = sorted(set(labels))
    if len(names) < 2:
        raise ConfigError(
            f"fastText training: expected at least two labels, got {', '.join(names) or 'none'}."
        )
    for name in names:
        if not name or len(name.split()) != 1 or name.split()[0] != name:
            raise DataError(f"fastText training: label {name!r} holds white space or is empty.")
    return names


def _dictionary(
    texts: Sequence[str], names: list[str], labels: Sequence[str], config: FastTextConfig
) -> Dictionary:
    counts: dict[bytes, int] = {}
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        lines = split_lines(texts[start : start + _TEXTS_AT_ONCE])
        found = np.bincount(lines.codes, minlength=len(lines.words)).tolist()
        for word, count in zip(lines.words, found, strict=True):
            counts[word] = counts.get(word, 0) + count
    prefix = LABEL_PREFIX.encode()
    kept = [
        (word, count)
        for word, count in counts.items()
        if count >= max(config.min_count, 1) and not word.startswith(prefix)
    ]
    kept.sort(key=lambda pair: -pair[1])  # ties stay in the order of their first appearance
    per_label = {name: 0 for name in names}
    for label in labels:
        per_label[label] += 1
    ordered = sorted(names, key=lambda name: -per_label[name])
    return Dictionary(
        words=[word for word, _ in kept],
        word_counts=np.array([count for _, count in kept], np.int64),
        labels=tuple(LABEL_PREFIX + name for name in ordered),
        label_counts=np.array([per_label[name] for name in ordered], np.int64),
        word_ngrams=config.word_ngrams,
        buckets=config.buckets,
        min_chars=config.min_chars,
        max_chars=config.max_chars,
        num_tokens=sum(counts.values()) + len(labels),
    )


def _all_rows(dictionary: Dictionary, texts: Sequence[str]) -> _Rows:
    seen = np.zeros(len(dictionary.words) + dictionary.buckets, bool)
    rows, counts = [], []
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        bags = dictionary.bags(texts[start : start + _TEXTS_AT_ONCE])
        flat, sizes = bags.flat(*dictionary.word_rows(bags.vocabulary))
        seen[flat] = True
        rows.append(flat.astype(np.int32))
        counts.append(sizes)
    used = np.flatnonzero(seen)
    if len(used) == 0:
        raise DataError(
            "fastText training: no word or n-gram in any text; lower min_count or give texts."
        )
    renumbered = np.zeros(len(seen), np.int32)
    renumbered[used] = np.arange(len(used), dtype=np.int32)
    for piece in rows:
        piece[:] = renumbered[piece]
    return _Rows(np.concatenate(rows), np.concatenate(counts), used)


def _batches(
    bags: _Rows, targets: np.ndarray, config: FastTextConfig
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield (rows, rows of each text, labels) of every batch of every epoch."""
    full = np.flatnonzero(bags.counts)  # texts without a row teach nothing
    for epoch in range(config.epochs):
        order = full
        if config.shuffle:
            order = rng("fasttext-order", config.seed, epoch).permutation(full)
        for at in range(0, len(order), _ORDERED_AT_ONCE):
            chosen = order[at : at + _ORDERED_AT_ONCE]
            rows, sizes = select_runs(bags.rows, bags.counts, chosen)
            edges = np.concatenate([[0], np.cumsum(sizes)])
            all_rows = torch.from_numpy(rows.astype(np.int64))
            all_sizes, wanted = torch.from_numpy(sizes), torch.from_numpy(targets[chosen])
            for first in range(0, len(chosen), config.batch_size):
                last = min(first + config.batch_size, len(chosen))
                yield (
                    all_rows[edges[first] : edges[last]],
                    all_sizes[first:last],
                    wanted[first:last],
                )
