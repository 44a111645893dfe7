"""Train small tokenizers on a few thousand captions; the result depends on their counts only."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from typing import Any

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.models.language.coder import JsonCoder
from understudy.models.text.clean import CLEANERS, PATTERN, SUFFIX, clean_text
from understudy.models.text.tokenizer import Tokenizer


def train_bpe(
    texts: Iterable[str], vocab_size: int, *, context_length: int = 77, clean: str = "lower"
) -> Tokenizer:
    """Train a byte-level BPE on `texts`.

    Args:
        texts: training captions.
        vocab_size: upper limit of the number of ids, start and end included; at least 520 leaves
            room for the 512 bytes (inside and at the end of a word).
        context_length: ids a row.
        clean: see `Tokenizer`.

    Raises:
        ConfigError: `vocab_size` is below 520.
    """
    if vocab_size < 520:
        raise ConfigError(
            f"train_bpe: vocab_size {vocab_size} is below 520; bytes alone take 512 ids. For "
            "fewer, use train_words."
        )
    from tokenizers.pre_tokenizers import ByteLevel

    alphabet = sorted(ByteLevel.alphabet())
    tokens = ["<pad>", *alphabet, *(a + SUFFIX for a in alphabet)]
    words = _count_words(texts, clean)
    merges = learn_merges(words, vocab_size - len(tokens) - 2)
    vocab = {token: i for i, token in enumerate(tokens)}
    for first, second in merges:
        vocab.setdefault(first + second, len(vocab))
    return Tokenizer("bpe", vocab, merges, context_length=context_length, clean=clean)


def learn_merges(words: Counter[str], count: int) -> list[tuple[str, str]]:
    """Return up to `count` BPE merges of byte-level words, most frequent pair first.

    Ties go to the pair that sorts first, so the result does not depend on order.
    """
    split = {w: [*w[:-1], w[-1] + SUFFIX] for w in words}
    merges: list[tuple[str, str]] = []
    while len(merges) < count:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in split.items():
            for pair in itertools.pairwise(parts):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda p: (-pairs[p], p))
        if pairs[best] < 2:
            break
        merges.append(best)
        for word, parts in split.items():
            split[word] = _merge(parts, best)
    return merges


def _merge(parts: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    i = 0
    while i < len(parts):
        if i + 1 < len(parts) and (parts[i], parts[i + 1]) == pair:
            out.append(parts[i] + parts[i + 1])
            i += 2
        else:
            out.append(parts[i])
            i += 1
    return out


def _count_words(texts: Iterable[str], clean: str, bytewise: bool = True) -> Counter[str]:
    from tokenizers import Regex, pre_tokenizers

    check_choice(clean, CLEANERS, "clean")
    split: Any = pre_tokenizers.Split(Regex(PATTERN), behavior="removed", invert=True)
    if bytewise:
        level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        split = pre_tokenizers.Sequence([split, level])
    words: Counter[str] = Counter()
    for text in texts:
        words.update(w for w, _ in split.pre_tokenize_str(clean_text(text, clean)))
    return words


def train_words(
    texts: Iterable[str],
    vocab_size: int | None = None,
    *,
    context_length: int = 32,
    clean: str = "lower",
) -> Tokenizer:
    """Make a tokenizer whose tokens are the words of `texts`, most frequent first.

    Args:
        texts: training captions.
        vocab_size: upper limit of the number of ids, with padding, unknown, start and end; None
            keeps every word.
        context_length: ids a row.
        clean: see `Tokenizer`.
    """
    counts = _count_words(texts, clean, bytewise=False)
    order = sorted(counts, key=lambda w: (-counts[w], w))
    if vocab_size is not None:
        order = order[: max(vocab_size - 4, 0)]
    vocab = {t: i for i, t in enumerate(["<pad>", "<unk>", *order])}
    return Tokenizer("words", vocab, context_length=context_length, clean=clean, unknown=1)


def train_byte_bpe(
    texts: Iterable[str], vocab_size: int, *, eot: str = "<|endoftext|>", min_count: int = 2
) -> JsonCoder:
    """Train a byte-level BPE for language models: any text comes back byte for byte.

    The splitting is GPT-2's; the library does the counting and merging, and its result depends on
    the texts alone.

    Args:
        texts: training documents; read once.
        vocab_size: upper limit of the number of ids, the end of text (id 0) included; at least 257.
        eot: the token that ends a document.
        min_count: a pair that occurs less often is not merged.

    Raises:
        ConfigError: `vocab_size` is below 257.
    """
    if vocab_size < 257:
        raise ConfigError(
            f"train_byte_bpe: vocab_size {vocab_size} is below 257; bytes take 256 ids and the end "
            "of text one."
        )
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers, trainers

    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_count,
        special_tokens=[eot],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return JsonCoder(backend.to_str(), eot)
