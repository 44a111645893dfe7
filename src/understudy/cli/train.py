"""`understudy train STORE ...`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.cli.common import note, parse_config, table, take_flag, take_option
from understudy.core.errors import ConfigError

if TYPE_CHECKING:
    from understudy.data.store import Store
    from understudy.train.student_parts import StudentResult

MAIN = {"clip": "retrieval.mean_r1", "classifier": "classify.top1"}
"""The metric whose best weights are kept when nothing else is asked for."""


def train(argv: Sequence[str], prog: str) -> None:
    """Train a student on a store and score it on the split `test`, if there is one.

    `STORE` comes first. `--out FOLDER` says where the run goes; `--model` decides the kind: a CLIP
    takes the options of `StudentConfig`, a classifier those of `ClassifierStudentConfig`
    (`understudy train --model cnn-small --help`). `--dry-run` checks everything against the store
    and prints what would be trained, `--fresh` starts over where `--out` holds an unfinished run
    (by default it goes on; `--resume` says so explicitly), `--json` prints JSON.
    """
    from understudy.data.store import Store
    from understudy.evaluate.held_out import scorer

    dry, rest = take_flag(argv, "--dry-run")
    fresh, rest = take_flag(rest, "--fresh")
    goes_on, rest = take_flag(rest, "--resume")
    as_json, rest = take_flag(rest, "--json")
    out, rest = take_option(rest, "--out")
    if fresh and goes_on:
        raise ConfigError(f"{prog}: --fresh and --resume exclude each other; give one of them.")
    path = None
    if rest and not rest[0].startswith("-"):
        path, rest = rest[0], rest[1:]
    elif not {"-h", "--help"} & set(rest):
        raise ConfigError(
            f"{prog}: name the store first, for example '{prog} my-store --out runs/x'."
        )
    config, clip = _config(rest, f"{prog} STORE --out FOLDER [--dry-run] [--fresh] [--config F]")
    assert path is not None
    store = Store.open(path)
    if dry:
        facts = _plan(store, config, clip)
        print(json.dumps(facts, indent=2) if as_json else _lines(facts))
        return
    if out is None:
        raise ConfigError(f"{prog}: say where the run goes, for example --out runs/{config.model}.")
    evaluate = scorer(store)
    if evaluate is not None and config.train.best is None:
        best = MAIN["clip" if clip else "classifier"]
        config = replace(config, train=replace(config.train, best=best))
    result = _trainer(clip)(store, None, config, Path(out), evaluate, resume=not fresh)
    _print(result, as_json)


def _config(argv: Sequence[str], prog: str) -> tuple[Any, bool]:
    """Return the configuration, and whether the model is a CLIP."""
    from understudy.train.classifier_config import ClassifierStudentConfig
    from understudy.train.student_config import StudentConfig

    name, _ = take_option(argv, "--model")
    file, _ = take_option(argv, "--config")
    if name is None and file is not None and Path(file).suffix in (".yaml", ".yml", ".json"):
        from understudy.core.config import load_yaml

        name = load_yaml(file).get("model")
    clip = name is None or _is_clip(name)
    return parse_config(StudentConfig if clip else ClassifierStudentConfig, argv, prog), clip


def _is_clip(name: str) -> bool:
    from understudy import models
    from understudy.models.runs import weights_path

    if name not in models.MODELS and Path(name).exists():
        return models.config_of(weights_path(name))["config"]["kind"] == "clip"
    return hasattr(models.config(name), "text")


def _trainer(clip: bool) -> Callable[..., StudentResult]:
    if clip:
        from understudy.train.student import train_clip

        return train_clip
    from understudy.train.classifier_student import train_classifier

    return train_classifier


def _plan(store: Store, config: Any, clip: bool) -> dict[str, Any]:
    """Make everything but a step: model, loader, objective; return what they are."""
    from understudy.evaluate.held_out import held_out_rows
    from understudy.models.count import parameters
    from understudy.train.student_parts import train_rows

    if clip:
        from understudy.train.student import clip_loader, clip_step, make_student

        model: Any = make_student(store, config)
        loader = clip_loader(store, model, config)
        step: Any = clip_step(store, config)
    else:
        from understudy.train.classifier_student import (
            classifier_loader,
            classifier_step,
            make_classifier,
        )

        model = make_classifier(store, config)
        loader = classifier_loader(store, model, config)
        step = classifier_step(config, model.config.num_classes)
    first = loader.load(0)
    rows, seen = len(train_rows(store, config.rows)), config.train.samples_seen
    shapes = {
        key: [list(part.shape) for part in value] if isinstance(value, list) else list(value.shape)
        for key, value in first.items()
    }
    return {
        "model": model.config.name,
        "parameters": parameters(model),
        "rows": rows,
        "steps": config.train.steps,
        "samples_seen": seen,
        "passes": round(seen / rows, 2),
        "objective": type(step).__name__,
        "scales": list(getattr(step, "scales", ())),
        "batch": shapes,
        "held_out_rows": len(held_out_rows(store)),
    }


def _lines(facts: Mapping[str, Any]) -> str:
    wide = max(len(key) for key in facts)
    return "\n".join(
        f"{key.ljust(wide)}  {value:,}" if isinstance(value, int) else f"{key.ljust(wide)}  {value}"
        for key, value in facts.items()
    )


def _print(result: StudentResult, as_json: bool) -> None:
    if as_json:
        names = ("steps", "weights", "train", "seconds", "finished", "facts")
        plain = {name: getattr(result, name) for name in names}
        print(json.dumps({"path": str(result.path), **plain}, indent=2))
        return
    if result.weights:
        metrics = list(next(iter(result.weights.values())))
        rows = [
            (metric, *(scores.get(metric) for scores in result.weights.values()))
            for metric in metrics
        ]
        print(table(rows, ("metric", *result.weights)))
    for key, count in result.facts.get("truncated_texts", {}).items():
        if count:
            note(f"{count:,} {key} were longer than the text tower's context and lost words")
    loss = result.train.get("loss")
    shown = "" if loss is None else f", loss {loss:.4g}"
    state = "" if result.finished else "; stopped by the time limit, run again to go on"
    print(f"{result.path}: {result.steps:,} steps{shown}{state}")
