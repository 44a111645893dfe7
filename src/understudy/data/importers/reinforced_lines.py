"""The released reinforced layout in JSON lines: images in base64, arrays in packed pickles.

A line holds what a group of a tar holds (arXiv 2508.20691). Arrays are
base64(gzip(pickle(array))), always of float32 whatever was asked for; the pickles go through the
reader that knows numbers and arrays and runs nothing (`safe_pickle`). Plain lists are read too.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from understudy.core.errors import DataError
from understudy.data.importers.jsonl import SUFFIXES, read_lines
from understudy.data.importers.safe_pickle import as_array, load_plain, unpack
from understudy.data.importers.shards import Sample
from understudy.data.interchange import CAPTIONS, image_type

IDS = ("uid", "id", "key")
_LIMIT = 1 << 28


def is_reinforced(path: Path) -> bool:
    """Say whether the first line of a file looks like a reinforced sample."""
    if not path.name.endswith(SUFFIXES):
        return False
    try:
        _, first = next(iter(read_lines(path)), (0, {}))
    except DataError:
        return False  # the importer of plain lines says what is wrong with it
    return any(key.endswith("_emb") or key == "param_aug" for key in first)


def read_json_shard(path: Path) -> Iterator[Sample]:
    """Yield a file's samples in order, as those of a tar.

    Raises:
        DataError: a line that is no object, an image that is not base64, an array that is damaged
            or holds anything but numbers; file and line are named.
    """
    for number, line in read_lines(path):
        uid = next((str(line[key]) for key in IDS if line.get(key) is not None), "")
        where = f"{path}, line {number}"
        yield _sample(uid or f"{path.name.split('.')[0]}-{number - 1:09d}", line, path, where)


def _sample(uid: str, line: dict[str, Any], path: Path, where: str) -> Sample:
    sample = Sample(uid, path)
    rest: dict[str, Any] = {"uid": uid}
    captions: dict[str, Any] = {}
    for key, value in line.items():
        if key == "image" and value is not None:
            data = _bytes(value, f"{where}, image")
            sample.parts[image_type(data)] = data
        elif key in ("text", "caption") and isinstance(value, str):
            sample.parts["txt"] = value.encode()
        elif key == "url" and isinstance(value, str):
            sample.parts["url.txt"] = value.encode()
        elif key.endswith("_emb"):
            sample.arrays = {**(sample.arrays or {}), key: _array(value, f"{where}, {key}")}
        elif key == "param_aug":
            sample.parts["paug.json"] = json.dumps({"param_aug": value}).encode()
        elif key.startswith(CAPTIONS):
            captions[key] = value
        elif key not in IDS:
            rest[key] = value
    if captions:
        sample.parts["syn.json"] = json.dumps(captions).encode()
    sample.parts["json"] = json.dumps(rest).encode()
    return sample


def _bytes(value: Any, where: str) -> bytes:
    if not isinstance(value, str):
        raise DataError(f"{where}: expected base64 text, got {type(value).__name__}.")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{where}: it is not base64 ({error}).") from None


def _array(value: Any, where: str) -> Any:
    if isinstance(value, list):  # written without packing
        return as_array(value, where)
    packed = _bytes(value, where)
    return as_array(load_plain(unpack(packed, where, limit=_LIMIT), where), where)
