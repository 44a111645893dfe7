"""Does a model use its whole context: hidden numbers, and loss by position.

A passkey document is filler with one sentence that names a number, `depth` of the way through, and
a question at the end; document and answer together have exactly the wanted number of tokens. The
loss by position falls as long as a model gains from more context, and rises where it breaks.

References:
    arXiv 2305.16300, sec. 4.2 (passkey retrieval); arXiv 2001.08361, sec. 3.2 (loss by position).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from understudy.core.errors import ConfigError, DataError
from understudy.core.seeds import rng
from understudy.evaluate.lm_tasks_generate import Generate, greedy
from understudy.evaluate.lm_tasks_run import tokenizer_of
from understudy.evaluate.token_losses import Model, ReadConfig, token_losses
from understudy.models.language.coder import Coder

FILLER = (
    "The road goes on past the mill and over the hill.",
    "Rain fell in the night and the fields are wet.",
    "A boat lies at the shore and waits for the wind.",
    "Bread is baked early and sold before noon.",
    "The clock in the tower strikes every hour.",
    "Children walk to school along the old wall.",
)
"""Sentences that say nothing about the number."""
NEEDLE = " The secret number is {key}. Remember that the secret number is {key}."
QUESTION = " What is the secret number? The secret number is"
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class Passkey:
    """A document with a hidden number.

    Attributes:
        prompt: token ids of filler, needle, filler and question.
        answer: token ids of the number.
        key: the number.
        length: tokens of prompt and answer together.
        depth: where the needle stands: 0 at the beginning, 1 before the question.
    """

    prompt: list[int]
    answer: list[int]
    key: str
    length: int
    depth: float


def passkey(
    tokenizer: Coder, length: int, depth: float, *, seed: int = 0, number: int = 0, digits: int = 5
) -> Passkey:
    """Make a document.

    Args:
        tokenizer: the model's.
        length: tokens of the document and its answer.
        depth: where the needle stands, in [0, 1].
        seed: of number and filler.
        number: of the document; another one has another key and filler.
        digits: of the key.

    Raises:
        ConfigError: a depth outside [0, 1], or a length that has no room for needle and question.
    """
    if not 0 <= depth <= 1:
        raise ConfigError(f"passkey: expected a depth in [0, 1], got {depth}.")
    draw = rng("passkey", seed, length, round(depth * 1_000_000), number)
    key = str(draw.integers(10 ** (digits - 1), 10**digits))
    needle = tokenizer.encode(NEEDLE.format(key=key))
    question, answer = tokenizer.encode(QUESTION), tokenizer.encode(f" {key}")
    room = length - len(needle) - len(question) - len(answer)
    if room < 0:
        raise ConfigError(
            f"passkey: {length} tokens have no room for needle, question and answer, which are "
            f"{length - room}; probe longer documents."
        )
    filler: list[int] = []
    while len(filler) < room:
        order = draw.permutation(len(FILLER))
        filler += tokenizer.encode(" ".join(FILLER[i] for i in order) + " ")
    split = round(depth * room)
    prompt = [*filler[:split], *needle, *filler[split:room], *question]
    return Passkey(prompt, answer, key, length, depth)


def number_matches(text: str, key: str) -> bool:
    """Return whether the first number in a text is the key."""
    found = _NUMBER.search(text)
    return found is not None and found.group() == key


@dataclass(frozen=True, kw_only=True, slots=True)
class PasskeyCell:
    """Scores at one length and depth.

    Attributes:
        length: tokens of the documents.
        depth: of the needle.
        count: documents.
        accuracy: share whose number was written, greedily.
        loss: mean loss a token of the numbers, in nats.
    """

    length: int
    depth: float
    count: int
    accuracy: float
    loss: float


def passkey_grid(
    model: Model,
    lengths: Sequence[int],
    depths: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    *,
    count: int = 10,
    tokenizer: Coder | None = None,
    generate: Generate | None = None,
    config: ReadConfig | None = None,
    seed: int = 0,
) -> list[PasskeyCell]:
    """Probe a model at lengths and depths.

    Args:
        model: in eval mode.
        lengths: tokens of the documents, answer included; at most the model's context.
        depths: where the needle stands.
        count: documents of each length and depth.
        tokenizer: the model's own by default.
        generate: continues prompts; greedy decoding by default.
        config: how documents are read.
        seed: of the documents.

    Raises:
        ConfigError: a length beyond the context or without room for the needle.
    """
    coder, config = tokenizer_of(model, tokenizer), config or ReadConfig()
    context, _ = config.resolve(model)
    if count < 1:
        raise ConfigError(f"passkey: expected at least 1 document a cell, got {count}.")
    for length in lengths:
        if length > context:
            raise ConfigError(
                f"passkey: {length} tokens are more than the context of {context}; probe up to it, "
                "or extend the model's context first."
            )
    writer = generate or greedy(model, end_ids=(coder.end_id,), context=context)
    found = []
    for length in lengths:
        for depth in depths:
            made = [passkey(coder, length, depth, seed=seed, number=i) for i in range(count)]
            found.append(_cell(model, made, coder, writer, config))
    return found


def _cell(
    model: Model, made: list[Passkey], coder: Coder, writer: Generate, config: ReadConfig
) -> PasskeyCell:
    """Score documents of one length and depth."""
    hits: list[bool] = []
    for limit in sorted({len(m.answer) for m in made}):
        part = [m for m in made if len(m.answer) == limit]
        written = writer([m.prompt for m in part], limit)
        pairs = zip(part, written, strict=True)
        hits += [number_matches(coder.decode(ids), m.key) for m, ids in pairs]
    scores = token_losses(
        model,
        [m.prompt + m.answer for m in made],
        config,
        scored_from=[len(m.prompt) for m in made],
    )
    losses = [s.losses[len(m.prompt) - 1 :].mean() for s, m in zip(scores, made, strict=True)]
    return PasskeyCell(
        length=made[0].length,
        depth=made[0].depth,
        count=len(made),
        accuracy=float(np.mean(hits)),
        loss=float(np.mean(losses)),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class PositionBin:
    """Loss of the tokens that have `start` to `stop - 1` tokens before them.

    Attributes:
        start: fewest tokens before.
        stop: one more than the most.
        tokens: how many were scored.
        loss: their mean, in nats; NaN for none.
    """

    start: int
    stop: int
    tokens: int
    loss: float


def powers_of_two(context: int) -> list[int]:
    """Return the edges 1, 2, 4, ... up to a context, which is the last."""
    edges = [1]
    while edges[-1] * 2 < context:
        edges.append(edges[-1] * 2)
    return [*edges, context + 1]


def loss_by_position(losses: Sequence[np.ndarray], edges: Sequence[int]) -> list[PositionBin]:
    """Return the mean loss by how many tokens stand before a token.

    Args:
        losses: of each sequence's tokens from the second on; the first has one token before it.
        edges: ascending; bin i holds edges[i] to edges[i + 1] - 1 tokens before.

    Raises:
        ConfigError: edges that do not ascend, or fewer than two.
    """
    marks = list(edges)
    if len(marks) < 2 or marks != sorted(set(marks)) or marks[0] < 0:
        raise ConfigError(f"loss_by_position: expected ascending edges, got {marks}.")
    sums, counts = np.zeros(len(marks) - 1), np.zeros(len(marks) - 1, np.int64)
    for row in losses:
        before = np.arange(1, len(row) + 1)
        bins = np.searchsorted(marks, before, side="right") - 1
        inside = (bins >= 0) & (bins < len(sums)) & ~np.isnan(row)
        np.add.at(sums, bins[inside], np.asarray(row, np.float64)[inside])
        np.add.at(counts, bins[inside], 1)
    return [
        PositionBin(start=a, stop=b, tokens=int(n), loss=float(s / n) if n else float("nan"))
        for a, b, s, n in zip(marks, marks[1:], sums, counts, strict=False)
    ]


def position_curve(
    model: Model,
    sequences: Sequence[np.ndarray],
    *,
    edges: Sequence[int] | None = None,
    config: ReadConfig | None = None,
    whole: bool = True,
) -> list[PositionBin]:
    """Return a model's loss by position, each sequence read from its beginning, once.

    Args:
        model: in eval mode.
        sequences: token ids of documents; what is beyond the context is cut off.
        edges: see `loss_by_position`; powers of two by default.
        config: context and batches.
        whole: take only sequences that fill the context, so that all positions are of the same
            documents; without it later positions are those of longer documents only.

    Raises:
        DataError: no sequence fills the context.
    """
    config = config or ReadConfig()
    context, _ = config.resolve(model)
    kept = [row[: context + 1] for row in sequences if len(row) > (context if whole else 1)]
    if not kept:
        longest = max((len(row) for row in sequences), default=0)
        raise DataError(
            f"loss by position: no document has the {context + 1} tokens that fill the context; "
            f"the longest has {longest}. Lower the context, or take shorter ones in (whole=False)."
        )
    scores = token_losses(model, kept, config, label="loss by position")
    return loss_by_position([s.losses for s in scores], edges or powers_of_two(context))


def to_plain(parts: Sequence[PasskeyCell | PositionBin]) -> list[dict[str, Any]]:
    """Return cells or bins as plain data."""
    return [asdict(part) for part in parts]
