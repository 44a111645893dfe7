"""Text as bags of n-grams: a small text encoder that needs no download.

Words are tokens; each token is the sum of the vectors of its n-grams, of characters (hashed, as in
fastText, arXiv 1607.04606) or of words (a vocabulary). The table is random, or latent semantic
analysis of a caption corpus: the right singular vectors of its TF-IDF matrix (Deerwester et al.
1990). It is a torch module, so the same encoder can be frozen, tuned or trained from scratch.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError, DataError, ModelError
from understudy.core.hashing import hash_data
from understudy.core.seeds import torch_generator

WORD = re.compile(r"\w+|[^\w\s]")
UNKNOWN = "<unk>"
"""In a vocabulary of words it stands for words whose n-grams are all missing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NgramConfig:
    """Describe how texts become n-gram ids.

    Attributes:
        kind: `"chars"`: hashed character n-grams and the whole word; `"words"`: word n-grams of a
            vocabulary.
        orders: smallest and largest n.
        buckets: ids of `"chars"`, padding not counted.
        vocabulary: n-grams of `"words"`, in the order of their ids.
        context_length: words per text; longer ones are cut and counted.
        grams: n-grams per word that are kept.
    """

    kind: Literal["chars", "words"] = "chars"
    orders: tuple[int, int] = (2, 4)
    buckets: int = 4096
    vocabulary: tuple[str, ...] = ()
    context_length: int = 24
    grams: int = 32

    def __post_init__(self) -> None:
        check_choice(self.kind, ("chars", "words"), "NgramConfig.kind")
        if not 1 <= self.orders[0] <= self.orders[1]:
            raise ConfigError(
                f"NgramConfig.orders: expected 1 <= first <= last, got {self.orders}."
            )
        if self.kind == "words" and not self.vocabulary:
            raise ConfigError("NgramConfig.vocabulary: 'words' needs one; see word_vocabulary.")
        if min(self.buckets, self.context_length, self.grams) < 1:
            raise ConfigError("NgramConfig: buckets, context_length and grams must be at least 1.")

    @property
    def size(self) -> int:
        """Number of ids, padding (0) included."""
        return 1 + (self.buckets if self.kind == "chars" else len(self.vocabulary))


def split_words(text: str) -> list[str]:
    """Return the lower-case words and punctuation marks of a text."""
    return WORD.findall(text.lower())


def _grams_at(words: Sequence[str], i: int, orders: tuple[int, int]) -> list[str]:
    low, high = orders
    return [" ".join(words[i - n + 1 : i + 1]) for n in range(low, high + 1) if i - n + 1 >= 0]


