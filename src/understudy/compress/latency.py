"""Latency by the published protocol, on a processor or a CUDA device.

The bench loop of arXiv 2206.04040 that arXiv 2311.17049 cites: rounds of inferences of batch 1 at
each model's own input size; every round loads the graph anew; its first inference is discarded, the
rest is sorted, the lowest and highest are dropped, the remaining are averaged; rounds are averaged.
Image and text tower are timed apart, folded.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from understudy.compress.timing import DTYPES, LatencyConfig, Run, summarise, time_rounds
from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.core.lazy import require
from understudy.models.base import Model


@dataclass(frozen=True, kw_only=True, slots=True)
class Latency:
    """What one tower took; all times in milliseconds for a whole batch.

    Attributes:
        name: of the model.
        tower: `"image"`, `"text"`, or `"onnx"` for a file.
        mean_ms: mean over rounds of the mean of the kept latencies: the protocol's number.
        min_ms: smallest kept latency of all rounds.
        max_ms: largest kept latency of all rounds.
        p50_ms: median over all rounds of all latencies but the discarded first ones.
        p95_ms: 95th percentile of the same.
        round_ms: the mean of each round.
        size: side of the images in pixels, or tokens of the texts.
        parameters: of the tower as timed; 0 if unknown.
        batch: samples at once.
        threads: of the processor.
        dtype: of weights and inputs.
        device: where.
        fold: folding state of the timed tower.
        rounds: as configured.
        inferences: as configured.
        runtime: `"torch"` or `"onnxruntime"`.
    """

    name: str
    tower: str
    mean_ms: float
    min_ms: float
    max_ms: float
    p50_ms: float
    p95_ms: float
    round_ms: tuple[float, ...]
    size: int
    parameters: int
    batch: int
    threads: int
    dtype: str
    device: str
    fold: str
    rounds: int
    inferences: int
    runtime: str = "torch"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def _finish(rounds: list[list[float]], config: LatencyConfig, **facts: Any) -> Latency:
    found = summarise(rounds, config.discard, config.trim)
    values = {
        "batch": config.batch,
        "threads": config.threads,
        "dtype": config.dtype,
        "device": config.device,
        "rounds": config.rounds,
        "inferences": config.inferences,
        **facts,
    }
    return Latency(
        mean_ms=found["mean"],
        min_ms=found["min"],
        max_ms=found["max"],
        p50_ms=found["p50"],
        p95_ms=found["p95"],
        round_ms=tuple(found["rounds"]),
        **values,
    )


def tower_inputs(model: Model, tower: str, config: LatencyConfig, size: int = 0) -> Tensor:
    """Return random input for a tower, on the device and in the dtype of `config`."""
    generator = torch.Generator().manual_seed(0)
    if tower == "text":
        text = model.config.text
        shape = (config.batch, text.context_length)
        return torch.randint(0, text.vocab_size, shape, generator=generator).to(config.device)
    side = size or model.preprocess.size
    pixels = torch.rand(config.batch, 3, side, side, generator=generator)
    pixels = pixels.to(config.device, DTYPES[config.dtype])
    return pixels.contiguous(memory_format=torch.channels_last) if config.channels_last else pixels


def measure(
    model: Model,
    config: LatencyConfig | None = None,
    *,
    name: str = "",
    resolutions: Sequence[int] = (),
    towers: Sequence[str] | None = None,
) -> list[Latency]:
    """Time the towers of a model.

    Args:
        model: in eval mode; folded here as `config.fold` asks, unless it is folded already.
        config: how to time.
        name: for the result; the configuration's by default.
        resolutions: sides of the images in pixels; empty takes the model's own.
        towers: `"image"`, `"text"`; None takes all that the model has.

    Returns:
        one result a tower and resolution.

    Raises:
        ConfigError: a tower that the model does not have, or a model folded in another way.
        ModelError: the model is in training mode.
    """
    config = config or LatencyConfig()
    has = ("image", "text") if hasattr(model, "text") else ("image",)
    for tower in towers or ():
        check_choice(tower, has, f"latency of {model.config.name}: tower")
    if any(side < 1 for side in resolutions):
        raise ConfigError(f"latency: resolutions must be positive, got {list(resolutions)}.")
    ready: Any = as_timed(model, config)
    out = []
    for tower in towers or has:
        part: nn.Module = getattr(ready, tower)
        for size in resolutions if tower == "image" and resolutions else (0,):
            inputs = tower_inputs(ready, tower, config, size)

            def load(part: nn.Module = part, inputs: Tensor = inputs) -> Run:
                graph = copy.deepcopy(part)
                return lambda: graph(inputs)

            out.append(
                _finish(
                    time_rounds(load, config),
                    config,
                    name=name or model.config.name,
                    tower=tower,
                    size=inputs.shape[-1],
                    parameters=sum(p.numel() for p in part.parameters()),
                    fold=ready.fold_state,
                )
            )
    return out


def as_timed(model: Model, config: LatencyConfig) -> Model:
    """Return a copy of a model folded, cast and placed as `config` says."""
    if model.is_folded:
        if model.fold_state != config.fold:
            raise ConfigError(
                f"latency: {model.config.name} is folded '{model.fold_state}', '{config.fold}' is "
                "asked for; give the unfolded model or the same fold."
            )
        ready = copy.deepcopy(model)
    elif config.fold == "no":
        ready = copy.deepcopy(model).eval()
    else:
        ready = model.fold(config.fold)  # type: ignore[arg-type]
    ready = ready.to(config.device, DTYPES[config.dtype])
    if config.channels_last:
        ready = ready.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return ready


def measure_onnx(path: str | Path, config: LatencyConfig | None = None) -> Latency:
    """Time an exported ONNX file in ONNX Runtime on the processor.

    Args:
        path: of a file with one input whose first dimension is the batch.
        config: how to time; `dtype`, `fold` and `channels_last` belong to the file and are ignored.
    """
    config = config or LatencyConfig()
    runtime = require("onnxruntime", "export", "timing an ONNX file")
    import numpy as np

    if config.device != "cpu":
        raise ConfigError("latency: ONNX files are timed on the cpu.")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = config.threads
    options.inter_op_num_threads = 1
    shape: list[int] = []

    def load() -> Run:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        entry = session.get_inputs()[0]
        shape[:] = [config.batch, *[int(n) for n in entry.shape[1:]]]
        kind = {"tensor(uint8)": np.uint8, "tensor(int64)": np.int64}.get(entry.type, np.float32)
        feed = {entry.name: np.ones(shape, kind)}
        return lambda: session.run(None, feed)

    rounds = time_rounds(load, config)
    return _finish(
        rounds,
        config,
        name=str(path),
        tower="onnx",
        # images are [B, S, S, 3] or [B, 3, S, S], texts [B, L]
        size=shape[2] if len(shape) == 4 else shape[1],
        parameters=0,
        dtype="float32",
        fold="exported",
        runtime="onnxruntime",
    )
