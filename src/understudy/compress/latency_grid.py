"""One latency table: models by resolutions by precisions.

float32, bfloat16 and float16 are timed in torch; int8 in ONNX Runtime, with the same runtime's
float32 beside it, since a ratio across two runtimes would say nothing about eight bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor, nn

from understudy.compress.int8 import (
    Int8Config,
    is_convolutional,
    quantise_dynamic,
    quantise_static,
)
from understudy.compress.latency import Latency, as_timed, measure, measure_onnx, tower_inputs
from understudy.compress.onnx import write_onnx
from understudy.compress.timing import LatencyConfig
from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.models.base import Model

PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "int8": "int8"}
CALIBRATION_ROWS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Ratio:
    """How much faster a precision is than float32 in the same runtime.

    Attributes:
        name: of the model.
        tower: `"image"` or `"text"`.
        size: side of the images, or tokens.
        dtype: the precision.
        runtime: `"torch"` or `"onnxruntime"`.
        ratio: float32's milliseconds over this precision's.
    """

    name: str
    tower: str
    size: int
    dtype: str
    runtime: str
    ratio: float


def measure_grid(
    model: Model,
    config: LatencyConfig | None = None,
    *,
    precisions: Sequence[str] = ("fp32",),
    resolutions: Sequence[int] = (),
    towers: Sequence[str] | None = None,
    name: str = "",
    int8: Int8Config | None = None,
) -> list[Latency]:
    """Time a model's towers at every resolution in every precision.

    Args:
        model: in eval mode.
        config: how to time; its `dtype` is replaced.
        precisions: `"fp32"`, `"bf16"`, `"fp16"` (CUDA), `"int8"` (processor, ONNX Runtime).
        resolutions: sides of the images in pixels; empty takes the model's own.
        towers: `"image"`, `"text"`; None takes all that the model has.
        name: for the results; the configuration's by default.
        int8: what is quantised. Latency does not depend on the calibration images: random ones
            are used.

    Returns:
        one result a precision, tower and resolution; for `"int8"` two, float32 in ONNX Runtime
        first.

    Raises:
        ConfigError: an unknown precision or tower; int8 on a CUDA device.
        ModelError: the model is in training mode.
        MissingExtraError: int8 without ONNX or ONNX Runtime.
    """
    config = config or LatencyConfig()
    for precision in precisions:
        check_choice(precision, PRECISIONS, "latency: precision")
    if "int8" in precisions and config.device != "cpu":
        raise ConfigError("latency: int8 is timed in ONNX Runtime on the cpu.")
    if not precisions:
        raise ConfigError(f"latency: name a precision ({', '.join(PRECISIONS)}).")
    out: list[Latency] = []
    for precision in precisions:
        if precision == "int8":
            out += _measure_int8(model, config, resolutions, towers, name, int8)
        else:
            timed = replace(config, dtype=PRECISIONS[precision])
            out += measure(model, timed, name=name, resolutions=resolutions, towers=towers)
    return out


def _measure_int8(
    model: Model,
    config: LatencyConfig,
    resolutions: Sequence[int],
    towers: Sequence[str] | None,
    name: str,
    int8: Int8Config | None,
) -> list[Latency]:
    config = replace(config, dtype="float32")
    ready: Any = as_timed(model, config)
    has = ("image", "text") if hasattr(ready, "text") else ("image",)
    for tower in towers or ():
        check_choice(tower, has, f"latency of {model.config.name}: tower")
    out: list[Latency] = []
    for tower in towers or has:
        part: nn.Module = getattr(ready, tower).eval()
        for size in resolutions if tower == "image" and resolutions else (0,):
            rows = replace(config, batch=CALIBRATION_ROWS, channels_last=False)
            inputs = tower_inputs(ready, tower, rows, size)
            with TemporaryDirectory() as folder:
                for path, dtype in _files(part, inputs, Path(folder), int8):
                    found = measure_onnx(path, config)
                    out.append(
                        replace(
                            found,
                            name=name or model.config.name,
                            tower=tower,
                            size=inputs.shape[-1],
                            parameters=sum(p.numel() for p in part.parameters()),
                            dtype=dtype,
                            fold=ready.fold_state,
                        )
                    )
    return out


def _files(
    part: nn.Module, inputs: Tensor, folder: Path, int8: Int8Config | None
) -> list[tuple[Path, str]]:
    """Export a tower in float32 and int8."""
    path = folder / "float.onnx"
    write_onnx(part, inputs, path, input_name="input", output_name="output")
    small = folder / "int8.onnx"
    # a transformer's convolution is one layer of many; its products are quantised while running
    if is_convolutional(part):
        quantise_static(path, small, [inputs], int8)
    else:
        quantise_dynamic(path, small, int8)
    return [(path, "float32"), (small, "int8")]


def ratios(results: Sequence[Latency]) -> list[Ratio]:
    """Return float32's time over each other precision's, within one runtime."""

    def key(found: Latency) -> tuple[Any, ...]:
        return (found.name, found.tower, found.size, found.runtime, found.batch, found.threads)

    base = {key(r): r.mean_ms for r in results if r.dtype == "float32"}
    return [
        Ratio(
            name=r.name,
            tower=r.tower,
            size=r.size,
            dtype=r.dtype,
            runtime=r.runtime,
            ratio=base[key(r)] / r.mean_ms,
        )
        for r in results
        if r.dtype != "float32" and key(r) in base
    ]
