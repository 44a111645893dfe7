"""Where each kind of a pool's documents comes from: candidates that are read when they are drawn.

A machine has far more files than a pool needs, and parsing them all takes minutes. So a kind is a
list of candidates (a name, a group, how to read it), drawn in an order that the seed decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

from understudy.core.errors import DataError
from understudy.core.hashing import hash_bytes
from understudy.core.seeds import rng
from understudy.data.corpora import dumps, installed, logs, python_files, system
from understudy.data.corpora.document import Document
from understudy.data.corpora.pool_config import KINDS, PoolConfig

ROLES = {"pool": 0.6, "reference": 0.2, "held_out": 0.2}
"""Shares of the packages that are in the pool, train the classifier, and are evaluated on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A document that can be drawn.

    Attributes:
        key: stable name, which decides its place in the order.
        group: see `Document.group`.
        load: reads it; None if there is nothing in it after all.
    """

    key: str
    group: str
    load: Callable[[], Document | None]


def role(group: str, seed: int) -> str:
    """Return the role of a package or standard-library module: all its documents have the same."""
    at = rng("role", seed, group).random()
    for name, share in ROLES.items():
        if at < share:
            return name
        at -= share
    return "pool"


def in_order(found: list[Candidate], kind: str, seed: int) -> list[Candidate]:
    """Return candidates in the random order of a seed, whatever order they are given in."""
    keyed = [(hash_bytes(f"{seed}/{kind}/{c.key}".encode()), c.key, c) for c in found]
    return [candidate for _, _, candidate in sorted(keyed, key=lambda item: item[:2])]


class Sources:
    """The candidates of every kind on this machine.

    Args:
        config: which packages and fetched texts are used, and the seed.
    """

    def __init__(self, config: PoolConfig) -> None:
        self.config = config
        self.notes: list[str] = []
        self._python: list[tuple[Path, Path, str]] | None = None
        self._data: list[tuple[Path, str, str]] | None = None
        self._fetched: list[Document] | None = None

    def candidates(self, kind: str, roles: tuple[str, ...] = ("pool",)) -> list[Candidate]:
        """Return the candidates of a kind, in drawing order.

        Args:
            kind: a key of `KINDS`, but not `log`, which has no end.
            roles: keep the packages of these roles (clean kinds and sources only).
        """
        found = list(getattr(self, f"_{kind}")())
        if KINDS[kind].clean or kind == "source":
            found = [c for c in found if role(c.group, self.config.seed) in roles]
        return in_order(found, kind, self.config.seed)

    def logs(self, chars: Callable[[str], int]) -> Iterator[Document]:
        """Yield generated logs without end; `chars` gives the length for a name."""
        for number in count():
            yield logs.log_document(number, chars(f"log/{number}"), self.config.seed)

    def _files(self) -> list[tuple[Path, Path, str]]:
        """Return (path, inner path, group) of all Python files of the library and of packages."""
        if self._python is None:
            root = python_files.stdlib_folder()
            out = []
            for path in python_files.python_files(root):
                inner = path.relative_to(root)
                out.append((path, inner, python_files.stdlib_group(inner)))
            for name in installed.distributions(self.config.packages):
                for path, inner in installed.distribution_files(name):
                    if inner.suffix == ".py" and not python_files.skip_file(inner):
                        out.append((path, inner, name))
            self._python = out
        return self._python

    def _docstrings(self) -> Iterator[Candidate]:
        for path, inner, group in self._files():
            load = partial(python_files.docstring_document, path, inner, group)
            yield Candidate(key=f"{group}/{inner.as_posix()}", group=group, load=load)

    def _source(self) -> Iterator[Candidate]:
        for path, inner, group in self._files():
            name = "stdlib" if group.startswith("stdlib/") else "source"
            load = partial(python_files.source_document, path, inner, group, name)
            yield Candidate(key=f"{group}/{inner.as_posix()}", group=group, load=load)

    def _minified(self) -> Iterator[Candidate]:
        for path, inner, group in self._paths():
            if dumps.is_minified(Path(inner)):
                load = partial(dumps.file_document, path, inner, group, "minified")
                yield Candidate(key=f"{group}/{inner}", group=group, load=load)
        for path, inner, group in self._files():
            load = partial(dumps.minified_python, path, inner, group)
            yield Candidate(key=f"{group}/{inner.as_posix()}", group=group, load=load)

    def _paths(self) -> list[tuple[Path, str, str]]:
        if self._data is None:
            self._data = list(dumps.package_paths(self.config.packages))
            if not self.config.packages:
                self._data += dumps.system_paths(dumps.SYSTEM_FOLDERS)
        return self._data

    def _dump(self) -> Iterator[Candidate]:
        for path, inner, group in self._paths():
            if not dumps.is_minified(Path(inner)):
                load = partial(dumps.file_document, path, inner, group, "dump")
                yield Candidate(key=f"{group}/{inner}", group=group, load=load)

    def _readme(self) -> Iterator[Candidate]:
        return _ready(installed.readmes(self.config.packages))

    def _licence(self) -> Iterator[Candidate]:
        return _ready(installed.licences(self.config.packages))

    def _changelog(self) -> Iterator[Candidate]:
        if absent := system.absence(system.DOC, "changelog"):
            self.notes.append(absent)
        return _ready(system.changelogs(system.DOC))

    def _man(self) -> Iterator[Candidate]:
        if absent := system.absence(system.MAN, "man"):
            self.notes.append(absent)
        return self._pages(english=True)

    def _translated(self) -> Iterator[Candidate]:
        return self._pages(english=False)

    def _pages(self, english: bool) -> Iterator[Candidate]:
        for path, language in system.man_files(system.MAN):
            if (language == "en") is english:
                # A family of pages is a group; its name is only known from the file's.
                group = f"man/{path.name.split('-')[0].split('_')[0].split('.')[0].lower()}"
                load = partial(system.man_document, path, language)
                yield Candidate(key=f"{language}/{path.name}", group=group, load=load)

    def _docs(self) -> Iterator[Candidate]:
        if self._fetched is None:
            from understudy.data import fetch
            from understudy.data.fetch_text import documents

            self._fetched = []
            for name in self.config.fetched:
                folder = fetch.cached(name)
                if folder is None:
                    raise DataError(
                        f"pool: the text '{name}' isn't in the cache: run "
                        f"'understudy data fetch {name}' first, or leave it out of 'fetched'."
                    )
                self._fetched.extend(documents(name, folder))
        return _ready(iter(self._fetched))


def _ready(found: Iterator[Document]) -> Iterator[Candidate]:
    for document in found:
        yield Candidate(key=document.id, group=document.group, load=partial(_same, document))


def _same(document: Document) -> Document:
    return document
