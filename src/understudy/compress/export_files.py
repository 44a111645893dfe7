"""The files of one export: graphs, preprocessing, tokenizer, card, manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from understudy.compress.card import CardFacts, model_card
from understudy.compress.int8 import (
    Int8Config,
    agreement,
    is_convolutional,
    quantise_dynamic,
    quantise_static,
)
from understudy.compress.onnx import (
    ImageGraph,
    TextGraph,
    check_onnx,
    image_samples,
    text_samples,
    write_onnx,
)
from understudy.compress.tokenizer_json import portable_json
from understudy.core.files import write_json
from understudy.core.hashing import hash_file
from understudy.core.provenance import versions
from understudy.models import io
from understudy.models.preprocess import fit

BATCHES = (2, 1, 5)
"""Batch sizes on which an exported file is compared; the first one is traced."""
CALIBRATION_ROWS = 8
"""Calibration images to a batch."""


class MapTower(nn.Module):
    """The map of a tower's last convolution, before pooling and head."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return [batch, channels, height / stride, width / stride]."""
        return self.tower.expanded_map(pixels)  # type: ignore[operator]


class ExportFiles:
    """One export into one folder.

    Args:
        model: folded, in eval mode, on the processor.
        folder: where the files are written.
        in_graph: whether the image graphs take uint8 and normalise inside.
        opset: ONNX operator set.
        tolerance: largest difference from PyTorch allowed.
    """

    def __init__(
        self, model: Any, folder: Path, in_graph: bool, opset: int, tolerance: float
    ) -> None:
        self.model, self.folder, self.in_graph = model, folder, in_graph
        self.opset, self.tolerance = opset, tolerance
        self.is_clip = hasattr(model, "encode_text")
        self.files: dict[str, str] = {}
        self.differences: dict[str, float] = {}
        self.agreements: dict[str, dict[str, float]] = {}

    @property
    def output(self) -> str:
        """Name of the image graph's output."""
        if self.is_clip:
            return "embeddings"
        return "logits" if self.model.config.num_classes else "features"

    def graph(self, tower: str) -> nn.Module:
        """Return what is exported of a tower, in eval mode."""
        if tower == "text":
            return TextGraph(self.model.text).eval()
        image = MapTower(self.model.image) if tower == "map" else self.model.image
        unit = self.is_clip and tower == "image"
        return ImageGraph(image, self.model.preprocess, in_graph=self.in_graph, unit=unit).eval()

    def run(self, tower: str, inputs: torch.Tensor) -> torch.Tensor:
        """Return what PyTorch makes of a graph's input, by the model's own path."""
        if tower == "text":
            return self.model.encode_text(inputs)
        pixels = self.model.preprocess_images(inputs) if self.in_graph else inputs
        if tower == "map":
            return self.model.image.expanded_map(pixels)
        return self.model.encode_image(pixels) if self.is_clip else self.model(pixels)[self.output]

    def onnx(self, tower: str) -> None:
        """Write and check one tower."""
        if tower == "text":
            samples = text_samples(self.model, BATCHES)
        else:
            samples = image_samples(self.model, self.in_graph, BATCHES)
        name = f"{tower}.onnx"
        output = {"text": "embeddings", "map": "map"}.get(tower, self.output)
        write_onnx(
            self.graph(tower),
            samples[0],
            self.folder / name,
            input_name="tokens" if tower == "text" else "images",
            output_name=output,
            opset=self.opset,
            metadata={
                "understudy.model": self.model.config.name,
                "understudy.preprocess": {
                    **self.description()["text" if tower == "text" else "image"],
                    "output": output,
                },
            },
        )
        self.differences[name] = check_onnx(
            partial(self.run, tower), self.folder / name, samples, self.tolerance
        )
        what = "map before pooling" if tower == "map" else f"{tower} tower"
        self.files[name] = f"{what}, dynamic batch"

    def int8(self, tower: str, images: Sequence[np.ndarray]) -> None:
        """Write one tower's quantised file and note how well it agrees with PyTorch.

        Args:
            tower: whose ONNX file is written already.
            images: uint8 [H, W, 3] each; calibrate the ranges, and are what agreement is seen on.
        """
        source, name = self.folder / f"{tower}.onnx", f"{tower}-int8.onnx"
        config = Int8Config()
        if tower == "text":
            batches = text_samples(self.model, (CALIBRATION_ROWS,))
            quantise_dynamic(source, self.folder / name, config)
        else:
            batches = self._calibration(images)
            if is_convolutional(self.model.image):
                quantise_static(source, self.folder / name, batches, config)
            else:
                quantise_dynamic(source, self.folder / name, config)
        with torch.no_grad():
            pairs = [(batch, self.run(tower, batch)) for batch in batches]
        self.agreements[name] = agreement(self.folder / name, pairs)
        self.files[name] = f"{tower}.onnx in eight bits"

    def _calibration(self, images: Sequence[np.ndarray]) -> list[torch.Tensor]:
        """Return calibration images as the image graph takes them, a few to a batch."""
        fitted = [fit(np.asarray(image), self.model.preprocess) for image in images]
        out = []
        for start in range(0, len(fitted), CALIBRATION_ROWS):
            batch = torch.from_numpy(np.stack(fitted[start : start + CALIBRATION_ROWS]))
            out.append(batch if self.in_graph else self.model.preprocess_images(batch))
        return out

    def description(self) -> dict[str, Any]:
        """Return what `preprocess.json` holds."""
        config, size = self.model.config, self.model.preprocess
        side = size.size
        image: dict[str, Any] = {
            "input": "images",
            "dtype": "uint8" if self.in_graph else "float32",
            "layout": "NHWC" if self.in_graph else "NCHW",
            "shape": [-1, side, side, 3] if self.in_graph else [-1, 3, side, side],
            "colour": "RGB",
            "resize": size.resize,
            "interpolation": size.interpolation,
            "crop": "centre",
            "resize_to": int(side / size.crop),
            "size": side,
            "scale": 1 / 255,
            "mean": list(size.mean),
            "std": list(size.std),
            "normalised_in_graph": self.in_graph,
            "output": self.output,
        }
        data: dict[str, Any] = {"format": "understudy-preprocess", "version": 1, "image": image}
        if self.is_clip:
            tokens = config.text
            data["text"] = {
                "input": "tokens",
                "dtype": "int64",
                "shape": [-1, tokens.context_length],
                "tokenizer": "tokenizer.json" if self.model.tokenizer else None,
                "end_of_text": tokens.vocab_size - 1,
                "padding": 0,
                "pooling": "position of the largest id",
                "output": "embeddings",
            }
            data["logit_scale"] = float(self.model.scale().detach())
        elif config.classes:
            data["classes"] = list(config.classes)
        return data

    def describe(self) -> None:
        """Write `preprocess.json` and `tokenizer.json`."""
        write_json(self.folder / "preprocess.json", self.description())
        self.files["preprocess.json"] = "what goes in and what comes out"
        if self.is_clip and self.model.tokenizer is not None:
            text = portable_json(self.model.tokenizer)
            (self.folder / "tokenizer.json").write_text(text, encoding="utf-8")
            self.files["tokenizer.json"] = "tokenizer, format of the tokenizers library"

    def finish(self, facts: CardFacts | None) -> None:
        """Write the card and the manifest."""
        self.files["export.json"] = "hashes, largest differences from PyTorch, versions"
        if facts is not None:
            self.files["README.md"] = "this card"
            text = model_card(self.model, facts, self.files)
            (self.folder / "README.md").write_text(text, encoding="utf-8")
        hashed = [name for name in self.files if name != "export.json"]
        manifest: Mapping[str, Any] = {
            "format": "understudy-export",
            "version": 1,
            "model": self.model.config.name,
            "folded": self.model.fold_state,
            "weights_hash": io.weights_hash(self.model),
            "opset": self.opset if self.differences else None,
            "tolerance": self.tolerance,
            "max_difference": self.differences,
            "int8": self.agreements,
            "sha256": {name: hash_file(self.folder / name) for name in hashed},
            "versions": versions("onnx", "onnxscript", "onnxruntime", "tokenizers"),
        }
        write_json(self.folder / "export.json", manifest)
