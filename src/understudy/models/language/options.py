"""How tokens are chosen, where a text ends, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Float, Int
from torch import Tensor

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError, ModelError
from understudy.models.language.sampling import TOP_P

Step = Callable[[Tensor, Any], tuple[Tensor, Any]]
"""`step(tokens [rows, n], cache) -> (logits [rows, vocabulary], cache)`."""
METHODS = ("sample", "greedy", "beam")


@dataclass(frozen=True, kw_only=True, slots=True)
class GenerateConfig:
    """Say how tokens are chosen and where a text ends.

    Attributes:
        method: `sample` draws, `greedy` takes the likeliest token, `beam` searches for the
            likeliest text.
        max_tokens: tokens at most, the end token included.
        top_p: share of the probability that sampling keeps, in (0, 1].
        top_k: tokens that sampling keeps at most; 0 for all.
        temperature: divides the logits when sampling.
        beams: texts that beam search follows.
        length_penalty: beam search compares texts by log-probability / length ** length_penalty.
        end_ids: tokens that end a text.
        fixed_length: go on to `max_tokens` in any case; what follows an end is cut when read.
    """

    method: Literal["sample", "greedy", "beam"] = "sample"
    max_tokens: int = 30
    top_p: float = TOP_P
    top_k: int = 0
    temperature: float = 1.0
    beams: int = 4
    length_penalty: float = 1.0
    end_ids: tuple[int, ...] = ()
    fixed_length: bool = False

    def __post_init__(self) -> None:
        check_generation(self, "generate")


def check_generation(options: Any, where: str) -> None:
    """Refuse options that mean nothing.

    Args:
        options: has the attributes `method`, `max_tokens`, `top_p`, `top_k`, `temperature` and
            `beams` of `GenerateConfig`.
        where: what to call them in errors.

    Raises:
        ConfigError: one is out of range.
    """
    check_choice(options.method, METHODS, f"{where}.method")
    if not 0 < options.top_p <= 1:
        raise ConfigError(
            f"{where}.top_p: expected a number above 0 and up to 1, got {options.top_p}."
        )
    if not options.temperature > 0:
        raise ConfigError(
            f"{where}.temperature: expected a number above 0, got {options.temperature}."
        )
    for name, least in (("max_tokens", 1), ("top_k", 0), ("beams", 1)):
        if getattr(options, name) < least:
            raise ConfigError(
                f"{where}.{name}: expected at least {least}, got {getattr(options, name)}."
            )


@dataclass(frozen=True)
class Generated:
    """What was generated.

    Attributes:
        ids: int64 [rows, length] tokens; what follows a row's end is its last token again.
        lengths: int64 [rows] tokens of each row, the end token included.
        scores: float32 [rows] log-probability of each row's tokens under the model.
        end_ids: tokens that end a text.
    """

    ids: Int[Tensor, "rows length"]
    lengths: Int[Tensor, " rows"]
    scores: Float[Tensor, " rows"]
    end_ids: tuple[int, ...] = ()

    def rows(self) -> list[list[int]]:
        """Return each row's tokens up to its end, without the end token."""
        found = []
        for ids, length in zip(self.ids.tolist(), self.lengths.tolist(), strict=True):
            kept = ids[:length]
            ends = [i for i, token in enumerate(kept) if token in self.end_ids]
            found.append(kept[: ends[0]] if ends else kept)
        return found


def check_logits(logits: Tensor) -> None:
    """Refuse logits that are not numbers.

    Raises:
        ModelError: the first row that holds NaN.
    """
    bad = logits.isnan().any(dim=-1)
    if bool(bad.any()):
        raise ModelError(
            f"generate: the model's logits of row {int(bad.int().argmax())} are not numbers; check "
            "its weights and its input."
        )
