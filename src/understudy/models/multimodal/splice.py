"""Put visual tokens where a prompt says so: the splice of LLaVA, and its padding.

A prompt holds one sentinel an image. Each is replaced by that image's tokens; text keeps its order;
labels at images are ignored; rows are padded to one length on the side that is asked for, and every
token's position counts from the first token that is no padding.

References:
    arXiv 2304.08485, sec. 4; arXiv 2412.13303, sec. 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError, DataError

IMAGE = -200
"""Sentinel of one image in a prompt's ids."""
IGNORE = -100
"""Label of a token that is not learned."""
SIDES = ("right", "left")
Embed = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Spliced:
    """Prompts with visual tokens in place, padded.

    Attributes:
        embedded: float [rows, length, width]; zeros at padding.
        labels: int64 [rows, length]; `IGNORE` at images and padding. All `IGNORE` without labels.
        valid: bool [rows, length]; False at padding.
        positions: int64 [rows, length]; 0, 1, 2, ... over the valid tokens, 0 at padding.
    """

    embedded: Float[Tensor, "rows length width"]
    labels: Int[Tensor, "rows length"]
    valid: Bool[Tensor, "rows length"]
    positions: Int[Tensor, "rows length"]

    @property
    def lengths(self) -> Int[Tensor, " rows"]:
        """Valid tokens of each row."""
        return self.valid.sum(1)

    @property
    def last(self) -> Int[Tensor, " rows"]:
        """Place of each row's last valid token."""
        places = torch.arange(self.valid.shape[1], device=self.valid.device)
        return (places * self.valid).amax(1)


def num_images(ids: Sequence[int] | Tensor) -> int:
    """Return the number of sentinels in a prompt."""
    row = ids.tolist() if isinstance(ids, Tensor) else list(ids)
    return row.count(IMAGE)


def check_images(ids: Sequence[int] | Tensor, given: int, where: str) -> None:
    """Refuse a prompt that names another number of images than there are.

    Raises:
        DataError: with both numbers.
    """
    named = num_images(ids)
    if named != given:
        raise DataError(
            f"{where}: the text has {named} <image> marks for {given} images; give one mark an "
            "image, in order."
        )


def splice(
    ids: Sequence[Int[Tensor, " length"]],
    features: Sequence[Float[Tensor, "tokens width"]],
    embed: Embed,
    labels: Sequence[Int[Tensor, " length"]] | None = None,
    *,
    padding: str = "right",
) -> Spliced:
    """Embed prompts, replace their sentinels by visual tokens, and pad.

    Args:
        ids: one prompt a row, with `IMAGE` where an image stands.
        features: tokens of all images, in the order of the rows and of the sentinels in them.
        embed: token ids to embeddings [n, width].
        labels: one a token of each prompt; at a sentinel they do not matter.
        padding: `"right"` or `"left"`.

    Raises:
        ConfigError: an unknown side, or images of another width than the embeddings.
        DataError: sentinels and images differ in number, or labels and ids in length.
    """
    check_choice(padding, SIDES, "splice: padding")
    if not ids:
        raise DataError("splice: no prompts.")
    check_images(torch.cat(list(ids)), len(features), "splice")
    texts = [row[row != IMAGE] for row in ids]
    words = embed(torch.cat(texts)).split([len(t) for t in texts])
    pending = iter(features)
    parts, marks = [], []
    for number, (row, embedded) in enumerate(zip(ids, words, strict=True)):
        given = None if labels is None else labels[number]
        if given is not None and len(given) != len(row):
            raise DataError(
                f"splice: row {number} has {len(given)} labels for {len(row)} tokens; give one "
                "each."
            )
        body, mark = _row(row, embedded, given, pending)
        parts.append(body)
        marks.append(mark)
    return _pad(parts, marks, padding)


def _row(row: Tensor, words: Tensor, labels: Tensor | None, pending) -> tuple[Tensor, Tensor]:
    if labels is None:
        labels = torch.full_like(row, IGNORE)
    body, mark = [], []
    start = used = 0
    for place in (row == IMAGE).nonzero()[:, 0].tolist():
        run = place - start
        body.append(words[used : used + run])
        mark.append(labels[start:place])
        image = next(pending)
        if image.shape[-1] != words.shape[-1]:
            raise ConfigError(
                f"splice: visual tokens have {image.shape[-1]} channels, the language model "
                f"{words.shape[-1]}; the projector is of another model."
            )
        body.append(image.to(words.dtype))
        mark.append(torch.full((len(image),), IGNORE, dtype=labels.dtype, device=labels.device))
        used, start = used + run, place + 1
    body.append(words[used:])
    mark.append(labels[start:])
    return torch.cat(body), torch.cat(mark)


def _pad(parts: list[Tensor], marks: list[Tensor], padding: str) -> Spliced:
    longest = max(len(part) for part in parts)
    rows, first = len(parts), parts[0]
    lengths = torch.tensor([len(part) for part in parts], device=first.device)
    places = torch.arange(longest, device=first.device).expand(rows, -1)
    if padding == "left":
        places = places - (longest - lengths)[:, None]
    valid = (places >= 0) & (places < lengths[:, None])
    # one index that puts all rows in place at once, differentiable where it must be
    embedded = first.new_zeros(rows, longest, first.shape[-1])
    embedded[valid] = torch.cat(parts)
    labels = torch.full((rows, longest), IGNORE, dtype=torch.long, device=first.device)
    labels[valid] = torch.cat(marks).long()
    return Spliced(embedded, labels, valid, places.where(valid, 0))


@dataclass(frozen=True)
class Fitted:
    """A prompt that fits its context.

    Attributes:
        ids: token ids with sentinels.
        labels: one each.
        cut: text tokens that were cut off at the end.
    """

    ids: list[int]
    labels: list[int]
    cut: int


def fit_context(
    ids: Sequence[int],
    labels: Sequence[int],
    image_tokens: Sequence[int],
    context: int,
    where: str,
    *,
    reserve: int = 0,
    cut: bool = True,
) -> Fitted:
    """Cut a prompt's last text so that it fits with its images; images are never cut.

    Args:
        ids: token ids with sentinels.
        labels: one each.
        image_tokens: tokens of each image.
        context: tokens the language model takes.
        where: what to call the sample in errors.
        reserve: tokens to leave free, for an answer.
        cut: whether text may be cut; otherwise too much is an error.

    Raises:
        ConfigError: it does not fit, and what would have to be cut is an image, text before one,
            or text that may not be cut; the message counts the parts.
    """
    check_images(ids, len(image_tokens), where)
    visual = sum(image_tokens)
    total = len(ids) - len(image_tokens) + visual
    excess = total + reserve - context
    if excess <= 0:
        return Fitted(list(ids), list(labels), 0)
    last = max((i for i, token in enumerate(ids) if token == IMAGE), default=-1)
    tail = len(ids) - last - 1
    if cut and excess < tail:
        kept = len(ids) - excess
        return Fitted(list(ids[:kept]), list(labels[:kept]), excess)
    free = f" and {reserve} to be generated" if reserve else ""
    part = (
        "the text after the last image would have to be cut"
        if excess < tail
        else "images, or text before them, would have to be cut"
    )
    raise ConfigError(
        f"{where}: {visual} visual tokens, {total - visual} text tokens{free} are {excess} more "
        f"than the context of {context}: {part}; shorten the text, lower the resolution or the "
        "number of tiles, or take a language model with a longer context."
    )
