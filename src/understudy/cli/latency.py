"""`understudy model latency`: models by resolutions by precisions, timed by the protocol."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from understudy.cli.common import note, parse, show, table
from understudy.core.errors import ConfigError

Positional = tyro.conf.Positional
MILLISECONDS = ("mean_ms", "min_ms", "max_ms", "p50_ms", "p95_ms")


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
        resolutions: tuple[str, ...] = (),
        precisions: tuple[str, ...] = (),
        towers: tuple[str, ...] = (),
        out: Path | None = None,
        report: Path | None = None,
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
            resolutions: sides of the images in pixels, with spaces or commas; the models' own by
                default.
            precisions: fp32, bf16, fp16 (cuda) and int8, with spaces or commas; instead of dtype.
                int8 is timed in ONNX Runtime, with that runtime's fp32 beside it.
            towers: image, text; all that a model has by default.
            out: write everything as JSON into this file.
            report: write a page with the table and a plot over resolutions.
            json: print everything as JSON.
        """
        from understudy.compress.latency import measure_onnx
        from understudy.compress.latency_grid import PRECISIONS, measure_grid
        from understudy.compress.timing import LatencyConfig
        from understudy.core.files import write_json

        if not models:
            raise ConfigError(f"{prog}: name a model, for example '{prog} mobileclip-s0'.")
        wanted = _words(precisions)
        if wanted and dtype != "float32":
            raise ConfigError(f"{prog}: give --precisions or --dtype, not both.")
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
        wanted = wanted or [name for name, kind in PRECISIONS.items() if kind == dtype]
        sizes = _sizes(resolutions)
        found = []
        for name in models:
            note(f"timing {name}")
            if name.endswith(".onnx"):
                found.append(measure_onnx(name, config))
                continue
            model = _find(name)
            has = [t for t in towers if t == "image" or hasattr(model, t)]
            if towers and not has:
                raise ConfigError(f"{name}: has no {' or '.join(towers)} tower.")
            found += measure_grid(
                model,
                config,
                name=name,
                precisions=wanted,
                resolutions=sizes,
                towers=has or None,
            )
        results = with_ratios(found)
        if out is not None:
            note(f"written: {write_json(out, results)}")
        if report is not None:
            from understudy.report.latency_page import write_latency_page

            note(f"report: {write_latency_page(results, report)}")
        show(results, json, _text)

    parse(command, argv, prog)


def with_ratios(found: Sequence[Any]) -> list[dict[str, Any]]:
    """Return results as plain data, each with `times_fp32`: how much faster than its float32.

    It is null for float32 itself and where its runtime's float32 was not timed.
    """
    from understudy.compress.latency_grid import ratios

    known = {(r.name, r.tower, r.size, r.dtype, r.runtime): r.ratio for r in ratios(found)}
    return [
        {**r.to_dict(), "times_fp32": known.get((r.name, r.tower, r.size, r.dtype, r.runtime))}
        for r in found
    ]


def _words(given: Sequence[str]) -> list[str]:
    return [word for text in given for word in text.replace(",", " ").split()]


def _sizes(given: Sequence[str]) -> list[int]:
    words = _words(given)
    wrong = [word for word in words if not word.isdigit()]
    if wrong:
        raise ConfigError(f"--resolutions: expected pixels, got '{wrong[0]}'.")
    return [int(word) for word in words]


def _find(name: str) -> Any:
    from understudy.models.runs import find_model

    return find_model(name)


def _text(results: list[dict[str, Any]]) -> str:
    header = ["model", "tower", "size", "parameters", "mean ms", "min", "max", "p50", "p95"]
    rows = [
        [
            r["name"],
            r["tower"],
            r["size"],
            r["parameters"] or None,
            *(round(r[key], 3) for key in MILLISECONDS),
        ]
        for r in results
    ]
    kinds = {(r["dtype"], r["runtime"]) for r in results}
    if len({dtype for dtype, _ in kinds}) > 1:
        header[3:3] = ["precision", "runtime"]
        header.append("x fp32")
        for row, r in zip(rows, results, strict=True):
            row[3:3] = [r["dtype"], r["runtime"]]
            row.append(r["times_fp32"])
    first = results[0]
    dtypes = ", ".join(dict.fromkeys(r["dtype"] for r in results))
    facts = [
        f"batch {first['batch']}, {dtypes}, {first['device']}, threads {first['threads']}",
        "folding " + ", ".join(dict.fromkeys(r["fold"] for r in results)),
        f"{first['rounds']} rounds of {first['inferences']}",
    ]
    if len(header) > 9:
        facts.append("x fp32: float32's time over this one's in the same runtime")
    return table(rows, header) + "\n\n" + "; ".join(facts)
