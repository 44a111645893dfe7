"""`understudy model export|import`: hand a model over, and bring released weights in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from understudy.cli.common import note, parse, show
from understudy.core.errors import ConfigError

Positional = tyro.conf.Positional


def export(argv: Sequence[str], prog: str) -> None:
    """Parse and run `model export`."""

    def command(
        run: Positional[Path],
        out: Path | None = None,
        onnx: bool = True,
        safetensors: bool = True,
        card: bool = True,
        preprocess: str = "graph",
        towers: tuple[str, ...] = (),
        fold: str = "all",
        weights: str = "auto",
        opset: int = 20,
        tolerance: float = 1e-4,
        int8: str = "",
        calibration: int = 64,
        data: str = "",
        weights_licence: str = "",
        data_licence: str = "",
        intended_use: str = "",
        json: bool = False,
    ) -> None:
        """Fold a model and write ONNX with matching preprocessing, checked in ONNX Runtime.

        Args:
            run: a run's folder or a weights file.
            out: where to write; default `export` in the run's folder.
            onnx: write ONNX (needs the extra `export`).
            safetensors: write the folded weights of this package.
            card: write the model card.
            preprocess: `graph`: the ONNX file takes uint8 pictures and normalises inside; `file`:
                it takes normalised floats as preprocess.json says.
            towers: image, text (both by default), and map: the map of an MCi tower's last
                convolution, a vision-language model's visual tokens.
            fold: all, or branches (the published parameter counts).
            weights: of a run's folder: auto, final, ema or best.
            opset: ONNX operator set.
            tolerance: largest difference from PyTorch allowed.
            int8: a store whose pictures calibrate; each ONNX file is also written in eight bits.
            calibration: how many of its pictures, evenly spaced.
            data: what the model was trained on, for the card.
            weights_licence: for the card.
            data_licence: for the card.
            intended_use: for the card.
            json: print the written files as JSON.
        """
        from understudy.compress.card import CardFacts
        from understudy.compress.export import export_model
        from understudy.core.config import check_choice

        check_choice(preprocess, ("graph", "file"), "--preprocess")
        folder = out or (run if run.is_dir() else run.parent) / "export"
        files = export_model(
            run,
            folder,
            onnx=onnx,
            safetensors=safetensors,
            card=card,
            in_graph=preprocess == "graph",
            towers=towers or None,
            fold=fold,  # type: ignore[arg-type]
            weights=weights,
            opset=opset,
            tolerance=tolerance,
            int8=_pictures(int8, calibration) if int8 else (),
            facts=CardFacts(
                data=data,
                weights_licence=weights_licence,
                data_licence=data_licence,
                intended_use=intended_use,
            ),
        )
        show([str(f) for f in files], json, "\n".join)

    parse(command, argv, prog)


def _pictures(path: str, count: int) -> list[Any]:
    """Return decoded pictures of a store, evenly spaced over its rows."""
    from understudy.data.decode import decode_many
    from understudy.data.store import Store
    from understudy.evaluate.images import StoreImages

    if count < 1:
        raise ConfigError(f"--calibration: expected at least 1, got {count}.")
    images = StoreImages(Store.open(path))
    step = max(1, len(images) // count)
    images.rows = images.rows[::step][:count]
    encoded, names = images.read(0, len(images))
    return decode_many(encoded, names=names)


def import_(argv: Sequence[str], prog: str) -> None:
    """Parse and run `model import`."""

    def command(
        checkpoint: Positional[Path],
        model: str,
        out: Path,
        tokenizer: Path | None = None,
        json: bool = False,
    ) -> None:
        """Bring released weights into one file of this package, which every command takes.

        `train --model OUT`, `evaluate OUT STORE`, `model export OUT`, `model latency OUT` and
        teachers of kind `understudy` read it; the file remembers whose weights they are and the
        input that they expect. Only tensors are read from the checkpoint, never code.

        Args:
            checkpoint: `.safetensors`, or a `.pt`/`.bin` of plain tensors, with the original,
                OpenCLIP's or timm's names.
            model: our name of the model, such as mobileclip-s0.
            out: the file that is written, `.safetensors`.
            tokenizer: CLIP's vocabulary (bpe_simple_vocab_16e6.txt.gz or tokenizer.json), kept in
                the file; without it a CLIP can read no texts.
            json: print what was written as JSON.
        """
        from understudy import models
        from understudy.models.convert import load_released
        from understudy.models.count import parameters
        from understudy.models.io import save
        from understudy.models.text.tokenizer import ClipTokenizer

        if out.suffix != ".safetensors":
            raise ConfigError(f"--out {out}: expected a .safetensors file.")
        words = None
        if tokenizer is not None:
            read: Any = models.config(model)
            if not hasattr(read, "text"):
                raise ConfigError(f"--tokenizer: '{model}' reads no texts; leave it out.")
            words = ClipTokenizer(tokenizer, read.text.context_length)
        loaded: Any = load_released(checkpoint, model, tokenizer=words)
        out.parent.mkdir(parents=True, exist_ok=True)
        save(loaded, out, {"source": checkpoint.name})
        facts = {
            "path": str(out),
            "model": loaded.config.name,
            "weights": loaded.config.weights,
            "parameters": parameters(loaded),
            "folded": loaded.fold_state,
            "tokenizer": words is not None,
        }
        show(facts, json, _import_text)
        if words is None and hasattr(loaded, "text"):
            note("no tokenizer: give CLIP's vocabulary (--tokenizer) to embed texts with it")

    parse(command, argv, prog)


def _import_text(facts: dict[str, Any]) -> str:
    form = "training form" if facts["folded"] == "no" else f"folded ({facts['folded']})"
    return f"{facts['path']}: {facts['weights']}, {facts['parameters']:,} parameters, {form}"
