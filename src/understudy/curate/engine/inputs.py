"""What is curated, cut into units of work: files, ranges of large files, groups of small ones.

The list of units depends on the inputs and the target size alone, never on workers, so a run that
goes on finds the units of the run before.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from understudy.core.errors import ConfigError, DataError

UNIT_BYTES = 64 << 20
"""Target size of a unit: of text that lies uncompressed, else of what lies on disk."""

KINDS: Mapping[str, tuple[str, ...]] = {
    "lines": (".jsonl", ".ndjson"),
    "html": (".html", ".htm", ".xhtml"),
    "text": (".txt", ".md", ".rst"),
    "parquet": (".parquet",),
    "warc": (".warc",),
    "wet": (".wet",),
}
"""Kinds of files by the end of their names, before `.gz`, `.zst` or `.zstd`."""
PACKED = (".gz", ".zst", ".zstd")


@dataclass(frozen=True, kw_only=True, slots=True)
class InputUnit:
    """One unit of input.

    Attributes:
        key: names it: the file below its input folder, and the range in it.
        source: what its pages' `source` says: the file below its input folder.
        kind: one of `KINDS`, or `store`.
        path: the file, the store, or the folder of `files`.
        start: first byte (lines), row group (Parquet) or row (store).
        stop: where it ends, exclusive; -1 for the end.
        files: of a group of small files, below `path`.
        bytes: size on disk.
        state: changes when the files change (sizes and times of modification).
    """

    key: str
    source: str
    kind: str
    path: str
    start: int = 0
    stop: int = -1
    files: tuple[str, ...] = ()
    bytes: int = 0
    state: str = ""

    def to_plain(self) -> dict[str, Any]:
        """Return plain data."""
        return {**asdict(self), "files": list(self.files)}

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> InputUnit:
        """Return the unit of `to_plain`."""
        return cls(**{**data, "files": tuple(data["files"])})


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What the inputs hold.

    Attributes:
        units: in order.
        ignored: number of files that were passed over, by the end of their names.
    """

    units: list[InputUnit]
    ignored: dict[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class InputFile:
    """One file, or store, of the inputs.

    Attributes:
        key: its path below the input folder, or its name.
        kind: one of `KINDS`, or `store`.
        path: where it lies.
        root: the folder that `key` is below.
        given: the input that led to it.
    """

    key: str
    kind: str
    path: Path
    root: Path
    given: str


def unpacked_name(name: str) -> str:
    """Return a file's name without the ending of its compression."""
    for ending in PACKED:
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name


def kind_of(name: str) -> str | None:
    """Return the kind of a file by its name."""
    bare = unpacked_name(name.lower())
    return next((kind for kind, ends in KINDS.items() if bare.endswith(ends)), None)


def find_inputs(
    inputs: Iterable[str | Path],
    *,
    unit_bytes: int = UNIT_BYTES,
    patterns: Sequence[str] = (),
) -> Found:
    """Return the units of files, folders and stores.

    Args:
        inputs: in this order; files of a folder are sorted by path, hidden ones are passed over.
            Files go by their path below the folder, which begins with the folder's own name if
            several folders are given.
        unit_bytes: target size of a unit.
        patterns: sources that sections of the pipeline name: files that differ in which of them
            they match never share a unit.

    Raises:
        ConfigError: a target size below one byte.
        DataError: nothing there, or two files that would go by one name; both are named.
    """
    from understudy.curate.engine.input_cuts import cut

    if unit_bytes < 1:
        raise ConfigError(f"unit_bytes: expected 1 or more, got {unit_bytes}.")
    ignored: dict[str, int] = {}
    files: list[InputFile] = []
    places = [str(given) for given in inputs]
    folders = [p for p in places if Path(p).is_dir() and not _is_store(Path(p))]
    for given in places:
        files += _files(given, ignored, several=len(folders) > 1)
    _check_names(files)
    units = cut(files, unit_bytes, patterns)
    if not units:
        raise DataError("inputs: nothing to curate; name files, folders or stores.")
    return Found(units=units, ignored=dict(sorted(ignored.items())))


def _is_store(path: Path) -> bool:
    return (path / "_versions").is_dir()


def _files(given: str, ignored: dict[str, int], *, several: bool) -> list[InputFile]:
    path = Path(given)
    if not path.exists():
        raise DataError(f"{given}: no such file or folder.")
    path = path.resolve()
    if _is_store(path):
        return [InputFile(key=path.name, kind="store", path=path, root=path, given=given)]
    if path.is_file():
        kind = kind_of(path.name)
        if kind is None:
            raise DataError(
                f"{given}: its name says nothing of its kind; known endings are "
                f"{', '.join(e for ends in KINDS.values() for e in ends)}, each also with "
                f"{', '.join(PACKED)}."
            )
        return [InputFile(key=path.name, kind=kind, path=path, root=path.parent, given=given)]
    # of several folders, names begin with the folder's
    found, root = [], path.parent if several else path
    for file in _walk(path):
        name = file.relative_to(root).as_posix()
        kind = "store" if file.is_dir() else kind_of(name)
        if kind is None:
            ending = PurePosixPath(name).suffix or "no ending"
            ignored[ending] = ignored.get(ending, 0) + 1
            continue
        found.append(InputFile(key=name, kind=kind, path=file, root=root, given=given))
    if not found:
        others = f" ({sum(ignored.values())} files of other kinds)" if ignored else ""
        raise DataError(
            f"{given}: no pages in this folder{others}; known endings are "
            f"{', '.join(e for ends in KINDS.values() for e in ends)}."
        )
    # single-page files go to groups, which files of other kinds between them would cut up
    return sorted(found, key=lambda f: (f.kind in ("html", "text"), f.kind, f.key))


def _walk(folder: Path) -> Iterator[Path]:
    """Yield files and stores below a folder; links to files are followed, to folders not."""
    for base, folders, names in os.walk(folder):
        here = Path(base)
        stores = [n for n in folders if not n.startswith(".") and _is_store(here / n)]
        folders[:] = sorted(n for n in folders if not n.startswith(".") and n not in stores)
        yield from (here / name for name in sorted(stores))
        for name in sorted(names):
            if not name.startswith(".") and (here / name).is_file():
                yield here / name


def _check_names(files: Sequence[InputFile]) -> None:
    seen: dict[str, InputFile] = {}
    for file in files:
        other = seen.setdefault(unpacked_name(file.key), file)
        if other is file:
            continue
        if other.path == file.path:
            raise DataError(f"{file.path}: comes twice, by the inputs {other.given}, {file.given}.")
        raise DataError(
            f"{other.path} and {file.path}: both would go by the name '{unpacked_name(file.key)}'; "
            "give the folder above both, rename one, or leave one out if it is a copy."
        )


def matches(source: str, pattern: str) -> bool:
    """Say whether a section of a pipeline with `source: pattern` is for pages of this source."""
    return fnmatch(source, pattern) or source.startswith(pattern.rstrip("/") + "/")
