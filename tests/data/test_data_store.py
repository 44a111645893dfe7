from __future__ import annotations

import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from store_toy import SIZE, VECTORS, N, card, fill, rows

from understudy.core.errors import CardError, DataError
from understudy.data.knowledge import embedding_config, embedding_type, encode_embeddings
from understudy.data.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "s", rows(), rows_per_fragment=15, meta={"name": "toy"})


def test_create_and_open(store: Store):
    again = Store.open(store.path)
    assert (again.num_rows, len(again), again.version) == (N, N, 1)
    assert again.columns == ["id", "image", "split", "label"]
    assert again.schema.field("image").type == pa.binary()
    assert again.meta == {"name": "toy"}
    assert again.take(range(N), ["id"]).column(0).to_pylist() == [f"s{i}" for i in range(N)]
    assert again.verify() == []
    assert "rows=50" in repr(again)


def test_batches_may_be_tables_record_batches_or_dicts(tmp_path: Path):
    schema = pa.schema([("id", pa.string()), ("x", pa.float32())])
    first = pa.table({"id": ["a"], "x": pa.array([1], pa.float32())})
    second = pa.record_batch({"x": pa.array([2], pa.float32()), "id": pa.array(["b"])})
    made = Store.create(tmp_path / "s", [first, second, {"id": ["c"], "x": [3]}], schema=schema)
    assert made.array("x").tolist() == [1, 2, 3]
    assert made.schema == schema


def test_empty_store_with_a_schema_takes_rows_later(tmp_path: Path):
    made = Store.create(tmp_path / "s", [], schema=pa.schema([("id", pa.string())]))
    assert made.num_rows == 0
    assert made.array("id").tolist() == []
    assert made.append([{"id": ["a", "b"]}]) == 2
    assert made.array("id").tolist() == ["a", "b"]


def test_overwrite_keeps_nothing_of_the_old_store(store: Store):
    fill(store)
    new = Store.create(store.path, rows(stop=10), overwrite=True)
    assert (new.num_rows, new.cards, new.meta) == (10, {}, {})
    assert new.verify() == []


def test_take_keeps_order_and_repeats(store: Store):
    found = store.take([49, 0, 15, 15], ["label", "id"])
    assert found.column_names == ["label", "id"]
    assert found.column("id").to_pylist() == ["s49", "s0", "s15", "s15"]
    assert store.take(np.array([], np.int64), ["id"]).num_rows == 0
    mask = np.zeros(N, bool)
    mask[[3, 30]] = True
    assert store.take(mask, ["id"]).column(0).to_pylist() == ["s3", "s30"]


def test_array_has_the_stored_dtype_and_no_copy_of_taken_rows(store: Store):
    fill(store)
    whole = store.array("t.text")
    assert whole.dtype == np.float16
    np.testing.assert_array_equal(whole, VECTORS)
    some = store.array("t.text", [44, 2])
    np.testing.assert_array_equal(some, VECTORS[[44, 2]])
    assert not some.flags.owndata
    assert not some.flags.writeable  # it is Arrow's own memory
    assert store.array("label").dtype == np.int64
    assert store.array("image", [8]).tolist() == [b"\x08"]
    assert store.array("t.text", []).shape == (0, SIZE)


def test_scan_filter_and_where(store: Store):
    fill(store, rows=range(20, 40))
    assert sum(b.num_rows for b in store.scan(["id"], batch_size=7)) == N
    expected = [i for i in range(N) if i % 5 == 0 and i > 7]
    assert store.where("split = 'test' AND label >= 0 and id <> 's5' and id <> 's0'").tolist() == (
        expected
    )
    assert store.where("t.text IS NOT NULL").tolist() == list(range(20, 40))
    assert store.where("`t.text` is not null and label = 9").tolist() == []
    batches = list(store.scan(["t.text", "id"], filter="label = 1 and t.text is not null"))
    ids = [i for b in batches for i in b.column("id").to_pylist()]
    assert ids == [f"s{i}" for i in range(20, 40) if i % 3 == 1]
    chosen = list(store.scan(["id"], rows=[9, 3, 6, 3], filter="id <> 's6'", batch_size=2))
    assert [b.column(0).to_pylist() for b in chosen] == [["s9", "s3"], ["s3"]]


def test_column_names_that_sql_would_read_otherwise(store: Store):
    name = "ViT-B/16@openai.image.main.0"
    fill(store, name, rows=[4])
    assert store.columns[-1] == name
    assert store.where(f"{name} IS NOT NULL").tolist() == [4]


