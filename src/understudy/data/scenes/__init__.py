"""Scene sets made of real handwriting and real photographs that ship inside Python packages.

| name | what |
| --- | --- |
| `digits` | 1,797 labelled scans: 300 for a student, 600 for teachers, 897 for the test |
| `scans` | the same scans as they are, 8 x 8 pixels: 1,078 for training, 719 for the test |
| `pairs` | scenes of 2-3 digits with noisy alt text, clean captions, masks and exact facts |
| `photos` | patches of 13 photographs |
| `photo-scenes` | tinted digits on photographs with captions, masks and depth |
| `ape-pairs` | digits with captions in many wordings, and a pool of mostly irrelevant pairs |
| `qa` | canvases of one to four digits with questions and answers, small digits flagged |
| `drifting-digits` | digits in time steps: classes come and fade, pictures and captions change |

Nothing is downloaded. Everything is a function of its options and its seed.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from understudy.core.config import check_keys
from understudy.core.errors import ConfigError, DataError
from understudy.core.lazy import LazyTable

if TYPE_CHECKING:
    import pyarrow as pa

    from understudy.data.scenes.pack import SceneTable
    from understudy.data.store import Store

SCENES = LazyTable(
    "scene set",
    {
        "digits": "understudy.data.scenes.digits",
        "scans": "understudy.data.scenes.raw_scans",
        "pairs": "understudy.data.scenes.pairs",
        "photos": "understudy.data.scenes.photos",
        "photo-scenes": "understudy.data.scenes.photo_scenes",
        "ape-pairs": "understudy.data.scenes.ape_pairs",
        "qa": "understudy.data.scenes.qa",
        "drifting-digits": "understudy.data.scenes.drifting_digits",
    },
)
"""Modules with `tables(**options)`, an iterator of `SceneTable`, and `meta()`."""

PREFIX = "scenes:"
CAPTIONS = "caption.template"
REVISION = 1  # goes up when the same options give other rows


def options_of(name: str) -> dict[str, Any]:
    """Return the options of a scene set with their defaults.

    Raises:
        ConfigError: there is no such set.
    """
    parameters = inspect.signature(SCENES.load(name).tables).parameters
    return {key: parameter.default for key, parameter in parameters.items()}


def to_store(name: str, path: str | Path, *, overwrite: bool = False, **options: Any) -> Store:
    """Make a scene set and write it as a store.

    Payload: `id`, `image` (PNG), `text`, `label`, `split`, `source`, and facts; dense labels are
    PNG columns (`scenes.pack.unpack_masks` and `unpack_depth` read them). Clean captions, where the
    set has them, are the knowledge column `caption.template`, written with a card.

    Args:
        name: a key of `SCENES`.
        path: where the store is written.
        overwrite: replace a store that is there.
        **options: options of the set (see `options_of`).

    Returns:
        The store; one that the same call wrote before is returned as it is, or finished. Its
        `meta["scenes"]` holds name and options, `meta["classes"]` the class names.

    Raises:
        ConfigError: no such set, or an unknown or bad option.
    """
    from understudy.data.store import Store

    module = SCENES.load(name)
    defaults = options_of(name)
    check_keys(options, defaults, f"scenes:{name}")
    chosen = {**defaults, **options}
    record = {"name": name, "revision": REVISION, "options": _plain(chosen)}
    captions: list[list[str]] = []
    batches = _batches(module.tables(**options), captions)
    store = None if overwrite else _same(path, record)
    if store is not None and store.has(CAPTIONS):
        return store
    if store is None:
        meta = {"scenes": record, **module.meta()}
        store = Store.create(path, batches, overwrite=overwrite, meta=meta)
    else:  # interrupted before the captions, or a set without any: make the rows again
        for _ in batches:
            pass
    if captions:
        _write_captions(store, captions, record, int(chosen.get("seed", 0)))
    return store


def _same(path: str | Path, record: dict[str, Any]) -> Store | None:
    """Return the store that an earlier, perhaps interrupted call with the same options wrote."""
    from understudy.data.store import Store

    if not Path(path).exists():
        return None
    try:
        store = Store.open(path)
    except DataError:
        return None
    return store if store.meta.get("scenes") == record else None


def _batches(tables: Iterator[SceneTable], captions: list[list[str]]) -> Iterator[pa.RecordBatch]:
    for table in tables:
        batch = table.batch()
        if batch.num_rows:
            captions.extend(table.captions or ())
            yield batch


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    """Return options as plain JSON data."""
    out: dict[str, Any] = {}
    for key, value in options.items():
        if hasattr(value, "__slots__"):  # a Noise
            value = {field: getattr(value, field) for field in value.__slots__}
        out[key] = list(value) if isinstance(value, tuple) else value
    return out


def _write_captions(
    store: Store, captions: list[list[str]], record: dict[str, Any], seed: int
) -> None:
    import pyarrow as pa

    from understudy.core.provenance import versions
    from understudy.data.card import Card

    card = Card(
        column=CAPTIONS,
        writer="template",
        config=record,
        versions=versions(),
        seed=seed,
        created_by=f"understudy data import {PREFIX}{record['name']}",
    )
    kind = pa.list_(pa.string())
    with store.job([card], {CAPTIONS: kind}) as job:
        for unit in job.todo():
            job.write(unit, {CAPTIONS: pa.array(captions[unit.start : unit.stop], kind)})


def is_scene(source: str | Path) -> bool:
    """Say whether a source of `understudy data import` names a scene set (`scenes:pairs`)."""
    return str(source).startswith(PREFIX)


def parse_source(source: str | Path) -> tuple[str, dict[str, Any]]:
    """Split `scenes:pairs?train=400&noise=0.5` into the name and the options.

    Raises:
        ConfigError: not a scene source, no such set, an unknown option or one of another type.
    """
    text = str(source)
    if not is_scene(text):
        raise ConfigError(f"'{text}' is not a scene source: expected scenes:NAME?OPTION=VALUE&...")
    name, _, query = text[len(PREFIX) :].partition("?")
    defaults = options_of(name)
    given = dict(parse_qsl(query, keep_blank_values=True))
    check_keys(given, defaults, f"scenes:{name}")
    return name, {key: _value(name, key, word, defaults[key]) for key, word in given.items()}


def _value(name: str, key: str, word: str, default: Any) -> Any:
    where = f"scenes:{name}, {key}={word}"
    try:
        if isinstance(default, bool):
            return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[
                word.lower()
            ]
        if isinstance(default, int):
            return int(word)
        if isinstance(default, float) or default is None:
            return float(word)
        if isinstance(default, tuple):
            parts = word.split(",")
            return tuple(int(p) for p in parts) if isinstance(default[0], int) else tuple(parts)
    except (KeyError, ValueError):
        raise ConfigError(f"{where}: expected a value like {default!r}.") from None
    raise ConfigError(f"{where}: this option can be given in Python only.")


def from_source(source: str | Path, path: str | Path, *, overwrite: bool = False) -> Store:
    """Write the store that a scene source names; what `understudy data import scenes:...` calls."""
    name, options = parse_source(source)
    return to_store(name, path, overwrite=overwrite, **options)
