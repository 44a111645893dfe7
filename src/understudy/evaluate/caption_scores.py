"""How good captions are, measurable before anything is trained on them: pure functions.

References:
    Scores per sample and their percentiles, so that caption arms can be ordered before pretraining:
    this package's protocol for arXiv 2405.08911. align is the CLIP score of arXiv 2104.08718
    without its factor 2.5.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from understudy.core.errors import ConfigError, DataError
from understudy.core.seeds import rng

BLOCK = 1000
NEAR = 0.8
"""Captions whose sets of words overlap by this much (Jaccard) are near-duplicates."""
_WORD = re.compile(r"[^\W_]+")


def words_of(caption: str) -> list[str]:
    """Return the words of a caption in order: runs of letters and digits, lower case."""
    return _WORD.findall(caption.lower())


def _unit(images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
    if images.ndim != 2 or images.shape != texts.shape or not len(images):
        raise DataError(
            f"captions: image embeddings {list(images.shape)} and caption embeddings "
            f"{list(texts.shape)}; expected the same [N, D]."
        )
    pair = tuple(F.normalize(e.float(), dim=1) for e in (images, texts))
    for what, e in zip(("image", "caption"), pair, strict=True):
        if not bool(torch.isfinite(e).all()):
            raise DataError(f"captions: an {what} embedding is not finite.")
    return pair[0], pair[1]


def align(images: Float[Tensor, "n dim"], texts: Float[Tensor, "n dim"]) -> np.ndarray:
    """Return 100 max(cos(image, its caption), 0), float64 [N]."""
    image, text = _unit(images, texts)
    return (100 * (image * text).sum(1).clamp(min=0)).double().numpy()


def blocks_of(count: int, size: int, seed: int) -> list[tuple[np.ndarray, int]]:
    """Return random blocks of row numbers, and how many of each block's first rows count.

    All blocks have `size` rows (or all rows, where there are fewer). A last block that would be
    smaller is filled up with rows of others, which are not counted twice.
    """
    order = rng("caption-rank", seed).permutation(count)
    size = min(size, count)
    blocks = []
    for start in range(0, count, size):
        own = order[start : start + size]
        fill = order[: size - len(own)] if start else own[:0]
        blocks.append((np.concatenate([own, fill]), len(own)))
    return blocks


def ranks(
    images: Float[Tensor, "n dim"],
    texts: Float[Tensor, "n dim"],
    *,
    block: int = BLOCK,
    seed: int = 0,
) -> np.ndarray:
    """Return int64 [N]: the place of each caption among those of a random block, 1 is best.

    rank(i) = 1 + #{j != i : cos(image_i, text_j) > cos(image_i, text_i)}, in blocks of `block`.

    Args:
        images: embeddings.
        texts: embeddings of one caption each.
        block: rows of a block.
        seed: of the blocks.
    """
    if block < 2:
        raise ConfigError(f"captions: a block must have at least 2 rows, got {block}.")
    image, text = _unit(images, texts)
    out = np.zeros(len(image), np.int64)
    for rows, count in blocks_of(len(image), block, seed):
        index = torch.from_numpy(rows)
        scores = image[index[:count]] @ text[index].T
        own = scores.diagonal()[:, None]
        out[rows[:count]] = 1 + (scores > own).sum(1).numpy()
    return out


def grounded(
    captions: Sequence[str],
    lexicon: Mapping[str, str],
    confirmed: Sequence[Collection[str]],
) -> np.ndarray:
    """Return |nouns confirmed in the image| / |nouns|, float64 [N]; NaN where a caption has none.

    Args:
        captions: the texts.
        lexicon: word or phrase -> the noun it stands for (`"7"` -> `"seven"`); the longest match
            counts, and a noun that is named twice counts once.
        confirmed: nouns that each image shows, by facts, a detector or a classifier.

    Raises:
        ConfigError: an empty lexicon.
        DataError: different numbers of captions and images.
    """
    if not lexicon:
        raise ConfigError("captions: an empty lexicon names no noun; give some.")
    if len(captions) != len(confirmed):
        raise DataError(f"captions: {len(captions)} captions and facts of {len(confirmed)} images.")
    table = {tuple(words_of(phrase)): noun for phrase, noun in lexicon.items()}
    longest = max(len(phrase) for phrase in table)
    out = np.full(len(captions), np.nan)
    for i, (caption, seen) in enumerate(zip(captions, confirmed, strict=True)):
        nouns = _nouns(words_of(caption), table, longest)
        if nouns:
            out[i] = sum(noun in seen for noun in nouns) / len(nouns)
    return out


def _nouns(words: list[str], table: Mapping[tuple[str, ...], str], longest: int) -> set[str]:
    found, at = set(), 0
    while at < len(words):
        for length in range(min(longest, len(words) - at), 0, -1):
            noun = table.get(tuple(words[at : at + length]))
            if noun is not None:
                found.add(noun)
                at += length
                break
        else:
            at += 1
    return found


def type_token_ratio(captions: Sequence[str]) -> float:
    """Return different words / words, over all captions; NaN without a word.

    It falls with the amount of text, so compare arms on the same rows.
    """
    words = [word for caption in captions for word in words_of(caption)]
    return len(set(words)) / len(words) if words else float("nan")


def near_duplicates(
    captions: Sequence[str], *, threshold: float = NEAR, block: int = BLOCK, seed: int = 0
) -> np.ndarray:
    """Return bool [N]: whether another caption of a random block has nearly the same words.

    Two captions are near when the Jaccard overlap of their sets of words reaches `threshold`; two
    without any word are near.

    Args:
        captions: the texts.
        threshold: in (0, 1].
        block: rows of a block.
        seed: of the blocks.
    """
    if not 0 < threshold <= 1:
        raise ConfigError(f"captions: threshold must lie in (0, 1], got {threshold}.")
    sets = [sorted(set(words_of(caption))) for caption in captions]
    out = np.zeros(len(captions), bool)
    for rows, count in blocks_of(len(captions), block, seed):
        known = {w: i for i, w in enumerate(sorted({w for row in rows for w in sets[row]}))}
        table = np.zeros((len(rows), max(len(known), 1)), np.float32)
        for i, row in enumerate(rows):
            table[i, [known[w] for w in sets[row]]] = 1.0
        shared = table[:count] @ table.T
        size = table.sum(1)
        union = size[:count, None] + size[None] - shared
        overlap = np.where(union > 0, shared / np.maximum(union, 1), 1.0)
        overlap[np.arange(count), np.arange(count)] = -1.0  # not with itself
        out[rows[:count]] = (overlap >= threshold - 1e-6).any(1)
    return out


def summary(values: np.ndarray) -> dict[str, float]:
    """Return `mean`, `p10`, `p50` and `p90` of the values that are not NaN; NaN if none is."""
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    if not len(known):
        return dict.fromkeys(("mean", "p10", "p50", "p90"), float("nan"))
    low, middle, high = np.percentile(known, [10, 50, 90])
    return {
        "mean": float(known.mean()),
        "p10": float(low),
        "p50": float(middle),
        "p90": float(high),
    }
