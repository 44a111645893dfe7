"""Hand a model over: folded, as ONNX with matching preprocessing, checked, with a card."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from understudy.compress.card import CardFacts, model_card
from understudy.compress.onnx import (
    OPSET,
    TOLERANCE,
    ImageGraph,
    TextGraph,
    check_onnx,
    image_samples,
    text_samples,
    write_onnx,
)
from understudy.compress.tokenizer_json import portable_json
from understudy.core import progress
from understudy.core.config import check_choice
from understudy.core.errors import ConfigError, ModelError
from understudy.core.files import read_json, write_json
from understudy.core.hashing import hash_file
from understudy.core.provenance import versions
from understudy.models import io
from understudy.models.base import Model
from understudy.models.families import check_family
from understudy.models.fold import FOLD_MODES, FoldMode
from understudy.models.runs import load_run, weights_path

BATCHES = (2, 1, 5)
"""Batch sizes on which an exported file is compared; the first one is traced."""


def export_model(
    model: Model | str | Path,
    out: str | Path,
    *,
    onnx: bool = True,
    safetensors: bool = True,
    card: bool = True,
    in_graph: bool = True,
    towers: Sequence[str] | None = None,
    fold: FoldMode = "all",
    weights: str = "auto",
    opset: int = OPSET,
    tolerance: float = TOLERANCE,
    facts: CardFacts | None = None,
) -> list[Path]:
    """Write a model for use elsewhere.

    Args:
        model: in eval mode; or a run's folder or a weights file.
        out: folder to write into; files of the same names are replaced.
        onnx: write `image.onnx` and, for a CLIP, `text.onnx`, each compared with PyTorch in ONNX
            Runtime before anything is put in place.
        safetensors: write `model.safetensors`, folded.
        card: write `README.md`, the model card.
        in_graph: the image graph takes uint8 [batch, size, size, 3] and scales and normalises
            inside; otherwise it takes normalised float32 [batch, 3, size, size] as
            `preprocess.json` says. Resizing and cropping stay with the caller both ways.
        towers: `"image"`, `"text"`: which to write as ONNX; None takes all.
        fold: how to fold a model that is not folded.
        weights: of a run's folder: `"final"`, `"ema"`, `"best"`, or `"auto"`.
        opset: ONNX operator set.
        tolerance: largest difference of unit embeddings (or of logits, relative to the largest)
            between ONNX Runtime and PyTorch.
        facts: for the card; for a run, its record fills what is missing.

    Returns:
        the files, `preprocess.json`, `tokenizer.json` (in the `tokenizers` library's format) and
        `export.json` (hashes, largest differences, versions) among them.

    Raises:
        ConfigError: nothing to write, or an unknown tower.
        ModelError: training mode, weights that are not float32, a normalisation that released
            weights do not have, or a file that does not compute what PyTorch does.
        MissingExtraError: ONNX or ONNX Runtime is not installed.
    """
    if not (onnx or safetensors or card):
        raise ConfigError("export: nothing to write; ask for onnx, safetensors or the card.")
    facts = facts or CardFacts()
    if not isinstance(model, Model):
        facts = run_facts(model, weights, facts)
        model = load_run(model, weights)
    ready: Any = _ready(model, fold)
    has = ("image", "text") if hasattr(ready, "encode_text") else ("image",)
    for tower in towers or ():
        check_choice(tower, has, f"export of {ready.config.name}: tower")
    chosen = tuple(t for t in has if t in (towers or has)) if onnx else ()
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out) as folder:
        made = _Export(ready, Path(folder), in_graph, opset, tolerance)
        with progress.bar("export", len(chosen) + 1, "files") as bar:
            for tower in chosen:
                made.onnx(tower)
                bar.advance()
            made.describe()
            if safetensors:
                io.save(ready, made.folder / "model.safetensors", dict(facts.provenance))
                made.files["model.safetensors"] = "folded weights, configuration and tokenizer"
            made.finish(facts if card else None)
            bar.advance()
        for name in made.files:
            os.replace(made.folder / name, out / name)
    return [out / name for name in made.files]


def _ready(model: Model, fold: FoldMode) -> Model:
    check_choice(fold, FOLD_MODES, "export: fold")
    check_family(model.config.weights, model.preprocess)
    for name, parameter in model.named_parameters():
        if parameter.dtype != torch.float32:
            raise ModelError(
                f"export: {name} is {parameter.dtype}; export float32 weights (model.float())."
            )
    ready = model if model.is_folded else model.fold(fold)
    devices = {p.device.type for p in ready.parameters()}
    if devices == {"cpu"}:
        return ready
    import copy

    return copy.deepcopy(ready).cpu()


def run_facts(run: str | Path, weights: str, facts: CardFacts) -> CardFacts:
    """Return card facts completed from a run's folder: its metrics and what it was made from.

    Args:
        run: a run's folder or a weights file.
        weights: which weights of it.
        facts: what is known already; it wins.
    """
    path = weights_path(run, weights)
    extra = io.config_of(path).get("extra", {})
    provenance: dict[str, Any] = {"file": path.name, **extra}
    metrics = dict(facts.metrics)
    measured = facts.measured_on
    record = path.parent / "record.json"
    if record.is_file() and not metrics:
        found = read_json(record).get("metrics", {})
        averaged = path.name == "model-ema.safetensors"
        for name, value in found.items():
            plain = name.removeprefix("ema_")
            if not name.startswith("train/") and (name != plain) == averaged:
                metrics[plain] = float(value)
        measured = measured or "the run's last evaluation"
    return replace(
        facts,
        metrics=metrics,
        measured_on=measured if metrics else facts.measured_on,
        provenance={**provenance, **facts.provenance},
    )


class _Export:
    """One export into one folder."""

    def __init__(
        self, model: Any, folder: Path, in_graph: bool, opset: int, tolerance: float
    ) -> None:
        self.model, self.folder, self.in_graph = model, folder, in_graph
        self.opset, self.tolerance = opset, tolerance
        self.is_clip = hasattr(model, "encode_text")
        self.files: dict[str, str] = {}
        self.differences: dict[str, float] = {}

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
        return ImageGraph(
            self.model.image, self.model.preprocess, in_graph=self.in_graph, unit=self.is_clip
        ).eval()

    def run_images(self, images: torch.Tensor) -> torch.Tensor:
        """Return what PyTorch makes of the image graph's input, by the model's own path."""
        pixels = self.model.preprocess_images(images) if self.in_graph else images
        return self.model.encode_image(pixels) if self.is_clip else self.model(pixels)[self.output]

    def onnx(self, tower: str) -> None:
        """Write and check one tower."""
        graph = self.graph(tower)
        if tower == "image":
            samples = image_samples(self.model, self.in_graph, BATCHES)
        else:
            samples = text_samples(self.model, BATCHES)
        name = f"{tower}.onnx"
        write_onnx(
            graph,
            samples[0],
            self.folder / name,
            input_name="images" if tower == "image" else "tokens",
            output_name="embeddings" if tower == "text" else self.output,
            opset=self.opset,
            metadata={
                "understudy.model": self.model.config.name,
                "understudy.preprocess": self.description()[tower],
            },
        )
        reference = self.model.encode_text if tower == "text" else self.run_images
        self.differences[name] = check_onnx(reference, self.folder / name, samples, self.tolerance)
        self.files[name] = f"{tower} tower, dynamic batch"

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
            "sha256": {name: hash_file(self.folder / name) for name in hashed},
            "versions": versions("onnx", "onnxscript", "onnxruntime", "tokenizers"),
        }
        write_json(self.folder / "export.json", manifest)
