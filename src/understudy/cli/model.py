"""`understudy model ...`: hand a model over, and time it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from understudy.cli.common import note, parse, show, table
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
            towers: image, text; all by default.
            fold: all, or branches (the published parameter counts).
            weights: of a run's folder: auto, final, ema or best.
            opset: ONNX operator set.
            tolerance: largest difference from PyTorch allowed.
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
            facts=CardFacts(
                data=data,
                weights_licence=weights_licence,
                data_licence=data_licence,
                intended_use=intended_use,
            ),
        )
        show([str(f) for f in files], json, "\n".join)

    parse(command, argv, prog)


def latency(argv: Sequence[str], prog: str) -> None:
    """Parse and run `model latency`."""

    def command(
        models: Positional[tuple[str, ...]],
        rounds: int = 20,
        inferences: int = 50,
        discard: int = 1,
        trim: int = 10,
        threads: int = 1,
        dtype: str = "float32",
        device: str = "cpu",
        batch: int = 1,
        fold: str = "all",
        channels_last: bool = False,
        resolutions: tuple[int, ...] = (),
        towers: tuple[str, ...] = (),
        json: bool = False,
    ) -> None:
        """Time models with the published protocol; prints milliseconds a batch.

        Args:
            models: names, runs' folders, weights files or ONNX files.
            rounds: each loads the graph anew.
            inferences: per round.
            discard: first inferences of a round that do not count.
            trim: lowest, and highest, latencies of a round that are dropped.
            threads: of the processor.
            dtype: float32, bfloat16, or float16 on cuda.
            device: cpu or cuda.
            batch: samples at once.
            fold: all, branches, or no for the training form.
            channels_last: memory layout of images.
            resolutions: sides of the images in pixels; the models' own by default.
            towers: image, text; all that a model has by default.
            json: print everything as JSON.
        """
        from understudy.compress.latency import measure, measure_onnx
        from understudy.compress.timing import LatencyConfig

        if not models:
            raise ConfigError(f"{prog}: name a model, for example '{prog} mobileclip-s0'.")
        config = LatencyConfig(
            rounds=rounds,
            inferences=inferences,
            discard=discard,
            trim=trim,
            threads=threads,
            dtype=dtype,
            device=device,
            batch=batch,
            fold=fold,
            channels_last=channels_last,
        )
        results = []
        for name in models:
            note(f"timing {name}")
            if name.endswith(".onnx"):
                results.append(measure_onnx(name, config))
                continue
            model = _find(name)
            has = [t for t in towers if t == "image" or hasattr(model, t)]
            if towers and not has:
                raise ConfigError(f"{name}: has no {' or '.join(towers)} tower.")
            results += measure(
                model, config, name=name, resolutions=resolutions, towers=has or None
            )
        show([r.to_dict() for r in results], json, _latency_text)

    parse(command, argv, prog)


def _find(name: str) -> Any:
    from understudy.models.runs import find_model

    return find_model(name)


def _latency_text(results: list[dict[str, Any]]) -> str:
    header = ("model", "tower", "size", "parameters", "mean ms", "min", "max", "p50", "p95")
    rows = [
        (
            r["name"],
            r["tower"],
            r["size"],
            r["parameters"] or None,
            *(round(r[key], 3) for key in ("mean_ms", "min_ms", "max_ms", "p50_ms", "p95_ms")),
        )
        for r in results
    ]
    first = results[0]
    facts = [
        f"batch {first['batch']}, {first['dtype']}, {first['device']}, threads {first['threads']}",
        "folding " + ", ".join(dict.fromkeys(r["fold"] for r in results)),
        f"{first['rounds']} rounds of {first['inferences']}",
    ]
    return table(rows, header) + "\n\n" + "; ".join(facts)
