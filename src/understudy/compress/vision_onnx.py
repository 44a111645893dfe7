"""The vision part of a vision-language model as ONNX: images to visual tokens, projected or not.

The language model is not part of it: runtimes of language models read their own formats. The file
takes what `preprocess.json` says and is compared with PyTorch in ONNX Runtime before it is kept.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from understudy.compress.onnx import OPSET, TOLERANCE, ImageGraph, check_onnx, write_onnx
from understudy.core.config import check_choice
from understudy.core.errors import ConfigError, ModelError
from understudy.core.files import write_json
from understudy.core.hashing import hash_file
from understudy.core.provenance import versions
from understudy.models.fold import FOLD_MODES, FoldMode
from understudy.models.multimodal.vlm import VLM

BATCHES = (2, 1, 3)


class VisionGraph(nn.Module):
    """Images to visual tokens, as exported.

    Args:
        model: folded.
        project: put the projector behind the tower.
    """

    def __init__(self, model: VLM, project: bool) -> None:
        super().__init__()
        self.tower = model.image
        self.projector = model.projector if project else nn.Identity()

    def forward(self, pixels: Tensor) -> Tensor:
        """Return [batch, tokens, channels]."""
        return self.projector(self.tower.tokens(pixels))


def export_vision(
    model: VLM,
    out: str | Path,
    *,
    project: bool = True,
    in_graph: bool = True,
    fold: FoldMode = "all",
    opset: int = OPSET,
    tolerance: float = TOLERANCE,
) -> list[Path]:
    """Write `vision.onnx`, `preprocess.json` and `export.json` into a folder.

    Args:
        model: in eval mode; folded here if it is not.
        out: the folder.
        project: put the projector behind the tower.
        in_graph: take uint8 [batch, R, R, 3] and divide by 255 inside; otherwise take float32
            [batch, 3, R, R] in [0, 1]. Padding and resizing stay with the caller.
        fold: how to fold a model that is not folded.
        opset: ONNX operator set.
        tolerance: largest difference from PyTorch allowed, relative to outputs above 1.

    Returns:
        the files.

    Raises:
        ConfigError: an unknown way to fold.
        ModelError: training mode, weights that are not float32, or a file that computes something
            else than PyTorch.
        MissingExtraError: ONNX or ONNX Runtime is not installed.
    """
    check_choice(fold, FOLD_MODES, "export: fold")
    if tolerance <= 0:
        raise ConfigError(f"export: tolerance must be above 0, got {tolerance}.")
    ready = model if model.is_folded else model.fold(fold)
    if ready.training:
        raise ModelError("export: the model is in training mode; call model.eval() first.")
    parts = [*ready.image.parameters(), *ready.projector.parameters()]
    if any(p.dtype != torch.float32 for p in parts):
        raise ModelError("export: export float32 weights (model.float()).")
    inner = VisionGraph(ready, project).eval()
    graph = ImageGraph(inner, ready.preprocess, in_graph=in_graph, unit=False).eval()
    samples = _samples(ready.preprocess.size, in_graph)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out) as folder:
        path = write_onnx(
            graph,
            samples[0],
            Path(folder) / "vision.onnx",
            input_name="images",
            output_name="tokens",
            opset=opset,
            metadata={"understudy.model": ready.config.name},
        )

        def reference(batch: Tensor) -> Tensor:
            pixels = ready.preprocess_images(batch) if in_graph else batch
            tokens = ready.image.tokens(pixels)
            return ready.projector(tokens) if project else tokens

        worst = check_onnx(reference, path, samples, tolerance)
        final = path.replace(out / "vision.onnx")
    facts = _facts(ready, project, in_graph)
    manifest = {
        "format": "understudy-export",
        "version": 1,
        "model": ready.config.name,
        "folded": ready.fold_state,
        "opset": opset,
        "tolerance": tolerance,
        "max_difference": {"vision.onnx": worst},
        "sha256": {"vision.onnx": hash_file(final)},
        "versions": versions("onnx", "onnxscript", "onnxruntime"),
    }
    return [
        final,
        write_json(out / "preprocess.json", facts),
        write_json(out / "export.json", manifest),
    ]


def _samples(side: int, in_graph: bool, batches: Sequence[int] = BATCHES) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    if in_graph:
        return [
            torch.randint(0, 256, (n, side, side, 3), dtype=torch.uint8, generator=generator)
            for n in batches
        ]
    return [torch.rand(n, 3, side, side, generator=generator) for n in batches]


def _facts(model: VLM, project: bool, in_graph: bool) -> dict[str, object]:
    config, side = model.config, model.preprocess.size
    width = model.language.width if project else model.image.width
    return {
        "format": "understudy-preprocess",
        "version": 1,
        "image": {
            "input": "images",
            "dtype": "uint8" if in_graph else "float32",
            "layout": "NHWC" if in_graph else "NCHW",
            "shape": [-1, side, side, 3] if in_graph else [-1, 3, side, side],
            "colour": "RGB",
            "resize": config.preprocess.resize,
            "padding_colour": [0, 0, 0],
            "interpolation": config.preprocess.interpolation,
            "size": side,
            "scale": 1 / 255,
            "mean": [0.0, 0.0, 0.0],
            "std": [1.0, 1.0, 1.0],
            "normalised_in_graph": in_graph,
            "output": "tokens",
            "output_shape": [-1, config.tokens_per_view, width],
            "projected": project,
        },
    }
