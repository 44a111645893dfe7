"""`understudy curate`: tables, JSON, dry runs, and what it says about mistakes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from understudy.cli import main
from understudy.data.store import Store

sys.path.insert(0, str(Path(__file__).parents[1] / "curate" / "engine"))
from engine_steps import write_input

STEPS = [{"name": "engine_steps:AtLeast", "chars": 7}, "engine_steps:FirstOnly"]


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setenv("UNDERSTUDY_PROGRESS", "off")
    pipeline = tmp_path / "p.yaml"
    pipeline.write_text(yaml.safe_dump(STEPS))
    return write_input(tmp_path / "pages"), tmp_path / "s", pipeline


def run(capsys, *words):
    status = main(["curate", *map(str, words)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_it_prints_the_funnel_and_the_reasons(world, tmp_path, capsys):
    pages, store, pipeline = world
    words = [pages, store, "--pipeline", pipeline, "--workers", 1]
    (pages / "notes.pdf").write_bytes(b"%PDF")
    status, out, err = run(capsys, *words, "--exclusions", tmp_path / "x", "--keep-work")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == "# step in out dropped % MB in MB out seconds".split()
    read, short, copies = (line.split() for line in lines[2:5])
    assert read[:5] == ["0", "read", "120", "120", "0.0"]
    rows = Store.open(store).num_rows
    assert short[2:4] == ["120", copies[2]]
    assert copies[3] == str(rows)
    assert float(copies[4]) == pytest.approx(100 * (1 - rows / int(copies[2])), abs=0.05)
    assert any(line.split()[:3] == ["engine_steps:AtLeast", "too", "short"] for line in lines)
    assert "files of other kinds were passed over: 1 .pdf" in out
    assert f"{tmp_path / 'x'}: dropped pages" in out
    assert f"{store}: {rows} pages from 3 units" in lines[-1]
    assert (tmp_path / "s.curate").is_dir()
    status, out, _ = run(capsys, *words)
    assert status == 0
    assert "it was complete already" in out
    assert not (tmp_path / "s.curate").exists()


def test_json_is_the_report(world, capsys):
    pages, store, pipeline = world
    status, out, _ = run(capsys, pages, store, "--pipeline", pipeline, "--workers", 1, "--json")
    found = json.loads(out)
    assert status == 0
    assert found["rows"] == Store.open(store).num_rows
    assert [row["pages_in"] for row in found["funnel"]][:2] == [120, 120]
    assert found["tasks"] == 3 + 7


def test_dry_run_writes_nothing_and_estimates(world, tmp_path, capsys):
    pages, store, pipeline = world
    before = sorted(tmp_path.rglob("*"))
    words = [pages, store, "--pipeline", pipeline, "--dry-run", "--workers", 2]
    status, out, _ = run(capsys, *words)
    assert status == 0
    assert sorted(tmp_path.rglob("*")) == before
    assert "part-2.jsonl  lines" in out
    assert "per unit, pass 1" in out
    assert "over all units" in out
    assert "input: 3 units" in out
    status, out, _ = run(capsys, *words, "--json")
    found = json.loads(out)
    assert len(found["units"]) == 3
    assert found["sample_pages"] == 120
    assert found["seconds"] > 0
    status, out, _ = run(capsys, *words[:-3], "--json")
    # all pages were the sample, so what is kept and written is what the run keeps and writes
    assert found["kept"] == pytest.approx(Store.open(store).num_rows / 120)
    text = sum(len(t) for t in Store.open(store).array("text"))
    assert text < found["disk_bytes"] < 20 * text


def test_dry_run_says_why_it_cannot_estimate(world, capsys):
    pages, store, pipeline = world
    pipeline.write_text(yaml.safe_dump(["engine_steps:breaks"]))
    status, out, _ = run(capsys, pages, store, "--pipeline", pipeline, "--dry-run")
    assert status == 0
    assert "estimate: none (engine_steps:breaks: page" in out


def test_lenient_and_strict(world, capsys):
    pages, store, pipeline = world
    with open(pages / "part-0.jsonl", "a") as file:
        file.write("nonsense\n")
    words = [pages, store, "--pipeline", pipeline, "--workers", 1]
    status, _, err = run(capsys, *words)
    assert status == 2
    assert "part-0.jsonl, line 41: not JSON" in err
    assert run(capsys, *words, "--strict")[0] == 2
    status, out, err = run(capsys, *words, "--lenient")
    assert status == 0
    assert "skipped" in err
    assert "line 41" in err
    assert ["read", "not", "JSON", "1"] in [line.split() for line in out.splitlines()]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{pages}", "s"], "give one of --recipe NAME and --pipeline FILE"),
        (["{pages}", "--recipe", "dclm"], "name inputs and then the store"),
        (["{pages}", "s", "--recipe", "dclm", "--pipeline", "{pipeline}"], "give one of --recipe"),
        (["{pages}", "s", "--recipe", "dcml"], "no pipeline 'dcml'. Did you mean dclm"),
        (["{pages}", "s", "--pipeline", "{pipeline}", "--strict", "--lenient"], "exclude each"),
        (["none", "s", "--pipeline", "{pipeline}"], "none: no such file or folder"),
        (["{pages}", "s", "--pipeline", "{pipeline}", "--on", "spark"], "on: expected local, "),
        (["{pages}", "s", "--pipeline", "{pipeline}", "--workers", "-2"], "workers: expected 0"),
    ],
)
def test_mistakes_are_one_line_and_status_2(world, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    pages, _, pipeline = world
    status, out, err = run(capsys, *(w.format(pages=pages, pipeline=pipeline) for w in words))
    assert (status, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_help_names_the_command(capsys):
    assert main(["--help"]) == 0
    assert "curate" in capsys.readouterr().out
