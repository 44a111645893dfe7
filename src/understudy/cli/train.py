"""`understudy train STORE ...`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.cli import on
from understudy.cli.common import (
    note,
    parse_config,
    table,
    take_flag,
    take_option,
    take_options,
)
from understudy.core.errors import ConfigError

if TYPE_CHECKING:
    from understudy.data.store import Store
    from understudy.train.student_run import StudentResult

MAIN = {"clip": "retrieval.mean_r1", "classifier": "classify.top1"}
"""The metric whose best weights are kept when nothing else is asked for."""


def train(argv: Sequence[str], prog: str) -> int:
    """Train a student on a store and score it on the split `test`, if there is one.

    `STORE` comes first. `--out FOLDER` says where the run goes; `--model` decides the kind: a CLIP
    takes the options of `StudentConfig`, a classifier those of `ClassifierStudentConfig`
    (`understudy train --model cnn-small --help`). `--preset NAME` starts from published settings
    (`understudy.train.presets.PRESETS`), which decide the model too unless it is named; other
    options change them. A classifier that learns online takes
    `--teachers RUN ...`, trained classifiers that are asked at every step. `--dry-run` checks
    everything against the store and prints what would be trained, `--fresh` starts over where
    `--out` holds an unfinished run (by default it goes on; `--resume` says so explicitly), `--json`
    prints JSON. The best weights are those with the best score on the split `val`, where there is
    one; otherwise the split `test` chooses them too, and the table says so.
    `--on local-job|ray|ray://HOST:PORT|slurm` runs the command there as a job.
    """
    from understudy.data.store import Store
    from understudy.evaluate.held_out import scorer, watcher

    place, typed = on.take(argv)
    dry, rest = take_flag(typed, "--dry-run")
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
    config, clip, asked = _config(
        rest, f"{prog} STORE --out FOLDER [--dry-run] [--fresh] [--config F]"
    )
    assert path is not None
    store = Store.open(path)
    if dry:
        facts = _plan(store, config, clip, asked)
        print(json.dumps(facts, indent=2) if as_json else _lines(facts))
        return 0
    if out is None:
        raise ConfigError(f"{prog}: say where the run goes, for example --out runs/{config.model}.")
    if not place.here:
        _plan(store, config, clip, asked)  # what is wrong with it is said before it waits
        return on.run(place, ["train", *typed])
    evaluate, watch = scorer(store), watcher(store)
    if (evaluate or watch) is not None and config.train.best is None:
        best = MAIN["clip" if clip else "classifier"]
        config = replace(config, train=replace(config.train, best=best))
    options: dict[str, Any] = {"watch": watch, "resume": not fresh}
    if asked:
        options |= {"teachers": _classifiers(asked), "context": {"teachers": asked}}
    result = _trainer(clip)(store, None, config, Path(out), evaluate, **options)
    print_result(result, as_json)
    return 0


def _classifiers(paths: Sequence[str]) -> list[Any]:
    """Return trained classifiers, frozen."""
    from understudy.models.image.classifier import Classifier
    from understudy.models.runs import load_run

    found = []
    for path in paths:
        model = load_run(path)
        if not isinstance(model, Classifier):
            raise ConfigError(f"--teachers: {path} holds {model.config.name}, no classifier.")
        found.append(model.requires_grad_(False))
    return found


def _config(argv: Sequence[str], prog: str) -> tuple[Any, bool, list[str]]:
    """Return the configuration, whether the model is a CLIP, and the teachers asked online."""
    from understudy.train.classifier_config import ClassifierStudentConfig
    from understudy.train.student_config import StudentConfig

    chosen, argv = take_option(argv, "--preset")
    name, _ = take_option(argv, "--model")
    file, _ = take_option(argv, "--config")
    if chosen is not None:
        return _preset(chosen, name, file, argv, prog)
    if name is None and file is not None and Path(file).suffix in (".yaml", ".yml", ".json"):
        from understudy.core.config import load_yaml

        name = load_yaml(file).get("model")
    if name is None or _is_clip(name):
        return parse_config(StudentConfig, argv, prog), True, []
    asked, argv = take_options(argv, "--teachers")
    config = parse_config(ClassifierStudentConfig, argv, f"{prog} [--teachers RUN ...]")
    _check_asked(asked, config)
    return config, False, asked


def _preset(
    chosen: str, model: str | None, file: str | None, argv: Sequence[str], prog: str
) -> tuple[Any, bool, list[str]]:
    """Return published settings with the options that change them; see `_config`."""
    import tyro

    from understudy.train.presets import preset
    from understudy.train.student_config import StudentConfig

    if file is not None:
        raise ConfigError("--preset and --config exclude each other; give one of them.")
    default = preset(chosen, model)
    asked, rest = take_options(argv, "--teachers")
    clip = isinstance(default, StudentConfig)
    if asked and clip:
        raise ConfigError(
            f"--teachers: preset '{chosen}' trains a CLIP; its teachers are in the store (or "
            "--online)."
        )
    config = tyro.cli(type(default), args=rest, prog=f"{prog} [--preset NAME]", default=default)
    if not clip:
        _check_asked(asked, config)
    return config, clip, asked


def _check_asked(asked: Sequence[str], config: Any) -> None:
    """Refuse teachers that nobody asks, and asking nobody."""
    if bool(asked) != (config.learn == "online"):
        raise ConfigError(
            f"--teachers: {len(asked)} given, and learn is '{config.learn}'; '--learn online' asks "
            "trained classifiers at every step (--teachers runs/a runs/b), the others ask nobody."
        )


def _is_clip(name: str) -> bool:
    from understudy import models
    from understudy.models.runs import names_weights, weights_path

    if names_weights(name):
        return models.config_of(weights_path(name))["config"]["kind"] == "clip"
    return hasattr(models.config(name), "text")


def _trainer(clip: bool) -> Callable[..., StudentResult]:
    if clip:
        from understudy.train.student import train_clip

        return train_clip
    from understudy.train.classifier_student import train_classifier

    return train_classifier


def _plan(store: Store, config: Any, clip: bool, asked: Sequence[str]) -> dict[str, Any]:
    """Make everything but a step: model, loader, objective; return what they are."""
    from understudy.evaluate.held_out import held_out_rows
    from understudy.models.count import parameters
    from understudy.train.student_batches import train_rows

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
        step = classifier_step(
            config, model.config.num_classes, _classifiers(asked), model.preprocess
        )
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


def print_result(result: StudentResult, as_json: bool) -> None:
    """Print what a run came to: its scores, or everything as JSON."""
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
        chosen = {"best": f"best (chosen on {result.facts.get('best_chosen_on') or 'test'})"}
        print(table(rows, ("metric", *(chosen.get(name, name) for name in result.weights))))
    for key, count in result.facts.get("truncated_texts", {}).items():
        if count:
            note(f"{count:,} {key} were longer than the text tower's context and lost words")
    loss = result.train.get("loss")
    shown = "" if loss is None else f", loss {loss:.4g}"
    state = "" if result.finished else "; stopped by the time limit, run again to go on"
    print(f"{result.path}: {result.steps:,} steps{shown}{state}")
