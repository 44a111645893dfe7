"""Runs: the same store by any number of workers and any number of kills."""

from __future__ import annotations

import gzip
import json
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from engine_steps import write_input

from understudy.core.errors import ConfigError, DataError
from understudy.curate.engine.executors import Here
from understudy.curate.engine.pipeline import Pipeline
from understudy.curate.engine.workplace import unit_folder
from understudy.data.store import Store

HERE = Path(__file__).parent
STEPS = [
    {"name": "engine_steps:measure"},
    {"name": "engine_steps:AtLeast", "chars": 7},
    "engine_steps:FirstOnly",
    "engine_steps:upper",
    "commit",
    "engine_steps:WordCount",
]


def run(inputs, store, steps=STEPS, **options):
    return Pipeline(steps).run(inputs, store, **{"workers": 1, **options})


def expected(folder):
    """What STEPS must leave, computed by hand."""
    seen, kept = set(), []
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            text = record["text"]
            if len(text) < 7 or text in seen:
                continue
            seen.add(text)
            kept.append((text.upper(), record["url"], path.name, len(text), len(text.split())))
    return kept


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    return write_input(tmp_path_factory.mktemp("run") / "pages")


def rows(path):
    columns = ["text", "url", "source", "length", "words"]
    table = Store.open(path).take(range(Store.open(path).num_rows), columns)
    return list(zip(*(table.column(c).to_pylist() for c in columns), strict=True))


def test_rows_columns_and_funnel_are_those_computed_by_hand(pages, tmp_path):
    report = run([pages], tmp_path / "s")
    want = expected(pages)
    assert rows(tmp_path / "s") == want
    assert report.rows == len(want)
    store = Store.open(tmp_path / "s")
    assert store.columns == ["id", "text", "url", "source", "metadata", "length", "words"]
    assert json.loads(store.take([0], ["metadata"])["metadata"][0].as_py()) == {"n": 0}
    funnel = [(r.step, r.name, r.count.pages_in, r.count.pages_out) for r in report.funnel]
    total, short = (
        120,
        sum(
            len(json.loads(line)["text"]) < 7
            for path in pages.glob("*.jsonl")
            for line in path.read_text().splitlines()
        ),
    )
    assert funnel == [
        (0, "read", 120, 120),
        (1, "engine_steps:measure", 120, 120),
        (2, "engine_steps:AtLeast", total, total - short),
        (3, "engine_steps:FirstOnly", total - short, len(want)),
        (4, "engine_steps:upper", len(want), len(want)),
        (6, "engine_steps:WordCount", len(want), len(want)),
    ]
    assert report.funnel[3].count.reasons == {"copy": total - short - len(want)}
    assert report.funnel[0].count.bytes_in == sum(p.stat().st_size for p in pages.iterdir())
    assert report.funnel[-1].count.bytes_out == sum(len(r[0].encode()) for r in want)
    assert not (tmp_path / "s.curate").exists()