def test_append_leaves_knowledge_unfilled(store: Store):
    fill(store)
    assert store.append(rows(N, N + 8)) == 8
    assert store.num_rows == N + 8
    assert store.filled("t.text").sum() == N
    assert store.filled("label").all()
    assert store.array("label")[-1] == (N + 7) % 3
    with pytest.raises(DataError, match="'t.text' is not filled in row 50"):
        store.array("t.text")
    with pytest.raises(DataError, match="'t.text' is not filled in row 57"):
        store.array("t.text", [3, 57, 52])
    assert store.verify() == []
    assert store.append([]) == 0


def test_meta_versions_and_tags(store: Store):
    store.set_meta(seed=3, name=None)
    fill(store)
    assert store.meta == {"seed": 3}
    store.tag("one")
    before = store.content_hash()
    store.drop("t.text")
    assert not store.has("t.text")
    assert store.tags() == {"one": 3}
    assert [v["version"] for v in store.versions()] == [1, 2, 3, 4]
    assert store.versions()[2]["tags"] == ["one"]
    old = Store.open(store.path, "one")
    assert old.content_hash() == before
    assert Store.open(store.path, 1).meta == {"name": "toy"}
    with pytest.raises(DataError, match="opened at version 'one', which cannot be changed"):
        old.set_meta(seed=4)
    with pytest.raises(DataError, match="no version 99"):
        Store.open(store.path, 99)
    with pytest.raises(DataError, match="no tag 'two'"):
        Store.open(store.path, "two")
    with pytest.raises(DataError, match="cannot be a tag"):
        store.tag("a/../b c")


def test_drop_and_write_again(store: Store):
    fill(store)
    fill(store, "u.text")
    store.drop("t.text")
    assert store.columns[-1] == "u.text"
    fill(store, values=-VECTORS)
    np.testing.assert_array_equal(store.array("t.text"), -VECTORS)
    np.testing.assert_array_equal(store.array("u.text"), VECTORS)
    assert store.verify() == []
    with pytest.raises(DataError, match="'label' came with the rows and cannot be dropped"):
        store.drop("label")
    with pytest.raises(CardError, match="'label' .* has no card; knowledge columns are: "):
        store.card("label")


def brute(queries: np.ndarray, metric: str) -> np.ndarray:
    v, q = VECTORS.astype(np.float64), queries.astype(np.float64)
    if metric == "l2":
        return -np.linalg.norm(q[:, None] - v[None], axis=2)
    if metric == "cosine":
        v = v / np.linalg.norm(v, axis=1, keepdims=True)
        q = q / np.linalg.norm(q, axis=1, keepdims=True)
    return q @ v.T


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_search_is_exact(store: Store, metric: str):
    fill(store)
    queries = np.random.default_rng(1).standard_normal((3, SIZE)).astype(np.float32)
    found, scores = store.search("t.text", queries, 7, metric=metric)
    truth = brute(queries, metric)
    np.testing.assert_array_equal(found, np.argsort(-truth, axis=1)[:, :7])
    expected = np.take_along_axis(truth, found, 1)
    np.testing.assert_allclose(scores, -expected if metric == "l2" else expected, rtol=1e-5)
    found, scores = store.search("t.text", queries[0], 9, metric=metric, filter="id in ('s3','s8')")
    assert set(found[0, :2]) == {3, 8}
    assert (found[0, 2:] == -1).all()
    assert np.isinf(scores[0, 2:]).all()


def test_search_passes_over_unfilled_rows_and_reads_bfloat16(store: Store):
    config = embedding_config([SIZE], "bfloat16")
    kind = embedding_type([SIZE], "bfloat16")
    with store.job([card(config=config)], {"t.text": kind}, rows=range(10, 30)) as job:
        for unit in job.todo():
            part = VECTORS[unit.start : unit.stop]
            job.write(unit, {"t.text": encode_embeddings(part, "bfloat16")})
    found, scores = store.search("t.text", VECTORS[[12, 45]], 20)
    assert found[0, 0] == 12
    assert set(found[1]) == set(range(10, 30))
    assert scores[0, 0] == pytest.approx(1, abs=1e-4)
    with pytest.raises(DataError, match="bfloat16 bits, which Lance cannot index"):
        store.index_vectors("t.text")


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_index_agrees_with_exact_search_when_it_looks_everywhere(store: Store, metric: str):
    fill(store)
    store.index_vectors("t.text", metric=metric, kind="IVF_FLAT", num_partitions=2)
    assert store.info()["columns"][-1]["index"] == "IVF_FLAT"
    assert store.indexes() == {"t.text": metric}
    exact, scores = store.search("t.text", VECTORS[:5], 4, metric=metric)
    rows_, near = store.search_index("t.text", VECTORS[:5], 4, nprobes=2, refine=4)
    np.testing.assert_array_equal(rows_, exact)
    np.testing.assert_allclose(near, scores, rtol=2e-3, atol=2e-3)
    found, _ = store.search_index("t.text", VECTORS[0], 4, filter="label = 1", nprobes=2)
    np.testing.assert_array_equal(
        found, store.search("t.text", VECTORS[0], 4, metric=metric, filter="label = 1")[0]
    )
    store.append(rows(N, N + 3))
    fill(store, values=np.concatenate([VECTORS, VECTORS[:3]]))
    with pytest.raises(DataError, match="no index; build one"):  # it would miss the new rows
        store.search_index("t.text", VECTORS[0])


