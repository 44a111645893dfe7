"""Accuracy under distribution shift and under corruptions, from folders of pictures.

A shift set is a folder with a folder per class, named as the classes are:

    shifts/v2/<class>/*.jpg   shifts/sketch/<class>/*.jpg ...

Corruptions have two more levels: `corrupted/<corruption>/<severity>/<class>/*.jpg`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from understudy.core.errors import DataError
from understudy.core.files import read_json
from understudy.evaluate.images import (
    FileImages,
    class_folders,
    embed_texts,
    logits_of,
    run_images,
)
from understudy.evaluate.metrics import Errors, mean_corruption_error, top_k_accuracy
from understudy.evaluate.zeroshot import TEMPLATES, Prompts, check_classes, class_weights
from understudy.models.base import Model


def predictor(
    model: Any, classes: Sequence[str], prompts: Prompts = TEMPLATES
) -> Callable[[Tensor], Tensor]:
    """Return the function from normalised images to one score a class.

    Args:
        model: a classifier with a head of as many classes, or a CLIP.
        classes: class names by number.
        prompts: for a CLIP.

    Raises:
        DataError: the number of classes differs from the classifier's.
    """
    names = check_classes(classes)
    if hasattr(model, "encode_text"):
        weights = class_weights(lambda texts: embed_texts(model, texts), names, prompts)
        return lambda pixels: model.encode_image(pixels).float() @ weights.to(pixels.device).T
    if model.config.num_classes != len(names):
        raise DataError(
            f"{model.config.name} has {model.config.num_classes} classes, {len(names)} names given."
        )
    return logits_of(model)


def set_accuracy(
    model: Model,
    folder: str | Path,
    classes: Sequence[str],
    predict: Callable[[Tensor], Tensor],
    **options: Any,
) -> dict[str, float]:
    """Return `top1` and `images` of one folder of classes.

    A set may hold only some of the classes (ImageNet-A and -R do); predictions are then restricted
    to those.

    Args:
        model: decides device and preprocessing.
        folder: a folder per class.
        classes: all class names by number.
        predict: see `predictor`.
        **options: of `run_images`.

    Raises:
        DataError: a folder that is none of the classes.
    """
    number = {name: i for i, name in enumerate(classes)}
    groups = class_folders(folder)
    for name in groups:
        if name not in number:
            raise DataError(
                f"{Path(folder) / name}: '{name}' is none of the {len(classes)} classes; folders "
                "must be named as the classes are."
            )
    present = sorted(number[name] for name in groups)
    place = {classes[n]: i for i, n in enumerate(present)}
    files = [(path, place[name]) for name, paths in groups.items() for path in paths]
    scores = run_images(model, FileImages([path for path, _ in files]), predict, **options)
    labels = torch.tensor([label for _, label in files])
    return {
        "top1": top_k_accuracy(scores[:, present], labels),
        "images": float(len(files)),
    }


def _folders(root: str | Path, what: str) -> list[Path]:
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder.")
    found = sorted(p for p in root.iterdir() if p.is_dir() and p.name[0] != ".")
    if not found:
        raise DataError(f"{root}: no folder in it; expected one per {what}.")
    return found


def evaluate_shifts(
    model: Model,
    root: str | Path,
    classes: Sequence[str],
    *,
    prompts: Prompts = TEMPLATES,
    sets: Sequence[str] | None = None,
    **options: Any,
) -> dict[str, float]:
    """Score a model on several shifted sets.

    Args:
        model: a classifier or a CLIP.
        root: a folder per set, each with a folder per class.
        classes: class names by number.
        prompts: for a CLIP.
        sets: which sets; None takes all that are there. The mean depends on this list, so the
            result names every set in it.
        **options: `batch_size`, `preprocess`, `threads` of `run_images`.

    Returns:
        `shift.<set>.top1`, `shift.<set>.images`, `shift.mean_top1`, `shift.sets`.
    """
    folders = {p.name: p for p in _folders(root, "set")}
    for name in sets or ():
        if name not in folders:
            raise DataError(f"{root}: no set '{name}'; there are {', '.join(folders)}.")
    chosen = list(sets) if sets is not None else list(folders)
    if not chosen:
        raise DataError(f"{root}: name at least one set; there are {', '.join(folders)}.")
    predict = predictor(model, classes, prompts)
    out: dict[str, float] = {}
    for name in chosen:
        found = set_accuracy(model, folders[name], classes, predict, **options)
        out |= {f"shift.{name}.{key}": value for key, value in found.items()}
    out["shift.mean_top1"] = sum(out[f"shift.{name}.top1"] for name in chosen) / len(chosen)
    out["shift.sets"] = float(len(chosen))
    return out


def evaluate_corruptions(
    model: Model,
    root: str | Path,
    classes: Sequence[str],
    *,
    prompts: Prompts = TEMPLATES,
    baseline: str | Path | Errors | None = None,
    **options: Any,
) -> dict[str, float]:
    """Score a model on corruptions of several severities, as on ImageNet-C.

    Args:
        model: a classifier or a CLIP.
        root: `<corruption>/<severity>/<class>/`, severities being whole numbers.
        classes: class names by number.
        prompts: for a CLIP.
        baseline: the reference model's errors by corruption and severity, or a JSON file of them;
            None leaves `mce` out.
        **options: `batch_size`, `preprocess`, `threads` of `run_images`.

    Returns:
        `corruption.<name>.<severity>.error`, `corruption.<name>.error`, `corruption.mean_error`,
        `corruption.mean_accuracy` and, with a baseline, `corruption.mce` (1 = the baseline).

    Raises:
        DataError: a severity that is no number, or corruptions of different severities.
    """
    tree: dict[str, dict[int, Path]] = {}
    for folder in _folders(root, "corruption"):
        tree[folder.name] = {}
        for level in _folders(folder, "severity"):
            if not level.name.isdigit():
                raise DataError(f"{level}: expected a severity such as 1, got '{level.name}'.")
            tree[folder.name][int(level.name)] = level
    first = next(iter(tree))
    for name, levels in tree.items():
        if set(levels) != set(tree[first]):
            raise DataError(
                f"{root}: '{name}' has severities {sorted(levels)}, '{first}' has "
                f"{sorted(tree[first])}; a mean over both would be skewed."
            )
    reference = load_errors(baseline) if isinstance(baseline, str | Path) else baseline
    predict = predictor(model, classes, prompts)
    errors: dict[str, dict[int, float]] = {}
    out: dict[str, float] = {}
    for name, levels in tree.items():
        errors[name] = {}
        for severity in sorted(levels):
            found = set_accuracy(model, levels[severity], classes, predict, **options)
            errors[name][severity] = 1.0 - found["top1"]
            out[f"corruption.{name}.{severity}.error"] = errors[name][severity]
        out[f"corruption.{name}.error"] = sum(errors[name].values()) / len(levels)
    out["corruption.mean_error"] = mean_corruption_error(errors)
    out["corruption.mean_accuracy"] = 1.0 - out["corruption.mean_error"]
    if reference is not None:
        out["corruption.mce"] = mean_corruption_error(errors, reference)
    return out


def load_errors(path: str | Path) -> Errors:
    """Read a table of errors: `{"noise": [0.2, 0.3], ...}` or `{"noise": {"1": 0.2, ...}}`.

    Raises:
        DataError: not such JSON.
    """
    data = read_json(path)
    if not isinstance(data, Mapping) or not all(
        isinstance(v, list | Mapping) and all(isinstance(e, int | float) for e in _values(v))
        for v in data.values()
    ):
        raise DataError(f"{path}: expected a mapping of corruptions to errors by severity.")
    return cast("Errors", data)


def _values(table: Any) -> list[Any]:
    return list(table.values()) if isinstance(table, Mapping) else list(table)
