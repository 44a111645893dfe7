"""Beam search: follow the likeliest partial texts side by side."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from understudy.core.errors import ConfigError
from understudy.models.language.cache import select_rows
from understudy.models.language.options import (
    GenerateConfig,
    Generated,
    Step,
    check_logits,
)
from understudy.models.language.stops import Stop


@dataclass
class _Row:
    """Finished texts of one row: (score for comparison, log-probability, ids), best first."""

    keep: int
    found: list[tuple[float, float, list[int]]] = field(default_factory=list)

    def add(self, score: float, log_p: float, ids: list[int]) -> None:
        self.found.append((score, log_p, ids))
        self.found.sort(key=lambda entry: -entry[0])
        del self.found[self.keep :]

    @property
    def worst(self) -> float:
        """The score that a new text must beat; minus infinity while there is room."""
        return self.found[-1][0] if len(self.found) == self.keep else float("-inf")


def beam_search(
    step: Step,
    start: tuple[Tensor, Any],
    config: GenerateConfig,
    *,
    stop: Stop | None = None,
    num_returns: int = 1,
) -> Generated:
    """Return the likeliest texts that a search of `config.beams` partial texts a row finds.

    Texts are compared by log-probability / length ** `length_penalty`. A row is done when no
    partial text can beat its finished ones any more.

    Args:
        step: the model; see `understudy.models.language.options.Step`.
        start: logits and cache after the prompt, a row a text.
        config: beams, penalty, limits, end tokens.
        stop: ends a text whose ids it accepts.
        num_returns: texts a row.

    Raises:
        ConfigError: more texts than beams are asked for.
    """
    beams = config.beams
    if not 1 <= num_returns <= beams:
        raise ConfigError(
            f"generate: {num_returns} texts a row from {beams} beams; set beams to at least "
            f"{num_returns}."
        )
    logits, cache = start
    rows, device = len(logits), logits.device
    finished = [_Row(beams) for _ in range(rows)]
    if not rows:
        empty = torch.zeros(0, dtype=torch.long)
        return Generated(empty.reshape(0, 0), empty, empty.float(), config.end_ids)
    # the first token of a row's beams comes from one distribution: only the first beam counts
    index = torch.arange(rows, device=device).repeat_interleave(beams)
    logits, cache = logits[index], select_rows(cache, index)
    totals = torch.full((rows, beams), float("-inf"), device=device)
    totals[:, 0] = 0.0
    texts: list[list[int]] = [[] for _ in range(rows * beams)]
    for place in range(1, config.max_tokens + 1):
        check_logits(logits)
        vocabulary = logits.shape[-1]
        added = totals[..., None] + logits.float().log_softmax(-1).reshape(rows, beams, -1)
        # every beam may end in one token of each kind: leave room for as many that go on
        room = min(beams * (1 + max(len(config.end_ids), 1)), beams * vocabulary)
        best, flat = added.reshape(rows, -1).topk(room, dim=-1)
        parents, tokens, totals, texts = _continue(
            best, flat, vocabulary, texts, finished, config, stop, place
        )
        if place == config.max_tokens or all(
            _settled(row, live.tolist(), place, config)
            for row, live in zip(finished, totals, strict=True)
        ):
            break
        logits, cache = step(tokens.to(device)[:, None], select_rows(cache, parents.to(device)))
    return _collect(finished, config, num_returns, device)


def _value(log_p: float, length: int, config: GenerateConfig) -> float:
    return log_p / length**config.length_penalty


def _continue(
    best: Tensor,
    flat: Tensor,
    vocabulary: int,
    texts: list[list[int]],
    finished: list[_Row],
    config: GenerateConfig,
    stop: Stop | None,
    place: int,
) -> tuple[Tensor, Tensor, Tensor, list[list[int]]]:
    """Sort the best continuations into those that end and the `beams` that go on."""
    rows, beams = len(best), config.beams
    parents: list[int] = []
    tokens: list[int] = []
    totals = torch.full((rows, beams), float("-inf"), device=best.device)
    kept: list[list[int]] = []
    for row, (log_ps, places) in enumerate(zip(best.tolist(), flat.tolist(), strict=True)):
        live = 0
        for log_p, at in zip(log_ps, places, strict=True):
            if live == beams or log_p == float("-inf"):
                break
            parent = row * beams + at // vocabulary
            token = at % vocabulary
            ids = [*texts[parent], token]
            ends = token in config.end_ids or (stop is not None and stop(ids))
            if ends or place == config.max_tokens:
                finished[row].add(_value(log_p, place, config), log_p, ids)
            if not ends:
                totals[row, live] = log_p
                parents.append(parent)
                tokens.append(token)
                kept.append(ids)
                live += 1
        # a row whose beams have all ended is carried along without weight
        for _ in range(beams - live):
            parents.append(row * beams)
            tokens.append(0)
            kept.append([])
    return torch.tensor(parents), torch.tensor(tokens), totals, kept


def _settled(row: _Row, live: list[float], place: int, config: GenerateConfig) -> bool:
    """Whether no partial text can still beat the finished ones: log-probabilities only fall."""
    longest = config.max_tokens if config.length_penalty > 0 else place + 1
    hope = max(_value(log_p, longest, config) for log_p in live)
    return hope <= row.worst


def _collect(
    finished: list[_Row], config: GenerateConfig, num_returns: int, device: torch.device
) -> Generated:
    chosen = [entry for row in finished for entry in _filled(row, num_returns)]
    longest = max(len(ids) for _, _, ids in chosen)
    padded = [ids + ids[-1:] * (longest - len(ids)) for _, _, ids in chosen]
    return Generated(
        torch.tensor(padded, dtype=torch.long, device=device),
        torch.tensor([len(ids) for _, _, ids in chosen], dtype=torch.long, device=device),
        torch.tensor([log_p for _, log_p, _ in chosen], device=device),
        config.end_ids,
    )


def _filled(row: _Row, count: int) -> list[tuple[float, float, list[int]]]:
    """Return `count` texts; a vocabulary too small for as many gives its last one again."""
    found = row.found[:count]
    return found + found[-1:] * (count - len(found))
