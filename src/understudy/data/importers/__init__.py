"""Files to stores: `import_dir` finds out what they are and calls the importer of that kind.

All importers stream in bounded memory and in sorted order, refuse a repeated id by naming both
places, execute nothing that a file holds, and leave nothing that opens when they are killed: the
same call again starts afresh and succeeds.
"""

from __future__ import annotations

import inspect
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.core.config import check_keys
from understudy.core.errors import ConfigError, DataError
from understudy.core.lazy import LazyTable
from understudy.data.importers.sources import named_files, there_is
from understudy.data.scenes import from_source, is_scene

if TYPE_CHECKING:
    from understudy.data.store import Store

__all__ = ["IMPORTERS", "detect_kind", "import_dir"]

_HERE = "understudy.data.importers"
IMPORTERS = LazyTable(
    "kind of import",
    {
        "webdataset": f"{_HERE}.webdataset:import_webdataset",
        "imagefolder": f"{_HERE}.imagefolder:import_imagefolder",
        "jsonl": f"{_HERE}.jsonl:import_jsonl",
        "parquet": f"{_HERE}.parquet:import_parquet",
        "tfrecord": f"{_HERE}.tfrecord:import_tfrecord",
        "hf": f"{_HERE}.hf:import_hf",
        "dr-reference": f"{_HERE}.reference:import_reference",
        "conversations": f"{_HERE}.conversations:import_conversations",
        "coco": "understudy.data.coco:import_coco",
    },
)
_HF_FILES = ("dataset_dict.json", "state.json")
_LOOK_AT = 20_000


def _kind_of_file(path: Path) -> str | None:
    from understudy.data.interchange import IMAGE_SUFFIXES

    name = path.name.lower()
    if name.startswith(".") or name == "manifest.jsonl":
        return None
    if name.endswith(".pth.tar"):
        return "dr-reference"
    if name.endswith((".jsonl", ".jsonl.gz", ".jsonl.zst", ".jsonl.zstd", ".ndjson")):
        from understudy.data.importers.reinforced_lines import is_reinforced

        return "webdataset" if is_reinforced(path) else "jsonl"
    if name.endswith((".tar", ".tar.gz", ".tgz", ".tar.zst")):
        return _kind_of_tar(path)
    if name.endswith(".parquet"):
        return "parquet"
    if name.endswith((".tfrecord", ".tfrecords", ".tfrecord.gz")):
        return "tfrecord"
    if name.rpartition(".")[2] in IMAGE_SUFFIXES:
        return "imagefolder"
    return None


def _kind_of_tar(path: Path) -> str:
    from understudy.data.importers.streams import open_stream

    try:
        with open_stream(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
            for _ in range(8):
                member = archive.next()
                if member is not None and member.name.endswith(".pth.tar"):
                    return "dr-reference"
    except (tarfile.TarError, OSError, EOFError):
        pass  # damaged: the importer says so, by name
    return "webdataset"


def detect_kind(source: str | Path) -> str:
    """Return the kind of import that fits a file or folder.

    Raises:
        DataError: no such place, nothing known in it, or several kinds mixed.
    """
    source = Path(source)
    named = named_files(source)
    if named is not None:
        source = named[0]
    if source.is_file():
        kind = _kind_of_file(source)
        if kind is None:
            raise DataError(f"{source}: not a kind of file that is known; kinds: {_names()}.")
        return kind
    if not source.is_dir():
        raise DataError(f"{source}: no such file or folder.")
    if any((source / name).is_file() for name in _HF_FILES):
        return "hf"
    found: dict[str, Path] = {}
    for number, path in enumerate(sorted(source.rglob("*"))):
        if number >= _LOOK_AT:
            break
        # One tar tells for all: looking into each would read the first block of every shard.
        if (
            path.name.endswith(".tar")
            and not path.name.endswith(".pth.tar")
            and "webdataset" in found
        ):
            continue
        kind = _kind_of_file(path) if path.is_file() else None
        if kind is not None:
            found.setdefault(kind, path)
    if len(found) > 1:
        places = ", ".join(f"{kind} ({path.name})" for kind, path in found.items())
        raise DataError(f"{source}: holds several kinds of files: {places}; say which with kind=.")
    if not found:
        raise DataError(f"{source}: nothing in it that can be imported; kinds: {_names()}.")
    return next(iter(found))


def _names() -> str:
    return ", ".join(IMPORTERS)


def import_dir(
    source: str | Path, store: str | Path, kind: str | None = None, **options: Any
) -> Store:
    """Make a store of files, or add reference reinforcements to one.

    Args:
        source: a file or a folder; or a built-in scene set such as `scenes:pairs?train=400`.
        store: where the store is written (for `dr-reference`: the store that is added to).
        kind: a name of `IMPORTERS`; found out from the files by default.
        **options: the importer's own; see it.

    Returns:
        The store.

    Raises:
        ConfigError: no such kind or option.
        DataError: the files cannot be imported; the message names file, sample and cause.

    Example:
        ```python
        store = import_dir("DataCompDR-12M", "dr.lance", teachers={"openai": 768, "datacomp": 768})
        ```
    """
    if is_scene(source):
        check_keys(options, ("overwrite",), "import of a scene set")
        return from_source(source, store, overwrite=bool(options.get("overwrite")))
    if not there_is(source):
        raise DataError(f"{source}: no such file or folder.")
    kind = kind or detect_kind(source)
    if kind not in IMPORTERS:
        raise ConfigError(f"kind: '{kind}' is not one of {_names()}.")
    importer = IMPORTERS.load(kind)
    valid = list(inspect.signature(importer).parameters)[2:]
    check_keys(options, valid, f"import of {kind}")
    return importer(source, store, **options)
