"""Clip art in the public domain as image-text pairs: PNG, title and keywords.

Titles and keywords stand in the SVG file beside each PNG; pictures with neither are left out, and
so are the few of more than 16 megapixels (up to 623, two gigabytes in memory). Pictures that occur
under several names are kept once, and whole folders are held out, because a folder's pictures
resemble each other.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from understudy.core.errors import DataError
from understudy.core.progress import Bar, bar
from understudy.core.seeds import rng
from understudy.data.decode import to_rgb
from understudy.data.scenes.pack import png

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.binary()),
        ("text", pa.string()),
        ("title", pa.string()),
        ("keywords", pa.list_(pa.string())),
        ("description", pa.string()),
        ("folder", pa.string()),
        ("split", pa.string()),
        ("source", pa.string()),
    ]
)
_BATCH = 256
_MAX_PIXELS = 16_000_000
_METADATA = re.compile(rb"<metadata.*?</metadata>", re.DOTALL)
_TITLE = re.compile(r"<dc:title[^>/]*>(.*?)</dc:title>", re.DOTALL)
_DESCRIPTION = re.compile(r"<dc:description[^>/]*>(.*?)</dc:description>", re.DOTALL)
_SUBJECT = re.compile(r"<dc:subject[^>/]*>(.*?)</dc:subject>", re.DOTALL)
_ITEM = re.compile(r"<rdf:li[^>/]*>(.*?)</rdf:li>", re.DOTALL)
_TAG = re.compile(r"<[^>]*>")
_AGENT = re.compile(r"<cc:Agent.*?</cc:Agent>", re.DOTALL)


def _clean(text: str) -> str:
    return " ".join(html.unescape(_TAG.sub(" ", text)).split())


def read_metadata(svg: bytes) -> tuple[str, list[str], str]:
    """Return title, keywords and description that an SVG file carries; empty where it has none."""
    found = _METADATA.search(svg)
    if not found:
        return "", [], ""
    # People (author, publisher) have titles of their own.
    text = _AGENT.sub("", found.group().decode("utf-8", errors="replace"))
    title, description = _TITLE.search(text), _DESCRIPTION.search(text)
    subject = _SUBJECT.search(text)
    items = [_clean(item) for item in _ITEM.findall(subject.group(1))] if subject else []
    keywords = list(dict.fromkeys(word for word in items if word))
    return (
        _clean(title.group(1)) if title else "",
        keywords,
        _clean(description.group(1)) if description else "",
    )


def shrink(data: bytes, longest: int, name: str) -> np.ndarray:
    """Return a picture on white as uint8 [h, w, 3] whose longer side is at most `longest` pixels.

    Raises:
        DataError: the bytes aren't a picture.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            if max(image.size) > longest:
                # Colours under full transparency must not bleed in, so white comes first.
                whole = Image.fromarray(to_rgb(image))
                whole.thumbnail((longest, longest), Image.Resampling.LANCZOS, reducing_gap=3.0)
                return np.asarray(whole)
            return to_rgb(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{name}: not a picture that can be read ({error}).") from None


def _rows(
    root: Path, longest: int, held_out: float, seed: int, shown: Bar
) -> Iterator[dict[str, Any]]:
    seen: set[bytes] = set()
    splits: dict[str, str] = {}
    paths = sorted((root / "png").rglob("*.png"))
    if not paths:
        raise DataError(f"{root}/png: no pictures; fetch 'openclipart' again.")
    for path in paths:
        shown.advance()
        inner = path.relative_to(root / "png")
        svg = (root / "svg" / inner).with_suffix(".svg")
        title, keywords, description = (
            read_metadata(svg.read_bytes()) if svg.is_file() else ("", [], "")
        )
        text = title or ", ".join(keywords)
        data = path.read_bytes()
        width, height = (int.from_bytes(data[i : i + 4], "big") for i in (16, 20))  # PNG header
        if not text or width * height > _MAX_PIXELS:
            continue
        pixels = shrink(data, longest, str(path))
        digest = hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes()).digest()
        if digest in seen:
            continue
        seen.add(digest)
        folder = inner.parent.as_posix()
        if folder not in splits:
            held = rng("openclipart", folder, seed).random() < held_out
            splits[folder] = "test" if held else "train"
        yield {
            "id": f"openclipart/{inner.with_suffix('').as_posix()}",
            "image": png(pixels, level=6),
            "text": text.lower(),
            "title": title,
            "keywords": keywords,
            "description": description,
            "folder": folder,
            "split": splits[folder],
            "source": "openclipart",
        }


def to_store(
    folders: Mapping[str, Path],
    *,
    longest: int = 256,
    held_out: float = 0.15,
    seed: int = 0,
) -> tuple[Iterator[pa.RecordBatch], dict[str, Any]]:
    """Return the rows and the facts of a clip-art store.

    Args:
        folders: the unpacked asset by name.
        longest: larger pictures are scaled down to this many pixels on their longer side.
        held_out: share of folders that make up the split `test`.
        seed: another seed holds out other folders.
    """
    (root,) = folders.values()
    total = sum(1 for _ in (root / "png").rglob("*.png"))

    def batches() -> Iterator[pa.RecordBatch]:
        waiting: list[dict[str, Any]] = []
        with bar("clip art", total=total, unit="files") as shown:
            for row in _rows(root, longest, held_out, seed, shown):
                waiting.append(row)
                if len(waiting) == _BATCH:
                    yield pa.RecordBatch.from_pylist(waiting, SCHEMA)
                    waiting = []
        if waiting:
            yield pa.RecordBatch.from_pylist(waiting, SCHEMA)

    return batches(), {}
