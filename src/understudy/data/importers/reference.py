"""Reinforcements of the dataset-reinforcement reference (arXiv 2303.08983) into a store.

They hold no images: the store must have them. Files are numbered by position in the data set that
was reinforced, and another order of files would mislabel everything in silence, so the map from
position to `id` has to be given.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from understudy.core.errors import ConfigError, DataError
from understudy.core.hashing import hash_data
from understudy.core.progress import bar
from understudy.core.provenance import versions
from understudy.data.card import Card
from understudy.data.decode import image_size
from understudy.data.importers.common import Skips, import_facts
from understudy.data.importers.reference_files import Parts
from understudy.data.importers.reference_keys import match_rows, read_keys
from understudy.data.importers.reference_records import RecordForm, open_record, parse_record
from understudy.data.importers.replay import check_boxes
from understudy.data.importers.safe_pickle import as_array
from understudy.data.interchange import views_from_reference
from understudy.data.knowledge import encode_topk, fixed_list, topk_column, topk_type, view_column
from understudy.data.store import Store
from understudy.data.view_config import ORDER, ViewConfig
from understudy.data.view_params import pack, params_dtype

log = logging.getLogger(__name__)


def import_reference(
    source: str | Path | Sequence[str | Path],
    store: str | Path,
    *,
    keys: str | Path | Sequence[str] | None = None,
    view_set: str = "main",
    teacher: str = "teacher",
    teachers: Mapping[str, int] | None = None,
    views: ViewConfig | Mapping[str, Any] | None = None,
    image: str = "image",
    on_missing: str | None = None,
    unit_rows: int = 256,
    overwrite: bool = False,
    storage_options: dict[str, str] | None = None,
) -> Store:
    """Add views and top-K probabilities from reference files to a store that has the images.

    Fills `view.<set>.<k>` and `<teacher>.topk.<set>.<k>`. An interrupted import goes on where it
    stopped when it is called again.

    Args:
        source: a folder or tar of `<index>.pth.tar`, several of them, or a folder of several; the
            reinforcements of several parts are put side by side, in sorted order.
        store: the store with the images.
        keys: a list, or a JSON file with a list, whose item i is the `id` of index i.
        view_set: name of the view set.
        teacher: name of the teacher.
        teachers: `{name: number of classes}` instead of `teacher`.
        views: the transforms; default: the part's `config.pth.tar`.
        image: the column with the images, against which crop boxes are checked.
        on_missing: `skip` leaves rows without a record unfilled (and counts them) instead of
            refusing.
        unit_rows: rows worked on at a time.
        overwrite: replace columns of another writer.
        storage_options: for object stores.

    Raises:
        DataError: keys and records do not match (the first that differs is named), a record is
            damaged, of another form or not whole, a partner is missing.
    """
    target = Store.open(store, storage_options=storage_options)
    if keys is None:
        raise ConfigError(
            "dr-reference: keys= is needed, a JSON list whose item i is the id of index i: the "
            "files are numbered by position, and another order would mislabel every image."
        )
    names = read_keys(keys)
    skips = Skips(on_missing or "error")
    if teachers is not None:
        if len(teachers) != 1:
            raise ConfigError("teachers: these files hold one teacher's probabilities; name one.")
        teacher = next(iter(teachers))
    classes = (teachers or {}).get(teacher, 0)
    sources = [source] if isinstance(source, str | Path) else list(source)
    beside = Path(store).parent if "://" not in str(store) else Path.cwd()
    parts = Parts([Path(s) for s in sources], beside)
    try:
        rows = match_rows(target, names, parts.indices, skips)
        forms = _forms(parts, views, classes, rows)
        _fill(target, parts, forms, names, rows, view_set, teacher, image, unit_rows, overwrite)
    finally:
        parts.close()
    target = Store.open(store, storage_options=storage_options)
    facts = import_facts("dr-reference", ", ".join(map(str, sources)), skips)
    target.set_meta(reference_import={**facts, "view_set": view_set, "teacher": teacher})
    return Store.open(store, storage_options=storage_options)


def _forms(
    parts: Parts, views: ViewConfig | Mapping[str, Any] | None, classes: int, rows: np.ndarray
) -> list[RecordForm]:
    """Return what each part's records hold: its configuration's word, else its first record's."""
    if isinstance(views, Mapping):
        views = ViewConfig.from_dict(views)
    forms = []
    for part in parts.parts:
        config = part.config if isinstance(part.config, Mapping) else {}
        generation = config.get("reinforce") or {}
        chosen = views
        if chosen is None:
            if "image_augmentation" not in generation:
                raise DataError(
                    f"{part.name}: no config.pth.tar with an 'image_augmentation'; say how the "
                    "views were made with views=."
                )
            chosen, ignored = views_from_reference(generation, f"{part.name}, config.pth.tar")
            if ignored:
                log.warning(
                    "%s: its configuration names %s, which are no transforms and were not applied",
                    part.name,
                    ", ".join(ignored),
                )
        data, name = part.read(int(part.indices[0]))
        _, items = open_record(data, name)
        try:
            first_k = as_array(items[0]["prob"][0]).size
        except (LookupError, TypeError, DataError):
            raise DataError(f"{name}: expected reinforcements with 'params' and 'prob'.") from None
        forms.append(
            RecordForm(
                views=chosen,
                count=int(generation.get("num_samples") or len(items)),
                k=int(generation.get("topk") or first_k),
                classes=classes or int(config.get("num_classes") or 0),
                rows=rows,
            )
        )
    for part, form in zip(parts.parts, forms, strict=True):
        if (form.views.hash, form.k) != (forms[0].views.hash, forms[0].k):
            raise DataError(
                f"{part.name}: its views or its number of kept classes differ from those of "
                f"{parts.parts[0].name}; import it under another view_set."
            )
    return forms


