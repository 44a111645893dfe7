"""What exporters and importers must agree on: names in tars, the description file, shard counts.

The tar layout is the released one (arXiv 2311.17049 and 2508.20691): a group of files a sample,
`jpg`, `txt`, `url.txt`, `syn.json`, `paug.json`, `npz` or `pth.gz`, and `json`. It does not say
which teachers are concatenated, which captioner wrote or how the views are made, so an export
has a description beside its shards, and a line a shard with its count and checksum.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from understudy.core.errors import DataError
from understudy.core.files import read_json, write_json
from understudy.data.view_config import DEFAULTS, ViewConfig

DESCRIPTION = "understudy.json"
SHARDS = "manifest.jsonl"
AUGMENTATION = "config.json"
VERSION = 1
_NEEDED = {
    "parquet": ("cards", "columns", "meta"),
    "webdataset": ("captioners", "cards", "columns", "facts", "json", "parts", "teachers"),
}

CAPTIONS = "syn_text"
"""Key of the captions in `syn.json`; several captioners have `syn_text_<captioner>` each."""
IMAGE_TYPES = {
    b"\xff\xd8\xff": "jpg",
    b"\x89PNG": "png",
    b"RIFF": "webp",
    b"GIF8": "gif",
    b"BM": "bmp",
    b"II*\x00": "tif",
    b"MM\x00*": "tif",
}
IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "ppm")


def image_type(data: bytes) -> str:
    """Return the usual file suffix of encoded image bytes."""
    for magic, suffix in IMAGE_TYPES.items():
        if data.startswith(magic):
            return suffix
    return "jpg"


def caption_key(captioner: str, several: bool) -> str:
    """Return the key of a captioner's captions in `syn.json`."""
    return f"{CAPTIONS}_{captioner}" if several else CAPTIONS


def write_description(folder: Path, data: Mapping[str, Any]) -> None:
    """Write an export's description."""
    write_json(folder / DESCRIPTION, {"version": VERSION, **data})


def read_description(folder: Path) -> dict[str, Any] | None:
    """Return an export's description, or `None` where there is none.

    Raises:
        DataError: it is damaged or of a newer version.
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        return None
    data = read_json(path)
    if not isinstance(data, dict) or data.get("version") != VERSION:
        found = data.get("version") if isinstance(data, dict) else None
        raise DataError(
            f"{path}: description of version {found!r}, this code reads version {VERSION}; "
            "install a newer understudy."
        )
    lacks = next(
        (k for k in _NEEDED.get(str(data.get("format")), ("format",)) if k not in data), None
    )
    if lacks is not None:
        raise DataError(
            f"{path}: '{lacks}' is missing; restore it, or delete it to read plain files."
        )
    return data


def add_shard(folder: Path, entry: Mapping[str, Any]) -> None:
    """Append a finished shard's line; the shard itself is already in place."""
    with open(folder / SHARDS, "a") as file:
        file.write(json.dumps(dict(entry)) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            entry = None
        # The last line may be cut where a writer was killed; its shard is then not counted.
        if isinstance(entry, dict) and "shard" in entry:
            yield entry
        elif number == 1 and not isinstance(entry, dict):
            raise DataError(f"{path}: line 1 is not a JSON object.")


def read_shards(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what is written about each finished shard, by file name; empty without a manifest.

    Manifests of the released generator give names without suffix and counts only.
    """
    path = folder / SHARDS
    if not path.is_file():
        return {}
    found = {}
    for entry in _lines(path):
        name = str(entry["shard"])
        if "." not in name:
            name += ".jsonl" if (folder / f"{name}.jsonl").is_file() else ".tar"
        found[name] = entry
    return found


_PASS = ("to_rgb",)


def views_from_reference(data: Any, where: str) -> tuple[ViewConfig, list[str]]:
    """Read an augmentation in the released configurations' form.

    Args:
        data: `{transform: options}`, alone or under `reinforce` and `image_augmentation`.
        where: what to call it in errors.

    Returns:
        The view set, and the keys that the released code passes over in silence (a misspelled
        transform is one: it was not applied when the views were made).

    Raises:
        DataError: not of this form.
    """
    for key in ("reinforce", "image_augmentation"):
        if isinstance(data, Mapping) and key in data:
            data = data[key]
    if not isinstance(data, Mapping) or not all(isinstance(v, Mapping) for v in data.values()):
        raise DataError(f"{where}: expected a mapping of transforms to options.")
    transforms: dict[str, dict] = {}
    ignored, sizes = [], {}
    for name, options in data.items():
        if not options.get("enable", True) or name in _PASS:
            continue
        if name not in DEFAULTS:
            ignored.append(str(name))
            continue
        if "size" in options and name != "resize":
            size = options["size"]
            sizes[name] = int(size[0] if isinstance(size, list | tuple) else size)
        kept = {k: v for k, v in options.items() if k in DEFAULTS[name]}
        if isinstance(kept.get("size"), list | tuple):
            kept["size"] = int(kept["size"][0])
        transforms[name] = {k: list(v) if isinstance(v, tuple) else v for k, v in kept.items()}
    if "resize" in transforms:
        sizes.setdefault("resize", transforms["resize"].get("size") or 224)
    order = ("random_resized_crop", "random_crop", "center_crop", "resize")
    size = next((sizes[n] for n in order if n in sizes), 224)
    return ViewConfig(size=size, transforms=transforms), ignored


def views_to_reference(config: ViewConfig) -> dict[str, Any]:
    """Write a view set in the released configurations' form."""
    out: dict[str, Any] = {}
    for name, options in config.transforms.items():
        out[name] = {"enable": True, **options}
        if name in ("random_resized_crop", "random_crop"):
            out[name]["size"] = config.size
    return out