def test_content_hash_sees_content_only(store: Store, tmp_path: Path):
    fill(store, unit_rows=9)
    other = Store.create(tmp_path / "o", rows(step=3), rows_per_fragment=50, meta={"x": 1})
    fill(other, rows=range(7))
    with other.job([card()], {"t.text": embedding_type([SIZE])}) as job:
        for unit in job.todo():
            part = encode_embeddings(VECTORS[unit.start : unit.stop])
            job.write(unit, {"t.text": part}, seconds=5, facts={"a": 1})
    assert other.content_hash() == store.content_hash()
    values = VECTORS.copy()
    values[N - 1, SIZE - 1] += 1
    other.drop("t.text")
    fill(other, values=values)
    assert other.content_hash() != store.content_hash()
    other.drop("t.text")
    with other.job([card(seed=1)], {"t.text": embedding_type([SIZE])}) as job:
        for unit in job.todo():
            job.write(unit, {"t.text": encode_embeddings(VECTORS[unit.start : unit.stop])})
    assert other.content_hash() != store.content_hash()


def test_pickled_store_stays_at_its_version(store: Store):
    fill(store)
    copy = pickle.dumps(store)
    store.drop("t.text")
    again = pickle.loads(copy)
    assert again.version == 2
    np.testing.assert_array_equal(again.array("t.text", [5]), VECTORS[[5]])
    with pytest.raises(DataError, match="cannot be changed"):
        again.drop("t.text")


def test_spawned_worker_reads_a_pickled_store(store: Store):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_labels, (store,)) == [0, 1, 2]


def _labels(store: Store) -> list[int]:
    return store.array("label", [0, 1, 2]).tolist()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:lance is not fork-safe")
def test_bad_input_forked_process(store: Store):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            store.take([0], ["id"])
            message = "no error"
        except DataError as error:
            message = str(error)
        os.write(writing, message.encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writing)
    with os.fdopen(reading) as file:
        assert "forked process, where Lance crashes" in file.read()


def test_url(tmp_path: Path):
    url = f"file://{tmp_path}/s"
    made = fill(Store.create(url, rows()), rows=range(30))
    fill(Store.open(url))
    assert Store.open(url).verify() == []
    np.testing.assert_array_equal(made.refresh().array("t.text"), VECTORS)
    assert "freed" in made.compact()
    with pytest.raises(DataError, match="there is a store already"):
        Store.create(url, rows())


def test_bad_input_double_id(tmp_path: Path, store: Store):
    with pytest.raises(DataError, match=r"id 's2' occurs twice \(rows 2 and 20\)"):
        Store.create(tmp_path / "d", [*rows(stop=20), {**next(rows(2, 4)), "split": ["a", "b"]}])
    assert not (tmp_path / "d").exists()
    with pytest.raises(DataError, match=r"id 's7' occurs twice \(rows 7 and 50\)"):
        store.append(rows(7, 8))
    assert Store.open(store.path).num_rows == N


def test_bad_input_empty_id(tmp_path: Path):
    for wrong in (None, ""):
        with pytest.raises(DataError, match="row 1: 'id' is empty"):
            Store.create(tmp_path / "d", [{"id": ["a", wrong]}])


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "no rows to write"),
        ([{"x": [1]}], "unique string 'id'"),
        ([{"id": [1]}], "column 'id' must hold strings, got int64"),
        ([{"id": ["a"], "x": [None]}], "column 'x' has no value in the first batch"),
        ([{"id": ["a"], "a:b": [1]}], "'a:b' cannot be a column name"),
        ([{"id": ["a"], "x": [1]}, {"id": ["b"]}], "batch 1 has no column 'x'"),
        ([{"id": ["a"]}, {"id": ["b"], "x": [1]}], "batch 1: column 'x' is not in the store's"),
        ([{"id": ["a"], "x": [1]}, {"id": ["b"], "x": ["c"]}], "batch 1: does not fit"),
        ([{"id": ["a"], "x": [1, 2]}], "batch 0: does not fit"),
        (["rows"], "batch 0: expected a RecordBatch, a Table or a dict of lists, got str"),
    ],
)
def test_bad_input_batches(tmp_path: Path, batches: list, message: str):
    with pytest.raises(DataError, match=message):
        Store.create(tmp_path / "s", batches)
    assert not (tmp_path / "s").exists()


