"""Hand a model over: folded, as ONNX with matching preprocessing, checked, with a card."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from understudy.compress.card import CardFacts
from understudy.compress.export_files import ExportFiles
from understudy.compress.onnx import OPSET, TOLERANCE
from understudy.core import progress
from understudy.core.config import check_choice
from understudy.core.errors import ConfigError, ModelError
from understudy.core.files import read_json
from understudy.models import io
from understudy.models.base import Model
from understudy.models.families import check_family
from understudy.models.fold import FOLD_MODES, FoldMode
from understudy.models.runs import load_run, weights_path


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
    int8: Sequence[np.ndarray] = (),
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
        towers: `"image"`, `"text"`: which to write as ONNX; None takes both. `"map"` writes
            `map.onnx`, the map of an MCi tower's last convolution: a vision-language model's
            visual tokens, row by row.
        fold: how to fold a model that is not folded.
        weights: of a run's folder: `"final"`, `"ema"`, `"best"`, or `"auto"`.
        opset: ONNX operator set.
        tolerance: largest difference of unit embeddings (or of logits, relative to the largest)
            between ONNX Runtime and PyTorch.
        int8: calibration images, uint8 [H, W, 3] each, like those that the model will see: a few
            dozen. With them, each tower is also written quantised (`image-int8.onnx`), and how well
            it agrees with PyTorch on them is kept in `export.json`; see `understudy.compress.int8`.
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
    usual = ("image", "text") if hasattr(ready, "encode_text") else ("image",)
    has = (*usual, "map") if hasattr(ready.image, "expanded_map") else usual
    for tower in towers or ():
        check_choice(tower, has, f"export of {ready.config.name}: tower")
    chosen = tuple(t for t in has if t in (towers or usual)) if onnx else ()
    if len(int8) and not onnx:
        raise ConfigError("export: int8 files are made from ONNX files; ask for onnx too.")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out) as folder:
        made = ExportFiles(ready, Path(folder), in_graph, opset, tolerance)
        with progress.bar("export", len(chosen) + 1, "files") as bar:
            for tower in chosen:
                made.onnx(tower)
                if len(int8):
                    made.int8(tower, int8)
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
