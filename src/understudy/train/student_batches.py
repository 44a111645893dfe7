"""A student's batches, whatever it learns from: which rows, which images, in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.core.errors import CardError, ConfigError, DataError
from understudy.data.decode import image_size
from understudy.data.loader import Images, Loader
from understudy.data.loader_plan import row_name
from understudy.data.samplers import ShuffledSampler
from understudy.data.splits import training_filter
from understudy.data.view_config import ViewConfig
from understudy.models.base import Model
from understudy.models.preprocess import Preprocess
from understudy.train.distributed import join
from understudy.train.student_base import StudentBase

if TYPE_CHECKING:
    from understudy.data.store import Store


_HEADER_ROWS = 256
URL_BLOCK = 64
"""Rows of a block where a store is read over the network; `benchmarks/loader.py` measures it."""


def train_rows(store: Store, where: str = "") -> np.ndarray:
    """Return the row numbers to train on.

    Args:
        store: where they are.
        where: SQL filter; empty takes what `data.splits.training_filter` says: the split `train`,
            else whatever is neither `val` nor `test`.

    Raises:
        DataError: no row is left.
    """
    where = where or training_filter(store)
    rows = store.where(where) if where else np.arange(store.num_rows)
    if not len(rows):
        raise DataError(f"{store.path}: no row to train on (rows = {where!r}).")
    return np.asarray(rows, np.int64)


def rows_of(store: Store, config: StudentBase) -> np.ndarray:
    """Return the rows that a configuration trains on: its filter's, with large enough images.

    Raises:
        DataError: no row is left; the message says what removed the last ones.
    """
    rows = train_rows(store, config.rows)
    least = config.min_image_size
    if not least:
        return rows
    if least < 0:
        raise ConfigError(f"min_image_size: expected at least 0 pixels, got {least}.")
    sides = _shorter_sides(store, rows, config.image_column)
    kept = rows[sides >= least]
    if not len(kept):
        raise DataError(
            f"min_image_size: {least} pixels remove all {len(rows)} rows of {store.path}; the "
            f"largest image has {int(sides.max())} on its shorter side."
        )
    return kept


def _shorter_sides(store: Store, rows: np.ndarray, column: str) -> np.ndarray:
    """Return the pixels of each row's shorter side, int64 [rows]."""
    if store.has("width") and store.has("height"):
        return np.minimum(store.array("width", rows), store.array("height", rows)).astype(np.int64)
    found: list[int] = []
    for start in range(0, len(rows), _HEADER_ROWS):
        part = rows[start : start + _HEADER_ROWS]
        images = store.take(part, [column]).column(0).to_pylist()
        for row, data in zip(part.tolist(), images, strict=True):
            try:
                found.append(min(image_size(data)))
            except DataError as error:
                raise DataError(f"{row_name(store, row)}: {error}") from None
    return np.array(found, np.int64)


def make_loader(
    store: Store, model: Model, config: StudentBase, fields: Sequence[Any], p: float = 1.0
) -> Loader:
    """Return the batches of a run: a student's images, and what it learns about them.

    Args:
        store: holds everything.
        model: the student; its input decides how images are prepared.
        config: the student's.
        fields: the loader's fields of labels, texts and stored targets.
        p: probability that a row uses its stored view; see `Loader`.

    Raises:
        CardError: a column is missing or was written by something else.
        ConfigError: options that do not fit the store or the model.
        DataError: there are no rows to train on.
    """
    rows = rows_of(store, config)
    _check_normalisation(model, config)
    images = _images(model.preprocess, config)
    views = _view_count(store, config)
    sampler = _sampler(rows, config, views, block_of(store, config))
    return Loader(store, sampler, [images, *fields], seed=config.seed, p=p, workers=config.workers)


def _check_normalisation(model: Model, config: StudentBase) -> None:
    """Refuse a normalisation that is not the model's own."""
    own, name = model.preprocess, model.config.name
    for what, given, known in (("mean", config.mean, own.mean), ("std", config.std, own.std)):
        if given is None:
            continue
        if len(given) != 3 or any(abs(a - b) > 1e-6 for a, b in zip(given, known, strict=True)):
            raise ConfigError(
                f"{what}: {name} takes images normalised with {what} {list(known)}, got "
                f"{list(given)}; leave it out, or change the model (changes: preprocess.{what})."
            )


def _view_config(transforms: Mapping[str, Any], size: int) -> ViewConfig | None:
    if not transforms:
        return None
    return ViewConfig(size=size, transforms={k: dict(v or {}) for k, v in transforms.items()})


def _images(preprocess: Preprocess, config: StudentBase) -> Images:
    return Images(
        column=config.image_column,
        size=preprocess.size,
        view_set=config.view_set or None,
        mean=preprocess.mean,
        std=preprocess.std,
        plain=_view_config(config.augment, preprocess.size),
        rescale=config.rescale,
        replay=config.replay,
    )


def block_of(store: Store, config: StudentBase) -> int:
    """Return how many neighbouring rows are shuffled as one; 0 for single rows."""
    if config.block is None:
        return URL_BLOCK if "://" in str(store.path) else 0
    if config.block < 0:
        raise ConfigError(f"block: expected at least 0 rows, or null, got {config.block}.")
    return config.block


def _view_count(store: Store, config: StudentBase) -> int:
    """Return how many stored views of a set are used; 0 for no set."""
    from understudy.data.view_verify import view_columns

    view_set, wanted = config.view_set, config.num_views
    if not view_set:
        if wanted:
            raise ConfigError(f"num_views: {wanted} of which views? Name the set (view_set).")
        return 0
    known = sorted({c.split(".")[1] for c in store.columns if c.startswith("view.")})
    if view_set not in known:
        raise CardError(
            f"{store.path}: there is no view set '{view_set}' (it has {', '.join(known) or 'none'})"
            ": reinforce the store first, or leave view_set empty to train on plain images."
        )
    count = len(view_columns(store, view_set))
    if not 0 <= wanted <= count:
        raise ConfigError(
            f"num_views: {wanted}, but view set '{view_set}' has {count} stored views; ask for at "
            "most these (0 for all), or reinforce with more."
        )
    return wanted or count


def _sampler(
    rows: np.ndarray, config: StudentBase, num_views: int, block: int = 0
) -> ShuffledSampler:
    """Return the sampler of this process's micro-batches."""
    train = config.train
    ranks = join(train.device, train.strategy)
    parts = ranks.world * train.accumulate
    if train.batch_size < 1 or train.batch_size % parts:
        raise ConfigError(
            f"train.batch_size: {train.batch_size} samples cannot be shared by {ranks.world} "
            f"ranks x {train.accumulate} micro-batches; give a multiple of {parts}."
        )
    return ShuffledSampler(
        rows,
        train.batch_size // parts,
        config.seed,
        num_views=num_views,
        rank=ranks.rank,
        world=ranks.world,
        view_order=config.view_order,
        block=block or None,
    )
