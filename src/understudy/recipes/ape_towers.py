"""Fresh towers for the arm `scratch` of APE: those of a small CLIP, or the claim's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from understudy.core.errors import ConfigError
from understudy.models.image.conv import ConvConfig, ConvTower
from understudy.models.multimodal.clip import CLIPConfig
from understudy.models.preprocess import Preprocess
from understudy.models.text.ngrams import NgramConfig, NgramTokenizer, NgramTower

LONGEST = 77
"""Tokens of a caption at most, where the text encoder that is replaced does not say."""
ROOM = 8


@dataclass(frozen=True)
class FreshTowers:
    """Towers that learn from nothing, and what makes their inputs.

    Attributes:
        image: makes the image tower: float32 [B, 3, S, S] to vectors.
        text: makes the text tower: int64 ids to vectors, or to vectors of words and their mask.
        inputs: makes ids of texts.
        pixels: what images go through.
        widths: of the image tower's and the text tower's output.
        facts: what they are, for the record.
    """

    image: Callable[[], nn.Module]
    text: Callable[[], nn.Module]
    inputs: Callable[[Sequence[str]], Tensor]
    pixels: Preprocess
    widths: tuple[int, int]
    facts: dict[str, Any]


def text_limit(encoder: Any) -> int:
    """Return how many tokens of a caption a text encoder reads, as far as it says."""
    options = getattr(getattr(encoder, "teacher", None), "options", None)
    return int(getattr(options, "max_length", 0) or LONGEST)


def ngram_towers(
    text: Any, pixels: Preprocess, tower: ConvConfig, width: int, seed: int
) -> FreshTowers:
    """Return a small convolution and a table of n-grams: the fresh towers of the claim.

    Args:
        text: the text encoder that is replaced; its n-grams are taken where it has some.
        pixels: what images go through.
        tower: of the images.
        width: of the word vectors.
        seed: of the table.
    """
    known = getattr(getattr(text, "module", None), "config", None)
    ngrams = known if isinstance(known, NgramConfig) else NgramConfig()
    return FreshTowers(
        image=lambda: ConvTower(tower, 0),
        text=lambda: NgramTower(ngrams, width, seed),
        inputs=NgramTokenizer(ngrams),
        pixels=pixels,
        widths=(tower.width, width),
        facts={"model": "n-grams and convolutions", "size": pixels.size},
    )


def fresh_towers(
    name: str, corpus: Sequence[str], *, size: int = 0, vocab_size: int = 1024, limit: int = LONGEST
) -> FreshTowers:
    """Return the towers of a CLIP of this package, untrained.

    Args:
        name: a CLIP of `understudy.models.MODELS`.
        corpus: captions that its tokenizer is trained on; the longest decides the context.
        size: side of the images in pixels; 0 takes the model's.
        vocab_size: ids of the tokenizer at most.
        limit: tokens of a caption at most.

    Raises:
        ConfigError: the model is no CLIP.
    """
    from understudy import models
    from understudy.models.build import override
    from understudy.models.text.train_tokenizer import train_bpe
    from understudy.models.text.transformer import TextTower
    from understudy.models.towers import image_tower

    found: Any = models.config(name)
    if not isinstance(found, CLIPConfig):
        raise ConfigError(f"scratch_model: '{name}' is no CLIP; give clip-conv-nano, say.")
    tokenizer = train_bpe(corpus, vocab_size, context_length=limit)
    # Prompts add a few words to a name: some room beyond the longest caption.
    used = min(limit, int((tokenizer(list(corpus)) != 0).sum(1).max()) + ROOM)
    tokenizer = tokenizer.with_context(used)
    changes: dict[str, Any] = {
        "text.context_length": used,
        "text.vocab_size": tokenizer.vocab_size,
    }
    if size:
        changes["preprocess.size"] = size
    config: Any = override(found, changes)
    return FreshTowers(
        image=lambda: image_tower(config.image, config.embed_dim),
        text=lambda: TextTower(config.text, config.embed_dim),
        inputs=lambda texts: tokenizer(list(texts)),
        pixels=config.preprocess,
        widths=(config.embed_dim, config.embed_dim),
        facts={"model": name, "size": config.preprocess.size, "context_length": used},
    )
