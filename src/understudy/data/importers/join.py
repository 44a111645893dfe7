"""Find images by uid in a folder of WebDataset tars, for released sets that come without them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from understudy.core.errors import DataError
from understudy.data.importers.ids import hash64
from understudy.data.importers.shards import find_shards, split_name
from understudy.data.importers.streams import tar_members
from understudy.data.interchange import IMAGE_SUFFIXES


class ImageIndex:
    """Where each image lies, at 28 bytes a sample; reading one is one `pread`.

    A sample is known by the `uid` of its `json`, else by its key.

    Args:
        folder: uncompressed tars with an image and, beside it, a `json` with `uid` a sample.

    Raises:
        DataError: no tars, a compressed one, a damaged one, or a uid that occurs twice.
    """

    def __init__(self, folder: Path) -> None:
        self.shards = find_shards(folder)
        hashes: list[np.ndarray] = []
        places: list[np.ndarray] = []
        for number, shard in enumerate(self.shards):
            if not shard.name.endswith(".tar"):
                raise DataError(f"{shard}: images are joined from uncompressed tars; unpack it.")
            rows = [(hash64(uid), number, at, size) for uid, at, size in _images(shard)]
            hashes.append(np.array([r[0] for r in rows], np.uint64))
            places.append(np.array([r[1:] for r in rows], np.int64).reshape(-1, 3))
        found = np.concatenate(hashes)
        order = np.argsort(found, kind="stable")
        self._hashes, self._places = found[order], np.concatenate(places)[order]
        again = np.flatnonzero(self._hashes[1:] == self._hashes[:-1])
        if len(again):
            a, b = (self.shards[self._places[again[0] + i][0]] for i in (0, 1))
            raise DataError(f"{folder}: one uid has two images, in {a} and in {b}.")
        self._files: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._hashes)

    def get(self, uid: str) -> bytes | None:
        """Return the encoded image of a sample, or `None`."""
        key = np.uint64(hash64(uid))
        at = int(np.searchsorted(self._hashes, key))
        if at == len(self._hashes) or self._hashes[at] != key:
            return None
        number, offset, size = map(int, self._places[at])
        if number not in self._files:
            if len(self._files) >= 64:
                os.close(self._files.pop(next(iter(self._files))))
            self._files[number] = os.open(self.shards[number], os.O_RDONLY)
        return os.pread(self._files[number], size, offset)

    def close(self) -> None:
        """Close the tars."""
        while self._files:
            os.close(self._files.popitem()[1])


def _images(shard: Path) -> Iterator[tuple[str, int, int]]:
    """Yield (uid, offset, size) of each image of a tar."""
    key, uid, place = "", "", (0, 0)
    for member in tar_members(shard, contents=False):
        named = split_name(member.name)
        if named is None:
            continue
        if named[0] != key:
            if place[1]:
                yield uid, *place
            key, uid, place = named[0], named[0].rsplit("/", 1)[-1], (0, 0)
        if named[1] in IMAGE_SUFFIXES:
            place = (member.offset, member.size)
        elif named[1] == "json":
            try:
                uid = str(json.loads(member.data).get("uid") or uid)
            except (ValueError, AttributeError):
                raise DataError(f"{shard}, '{member.name}': not a JSON object.") from None
    if place[1]:
        yield uid, *place