def _cards(
    parts: Parts, forms: list[RecordForm], view_set: str, teacher: str
) -> tuple[list[Card], dict[str, pa.DataType]]:
    form, cards, types = forms[0], [], {}
    stride = params_dtype(form.views).itemsize
    origin = hash_data([[p.name.rsplit("/", 1)[-1], len(p.indices)] for p in parts.parts])
    config = parts.parts[0].config if isinstance(parts.parts[0].config, Mapping) else {}
    named = (config.get("teacher") or {}).get("name") if isinstance(config, Mapping) else None
    common = {"versions": versions(), "created_by": "understudy data import"}
    for k in range(sum(f.count for f in forms)):
        at = {"set": view_set, "k": k}
        view = view_column(view_set, k)
        backend = {"order": list(ORDER), "views": "another program's"}
        cards.append(
            Card(
                column=view,
                writer="released views",
                fingerprint=origin,
                config={**form.views.to_dict(), **at},
                backend=backend,
                **common,
            )
        )
        types[view] = pa.list_(pa.uint8(), stride)
        top = topk_column(teacher, view_set, k)
        facts = {"k": form.k, "classes": form.classes, "set": view_set, "view": k}
        cards.append(
            Card(
                column=top, writer=str(named or teacher), fingerprint=origin, config=facts, **common
            )
        )
        types[top] = topk_type(form.k)
    return cards, types


def _fill(
    store: Store,
    parts: Parts,
    forms: list[RecordForm],
    names: list[str],
    rows: np.ndarray,
    view_set: str,
    teacher: str,
    image: str,
    unit_rows: int,
    overwrite: bool,
) -> None:
    cards, types = _cards(parts, forms, view_set, teacher)
    index_of = np.full(store.num_rows, -1, np.int64)
    index_of[rows[parts.indices]] = parts.indices
    wanted = np.flatnonzero(index_of >= 0)
    with store.job(cards, types, rows=wanted, unit_rows=unit_rows, overwrite=overwrite) as job:
        with bar("import", job.num_wanted, "records", done=job.num_done) as progress:
            for unit in job.todo():
                start = time.perf_counter()
                chosen = job.rows(unit)
                params, values, ids = _read_rows(parts, forms, names, index_of[chosen])
                if store.has(image):
                    _check_images(store, image, chosen, params, names, index_of[chosen])
                columns: dict[str, pa.Array] = {}
                for k in range(params.shape[1]):
                    columns[view_column(view_set, k)] = fixed_list(pack(params[:, k]))
                    top = encode_topk(values[:, k], ids[:, k])
                    columns[topk_column(teacher, view_set, k)] = top
                seconds = time.perf_counter() - start
                job.write(unit, columns, seconds=seconds)
                progress.advance(len(chosen))


def _read_rows(
    parts: Parts, forms: list[RecordForm], names: list[str], indices: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return views `[n, NS]`, probabilities and class ids `[n, NS, K]` of records by index."""
    rows = []
    for index in indices.tolist():
        found = []
        for part, form in zip(parts.parts, forms, strict=True):
            data, name = part.read(index)
            found.append(parse_record(data, index, names[index], form, name))
        rows.append([np.concatenate(column) for column in zip(*found, strict=True)])
    params, values, ids = (np.stack(column) for column in zip(*rows, strict=True))
    return params, values, ids


def _check_images(
    store: Store,
    image: str,
    rows: np.ndarray,
    params: np.ndarray,
    names: list[str],
    indices: np.ndarray,
) -> None:
    """Refuse images that are smaller than their crop boxes: they are not the reinforced ones."""
    images = store.take(rows, [image]).column(0).to_pylist()
    for data, records, index in zip(images, params, indices.tolist(), strict=True):
        if data:
            where = f"index {index} (key '{names[index]}')"
            check_boxes(records, image_size(data, where), where)
