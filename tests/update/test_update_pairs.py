"""Pairs by id, never by position, from stores and files."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from map_world import NEW, OLD, SIDE, make_store, put, vectors

from understudy.core.errors import CardError, DataError
from understudy.data.spaces import Space
from understudy.data.store import Store
from understudy.update.pair_files import is_undeclared, pairs_of_file, pairs_of_files
from understudy.update.pairs import pairs_of_store
from understudy.update.vector_checks import Norms, check_same_norms, check_vectors
from understudy.update.vector_files import open_vectors, write_npz

IDS = np.array(["a", "b", "c", "d"])


def file(path, ids, width=3, seed=0, **options):
    values = np.random.default_rng(seed).normal(size=(len(ids), width)).astype(np.float32)
    write_npz(path, np.array(ids), {"vectors": values}, **options)
    return values


def parquet(path, ids, values, name="vector", labels=None, fixed=True, spaces=None):
    kind = pa.list_(pa.float32(), values.shape[1]) if fixed else pa.list_(pa.float32())
    columns = {"id": pa.array(list(ids)), name: pa.array(list(values), kind)}
    if labels is not None:
        columns["label"] = pa.array(labels)
    table = pa.table(columns)
    if spaces:
        text = json.dumps({n: s.to_dict() for n, s in spaces.items()})
        table = table.replace_schema_metadata({"understudy.spaces": text})
    pq.write_table(table, path)


def test_rows_of_a_store_that_have_everything(tmp_path):
    store = make_store(tmp_path / "s", n=30, side=False)
    put(store, "embed.psi", SIDE, vectors(n=30)["side"], rows=np.arange(5, 20))
    pairs = pairs_of_store(store, "embed.old", "embed.new", side="embed.psi", labels="label")
    assert len(pairs) == 15
    assert [pairs.name(i) for i in (0, 14)] == ["i5", "i19"]
    items = np.array([3, 0])
    for name, vectors_of in pairs.fields.items():
        np.testing.assert_array_equal(vectors_of.take(items), vectors(n=30)[name][[8, 5]])
    assert pairs.labels.tolist() == vectors(n=30)["labels"][5:20].tolist()
    assert pairs.spaces == {"old": OLD, "new": NEW, "side": SIDE}
    some = pairs_of_store(store, "embed.old", "embed.new", where="label = 1")
    assert len(some) == int((vectors(n=30)["labels"] == 1).sum())


def test_reading_from_the_store_is_reading_from_memory(tmp_path):
    store = make_store(tmp_path / "s", n=30)
    memory = pairs_of_store(store, "embed.old", "embed.new")
    stored = pairs_of_store(store, "embed.old", "embed.new", memory_bytes=0)
    items = np.array([4, 4, 29, 0])
    np.testing.assert_array_equal(memory.old.take(items), stored.old.take(items))
    assert memory.new.dim == stored.new.dim == 5
    np.testing.assert_array_equal(memory.id_hashes, stored.id_hashes)


def test_a_column_without_a_space_or_without_rows(tmp_path):
    store = make_store(tmp_path / "s", n=10, side=False)
    with pytest.raises(DataError, match="no column 'embed.psi'"):
        pairs_of_store(store, "embed.old", "embed.psi")
    with pytest.raises(CardError):
        pairs_of_store(store, "embed.old", "label")
    put(store, "embed.psi", SIDE, vectors(n=10)["side"], rows=np.arange(2))
    with pytest.raises(DataError, match=r"none of 1 rows .*filled: embed.old 10"):
        pairs_of_store(store, "embed.old", "embed.new", side="embed.psi", rows=np.array([7]))


def test_labels_are_whole_numbers(tmp_path):
    rows = {"id": ["a"], "label": [0.5]}
    store = Store.create(tmp_path / "s", [rows])
    for column, space in (("embed.old", OLD), ("embed.new", NEW)):
        put(store, column, space, np.ones((1, space.dim), np.float32))
    with pytest.raises(DataError, match="expected whole numbers"):
        pairs_of_store(store, "embed.old", "embed.new", labels="label")


def test_two_files_of_the_same_items(tmp_path):
    old = file(
        tmp_path / "old.npz", IDS, spaces={"vectors": Space(model="o", fingerprint="f", dim=3)}
    )
    new = np.arange(8, dtype=np.float32).reshape(4, 2)
    parquet(tmp_path / "new.parquet", IDS, new, labels=[1, 0, 2, 1])
    pairs = pairs_of_files(tmp_path / "old.npz", tmp_path / "new.parquet")
    np.testing.assert_array_equal(pairs.old.take(np.arange(4)), old)
    np.testing.assert_array_equal(pairs.new.take(np.arange(4)), new)
    assert pairs.labels.tolist() == [1, 0, 2, 1]
    assert pairs.spaces["old"].model == "o"
    assert is_undeclared(pairs.spaces["new"])
    assert not is_undeclared(pairs.spaces["old"])


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (["a", "c", "b", "d"], "row 1 is item 'b' in one and 'c'"),
        (["a", "b", "c"], "item 'd' is in .*old.npz only"),
        (["a", "b", "c", "d", "e"], "item 'e' is in .*new.npz only"),
        (["x", "b", "c", "d"], "row 0 is item 'a' in one and 'x'"),
    ],
)
def test_other_ids_order_or_length_are_refused(tmp_path, other, words):
    file(tmp_path / "old.npz", IDS)
    file(tmp_path / "new.npz", other, seed=1)
    with pytest.raises(DataError, match=words) as error:
        pairs_of_files(tmp_path / "old.npz", tmp_path / "new.npz")
    assert "never paired by position" in str(error.value) or "pair by id" in str(error.value)


def test_joining_pairs_by_id(tmp_path):
    old = file(tmp_path / "old.npz", IDS)
    new = file(tmp_path / "new.npz", ["e", "c", "a"], seed=1, labels=np.array([5, 6, 7]))
    pairs = pairs_of_files(tmp_path / "old.npz", tmp_path / "new.npz", join=True)
    assert [pairs.name(i) for i in range(2)] == ["a", "c"]
    np.testing.assert_array_equal(pairs.old.take(np.arange(2)), old[[0, 2]])
    np.testing.assert_array_equal(pairs.new.take(np.arange(2)), new[[2, 1]])
    assert pairs.labels.tolist() == [7, 6]
    file(tmp_path / "none.npz", ["z"])
    with pytest.raises(DataError, match="no id is in all"):
        pairs_of_files(tmp_path / "old.npz", tmp_path / "none.npz", join=True)


def test_one_file_of_pairs(tmp_path):
    fields = {"old": np.ones((4, 2)), "new": np.ones((4, 3)), "side": np.ones((4, 1))}
    write_npz(tmp_path / "p.npz", IDS, fields, labels=np.arange(4))
    pairs = pairs_of_file(tmp_path / "p.npz")
    assert (pairs.old.dim, pairs.new.dim, pairs.side.dim) == (2, 3, 1)
    write_npz(tmp_path / "q.npz", IDS, {"old": np.ones((4, 2))})
    with pytest.raises(DataError, match="no field 'new'"):
        pairs_of_file(tmp_path / "q.npz")


def test_an_id_twice(tmp_path):
    file(tmp_path / "old.npz", ["a", "b", "a"])
    file(tmp_path / "new.npz", ["a", "b", "a"])
    with pytest.raises(DataError, match="id 'a' is there twice, again in row 2"):
        pairs_of_files(tmp_path / "old.npz", tmp_path / "new.npz")


def test_files_that_are_none(tmp_path):
    np.savez(tmp_path / "bare.npz", vectors=np.ones((3, 2)))
    with pytest.raises(DataError, match="no array 'ids'"):
        open_vectors(tmp_path / "bare.npz")
    np.savez(tmp_path / "odd.npz", ids=np.array(["a", "b"]), vectors=np.ones((3, 2)))
    with pytest.raises(DataError, match="one length"):
        open_vectors(tmp_path / "odd.npz")
    np.savez(tmp_path / "ints.npz", ids=np.array(["a"]), vectors=np.ones((1, 2), int))
    with pytest.raises(DataError, match="floating-point"):
        open_vectors(tmp_path / "ints.npz")
    (tmp_path / "x.npz").write_bytes(b"no")
    with pytest.raises(DataError, match="not a NumPy file"):
        open_vectors(tmp_path / "x.npz")
    (tmp_path / "x.parquet").write_bytes(b"no")
    with pytest.raises(DataError, match="not a Parquet file"):
        open_vectors(tmp_path / "x.parquet")
    with pytest.raises(DataError, match="no such file"):
        open_vectors(tmp_path / "none.npz")
    with pytest.raises(DataError, match="expected a file of vectors"):
        open_vectors(tmp_path / "x.csv")
    np.save(tmp_path / "y.npy", np.ones((3, 2), np.float32))
    file(tmp_path / "ok.npz", IDS)
    with pytest.raises(DataError, match="never paired by position"):
        pairs_of_files(tmp_path / "y.npy", tmp_path / "ok.npz")


def test_code_in_a_numpy_file_is_not_run(tmp_path):
    np.savez(tmp_path / "p.npz", ids=np.array(["a"], object), vectors=np.ones((1, 2)))
    with pytest.raises(DataError, match="not a NumPy file of plain numbers"):
        open_vectors(tmp_path / "p.npz")


def test_parquet_of_lists_without_a_fixed_size(tmp_path):
    values = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    parquet(tmp_path / "a.parquet", IDS, values, fixed=False, spaces={"vector": OLD})
    found = open_vectors(tmp_path / "a.parquet")
    assert found.widths == {"vector": 3}
    assert found.spaces == {"vector": OLD}
    batches = list(found.batches(rows=3))
    assert [len(b.ids) for b in batches] == [3, 1]
    np.testing.assert_array_equal(np.concatenate([b.fields["vector"] for b in batches]), values)
    ragged = pa.table({"id": list("ab"), "v": pa.array([[1.0, 2.0], [1.0]])})
    pq.write_table(ragged, tmp_path / "b.parquet")
    with pytest.raises(DataError, match="every row must have 2 numbers"):
        list(open_vectors(tmp_path / "b.parquet").batches())
    pq.write_table(pa.table({"id": list("ab")}), tmp_path / "c.parquet")
    with pytest.raises(DataError, match="lists of floating-point"):
        open_vectors(tmp_path / "c.parquet")


def test_lengths_tell_how_vectors_were_made():
    draw = np.random.default_rng(0)
    other = draw.normal(size=(100, 8)) * 3
    unit = other / np.linalg.norm(other, axis=1, keepdims=True)
    units, others, both = Norms(), Norms(), Norms()
    units.add(np.linalg.norm(unit.astype(np.float16).astype(float), axis=1))
    others.add(np.linalg.norm(other, axis=1))
    both.add(np.linalg.norm(np.concatenate([unit, other]), axis=1))
    assert both.mixed()
    assert not units.mixed()
    assert not others.mixed()
    check_same_norms(units, units.describe(), "x")
    check_same_norms(others, None, "x")
    with pytest.raises(DataError, match="are normalised .* were not"):
        check_same_norms(units, others.describe(), "x")
    with pytest.raises(DataError, match="are not normalised .* were \\(mean length 1\\)"):
        check_same_norms(others, units.describe(), "x")


def test_the_smallest_and_largest_numbers_are_neither_zero_nor_infinite():
    tiny, huge = np.float32(1e-45), np.finfo(np.float32).max
    lengths = check_vectors(np.array([[tiny, 0], [huge, huge]], np.float32), list, "x")
    np.testing.assert_allclose(lengths, [float(tiny), float(huge) * 2**0.5])
