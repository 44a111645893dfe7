"""Items of an update: which rows, who embeds them, files of pairs, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from understudy.core.errors import ConfigError, DataError
from understudy.data import scenes
from understudy.data.spaces import Space
from understudy.data.store import Store
from understudy.train.config import TrainConfig
from understudy.update.pairs import pairs_of_store
from understudy.update.sample import Sample, class_numbers, cross_metrics, sample_of_file
from understudy.update.source import open_source
from understudy.update.source_config import SourceConfig, chosen_rows

FEW = TrainConfig(steps=4, batch_size=16, lr=1e-2, optimizer="adam", device="cpu")


def sample(count: int, seed: int = 0, name: str = "s") -> Sample:
    draw = np.random.default_rng(seed)
    vectors = {p: draw.normal(size=(count, d)).astype(np.float32)
               for p, d in (("old", 3), ("new", 5), ("side", 2))}  # fmt: skip
    return Sample(
        ids=np.array([f"{name}{i}" for i in range(count)], object),
        vectors=vectors,
        spaces={p: Space(model=p, fingerprint=p, dim=v.shape[1]) for p, v in vectors.items()},
        labels=np.arange(count) % 3,
        num_classes=3,
        name=name,
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return scenes.to_store("scans", tmp_path_factory.mktemp("scans") / "s", train=200)


def config(store, **changes) -> SourceConfig:
    base = {"old": "random-conv?dim=6&size=8&grid=1&filters=8", "new": "train:digits-mlp-32"}
    base |= {"limit": 60, "train": FEW}
    return SourceConfig(store=store.path, **{**base, **changes})


# -- samples


def test_a_sample_survives_its_file_and_is_one_of_pairs(tmp_path):
    made = sample(12)
    again = sample_of_file(made.save(tmp_path / "a.npz"))
    assert again.ids.tolist() == made.ids.tolist()
    for part, values in made.vectors.items():
        assert np.array_equal(again.vectors[part], values)
        assert again.spaces[part] == made.spaces[part]
    assert np.array_equal(again.labels, made.labels)
    pairs = again.pairs(side=True)
    assert (pairs.old.dim, pairs.new.dim, len(pairs)) == (3, 5, 12)
    assert made.pairs().side is None
    with pytest.raises(DataError, match="no side information"):
        made.with_side(None).pairs(side=True)


def test_parts_of_other_lengths_are_refused():
    made = sample(5)
    with pytest.raises(DataError, match="different lengths .*labels 4"):
        replace(made, labels=made.labels[:4])


def test_a_file_without_labels_or_with_some_below_zero(tmp_path):
    arrays = {"ids": np.array(["a", "b"]), "old": np.eye(2), "new": np.eye(2)}
    np.savez(tmp_path / "n.npz", **arrays)
    with pytest.raises(DataError, match="no labels; retrieval is scored by them"):
        sample_of_file(tmp_path / "n.npz")
    np.savez(tmp_path / "m.npz", **arrays, labels=np.array([0, -1]))
    with pytest.raises(DataError, match="label -1 of item 'b'"):
        sample_of_file(tmp_path / "m.npz")


def test_words_become_class_numbers():
    numbers, names = class_numbers(np.array(["b", "a", "b"]))
    assert (numbers.tolist(), names) == ([1, 0, 1], ["a", "b"])
    with pytest.raises(DataError, match="item 1 has none; 1 of 2"):
        class_numbers(np.array(["b", None], object))


def test_perfect_and_chance():
    labels = np.arange(30) % 3
    perfect = np.eye(3, dtype=np.float32)[labels]
    assert cross_metrics(perfect, perfect, labels)["map"] == 1.0
    noise = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    found = cross_metrics(noise, noise[::-1].copy(), np.arange(300) % 3)
    assert found["map"] == pytest.approx(1 / 3, abs=0.03)


# -- rows and embedders


def test_rows_are_disjoint_limited_and_follow_the_seed(store):
    first = chosen_rows(store, config(store))
    assert [len(rows) for rows in first] == [60, 60]
    assert not set(first[0]) & set(first[1])
    again = chosen_rows(store, config(store))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    other = chosen_rows(store, config(store, seed=1))
    assert not np.array_equal(first[0], other[0])
    with pytest.raises(DataError, match="60 rows are in both|rows are in both"):
        chosen_rows(store, config(store, test_rows="split = 'train'", limit=0))
    with pytest.raises(DataError, match="test_rows: no row"):
        chosen_rows(store, config(store, test_rows="label = 77"))


def test_an_encoder_a_trained_model_and_a_column(store, tmp_path):
    source = open_source(config(store, side="simclr:digits-mlp-16", shift=1), tmp_path)
    assert source.train.old.shape == (60, 6)
    assert source.test.new.shape == (60, 32)
    assert source.test.side is not None
    assert source.test.side.shape == (60, 16)
    assert set(source.models) == {"new", "side"}
    fresh = Store.open(store.path)
    assert "embed.random-conv" in fresh.columns
    assert int(fresh.filled("embed.random-conv").sum()) == 120
    # the column is read the next time, by its name, with the same vectors
    other = open_source(
        config(store, old="embed.random-conv", new="embed.random-conv"), tmp_path / "b"
    )
    assert np.array_equal(other.train.old, source.train.old)
    assert other.train.spaces["old"] == source.train.spaces["old"]
    assert np.array_equal(other.test.labels, source.test.labels)
    rows = chosen_rows(store, config(store))[0]
    pairs = pairs_of_store(fresh, "embed.random-conv", "embed.random-conv", rows=rows)
    assert np.array_equal(pairs.old.take(np.arange(60)), source.train.old)


def test_old_models_see_the_first_classes_only(store, tmp_path):
    source = open_source(
        config(store, old="train:digits-mlp-8", side="supervised:digits-mlp-8", old_classes=4),
        tmp_path,
    )
    heads = {part: model.config.num_classes for part, model in source.models.items()}
    assert heads == {"old": 4, "new": 10, "side": 4}


def test_files_of_pairs(tmp_path):
    train = sample(12, 0, "a").save(tmp_path / "a.npz")
    test = sample(9, 1, "b").save(tmp_path / "b.npz")
    source = open_source(SourceConfig(store=train, test=str(test)), tmp_path / "out")
    assert (len(source.train), len(source.test)) == (12, 9)
    other = sample(9, 1, "b")
    spaces = {**other.spaces, "new": Space(model="x", fingerprint="x", dim=5)}
    odd = replace(other, spaces=spaces).save(tmp_path / "c.npz")
    with pytest.raises(DataError, match="embed both files with the same models"):
        open_source(SourceConfig(store=train, test=str(odd)), tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"old": ""}, "name both embedders"),
        ({"old": "simclr:digits-mlp-16"}, "makes side information"),
        ({"modality": "text"}, "only embedders of images are trained"),
        ({"limit": -1}, "at least 0"),
        ({"test": "more.npz"}, "its rows are split by train_rows"),
    ],
)
def test_bad_options(store, changes, text):
    with pytest.raises(ConfigError, match=text):
        config(store, **changes)


def test_bad_columns(store, tmp_path):
    with pytest.raises(DataError, match="no column 'kind'"):
        open_source(config(store, labels="kind"), tmp_path)
    with pytest.raises(DataError, match="no column 'embed.none'"):
        open_source(config(store, old="embed.none"), tmp_path)
    with pytest.raises(ConfigError, match="old_classes: 10 of 10 classes"):
        open_source(config(store, old="train:digits-mlp-8", old_classes=10), tmp_path)
    with pytest.raises(ConfigError, match="class numbers 0, 1, ...; column 'text'"):
        open_source(config(store, labels="text"), tmp_path)


def test_rows_that_a_column_lacks_are_named(tmp_path):
    path = tmp_path / "s"
    store = scenes.to_store("scans", path, train=30)
    from understudy.update.embedders import open_embedder, sample_inputs
    from understudy.update.encode import encode_column

    line = "random-conv?dim=4&size=8&grid=1&filters=4"
    inputs = sample_inputs(store, "image", "image", np.arange(30))
    encode_column(store, open_embedder(line, "image", inputs=inputs), "few", rows=np.arange(40))
    settings = SourceConfig(
        store=path, old="embed.few", new="embed.few", test_rows="split = 'test'"
    )
    with pytest.raises(DataError, match="'embed.few'.* is empty in row 40 and"):
        open_source(settings, tmp_path)