def word_vocabulary(
    texts: Sequence[str], *, orders: tuple[int, int] = (1, 2), min_count: int = 1, limit: int = 0
) -> tuple[str, ...]:
    """Return the word n-grams of a corpus, most frequent first, ties by spelling.

    Args:
        texts: the corpus.
        orders: smallest and largest n.
        min_count: texts that an n-gram must occur in.
        limit: largest number of n-grams; 0 keeps all.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        words = split_words(text)
        counts.update({g for i in range(len(words)) for g in _grams_at(words, i, orders)})
    kept = sorted((g for g, c in counts.items() if c >= min_count), key=lambda g: (-counts[g], g))
    return tuple(kept[:limit] if limit else kept)


class NgramTokenizer:
    """Texts to n-gram ids [B, words, grams], 0 for padding.

    Args:
        config: kind and sizes.

    Attributes:
        num_truncated: texts that were too long so far.
    """

    def __init__(self, config: NgramConfig) -> None:
        self.config = config
        self.num_truncated = 0
        self._ids = {gram: i + 1 for i, gram in enumerate(config.vocabulary)}
        self._unknown = [self._ids[UNKNOWN]] if UNKNOWN in self._ids else []
        self._cache: dict[str, list[int]] = {}

    def fingerprint(self) -> str:
        """Return a hash of everything that decides the ids."""
        config = self.config
        return hash_data([getattr(config, name) for name in config.__dataclass_fields__])

    def _chars(self, word: str) -> list[int]:
        if word not in self._cache:
            low, high = self.config.orders
            marked = f"<{word}>"
            grams = [marked] + [
                marked[i : i + n]
                for n in range(low, high + 1)
                for i in range(len(marked) - n + 1)
                if n < len(marked)
            ]
            hashed = [zlib.crc32(g.encode()) % self.config.buckets + 1 for g in grams]
            self._cache[word] = hashed[: self.config.grams]
        return self._cache[word]

    def _token(self, words: Sequence[str], i: int) -> list[int]:
        if self.config.kind == "chars":
            return self._chars(words[i])
        found = [self._ids.get(g, 0) for g in _grams_at(words, i, self.config.orders)]
        return [g for g in found if g][: self.config.grams] or self._unknown

    def tokens(self, text: str) -> list[list[int]]:
        """Return the ids of each word; unknown ones are left out if there is no id for them."""
        words = split_words(text)
        rows = [self._token(words, i) for i in range(len(words))]
        return [row for row in rows if row]

    def truncated(self, texts: Sequence[str]) -> int:
        """Return how many texts are too long."""
        return sum(len(self.tokens(text)) > self.config.context_length for text in texts)

    def __call__(self, texts: Sequence[str]) -> Int[Tensor, "batch words grams"]:
        """Return int64 ids.

        Raises:
            DataError: a text is empty or none of its words is known.
        """
        length, width = self.config.context_length, self.config.grams
        out = np.zeros((len(texts), length, width), np.int64)
        for b, text in enumerate(texts):
            rows = self.tokens(text)
            if not rows:
                raise DataError(
                    f"text {b}: {text!r} has no word that the encoder knows; drop empty captions, "
                    "or fit the vocabulary on a corpus that covers them."
                )
            self.num_truncated += len(rows) > length
            for i, row in enumerate(rows[:length]):
                out[b, i, : len(row)] = row
        return torch.from_numpy(out)


class NgramTower(nn.Module):
    """N-gram ids to word vectors: a weighted sum of a table's rows.

    Args:
        config: the tokenizer's configuration; its size is the table's.
        width: numbers per vector.
        seed: of the table.
    """

    weights: Tensor

    def __init__(self, config: NgramConfig, width: int, seed: int = 0) -> None:
        super().__init__()
        self.config, self.width = config, width
        generator = torch_generator("ngrams", seed)
        table = torch.randn(config.size, width, generator=generator) / width**0.5
        table[0] = 0
        self.table = nn.Parameter(table)
        self.register_buffer("weights", torch.ones(config.size))

    def check_tokenizer(self, tokenizer: NgramTokenizer) -> None:
        """Refuse the tokenizer of another tower.

        Raises:
            ModelError: its ids would mean other n-grams.
        """
        if tokenizer.config != self.config:
            raise ModelError(
                f"text tower: its tokenizer is {NgramTokenizer(self.config).fingerprint()} with "
                f"{self.config.size} ids, got {tokenizer.fingerprint()} with "
                f"{tokenizer.config.size}; use the tokenizer that the tower was made for."
            )

    def forward(
        self, ids: Int[Tensor, "batch words grams"]
    ) -> tuple[Float[Tensor, "batch words width"], Bool[Tensor, "batch words"]]:
        """Return word vectors and which of them are valid."""
        batch, words, _ = ids.shape
        flat = ids.flatten(0, 1)
        vectors = F.embedding_bag(
            flat, self.table, mode="sum", per_sample_weights=self.weights[flat], padding_idx=0
        )
        return vectors.unflatten(0, (batch, words)), (ids != 0).any(-1)


def tfidf(tokenizer: NgramTokenizer, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return the sparse TF-IDF matrix [N, V] of texts (float64, COO) and the IDF [V].

    Term frequency is the count over the number of words, so that a row times a table of vectors is
    the mean of the text's word vectors; IDF is log((1 + N) / (1 + n)) + 1.
    """
    rows, cols, values = [], [], []
    seen = np.zeros(tokenizer.config.size)
    for n, text in enumerate(texts):
        tokens = tokenizer.tokens(text)
        counts = Counter(g for token in tokens for g in token)
        rows += [n] * len(counts)
        cols += list(counts)
        values += [c / len(tokens) for c in counts.values()]
        seen[list(counts)] += 1
    idf = np.log((1 + len(texts)) / (1 + seen)) + 1
    places = torch.tensor([rows, cols])
    weighted = torch.tensor(values, dtype=torch.float64) * torch.from_numpy(idf)[places[1]]
    shape = (len(texts), tokenizer.config.size)
    matrix = torch.sparse_coo_tensor(places, weighted, shape, check_invariants=False)
    return matrix.coalesce(), torch.from_numpy(idf)


def fit_lsa(
    texts: Sequence[str],
    config: NgramConfig,
    width: int,
    *,
    seed: int = 0,
    whiten: float = 0.5,
    rounds: int = 4,
) -> NgramTower:
    """Fit a tower to a corpus: TF-IDF, then a truncated SVD (randomised, arXiv 0909.4061).

    Args:
        texts: the corpus; captions of any pictures, no labels.
        config: of the tokenizer.
        width: singular vectors kept.
        seed: of the random projection.
        whiten: divide component i by its singular value to this power: 0 is plain LSA, 1 gives all
            components one variance.
        rounds: power iterations.

    Raises:
        ConfigError: more components than texts or n-grams.
    """
    if width > min(len(texts), config.size - 1):
        raise ConfigError(
            f"fit_lsa: {width} components of {len(texts)} texts and {config.size - 1} n-grams; "
            "lower the width or give more texts."
        )
    tower = NgramTower(config, width, seed)
    matrix, idf = tfidf(NgramTokenizer(config), texts)
    spare = min(width + 10, len(texts), config.size - 1)
    start = torch.randn(
        config.size, spare, dtype=torch.float64, generator=torch_generator("lsa", seed)
    )
    basis = torch.linalg.qr(torch.sparse.mm(matrix, start))[0]
    for _ in range(rounds):
        basis = torch.linalg.qr(torch.sparse.mm(matrix.t(), basis))[0]
        basis = torch.linalg.qr(torch.sparse.mm(matrix, basis))[0]
    small = torch.sparse.mm(matrix.t(), basis).T
    _, values, right = torch.linalg.svd(small, full_matrices=False)
    values, right = values[:width], right[:width]
    # The sign of a singular vector is free; fix it so that the same corpus gives the same table.
    strongest = right.abs().argmax(1, keepdim=True)
    right = right * right.gather(1, strongest).sign()
    scale = values.clamp(min=1e-9) ** -whiten
    table = (right * (scale * len(texts) ** 0.5 / values[0] ** (1 - whiten))[:, None]).T
    table[0] = 0
    with torch.no_grad():
        tower.table.copy_(table.float())
        tower.weights.copy_(idf.float())
    return tower
