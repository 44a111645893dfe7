"""What samples are compared by: keys of captions and images, repeats and leaks among them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from understudy.core.hashing import hash_bytes


def caption_key(caption: str | None) -> str:
    """Return a caption without case and spacing, to compare by."""
    return " ".join((caption or "").lower().split())


def image_key(image: np.ndarray | bytes) -> str:
    """Return the hash of an image's pixels, or of a file's bytes."""
    if isinstance(image, bytes):
        return hash_bytes(image)
    image = np.ascontiguousarray(image)
    return hash_bytes(str((image.shape, image.dtype)).encode(), image.tobytes())


def repeats(keys: Sequence[str]) -> np.ndarray:
    """Return bool [N], true for every item that an earlier one equals."""
    seen: set[str] = set()
    out = np.zeros(len(keys), bool)
    for i, key in enumerate(keys):
        out[i] = key in seen
        seen.add(key)
    return out


def leaks(keys: Sequence[str], test_keys: Iterable[str]) -> np.ndarray:
    """Return bool [N], true where a key (hash of an image, say) is one of the test set's."""
    test = set(test_keys)
    return np.array([key in test for key in keys], bool)
