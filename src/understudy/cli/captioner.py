"""`understudy train captioner STORE --out FOLDER`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from understudy.cli.common import parse_config, take_flag, take_option
from understudy.cli.train import print_result
from understudy.core.errors import ConfigError


def captioner(argv: Sequence[str], prog: str) -> None:
    """Train a captioner on a store's images and texts, or fine-tune the run that `--model` names.

    `STORE` comes first, `--out FOLDER` says where the run goes; the options are those of
    `CaptionerConfig`. What comes out is a captioner for `understudy reinforce`: `{name: own, path:
    FOLDER/model.safetensors}`. It is scored as a CLIP on the split `test`, if there is one.
    `--fresh` starts over where `--out` holds an unfinished run, `--json` prints JSON.
    """
    from understudy.data.store import Store
    from understudy.evaluate.held_out import scorer, watcher
    from understudy.train.captioner import CaptionerConfig, train_captioner

    fresh, rest = take_flag(argv, "--fresh")
    as_json, rest = take_flag(rest, "--json")
    out, rest = take_option(rest, "--out")
    path = None
    if rest and not rest[0].startswith("-"):
        path, rest = rest[0], rest[1:]
    elif not {"-h", "--help"} & set(rest):
        raise ConfigError(
            f"{prog}: name the store first, for example '{prog} my-store --out runs/captioner'."
        )
    config = parse_config(CaptionerConfig, rest, f"{prog} STORE --out FOLDER [--config F]")
    if out is None:
        raise ConfigError(f"{prog}: say where the run goes, for example --out runs/captioner.")
    assert path is not None
    store = Store.open(path)
    evaluate, watch = scorer(store), watcher(store)
    result = train_captioner(
        store, None, config, Path(out), evaluate, watch=watch, resume=not fresh
    )
    print_result(result, as_json)
