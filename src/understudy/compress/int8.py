"""An exported tower in eight bits: weights and activations for ONNX Runtime.

Convolutional towers are quantised statically: scales come from calibration images, weights have one
scale an output channel, activations one a tensor, and the file stays a graph of ordinary operators
between quantise and dequantise nodes (QDQ) that the runtime fuses. Transformers (texts, ViT) are
quantised dynamically: only their products, with scales found while running.

Not everything is worth it. On a processor, ONNX Runtime's eight-bit *grouped* convolutions take
longer than its float ones for the 7x7 kernels of the MCi towers, which cost it what the others
gain: MCi0 at 256 pixels, one thread, took 48 ms with everything quantised, 29 ms with the grouped
convolutions left in float, 54 ms in float32 (processor time). They, and the squeeze-excite
convolutions over one pixel, stay in float unless asked for.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from understudy.core.errors import ConfigError
from understudy.core.lazy import require

PRODUCTS = ("MatMul", "Gemm")


@dataclass(frozen=True, kw_only=True, slots=True)
class Int8Config:
    """Say what becomes eight bits wide.

    Attributes:
        grouped: quantise grouped (depthwise) convolutions too.
        single_pixel: quantise convolutions over one pixel (squeeze-excite) too.
        per_channel: one scale for each output channel of a weight instead of one for all.
    """

    grouped: bool = False
    single_pixel: bool = False
    per_channel: bool = True


class _Reader:
    """Feeds calibration batches, as ONNX Runtime wants them."""

    def __init__(self, name: str, batches: Sequence[Tensor]) -> None:
        self._feeds = iter([{name: batch.numpy()} for batch in batches])

    def get_next(self) -> dict[str, Any] | None:
        """Return the next feed, or None at the end."""
        return next(self._feeds, None)


@contextmanager
def _quiet() -> Iterator[None]:
    # The quantiser advises, on the root logger, to prepare graphs that are prepared already.
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)


def _left_out(graph: Any, shapes: dict[str, list[int]], config: Int8Config) -> list[str]:
    """Return the names of the convolutions that stay in float."""
    names = []
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        groups = next((a.i for a in node.attribute if a.name == "group"), 1)
        single = shapes.get(node.output[0], [])[2:] == [1, 1]
        if (groups > 1 and not config.grouped) or (single and not config.single_pixel):
            names.append(node.name)
    return names


def _shapes(model: Any) -> dict[str, list[int]]:
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model)
    return {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in inferred.graph.value_info
    }


def quantise_static(
    path: str | Path,
    out: str | Path,
    batches: Sequence[Tensor],
    config: Int8Config | None = None,
) -> Path:
    """Write a statically quantised copy of an exported file.

    Args:
        path: an ONNX file with one input.
        out: where to.
        batches: calibration inputs as the file takes them; a few dozen images like those that it
            will see. Ranges come from them alone: what lies outside is cut off.
        config: what to quantise.

    Returns:
        `out`.

    Raises:
        ConfigError: no batches.
        MissingExtraError: onnx or onnxruntime is missing.
    """
    config = config or Int8Config()
    if not batches:
        raise ConfigError("int8: no calibration images; ranges of activations come from them.")
    onnx = require("onnx", "export", "quantising an ONNX file")
    require("onnxruntime", "export", "quantising an ONNX file")
    from onnxruntime import quantization as ort

    model = onnx.load(path)
    with _quiet():
        ort.quantize_static(
            str(path),
            str(out),
            _Reader(model.graph.input[0].name, batches),  # type: ignore[arg-type]
            quant_format=ort.QuantFormat.QDQ,
            op_types_to_quantize=["Conv", *PRODUCTS],
            nodes_to_exclude=_left_out(model.graph, _shapes(model), config),
            per_channel=config.per_channel,
            # unsigned activations with signed weights are what processors multiply in one step
            activation_type=ort.QuantType.QUInt8,
            weight_type=ort.QuantType.QInt8,
            calibrate_method=ort.CalibrationMethod.MinMax,
        )
    return Path(out)


def quantise_dynamic(path: str | Path, out: str | Path, config: Int8Config | None = None) -> Path:
    """Write a copy of an exported file whose products (not convolutions) are quantised.

    Args:
        path: an ONNX file.
        out: where to.
        config: `per_channel` is used.

    Returns:
        `out`.

    Raises:
        MissingExtraError: onnxruntime is missing.
    """
    config = config or Int8Config()
    require("onnxruntime", "export", "quantising an ONNX file")
    from onnxruntime import quantization as ort

    with _quiet():
        ort.quantize_dynamic(
            str(path),
            str(out),
            op_types_to_quantize=list(PRODUCTS),
            per_channel=config.per_channel,
            weight_type=ort.QuantType.QInt8,
        )
    return Path(out)


def is_convolutional(tower: nn.Module) -> bool:
    """Say whether most weights of a tower are of convolutions: then it is quantised statically."""
    convolved, dense = 0, 0
    for part in tower.modules():
        if isinstance(part, nn.Conv2d):
            convolved += part.weight.numel()
        elif isinstance(part, nn.Linear | nn.Embedding):
            dense += part.weight.numel()
    return convolved > dense


def operators(path: str | Path) -> dict[str, int]:
    """Return how often the runtime runs each operator, after its own fusions.

    `QLinearConv` and `MatMulIntegerToFloat` compute in eight bits; `Conv` and `MatMul` fell back to
    float; every `QuantizeLinear` and `DequantizeLinear` is a change from one to the other.

    Raises:
        MissingExtraError: onnx or onnxruntime is missing.
    """
    onnx = require("onnx", "export", "reading an ONNX file")
    runtime = require("onnxruntime", "export", "optimising an ONNX file")
    with TemporaryDirectory() as folder:
        options = runtime.SessionOptions()
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        options.log_severity_level = 3
        runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(options.optimized_model_filepath).graph.node
        return dict(Counter(node.op_type for node in nodes).most_common())


def agreement(
    path: str | Path, pairs: Sequence[tuple[Tensor, Float[Tensor, "batch ..."]]]
) -> dict[str, float]:
    """Return how much of the outputs quantisation kept.

    Args:
        path: the quantised file.
        pairs: batches of its input, each with the float32 outputs.

    Returns:
        `cosine` (mean over rows), `cosine_min`, and `error`: the largest difference over the
        largest value.
    """
    runtime = require("onnxruntime", "export", "running an ONNX file")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    cosines, worst, largest = [], 0.0, 0.0
    for batch, expected in pairs:
        found = torch.from_numpy(session.run(None, {name: batch.numpy()})[0])
        cosines.append(F.cosine_similarity(found.flatten(1), expected.flatten(1)))
        worst = max(worst, float((found - expected).abs().max()))
        largest = max(largest, float(expected.abs().max()))
    cosine = torch.cat(cosines)
    return {
        "cosine": float(cosine.mean()),
        "cosine_min": float(cosine.min()),
        "error": worst / (largest or 1.0),
    }
