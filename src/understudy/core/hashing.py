"""Content hashes of bytes, files and plain data."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def hash_bytes(*chunks: bytes | memoryview) -> str:
    """Return the 32-hex-digit BLAKE2b hash of the chunks, each preceded by its length."""
    h = hashlib.blake2b(digest_size=16)
    for chunk in chunks:
        h.update(len(chunk).to_bytes(8, "little"))
        h.update(chunk)
    return h.hexdigest()


def hash_data(data: Any) -> str:
    """Return the hash of JSON-like data; key order does not matter."""
    return hash_bytes(json.dumps(data, sort_keys=True, separators=(",", ":")).encode())


def hash_file(path: str | Path, algorithm: str = "sha256") -> str:
    """Return the hexadecimal digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
