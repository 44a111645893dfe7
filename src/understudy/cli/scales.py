"""`understudy train scales STORE --out FOLDER`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from understudy.cli.common import note, parse_config, table, take_flag, take_option
from understudy.core.errors import ConfigError


def scales(argv: Sequence[str], prog: str) -> None:
    """Search the logit scale of every teacher: one small student a candidate, one teacher a time.

    `STORE` comes first and holds the teachers' embeddings and rows of split `val` to choose on (or
    of split `test`, where there is none). `--out FOLDER` keeps the students, so that the same
    command goes on after a stop. `--scales 10 20 50 100` are the candidates; `--student.model` and
    the other `--student` options are the target student. `--dry-run` prints how many students that
    is and how long they take here; `--json` prints JSON.
    """
    from understudy.data.store import Store
    from understudy.evaluate.held_out import needed_scorer, watcher
    from understudy.train.scale_search import SearchConfig, search_plan, search_scales

    dry, rest = take_flag(argv, "--dry-run")
    as_json, rest = take_flag(rest, "--json")
    out, rest = take_option(rest, "--out")
    path = None
    if rest and not rest[0].startswith("-"):
        path, rest = rest[0], rest[1:]
    elif not {"-h", "--help"} & set(rest):
        raise ConfigError(
            f"{prog}: name the store first, for example '{prog} my-store --out runs/scales'."
        )
    config = parse_config(SearchConfig, rest, f"{prog} STORE --out FOLDER [--dry-run] [--config F]")
    assert path is not None
    store = Store.open(path)
    if dry:
        facts = search_plan(store, config, out or "runs/scales")
        wide = max(map(len, facts))
        lines = "\n".join(f"{key.ljust(wide)}  {value}" for key, value in facts.items())
        print(json.dumps(facts, indent=2) if as_json else lines)
        return
    if out is None:
        raise ConfigError(f"{prog}: say where the students go, for example --out runs/scales.")
    curves = search_scales(
        store,
        config,
        out,
        watcher(store) or needed_scorer(store),
        on_done=lambda teacher, scale, seed, value: note(
            f"{teacher}, scale {scale:g}, seed {seed}: {config.metric} {value:.4g}"
        ),
    )
    _show(out, curves, as_json)


def _show(out: str, curves: Sequence, as_json: bool) -> None:
    from understudy.core.files import read_json
    from understudy.report.scales import scale_rows, write_scales
    from understudy.train.scale_search import SEARCH

    found = read_json(Path(out) / SEARCH)
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        print(table(scale_rows(found), ("teacher", "scale", found["metric"], "error", "")))
        for curve in curves:
            print(curve.note())
    note(f"written: {Path(out) / SEARCH}\nplot:    {write_scales(out)}")
