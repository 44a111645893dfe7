"""`understudy evaluate RUN STORE ...`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from understudy.cli.common import note, parse, show, table
from understudy.core.errors import ConfigError

Positional = tyro.conf.Positional


def evaluate(argv: Sequence[str], prog: str) -> None:
    """Parse and run `evaluate`."""

    def command(
        run: Positional[Path],
        store: Positional[Path | None] = None,
        tasks: tuple[str, ...] = (),
        split: str | None = None,
        classes: Path | None = None,
        templates: Path | None = None,
        ensemble: tuple[Path, ...] = (),
        weights: str = "auto",
        batch_size: int = 64,
        bins: int = 15,
        image: str = "image",
        text: str = "text",
        label: str = "label",
        shifts: Path | None = None,
        corruptions: Path | None = None,
        baseline: Path | None = None,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
        threads: int = 1,
        device: str = "cpu",
        out: Path | None = None,
        json: bool = False,
    ) -> None:
        """Score a model: retrieval, zero-shot, classification, shifts, corruptions.

        Args:
            run: a run's folder or a weights file.
            store: pictures with captions, labels or both.
            tasks: retrieval, zeroshot, classify; all that fit by default.
            split: only rows of this split.
            classes: class names, one a line or a JSON list; default the store's.
            templates: prompt templates, one a line, {} for the class name.
            ensemble: more CLIPs that vote with RUN.
            weights: of a run's folder: auto, final, ema or best.
            batch_size: images at once.
            bins: of the calibration error.
            image: column of pictures.
            text: column of captions.
            label: column of labels.
            shifts: a folder of shifted sets: SET/CLASS/pictures.
            corruptions: a folder of corruptions: NAME/SEVERITY/CLASS/pictures.
            baseline: JSON of a reference model's errors, for the mean corruption error.
            mean: another channel mean than the model's; refused for released weights.
            std: another channel standard deviation than the model's; refused for released weights.
            threads: that decode, and of the processor.
            device: cpu or cuda.
            out: also write the numbers as JSON here.
            json: print JSON.
        """
        import torch

        from understudy.core.files import write_json

        if store is None and shifts is None and corruptions is None:
            raise ConfigError(f"{prog}: give a store, --shifts or --corruptions to score on.")
        torch.set_num_threads(threads)
        models = _models(run, weights, ensemble, device)
        names, prompts = _words(classes, templates)
        options = {
            "prompts": prompts,
            "batch_size": batch_size,
            "preprocess": _preprocess(models[0], mean, std),
            "threads": threads,
        }
        found: dict[str, float] = {}
        if store is not None:
            columns = {"image": image, "text": text, "label": label}
            chosen = {"classes": names, "tasks": tasks or None, "split": split, "bins": bins}
            found |= _store(models, store, **chosen, **columns, **options)
        if shifts is not None or corruptions is not None:
            found |= _folders(models, names, store, shifts, corruptions, baseline, **options)
        if out is not None:
            write_json(out, found)
            note(f"written: {out}")
        show(found, json, lambda data: table(list(data.items()), ("metric", "value")))

    parse(command, argv, prog)


def _models(run: Path, weights: str, ensemble: Sequence[Path], device: str) -> list[Any]:
    from understudy.models.runs import load_run

    return [m.to(device) for m in (load_run(run, weights), *map(load_run, ensemble))]


def _words(classes: Path | None, templates: Path | None) -> tuple[Any, Any]:
    from understudy.evaluate.zeroshot import TEMPLATES, read_classes, read_templates

    names = read_classes(classes) if classes else None
    return names, read_templates(templates) if templates else TEMPLATES


def _store(models: Sequence[Any], store: Path, **options: Any) -> dict[str, float]:
    from understudy.data.store import Store
    from understudy.evaluate.run import evaluate_model

    return evaluate_model(models, Store.open(store), **options)


def _preprocess(model: Any, mean: Any, std: Any) -> Any:
    if mean is None and std is None:
        return None
    from dataclasses import replace

    changes = {"mean": mean, "std": std}
    return replace(model.preprocess, **{k: v for k, v in changes.items() if v is not None})


def _folders(
    models: Sequence[Any],
    names: Sequence[str] | None,
    store: Path | None,
    shifts: Path | None,
    corruptions: Path | None,
    baseline: Path | None,
    **options: Any,
) -> dict[str, float]:
    from understudy.evaluate.robustness import evaluate_corruptions, evaluate_shifts
    from understudy.evaluate.rows import class_names

    if len(models) > 1:
        raise ConfigError("evaluate: shifts and corruptions score one model; leave out --ensemble.")
    opened = None
    if store is not None:
        from understudy.data.store import Store

        opened = Store.open(store)
    classes = class_names(models, opened, names)
    found: dict[str, float] = {}
    if shifts is not None:
        found |= evaluate_shifts(models[0], shifts, classes, **options)
    if corruptions is not None:
        found |= evaluate_corruptions(models[0], corruptions, classes, baseline=baseline, **options)
    return found