def test_bad_input_error_of_the_source_is_kept(tmp_path: Path):
    def source():
        yield from rows()
        raise KeyError("tar member")

    with pytest.raises(KeyError, match="tar member"):
        Store.create(tmp_path / "s", source())
    assert Store.create(tmp_path / "s", rows()).num_rows == N


def test_bad_input_failed_overwrite_keeps_the_old_store(store: Store):
    with pytest.raises(DataError, match="does not fit"):
        Store.create(store.path, [*rows(), {**next(rows()), "label": ["x"] * 20}], overwrite=True)
    assert Store.open(store.path).meta == {"name": "toy"}
    assert Store.open(store.path).verify() == []


def test_bad_input_places(tmp_path: Path, store: Store):
    with pytest.raises(DataError, match="there is a store already; pass overwrite=True"):
        Store.create(store.path, rows())
    with pytest.raises(DataError, match="no such store"):
        Store.open(tmp_path / "none")
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(DataError, match="not a store"):
        Store.open(other)
    (other / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="exists and is not a store"):
        Store.create(other, rows())
    import lance

    lance.write_dataset(pa.table({"id": ["a"]}), str(tmp_path / "lance"))
    with pytest.raises(DataError, match="not an Understudy store"):
        Store.open(tmp_path / "lance")
    with pytest.raises(DataError, match="not an Understudy store"):
        Store.create(tmp_path / "lance", rows(), overwrite=True)


def test_bad_input_unfinished_import(tmp_path: Path):
    (tmp_path / "s" / "data").mkdir(parents=True)
    (tmp_path / "s" / "data" / "1.lance").write_bytes(b"half")
    with pytest.raises(DataError, match="interrupted before it finished; run the same import"):
        Store.open(tmp_path / "s")
    assert Store.create(tmp_path / "s", rows()).num_rows == N


def test_bad_input_newer_format(store: Store):
    from understudy.data.store_lance import FORMAT_KEY, Change

    def newer(dataset):
        fragments = [f.metadata for f in dataset.get_fragments()]
        return Change(fragments, dataset.lance_schema, {FORMAT_KEY: "2"})

    store._handle.change(newer, "newer")
    with pytest.raises(DataError, match="store format 2, this version reads format 1"):
        Store.open(store.path)


def test_bad_input_rows_columns_and_filters(store: Store):
    with pytest.raises(DataError, match="row 50 does not exist; the store has 50 rows"):
        store.take([0, 50], ["id"])
    with pytest.raises(DataError, match="row -1 does not exist"):
        store.array("label", [-1])
    with pytest.raises(DataError, match="whole numbers"):
        store.take([0.5], ["id"])
    with pytest.raises(DataError, match=r"a mask of rows must be \[50\]"):
        store.take(np.ones(3, bool), ["id"])
    with pytest.raises(DataError, match="no column 'labels'. Did you mean label?"):
        store.take([0], ["labels"])
    with pytest.raises(DataError, match="got the string 'id'"):
        store.take([0], "id")
    with pytest.raises(DataError, match="batch_size must be at least 1"):
        next(store.scan(["id"], batch_size=0))
    for wrong in ("label ==", "nothing = 1"):
        with pytest.raises(DataError, match="is not understood"):
            store.where(wrong)
        with pytest.raises(DataError, match="is not understood"):
            list(store.scan(["id"], filter=wrong))
    with pytest.raises(DataError, match="plain JSON"):
        store.set_meta(x=object())


def test_bad_input_search(store: Store):
    fill(store)
    with pytest.raises(DataError, match="'label' of int64 holds no vectors"):
        store.search("label", [1.0])
    with pytest.raises(DataError, match="holds vectors of 4 numbers"):
        store.search("t.text", np.zeros((2, 3)))
    with pytest.raises(DataError, match="NaN"):
        store.search("t.text", [np.nan] * 4)
    with pytest.raises(DataError, match="k must be"):
        store.search("t.text", [0.0] * 4, 0)
    with pytest.raises(DataError, match="no index; build one"):
        store.search_index("t.text", [0.0] * 4)


def test_bad_input_lists_have_no_array(tmp_path: Path):
    made = Store.create(tmp_path / "s", [{"id": ["a", "b"], "x": [["u"], []]}])
    assert made.take([0], ["x"]).column(0).to_pylist() == [["u"]]
    with pytest.raises(DataError, match="no fixed size; read it with take or scan"):
        made.array("x")
