"""The content of a file or a folder: its hash and its size."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from understudy.core.hashing import hash_file


def content(path: Path) -> tuple[str, int]:
    """Return (sha256, bytes) of a file, or of a folder: names and contents of all files in it.

    Links inside a folder are followed as files. Neither times nor modes matter.
    """
    if not path.is_dir():
        return hash_file(path), path.stat().st_size
    whole = hashlib.sha256()
    total = 0
    files: list[str] = []
    for base, _, names in os.walk(path):
        files += [os.path.relpath(os.path.join(base, name), path) for name in names]
    for name in sorted(files):
        file = path / name
        encoded = name.replace(os.sep, "/").encode("utf-8", "surrogateescape")
        whole.update(len(encoded).to_bytes(8, "little") + encoded)
        whole.update(bytes.fromhex(hash_file(file)))
        total += file.stat().st_size
    return whole.hexdigest(), total
