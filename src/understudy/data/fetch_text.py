"""Fetched text as stores: messages, documentation, definitions, docstrings of packages.

One row a document: `id`, `text`, `source`, `url`, `time` (ISO date, empty where unknown), `group`,
`split`. Groups (a package, a manual's chapter family, a speaker) are held out whole.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from understudy.core.errors import ConfigError, DataError
from understudy.core.seeds import rng
from understudy.data.corpora.document import Document, host, read_text
from understudy.data.corpora.html_text import html_text
from understudy.data.corpora.installed import readme_text
from understudy.data.corpora.prose import rst_text
from understudy.data.corpora.python_files import docstring_document, python_files
from understudy.data.fetch_wordnet import wordnet

SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("id", "text", "source", "url", "time", "group", "split")]
)
_BATCH = 512
_MIN_WORDS = 50

RELEASED = MappingProxyType(
    {
        "2.0": "2000-10-16", "2.1": "2001-04-15", "2.2": "2001-12-21", "2.3": "2003-07-29",
        "2.4": "2004-11-30", "2.5": "2006-09-19", "2.6": "2008-10-01", "2.7": "2010-07-03",
        "3.0": "2008-12-03", "3.1": "2009-06-27", "3.2": "2011-02-20", "3.3": "2012-09-29",
        "3.4": "2014-03-16", "3.5": "2015-09-13", "3.6": "2016-12-23", "3.7": "2018-06-27",
        "3.8": "2019-10-14", "3.9": "2020-10-05", "3.10": "2021-10-04", "3.11": "2022-10-24",
    }
)  # fmt: skip
"""Release dates of Python, which date the pages "What's New in Python x.y"."""


def sotu(folder: Path) -> Iterator[Document]:
    """Yield the State of the Union messages in the order of time; the group is the president.

    Raises:
        DataError: the list names a file that is missing.
    """
    listed = folder / "metadata.csv"
    with open(listed, newline="", encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: (row["date"], row["fileid"]))
    for row in rows:
        text = read_text(folder / "speeches" / f"{row['fileid']}.txt")
        if not text:
            raise DataError(f"{listed}: names {row['fileid']}, of which there is no text.")
        yield Document(
            id=f"sotu/{row['fileid']}",
            text=text,
            source="sotu",
            url=row["source_url"],
            time=row["date"],
            group=row["president_id"],
            facts={"party": row["party"], "form": row["sotu_type"]},
        )


def _pages(
    folder: Path, pattern: str, source: str, read: Callable[[str], str], ending: str
) -> Iterator[Document]:
    """Yield the pages of a manual that have 50 words or more; related file names are a group."""
    for path in sorted(folder.rglob(pattern)):
        inner = path.relative_to(folder).as_posix().removesuffix(ending)
        text = read(read_text(path))
        if len(text.split()) >= _MIN_WORDS:
            parts = inner.split("/")
            parts[-1] = re.split(r"[-_.]", parts[-1])[0] or parts[-1]
            yield Document(
                id=f"{source}/{inner}",
                text=text,
                source=source,
                url=f"https://{host(source)}/{inner}.html",
                group=f"{source}/{'/'.join(parts)}",
            )


def python_docs(folder: Path) -> Iterator[Document]:
    """Yield Python's documentation as prose; pages of "What's New" have their release's date."""
    for document in _pages(folder / "sources", "*.rst.txt", "python-docs", rst_text, ".rst.txt"):
        new = re.search(r"/whatsnew/(\d\.\d+)$", document.id)
        if new:  # each release is a group of its own
            time = RELEASED.get(new[1], "")
            document = replace(document, time=time, group=f"python-docs/whatsnew/{new[1]}")
        yield document


def debian_docs(folder: Path) -> Iterator[Document]:
    """Yield Debian's manuals as prose: policy, references, FAQ, maintainers' guide."""
    for name in ("debian-faq", "debian-reference", "maint-guide"):
        yield from _pages(folder / name, "*.en.html", name, html_text, ".en.html")
    for name in ("debian-policy", "developers-reference"):
        yield from _pages(folder / name, "*.rst.txt", name, rst_text, ".rst.txt")


def library_docs(folder: Path) -> Iterator[Document]:
    """Yield the documentation of SQLAlchemy and Sphinx as prose."""
    yield from _pages(folder / "sphinx", "*.rst.txt", "sphinx", rst_text, ".rst.txt")
    yield from _pages(folder / "sqlalchemy", "*.rst", "sqlalchemy", rst_text, ".rst")


def pypi_docs(folder: Path) -> Iterator[Document]:
    """Yield READMEs and docstrings of the fetched packages; the group is the package."""
    for package in sorted(path for path in folder.iterdir() if path.is_dir()):
        for listed in sorted(package.glob("*.dist-info/METADATA")):
            document = readme_text(package.name, read_text(listed))
            if document:
                yield document
        for path in python_files(package):
            document = docstring_document(path, path.relative_to(package), package.name)
            if document:
                yield document


READERS: Mapping[str, Callable[[Path], Iterator[Document]]] = MappingProxyType(
    {
        "sotu": sotu,
        "python-docs": python_docs,
        "debian-docs": debian_docs,
        "library-docs": library_docs,
        "wordnet": wordnet,
        "pypi-docs": pypi_docs,
    }
)
"""Readers of the fetched texts by asset name."""


def documents(name: str, folder: Path) -> Iterator[Document]:
    """Yield the documents of a fetched text, in an order that doesn't depend on the machine.

    Args:
        name: a key of `READERS`.
        folder: the unpacked asset.

    Raises:
        ConfigError: the asset isn't a text.
        DataError: nothing that can be read is there.
    """
    if name not in READERS:
        raise ConfigError(f"'{name}' isn't a fetched text; texts: {', '.join(READERS)}.")
    found = READERS[name](folder)
    first = next(found, None)
    if first is None:
        raise DataError(f"{folder}: no documents; fetch '{name}' again.")
    yield first
    yield from found


def to_store(
    folders: Mapping[str, Path], *, held_out: float = 0.05, seed: int = 0
) -> tuple[Iterator[pa.RecordBatch], dict[str, Any]]:
    """Return the rows and the facts of a store of documents.

    Args:
        folders: the unpacked asset by name.
        held_out: chance of each group to be in the split `test`, whole.
        seed: another seed holds out other groups.
    """
    if not 0 <= held_out < 1:
        raise ConfigError(f"text: 'held_out' must lie in [0, 1), got {held_out}.")
    ((name, folder),) = folders.items()

    def batches() -> Iterator[pa.RecordBatch]:
        waiting: list[dict[str, str]] = []
        for found in documents(name, folder):
            held = rng("text", found.group, seed).random() < held_out
            row = {key: getattr(found, key) for key in SCHEMA.names if key != "split"}
            waiting.append({**row, "split": "test" if held else "train"})
            if len(waiting) == _BATCH:
                yield pa.RecordBatch.from_pylist(waiting, SCHEMA)
                waiting = []
        if waiting:
            yield pa.RecordBatch.from_pylist(waiting, SCHEMA)

    return batches(), {"held_out": held_out, "seed": seed}