@pytest.fixture(scope="module")
def whole(pages, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "s"
    run([pages], path)
    return Store.open(path).content_hash()


def test_workers_do_not_change_the_store(pages, whole, tmp_path):
    run([pages], tmp_path / "s", workers=2)
    assert Store.open(tmp_path / "s").content_hash() == whole


def test_sizes_of_units_do_not_change_rows(pages, tmp_path):
    report = run([pages], tmp_path / "s", unit_bytes=1000)
    assert report.units > 9
    assert rows(tmp_path / "s") == expected(pages)


def test_a_finished_run_is_not_run_again(pages, tmp_path, monkeypatch):
    first = run([pages], tmp_path / "s", keep_work=True)
    monkeypatch.setattr(Here, "run", lambda self, tasks: pytest.fail("ran again"))
    again = run([pages], tmp_path / "s")
    assert again.complete_before
    assert [r.to_plain() for r in again.funnel] == [r.to_plain() for r in first.funnel]
    assert again.rows == first.rows
    assert not (tmp_path / "s.curate").exists()
    with pytest.raises(DataError, match="a store already, of other inputs or steps; --overwrite"):
        run([pages], tmp_path / "s", STEPS[:2])


def test_overwrite_replaces(pages, tmp_path):
    run([pages], tmp_path / "s")
    report = run([pages], tmp_path / "s", STEPS[:1], overwrite=True)
    assert not report.complete_before
    assert Store.open(tmp_path / "s").num_rows == 120


def test_only_what_changed_is_computed_again(tmp_path):
    pages = write_input(tmp_path / "pages")
    steps = [STEPS[0], "commit", STEPS[1]]
    run([pages], tmp_path / "s", steps, keep_work=True)
    shutil.rmtree(tmp_path / "s")
    report = run([pages], tmp_path / "s", steps, keep_work=True)
    assert (report.tasks, report.resumed) == (6, 6)
    shutil.rmtree(tmp_path / "s")
    with open(pages / "part-1.jsonl", "a") as file:
        file.write('{"text": "one more page of words"}\n')
    report = run([pages], tmp_path / "s", steps, keep_work=True)
    assert (report.tasks, report.resumed) == (6, 4)
    assert report.funnel[0].count.pages_out == 121
    shutil.rmtree(tmp_path / "s")
    write_input(tmp_path / "pages" / "deeper", files=1)  # a new file moves no other's work
    report = run([pages], tmp_path / "s", steps)
    assert (report.tasks, report.resumed) == (8, 6)


def test_meta_is_a_card(pages, tmp_path):
    run([pages], tmp_path / "s", seed=3)
    card = Store.open(tmp_path / "s").meta["curate"]
    assert card["pipeline"] == Pipeline(STEPS).to_plain()
    assert [s["source"] for s in card["inputs"]["sources"]] == [f"part-{i}.jsonl" for i in range(3)]
    assert card["inputs"]["bytes"] == sum(p.stat().st_size for p in pages.iterdir())
    assert card["options"] == {"seed": 3, "strict": True}
    assert card["steps"][1]["seed"] == 3
    assert {"python", "understudy", "pyarrow"} <= set(card["versions"])
    assert [row["step"] for row in card["funnel"]] == [0, 1, 2, 3, 4, 6]
    # other bytes, other hash
    other = write_input(tmp_path / "pages")
    text = (other / "part-0.jsonl").read_text()
    (other / "part-0.jsonl").write_text(text.replace("words", "swords", 1))
    run([other], tmp_path / "t", seed=3)
    changed = Store.open(tmp_path / "t").meta["curate"]["inputs"]
    assert changed["hash"] != card["inputs"]["hash"]
    assert changed["sources"][1] == card["inputs"]["sources"][1]


def test_dropped_pages_are_kept_with_reasons(pages, tmp_path):
    report = run([pages], tmp_path / "s", exclusions=str(tmp_path / "x"))
    found = {}
    for path in sorted((tmp_path / "x").rglob("*.jsonl.gz")):
        records = [json.loads(line) for line in gzip.open(path, "rt")]
        found.setdefault(path.parent.name, []).extend(records)
    assert list(found) == ["02-engine_steps-AtLeast", "03-engine_steps-FirstOnly"]
    short, copies = found.values()
    assert len(short) == report.funnel[2].count.reasons["too short"]
    assert {(r["dropped_by"], r["reason"]) for r in short} == {
        ("engine_steps:AtLeast", "too short")
    }
    assert len(copies) == report.funnel[3].count.reasons["copy"]
    assert {r["text"] for r in copies} == {"copy 0 of many", "copy 1 of many"}
    assert {r["text"] for r in short} == {"tiny"}
    assert all(r["length"] == len(r["text"]) for r in short)
    total = len(short) + len(copies) + report.rows
    assert total == 120
    # they can be curated again
    run([tmp_path / "x"], tmp_path / "again", [STEPS[1]])
    shutil.rmtree(tmp_path / "x")
    with pytest.raises(DataError, match="its dropped pages were not kept; --overwrite"):
        run([pages], tmp_path / "s", exclusions=str(tmp_path / "x"))


def test_a_step_that_tells_no_counts_is_counted(pages, tmp_path):
    told = run([pages], tmp_path / "a", ["engine_steps:FirstOnly"]).funnel[1].count
    silent = {"name": "engine_steps:FirstOnly", "tell": False}
    counted = run([pages], tmp_path / "b", [silent]).funnel[1].count
    for name in ("pages_in", "pages_out", "bytes_in", "bytes_out"):
        assert getattr(counted, name) == getattr(told, name) > 0
    with pytest.raises(DataError, match="Shuffler.*returned other units than it was given"):
        run([pages], tmp_path / "c", ["engine_steps:Shuffler"])


def test_sections_are_for_their_sources(tmp_path):
    for name in ("wiki", "web"):
        write_input(tmp_path / "in" / name, files=1)
    sections = [
        {"steps": ["engine_steps:measure"]},
        {"source": "wiki/*", "steps": ["engine_steps:upper", "engine_steps:WordCount"]},
        {"source": "web", "steps": ["engine_steps:FirstOnly"]},
    ]
    report = run([tmp_path / "in"], tmp_path / "s", sections)
    found = {"wiki/part-0.jsonl": [], "web/part-0.jsonl": []}
    for row in rows(tmp_path / "s"):
        found[row[2]].append(row)
    wiki, web = found.values()
    assert len(wiki) == 40 > len(web)
    assert all(r[0] == r[0].upper() and r[4] == len(r[0].split()) for r in wiki)
    assert all(r[0] == r[0].lower() and r[4] is None for r in web)
    assert [r.count.pages_in for r in report.funnel] == [80, 80, 40, 40, 40]


def test_lenient_runs_count_what_they_skip(tmp_path):
    pages = write_input(tmp_path / "pages", files=2)
    with open(pages / "part-0.jsonl", "a") as file:
        file.write('nonsense\n{"body": "x"}\n')
    with pytest.raises(DataError, match="part-0.jsonl, line 41: not JSON.*--lenient"):
        run([pages], tmp_path / "s")
    report = run([pages], tmp_path / "s", strict=False)
    assert report.skipped == {"no text": 1, "not JSON": 1}
    assert report.funnel[0].count.pages_in == 82
    assert report.funnel[0].count.pages_out == 80
    assert report.funnel[0].count.reasons == report.skipped
    assert "line 41" in report.examples[0]
    assert Store.open(tmp_path / "s").meta["curate"]["skipped"] == report.skipped


def test_ids_that_come_twice_name_both_sources_early(tmp_path):
    (tmp_path / "in").mkdir()
    for name in "ab":
        (tmp_path / "in" / f"{name}.jsonl").write_text(f'{{"id": 1, "text": "text of {name}"}}\n')
    with pytest.raises(DataError, match="page id '1' comes twice: from a.jsonl and from b.jsonl"):
        run([tmp_path / "in"], tmp_path / "s", ["engine_steps:FirstOnly"])
    assert not (tmp_path / "s.curate" / "01-engine_steps-FirstOnly").exists()
    assert not (tmp_path / "s").exists()


def test_nothing_left_is_an_empty_store(pages, tmp_path):
    report = run([pages], tmp_path / "s", [{"name": "engine_steps:AtLeast", "chars": 9999}])
    assert report.rows == Store.open(tmp_path / "s").num_rows == 0


def test_empty_files_are_units_without_pages(tmp_path):
    pages = write_input(tmp_path / "pages", files=1)
    (pages / "empty.jsonl").write_text("")
    assert run([pages], tmp_path / "s").funnel[0].count.pages_out == 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": -1}, "workers: expected 0"),
        ({"unit_bytes": 0}, "unit_bytes: expected 1 or more"),
        ({"on": "slurm"}, "on: expected local, ray or ray://host:port, got 'slurm'"),
    ],
)
def test_options_are_checked(pages, tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        run([pages], tmp_path / "s", **options)


def test_folders_of_units_are_files_names_that_differ():
    keys = ["a/b.jsonl[0:5]", "a-b.jsonl[0:5]", "../../etc", "x" * 500, "x" * 501, "é", ".hidden"]
    names = [unit_folder(k) for k in keys]
    assert len(set(names)) == len(names)
    assert all("/" not in n and not n.startswith(".") and len(n) < 60 for n in names)
