"""One tower to one ONNX file, checked number by number in ONNX Runtime."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from understudy.core.errors import ModelError
from understudy.core.lazy import require
from understudy.models.base import Model
from understudy.models.preprocess import Preprocess

OPSET = 20
TOLERANCE = 1e-4


class ImageGraph(nn.Module):
    """An image tower with its preprocessing, as it is exported.

    Args:
        tower: normalised pixels to outputs.
        preprocess: what images go through.
        in_graph: take uint8 [batch, size, size, 3] and scale and normalise inside; otherwise take
            normalised float32 [batch, 3, size, size].
        unit: make the outputs unit vectors.
    """

    factor: Tensor
    offset: Tensor

    def __init__(
        self, tower: nn.Module, preprocess: Preprocess, *, in_graph: bool, unit: bool
    ) -> None:
        super().__init__()
        self.tower, self.in_graph, self.unit = tower, in_graph, unit
        mean, std = torch.tensor(preprocess.mean), torch.tensor(preprocess.std)
        # (x / 255 - mean) / std as one multiplication and one addition
        self.register_buffer("factor", (1.0 / (255.0 * std)).reshape(3, 1, 1))
        self.register_buffer("offset", (-mean / std).reshape(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings or logits."""
        if self.in_graph:
            images = images.permute(0, 3, 1, 2).to(torch.float32) * self.factor + self.offset
        out = self.tower(images)
        return F.normalize(out, dim=-1) if self.unit else out


class TextGraph(nn.Module):
    """A text tower as it is exported: token ids to unit vectors.

    Args:
        tower: token ids to embeddings; it pools the position of the largest id.
    """

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, tokens: Tensor) -> Tensor:
        """Return unit embeddings."""
        return F.normalize(self.tower(tokens), dim=-1)


@contextmanager
def _quiet() -> Iterator[None]:
    # The exporter reports operators of packages that are not installed, and its own deprecations.
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def write_onnx(
    graph: nn.Module,
    sample: Tensor,
    path: Path,
    *,
    input_name: str,
    output_name: str,
    opset: int = OPSET,
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Export a module of one input and one output, with a dynamic batch, into one file.

    Args:
        graph: in eval mode, float32.
        sample: an input of at least two rows.
        path: where to.
        input_name: of the graph's input.
        output_name: of the graph's output.
        opset: ONNX operator set.
        metadata: facts kept in the file, as JSON strings.

    Raises:
        MissingExtraError: onnx or onnxscript is missing.
    """
    onnx = require("onnx", "export", "ONNX export")
    require("onnxscript", "export", "ONNX export")
    with _quiet(), torch.no_grad():
        torch.onnx.export(
            graph,
            (sample,),
            path,
            dynamo=True,
            input_names=[input_name],
            output_names=[output_name],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=opset,
            external_data=False,
            verbose=False,
        )
    loaded = onnx.load(path)
    onnx.helper.set_model_props(
        loaded,
        {k: v if isinstance(v, str) else json.dumps(v) for k, v in (metadata or {}).items()},
    )
    onnx.save(loaded, path)
    return path


def check_onnx(
    reference: Callable[[Tensor], Tensor],
    path: Path,
    inputs: Sequence[Tensor],
    tolerance: float = TOLERANCE,
) -> float:
    """Compare an ONNX file with PyTorch; return the largest difference.

    Args:
        reference: what the file must compute: the model itself, preprocessing included.
        path: the file.
        inputs: batches of different sizes, so that the dynamic batch is tested too.
        tolerance: largest absolute difference allowed, relative to the outputs where they are
            larger than 1.

    Raises:
        ModelError: they differ by more, or in shape.
        MissingExtraError: ONNX Runtime is missing.
    """
    runtime = require("onnxruntime", "export", "checking an ONNX file")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    worst = 0.0
    for batch in inputs:
        with torch.no_grad():
            expected = reference(batch)
        found = torch.from_numpy(session.run(None, {name: batch.numpy()})[0])
        if found.shape != expected.shape:
            raise ModelError(
                f"{path.name}: ONNX Runtime gives {list(found.shape)} where PyTorch gives "
                f"{list(expected.shape)}; do not use this file, and please report it."
            )
        scale = max(1.0, float(expected.abs().max()))
        difference = float((found - expected).abs().max()) / scale
        if not difference <= tolerance:
            raise ModelError(
                f"{path.name}: ONNX Runtime differs from PyTorch by {difference:.2e} on a batch of "
                f"{len(batch)}, more than {tolerance:.0e}; nothing was written."
            )
        worst = max(worst, difference)
    return worst


def image_samples(model: Model, in_graph: bool, sizes: Sequence[int]) -> list[Tensor]:
    """Return random images of each batch size, as the exported image graph takes them."""
    generator = torch.Generator().manual_seed(0)
    side = model.preprocess.size
    out = []
    for count in sizes:
        shape = (count, side, side, 3)
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        out.append(pixels if in_graph else model.preprocess_images(pixels))
    return out


def text_samples(model: Any, sizes: Sequence[int]) -> list[Tensor]:
    """Return token rows of each batch size, their end at random places, padded with zeros.

    The end is the largest id; the first row is full. Pooling at any other position would show.
    """
    generator = torch.Generator().manual_seed(0)
    text = model.config.text
    out = []
    for count in sizes:
        rows = torch.randint(
            1, text.vocab_size - 1, (count, text.context_length), generator=generator
        )
        ends = torch.randint(1, text.context_length, (count,), generator=generator)
        ends[0] = text.context_length - 1
        for row, end in zip(rows, ends.tolist(), strict=True):
            row[end] = text.vocab_size - 1
            row[end + 1 :] = 0
        out.append(rows)
    return out
