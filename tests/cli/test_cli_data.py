"""`understudy data ...`: what errors ask for can be given, and everything prints JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from understudy.cli import main
from understudy.data.store import Store

sys.path.insert(0, str(Path(__file__).parents[1] / "train"))
from student_world import pair_store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return pair_store(tmp_path_factory.mktemp("data") / "store", train=8, test=0)


def run(words, capsys):
    status = main([str(word) for word in words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_export_chooses_teachers_and_captioners_and_replaces(store, tmp_path, capsys):
    words = ["data", "export", store.path, tmp_path / "tars", "--view-set", "main"]
    status, out, _ = run([*words, "--teachers", "tb", "--captioners", "template", "--json"], capsys)
    assert status == 0
    assert len(json.loads(out)["files"]) == 1
    described = json.loads((tmp_path / "tars" / "understudy.json").read_text())
    assert list(described["teachers"]) == ["tb"]
    # the other teacher is another export
    status, _, err = run([*words, "--teachers", "ta"], capsys)
    assert status == 2
    assert "overwrite" in err
    status, out, _ = run([*words, "--teachers", "ta", "--overwrite"], capsys)
    assert (status, out.strip()) == (0, f"{tmp_path / 'tars'}: 1 files")
    status, _, err = run([*words, "--columns", "id"], capsys)
    assert status == 2
    assert "unknown key 'columns'" in err
    words = ["data", "export", store.path, tmp_path / "table", "--format", "parquet"]
    assert run([*words, "--columns", "id", "text", "--compression", "none"], capsys)[0] == 0


def test_import_takes_what_its_errors_name(store, tmp_path, capsys):
    export = ["data", "export", store.path, tmp_path / "tars", "--teachers", "ta"]
    assert run(export, capsys)[0] == 0
    words = ["data", "import", tmp_path / "tars", tmp_path / "again", "--json"]
    options = ["--parts", "captions", "views", "--check-images", "header", "--threads", "1"]
    status, out, _ = run([*words, *options], capsys)
    assert status == 0
    found = json.loads(out)
    assert found["rows"] == store.num_rows
    assert "view.main.0" in found["columns"]
    assert not any(".image." in column for column in found["columns"])
    views = tmp_path / "views.json"
    views.write_text(json.dumps(store.card("view.main.0").config["transforms"]))
    status, _, err = run([*words, "--normalize", "--views", views], capsys)
    assert status == 2  # transforms alone are no view configuration
    assert "unknown key" in err
    config = {"size": 48, "transforms": json.loads(views.read_text())}
    views.write_text(json.dumps(config))
    words = [*words, "--normalize", "--views", views, "--overwrite"]
    assert run(words, capsys)[0] == 0
    status, _, err = run(
        ["data", "import", tmp_path / "tars", tmp_path / "x", "--keys", "k"], capsys
    )
    assert status == 2
    assert "unknown key 'keys'" in err


def test_checks_and_clean_up_print_json(store, tmp_path, capsys):
    status, out, _ = run(["data", "verify", store.path, "--json"], capsys)
    assert (status, json.loads(out)["problems"]) == (0, [])
    status, out, _ = run(["data", "compact", store.path, "--json"], capsys)
    assert status == 0
    assert json.loads(out)["path"] == store.path
    assert Store.open(store.path).num_rows == store.num_rows
