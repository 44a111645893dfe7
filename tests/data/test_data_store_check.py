from __future__ import annotations

from pathlib import Path

import pytest
from store_toy import SIZE, VECTORS, N, card, fill, rows

from understudy.core.errors import DataError
from understudy.data.knowledge import embedding_type, encode_embeddings
from understudy.data.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "s", rows(), rows_per_fragment=15, meta={"name": "toy"})


def test_info_and_compact(store: Store):
    fill(store, rows=range(10))
    facts = store.info()
    assert facts["num_rows"] == N
    assert facts["columns"][-1]["name"] == "t.text"
    assert facts["columns"][-1]["filled"] == 10
    assert facts["columns"][-1]["card"]["writer"] == "t"
    job = store.job([card("half")], {"half": embedding_type([SIZE])}, unit_rows=10)
    job.write(job.todo()[0], {"half": encode_embeddings(VECTORS[:10])})
    assert store.info()["staging"] == ["half: 10 rows staged; run the same command again to finish"]
    stale = Path(store.path, "_understudy/staging/0123")
    stale.mkdir()
    (stale / "job.json").write_text("{}")
    store.tag("keep")
    fill(store)
    text = store.compact()
    assert "1 finished or stale jobs' staging removed" in text
    assert "1 unfinished jobs kept" in text
    assert not stale.exists()
    assert [v["version"] for v in store.versions()] == [2, 3]
    again = store.job([card("half")], {"half": embedding_type([SIZE])}, unit_rows=10)
    assert again.todo()[0].start == 10


def data_files(store: Store, column: str) -> list[Path]:
    names = [f.name() for f in store._handle.dataset.lance_schema.fields()]
    i = names.index(column.replace(".", ":"))
    field = store._handle.dataset.lance_schema.fields()[i].id()
    return [
        Path(store.path, "data", file.path)
        for fragment in store._handle.dataset.get_fragments()
        for file in fragment.metadata.files
        if field in file.fields
    ]


def test_bad_input_missing_data_file(store: Store):
    fill(store)
    data_files(store, "t.text")[1].unlink()
    (problem,) = Store.open(store.path).verify()
    assert "is missing: t.text, rows 15-29; restore the file from a copy, or drop the" in problem
    with pytest.raises(DataError, match="data verify` says which file"):
        Store.open(store.path).array("t.text")
    store.drop("t.text")
    assert fill(store).verify() == []


def test_bad_input_truncated_data_file(store: Store):
    file = data_files(store, "id")[0]
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[: size // 2])
    (problem,) = Store.open(store.path).verify()
    assert f"has {size // 2} bytes instead of {size}" in problem
    assert "import the store again" in problem


def test_bad_input_swapped_data_file(store: Store):
    fill(store)
    short, long = data_files(store, "t.text")[-1], data_files(store, "t.text")[0]
    long.write_bytes(short.read_bytes())
    problems = Store.open(store.path).verify()
    assert len(problems) == 1
    assert "instead of" in problems[0]


def test_bad_input_card_and_rows_disagree(store: Store):
    from understudy.data.store_lance import CARD_KEY, ROWS_KEY, Change

    fill(store, rows=range(20))

    def lie(dataset):
        fragments = [f.metadata for f in dataset.get_fragments()]
        metadata = {
            ROWS_KEY + "t.text": '{"ranges":[[0,25]]}',
            CARD_KEY + "gone": card("gone").to_json(),
        }
        return Change(fragments, dataset.lance_schema, metadata)

    store._handle.change(lie, "lie")
    problems = "\n".join(store.verify())
    assert "its card says 20 rows, its set of finished rows 25" in problems
    assert "5 rows differ from what its card says (row 20 is empty)" in problems
    assert "there is a card for column 'gone', but no such column" in problems
