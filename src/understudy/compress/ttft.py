"""Time to the first token of a vision-language model, part by part.

arXiv 2412.13303 adds two numbers that it measures apart: the vision encoder's time and the prefill
of the visual tokens. What a user waits for is more: decoding and resizing the picture, projecting,
reading the question, and choosing the first token. Both are given. Every round is one trace from
the file to the token with a clock around each part and around everything: that the parts add up to
the whole, with nothing unaccounted for between them, is checked. On a device that works ahead the
clock waits for it after each part; the same way without such stops is timed beside it.

Few samples or no warm-up give numbers that are not worth a quotient: ratios are refused then.
"""

from __future__ import annotations

import copy
import gc
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from understudy.compress.timing import threads_of
from understudy.compress.ttft_path import PARTS, TokenPath, Trace
from understudy.core.errors import ConfigError, DataError
from understudy.models.multimodal.vlm import VLM

LEAST_SAMPLES = 5
AGREE = 0.02
"""Share of the whole that may lie between the parts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TTFTConfig:
    """Say how to time.

    Attributes:
        samples: rounds that count.
        warmup: rounds before them that do not.
        prompt_tokens: text tokens of the prompt, at least 1.
        threads: of the processor.
        fold: time the folded tower.
        image_side: longer side of the timed picture in pixels; 0 for the model's resolution.
    """

    samples: int = 15
    warmup: int = 3
    prompt_tokens: int = 16
    threads: int = 1
    fold: bool = True
    image_side: int = 0

    def __post_init__(self) -> None:
        for name, least in (
            ("samples", 1), ("warmup", 0), ("prompt_tokens", 1), ("threads", 1), ("image_side", 0)
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise ConfigError(
                    f"TTFTConfig.{name}: expected at least {least}, got {getattr(self, name)}."
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class TTFT:
    """What the first token took; medians over the samples, milliseconds.

    Attributes:
        name: of the model.
        resolution: side of the images in pixels.
        visual_tokens: of one image.
        prompt_tokens: of the text.
        parts_ms: `decode` (file to pixels), `preprocess` (resize, crop, [0, 1]), `vision` (tower),
            `project`, `prefill` (visual and text tokens, keys and values kept), `first_token`
            (logits to a token).
        visual_prefill_ms: prefill of the visual tokens alone, as the paper counts it.
        end_to_end_ms: the whole trace.
        unstopped_ms: the same way without a stop after each part.
        sum_ms: of the parts of each trace.
        gap: median over the traces of |sum - end to end| / end to end.
        paper_ms: vision + prefill of the visual tokens.
        samples: rounds that counted.
        warmup: rounds before them.
        threads: of the processor.
        device: where.
        rounds_ms: each sample's end-to-end time.
    """

    name: str
    resolution: int
    visual_tokens: int
    prompt_tokens: int
    parts_ms: dict[str, float]
    visual_prefill_ms: float
    end_to_end_ms: float
    unstopped_ms: float
    sum_ms: float
    gap: float
    paper_ms: float
    samples: int
    warmup: int
    threads: int
    device: str
    rounds_ms: tuple[float, ...]

    @property
    def consistent(self) -> bool:
        """Whether the parts add up to the whole within 2 %."""
        return self.gap <= AGREE

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {**asdict(self), "consistent": self.consistent}


def bench_ttft(
    model: VLM,
    resolution: int = 0,
    config: TTFTConfig | None = None,
    *,
    name: str = "",
) -> TTFT:
    """Time a model at a resolution.

    Args:
        model: in eval mode; left as it is.
        resolution: side of the images in pixels; 0 for the model's own.
        config: how to time.
        name: for the result.

    Raises:
        ConfigError: a resolution that is no multiple of the stride, or a prompt that does not fit.
    """
    config = config or TTFTConfig()
    return bench_many({name or model.config.name: model}, resolution, config)[0]


def bench_many(
    models: Mapping[str, VLM], resolution: int = 0, config: TTFTConfig | None = None
) -> list[TTFT]:
    """Time several models turn by turn, so that whatever else the machine does meets all alike.

    Args:
        models: by name, in eval mode; left as they are.
        resolution: for all; 0 for each one's own.
        config: how to time.
    """
    config = config or TTFTConfig()
    paths = {
        name: TokenPath(_ready(m, resolution, config), config.prompt_tokens, config.image_side)
        for name, m in models.items()
    }
    found: dict[str, list[Trace]] = {name: [] for name in paths}
    collecting = gc.isenabled()
    with threads_of(config.threads), torch.inference_mode():
        for number in range(-config.warmup, config.samples):
            gc.collect()
            gc.disable()
            try:
                # whichever comes second has warmer caches: take turns
                order = list(paths) if number % 2 else list(paths)[::-1]
                for name in order:
                    trace = paths[name].trace()
                    if number >= 0:
                        found[name].append(trace)
            finally:
                if collecting:
                    gc.enable()
    return [_summary(name, paths[name].model, found[name], config) for name in paths]


def _ready(model: VLM, resolution: int, config: TTFTConfig) -> VLM:
    if model.training:
        raise ConfigError("ttft: the model is in training mode; call model.eval() first.")
    ready = copy.deepcopy(model)
    if resolution:
        ready.set_resolution(resolution)
    tokens, room = ready.config.most_tokens + config.prompt_tokens, ready.context
    if tokens > room:
        raise ConfigError(
            f"ttft: {ready.config.most_tokens} visual and {config.prompt_tokens} text tokens do "
            f"not fit the context of {room}; lower the resolution or the prompt."
        )
    if config.fold and not ready.is_folded:
        ready = ready.fold()
    return ready


def _summary(name: str, model: VLM, traces: Sequence[Trace], config: TTFTConfig) -> TTFT:
    parts = {p: statistics.median(t.parts[p] for t in traces) for p in PARTS}
    visual = statistics.median(t.visual for t in traces)
    return TTFT(
        name=name,
        resolution=model.preprocess.size,
        visual_tokens=model.config.most_tokens,
        prompt_tokens=config.prompt_tokens,
        parts_ms=parts,
        visual_prefill_ms=visual,
        end_to_end_ms=statistics.median(t.whole for t in traces),
        unstopped_ms=statistics.median(t.unstopped for t in traces),
        sum_ms=statistics.median(t.total for t in traces),
        gap=statistics.median(abs(t.total - t.whole) / t.whole for t in traces),
        paper_ms=parts["vision"] + visual,
        samples=config.samples,
        warmup=config.warmup,
        threads=config.threads,
        device=str(next(model.parameters()).device),
        rounds_ms=tuple(t.whole for t in traces),
    )


def ttft_ratio(slow: TTFT, fast: TTFT, key: str = "end_to_end_ms") -> float:
    """Return how many times longer one takes.

    Args:
        slow: above.
        fast: below.
        key: `"end_to_end_ms"` or `"paper_ms"`.

    Raises:
        DataError: fewer than 5 samples, or no warm-up: no ratio is worth giving then.
    """
    check_ratio(slow, fast)
    return float(getattr(slow, key) / getattr(fast, key))


def check_ratio(*results: TTFT) -> None:
    """Refuse to compare measurements that were too short; see `ttft_ratio`."""
    for found in results:
        if found.samples < LEAST_SAMPLES or found.warmup < 1:
            raise DataError(
                f"ttft: {found.name} has {found.samples} samples after {found.warmup} warm-up "
                f"rounds; a ratio needs at least {LEAST_SAMPLES} samples and one warm-up round."
            )
