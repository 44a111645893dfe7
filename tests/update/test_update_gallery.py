"""The serving view of two columns, and its one-column copy."""

import numpy as np
import pyarrow as pa
import pytest

from understudy.core.errors import DataError
from understudy.data.card import Card
from understudy.data.knowledge import embedding_config, encode_embeddings
from understudy.data.spaces import Space, SpaceError, space_of
from understudy.data.store import Store
from understudy.update.gallery import ABSENT, ENCODED, MAPPED, Gallery, flag_column

ROWS, DIM = 9, 3
OLD = Space(model="old", fingerprint="aa", dim=2)
NEW = Space(model="new", fingerprint="bb", dim=DIM)
MAP = OLD.mapped("map", NEW)


def write(store, column, space, values, rows):
    dtype = "float32"
    config = {**embedding_config([space.dim], dtype), "space": space.to_dict()}
    card = Card(column=column, writer=space.model, fingerprint=space.fingerprint, config=config)
    kind = pa.list_(pa.float32(), space.dim)
    with store.job([card], {column: kind}, rows=rows) as job:
        for unit in job.todo():
            job.write(unit, {column: encode_embeddings(values[job.rows(unit)], dtype)})


@pytest.fixture
def made(tmp_path):
    """Mapped vectors in rows 0-6, the new model's own in 2, 5 and 7, nothing in 8."""
    rng = np.random.default_rng(0)
    z, n = rng.normal(size=(2, ROWS, DIM)).astype(np.float32)
    store = Store.create(tmp_path / "s", [{"id": [str(i) for i in range(ROWS)]}])
    write(store, "embed.new.from.old", MAP, z, np.arange(7))
    write(store, "embed.new", NEW, n, np.array([2, 5, 7]))
    encoded = np.isin(np.arange(ROWS), [2, 5, 7])
    return store, np.where(encoded[:, None], n, z), encoded


def opened(store):
    return Gallery.open(store, new="embed.new", mapped="embed.new.from.old")


def test_a_row_is_the_new_vector_if_there_is_one(made):
    store, expected, encoded = made
    gallery = opened(store)
    states = [MAPPED, MAPPED, ENCODED, MAPPED, MAPPED, ENCODED, MAPPED, ENCODED, ABSENT]
    assert gallery.states().tolist() == states
    assert gallery.counts() == {"absent": 1, "mapped": 5, "encoded": 3}
    rows = np.array([5, 0, 7, 5])
    part = gallery.take(rows)
    assert np.array_equal(part.vectors, expected[rows])
    assert np.array_equal(part.encoded, encoded[rows])
    assert gallery.space.serves(NEW)
    assert not gallery.space.serves(OLD)


@pytest.mark.parametrize("batch", [0, 1, 2, 100])
def test_stream_leaves_out_absent_rows_whatever_the_batches(made, batch):
    store, expected, _ = made
    parts = list(opened(store).stream(batch_rows=batch))
    assert np.concatenate([p.rows for p in parts]).tolist() == list(range(8))
    assert np.array_equal(np.concatenate([p.vectors for p in parts]), expected[:8])


def test_an_absent_row_is_named(made):
    with pytest.raises(DataError, match="row 8"):
        opened(made[0]).take(np.array([0, 8]))


def test_a_gallery_stays_at_its_version(made):
    store, expected, _ = made
    gallery = opened(store)
    nines = np.full((ROWS, DIM), 9, np.float32)
    for writer, row in ((Store.open(store.path), 0), (store, 8)):  # another process; this object
        write(writer, "embed.new", NEW, nines, np.array([row]))
    assert np.array_equal(gallery.take(np.array([0])).vectors, expected[:1])
    assert gallery.counts()["absent"] == 1
    moved = opened(Store.open(store.path))
    assert moved.version > gallery.version
    assert moved.counts()["encoded"] == 5


def test_one_mixed_column(made):
    store, expected, encoded = made
    opened(store).materialise("embed.serving")
    mixed = Gallery.open(store, new="embed.serving")
    assert np.array_equal(mixed.take(np.arange(8)).vectors, expected[:8])
    assert np.array_equal(mixed.states() == ENCODED, encoded)
    assert space_of(store, "embed.serving").kind == "mixed"
    assert mixed.space.serves(NEW)
    store.drop(flag_column("embed.serving"))
    with pytest.raises(DataError, match="flag column"):
        Gallery.open(store, new="embed.serving")


def test_spaces_are_never_mixed(made):
    store = made[0]
    other = Space(model="other", fingerprint="cc", dim=DIM)
    write(store, "embed.other", other, np.ones((ROWS, DIM), np.float32), np.arange(ROWS))
    with pytest.raises(SpaceError, match="would be mixed"):
        Gallery.open(store, new="embed.other", mapped="embed.new.from.old")
    with pytest.raises(DataError, match="not a model's own"):
        Gallery.open(store, new="embed.new.from.old")
    with pytest.raises(DataError, match="not mapped ones"):
        Gallery.open(store, mapped="embed.new")
    with pytest.raises(DataError, match="name the"):
        Gallery.open(store)
