"""The loss of every token of many sequences, each read on its own with as much context as fits.

Sequences longer than the model's context are read in overlapping windows; every token is scored
once, by the first window that reaches it. Sequences of similar length are read side by side:
padding follows them, and a causal model's earlier outputs do not see it.

Any causal model takes part that is called with ids `[B, L]` and returns logits `[B, L, V]`, alone
or under `"logits"`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from understudy.core.errors import ConfigError, DataError, ModelError
from understudy.core.progress import bar

Model = Callable[..., Any]
ROWS = 2048
"""Places whose logits are turned into losses at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadConfig:
    """How long sequences are cut and how many are read at once.

    Attributes:
        context: tokens that the model reads at once; 0 takes the model's `context`.
        stride: new tokens that each further window of a long sequence scores, so that they see at
            least `context - stride` tokens before them; 0 takes half of the context.
        batch_tokens: tokens of a batch at most, padding included; 0 reads one sequence at a time.
    """

    context: int = 0
    stride: int = 0
    batch_tokens: int = 8192

    def __post_init__(self) -> None:
        for name in ("context", "stride", "batch_tokens"):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"ReadConfig.{name}: expected 0 or more, got {getattr(self, name)}."
                )
        if self.context and self.stride > self.context:
            raise ConfigError(
                f"ReadConfig.stride: {self.stride} is more than the context of {self.context}; "
                "tokens between the windows would not be scored."
            )

    def resolve(self, model: Any) -> tuple[int, int]:
        """Return context and stride for a model.

        Raises:
            ConfigError: no context is given or known, or it is more than the model's.
        """
        own = getattr(model, "context", None)
        own = int(own) if isinstance(own, int) else 0
        context = self.context or own
        if not context:
            raise ConfigError("ReadConfig.context: the model does not say its own; give one.")
        if own and context > own:
            raise ConfigError(f"ReadConfig.context: {context} is more than the model's {own}.")
        stride = self.stride or max(context // 2, 1)
        if stride > context:
            raise ConfigError(
                f"ReadConfig.stride: {stride} is more than the context of {context}; tokens "
                "between the windows would not be scored."
            )
        return context, stride


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Scores of one sequence's tokens, from the second on.

    Attributes:
        losses: float32 [n - 1], -log p(token | tokens before it) in nats; NaN where not asked for.
        greedy: bool [n - 1], whether the token is the likeliest; False where not asked for.
    """

    losses: np.ndarray
    greedy: np.ndarray


def windows(inputs: int, context: int, stride: int) -> list[tuple[int, int, int]]:
    """Return (start, stop, first) of the windows that score `inputs` places once each.

    A window reads places `start` to `stop` and scores those from `first` on. The last one is moved
    back so that it is full.

    Args:
        inputs: places to score.
        context: places of a window at most.
        stride: places that each window after the first scores.
    """
    found, scored = [], 0
    while scored < inputs:
        stop = min(scored + (stride if scored else context), inputs)
        found.append((max(stop - context, 0), stop, scored))
        scored = stop
    return found


@torch.no_grad()
def token_losses(
    model: Model,
    sequences: Sequence[Sequence[int] | np.ndarray],
    config: ReadConfig | None = None,
    *,
    scored_from: Sequence[int] | None = None,
    label: str = "",
) -> list[TokenScores]:
    """Return the scores of sequences, in their order.

    Args:
        model: in eval mode.
        sequences: token ids; one of n tokens gives n - 1 scores.
        config: how they are read.
        scored_from: place of the first token of each sequence to be scored, at least 1; windows
            that hold none are not read.
        label: of the progress bar; none if empty.

    Raises:
        DataError: an id that the model does not have, or a place outside of its sequence.
        ModelError: training mode, or logits that are not numbers.
    """
    if getattr(model, "training", False):
        raise ModelError("evaluate: the model is in training mode; call model.eval() first.")
    config = config or ReadConfig()
    context, stride = config.resolve(model)
    rows = [np.asarray(s, dtype=np.int64).reshape(-1) for s in sequences]
    firsts = [1] * len(rows) if scored_from is None else list(scored_from)
    if len(firsts) != len(rows):
        raise DataError(f"token_losses: {len(firsts)} places for {len(rows)} sequences.")
    _check(model, rows, firsts)
    found = [
        TokenScores(
            np.full(max(len(row) - 1, 0), np.nan, np.float32), np.zeros(max(len(row) - 1, 0), bool)
        )
        for row in rows
    ]
    jobs = [
        (i, start, stop, max(first, firsts[i] - 1))
        for i, row in enumerate(rows)
        for start, stop, first in windows(len(row) - 1, context, stride)
        if stop > firsts[i] - 1
    ]
    total = sum(stop - start for _, start, stop, _ in jobs)
    read = _reader(model)
    with bar(label, total, "tokens") if label else _no_bar() as progress:
        for batch in _batches(jobs, config.batch_tokens):
            _score(read, model, rows, batch, found)
            progress.advance(sum(stop - start for _, start, stop, _ in batch))
    return found


class _no_bar:
    def __enter__(self) -> _no_bar:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def advance(self, amount: float = 1, **facts: float) -> None:
        pass


def _check(model: Any, rows: list[np.ndarray], firsts: list[int]) -> None:
    size = getattr(model, "vocab_size", None)
    for i, (row, first) in enumerate(zip(rows, firsts, strict=True)):
        if not len(row):
            continue
        low, high = int(row.min()), int(row.max())
        if low < 0 or (isinstance(size, int) and high >= size):
            raise DataError(
                f"sequence {i}: ids from {low} to {high}; the model has 0 to "
                f"{size - 1 if isinstance(size, int) else '?'}. It was tokenised for another model."
            )
        if not 1 <= first <= len(row):
            raise DataError(f"sequence {i}: scored from token {first}; it has {len(row)}.")


Job = tuple[int, int, int, int]


def _batches(jobs: list[Job], batch_tokens: int) -> Iterator[list[Job]]:
    """Yield windows of similar length together, the longest first."""
    batch: list[Job] = []
    width = 0
    for job in sorted(jobs, key=lambda j: (j[1] - j[2], j[0], j[1])):
        if batch and (len(batch) + 1) * width > batch_tokens:
            yield batch
            batch = []
        if not batch:
            width = job[2] - job[1]
        batch.append(job)
    if batch:
        yield batch


Read = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]
"""`read(ids [B, L], wanted [B, L])`: logits of wanted places, or states and the head's table."""


def logits_of(outputs: Any) -> Tensor:
    """Return the logits of what a model returned: a tensor, or `logits` in or on something."""
    if isinstance(outputs, Tensor):
        return outputs
    if isinstance(outputs, Mapping) and "logits" in outputs:
        return outputs["logits"]
    found = getattr(outputs, "logits", None)
    if isinstance(found, Tensor):
        return found
    raise ModelError(
        f"evaluate: the model returned {type(outputs).__name__}; expected logits [B, L, V], alone "
        "or under 'logits'."
    )


def _reader(model: Any) -> Read:
    """Return what reads a batch; a model that can leave out its head does, to save memory."""
    forward = getattr(model, "forward", None)
    if forward is not None and "finish" in inspect.signature(forward).parameters:

        def read_states(ids: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor | None]:
            def finish(states: Tensor, table: Tensor) -> dict[str, Tensor]:
                return {"states": states[wanted], "table": table}

            found = model(ids, finish=finish)
            return found["states"], found["table"]

        return read_states
    return lambda ids, wanted: (logits_of(model(ids))[wanted], None)


def device_of(model: Any) -> torch.device:
    """Return where a model's weights are; the processor if it has none."""
    first = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if first is None else first.device


def _score(
    read: Read, model: Any, rows: list[np.ndarray], batch: list[Job], found: list[TokenScores]
) -> None:
    device = device_of(model)
    width = max(stop - start for _, start, stop, _ in batch)
    ids = np.zeros((len(batch), width), np.int64)
    wanted = np.zeros((len(batch), width), bool)
    targets = []
    for line, (i, start, stop, first) in enumerate(batch):
        ids[line, : stop - start] = rows[i][start:stop]
        wanted[line, first - start : stop - start] = True
        targets.append(rows[i][first + 1 : stop + 1])
    places = torch.from_numpy(wanted).to(device)
    states, table = read(torch.from_numpy(ids).to(device), places)
    wanted_ids = torch.from_numpy(np.concatenate(targets)).to(device)
    losses, hits = [], []
    for at in range(0, len(wanted_ids), ROWS):
        part, target = states[at : at + ROWS], wanted_ids[at : at + ROWS]
        part = (part if table is None else F.linear(part, table)).float()
        losses.append(F.cross_entropy(part, target, reduction="none").cpu())
        hits.append((part.argmax(-1) == target).cpu())
    values, greedy = torch.cat(losses).numpy(), torch.cat(hits).numpy()
    if np.isnan(values).any():
        raise ModelError("evaluate: the model's logits are not numbers; check its weights.")
    at = 0
    for i, _, stop, first in batch:
        count = stop - first
        found[i].losses[first:stop] = values[at : at + count]
        found[i].greedy[first:stop] = greedy[at : at + count]
        at += count
