"""Emoji as image-text pairs: art of two vendors, names, categories, and when each was added.

Names form families ("woman running", "man running"), so a random split would test what was trained
on. Here whole subcategories are held out, and the second vendor's art is never in `train`:

| split | concepts | art |
| --- | --- | --- |
| `train`, `val`, `test` | three disjoint groups of subcategories | google |
| `vendor` | those of `train` | twitter |
| `vendor-test` | those of `val` and `test` | twitter |
"""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from PIL import Image

from understudy.core.errors import ConfigError, DataError
from understudy.core.files import read_json
from understudy.core.seeds import rng
from understudy.data.decode import to_rgb
from understudy.data.scenes.pack import png

if TYPE_CHECKING:
    from understudy.data.store import Store

TRAIN_VENDOR = "google"
PERIODS = (0.7, 1.0, 2.0, 4.0, 5.0, 12.1, 16.0)
"""Last emoji version of each of the seven periods in `time`, so that each holds enough."""

_TONES = {
    "1F3FB": "light skin tone",
    "1F3FC": "medium-light skin tone",
    "1F3FD": "medium skin tone",
    "1F3FE": "medium-dark skin tone",
    "1F3FF": "dark skin tone",
}
_BATCH = 512

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.binary()),
        ("text", pa.string()),
        ("name", pa.string()),
        ("keywords", pa.list_(pa.string())),
        ("category", pa.string()),
        ("subcategory", pa.string()),
        ("added_in", pa.string()),
        ("time", pa.int32()),
        ("vendor", pa.string()),
        ("skin_tone", pa.string()),
        ("label", pa.int64()),
        ("split", pa.string()),
        ("source", pa.string()),
    ]
)


def period(added_in: str) -> int:
    """Return which of the seven periods an emoji version falls in, 0 being the first."""
    version = float(added_in)
    return next((i for i, last in enumerate(PERIODS) if version <= last), len(PERIODS) - 1)


def split_subcategories(
    entries: list[dict[str, Any]], val: float, test: float, seed: int
) -> dict[tuple[str, str], str]:
    """Deal the subcategories of every category out to train, val and test.

    Subcategories are taken in random order as long as they fit a share of the category's emoji, so
    a very large one (the country flags, say) stays in train.

    Args:
        entries: the items of `emoji.json`.
        val: largest share of each category's emoji that goes to val.
        test: largest share that goes to test.
        seed: another seed is another dealing.
    """
    sizes: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in entries:
        sizes[entry["category"]][entry["subcategory"]] += 1
    out = {}
    for category, found in sorted(sizes.items()):
        names = sorted(found)
        room = {"test": test * found.total(), "val": val * found.total()}
        for i in rng("emoji", category, seed).permutation(len(names)):
            size = found[names[i]]
            split = next((s for s, left in room.items() if size <= left), "train")
            if split != "train":
                room[split] -= size
            out[category, names[i]] = split
    return out


def texts_of(entry: Mapping[str, Any]) -> tuple[str, str, list[str]]:
    """Return name, text (the name, then short names that say something else) and keywords."""
    name = entry["name"].lower()
    others = []
    for short in entry["short_names"]:
        words = short.replace("_", " ").replace("-", " ")
        if words != name.replace("-", " ") and words not in others:
            others.append(words)
    keywords = dict.fromkeys(w for text in (name, *others) for w in text.split())
    return name, ", ".join([name, *others]), list(keywords)


def class_names(entries: list[dict[str, Any]]) -> list[str]:
    """Return the different names in order: a few emoji of two codes have one name."""
    return list(dict.fromkeys(texts_of(entry)[0] for entry in entries))


def white_png(path: Path) -> bytes:
    """Return the picture on a white ground as an RGB PNG.

    Raises:
        DataError: the file is missing or isn't a picture.
    """
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            return png(to_rgb(image), level=6)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path}: not a picture that can be read ({error}).") from None


def _pictures(entry: Mapping[str, Any], vendor: str, tones: bool) -> Iterator[dict[str, Any]]:
    """Yield the picture file, version and skin tone of an emoji and of its variants."""
    variants = [("", entry)]
    if tones:
        variants += list(entry.get("skin_variations", {}).items())
    for code, variant in variants:
        if variant.get(f"has_img_{vendor}"):
            tone = " and ".join(_TONES.get(c, c) for c in code.split("-")) if code else ""
            yield {"file": variant["image"], "added_in": variant["added_in"], "tone": tone}


def _rows(
    folder: Path, vendor: str, entries: list[dict[str, Any]], tones: bool, splits: Mapping[Any, str]
) -> Iterator[dict[str, Any]]:
    labels = {name: i for i, name in enumerate(class_names(entries))}
    for entry in entries:
        name, text, keywords = texts_of(entry)
        group = splits[entry["category"], entry["subcategory"]]
        if vendor != TRAIN_VENDOR:
            group = "vendor" if group == "train" else "vendor-test"
        for found in _pictures(entry, vendor, tones):
            suffix = f": {found['tone']}" if found["tone"] else ""
            yield {
                "id": f"{vendor}/{Path(found['file']).stem}",
                "image": white_png(folder / "images" / found["file"]),
                "text": text + suffix,
                "name": name + suffix,
                "keywords": keywords,
                "category": entry["category"].lower(),
                "subcategory": entry["subcategory"].lower(),
                "added_in": found["added_in"],
                "time": period(found["added_in"]),
                "vendor": vendor,
                "skin_tone": found["tone"],
                "label": labels[name],
                "split": group,
                "source": f"emoji-{vendor}",
            }


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[pa.RecordBatch]:
    waiting: list[dict[str, Any]] = []
    for row in rows:
        waiting.append(row)
        if len(waiting) == _BATCH:
            yield pa.RecordBatch.from_pylist(waiting, SCHEMA)
            waiting = []
    if waiting:
        yield pa.RecordBatch.from_pylist(waiting, SCHEMA)


def to_store(
    folders: Mapping[str, Path],
    *,
    skin_tones: bool = True,
    val: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
) -> tuple[Iterator[pa.RecordBatch], dict[str, Any]]:
    """Return the rows and the facts of an emoji store.

    Args:
        folders: unpacked assets by name, `emoji-google` and/or `emoji-twitter`.
        skin_tones: also the variants in five skin tones.
        val: share of each category held out for validation, in whole subcategories.
        test: share held out for the test, likewise.
        seed: another seed holds out others.
    """
    if not (0 <= val and 0 <= test and val + test < 1):
        raise ConfigError(f"emoji: val + test must lie in [0, 1), got {val} + {test}.")
    listed = {name: read_json(folder / "emoji.json") for name, folder in folders.items()}
    first = next(iter(listed.values()))
    entries = sorted(first, key=lambda entry: entry["sort_order"])
    splits = split_subcategories(entries, val, test, seed)

    def rows() -> Iterator[dict[str, Any]]:
        for name, folder in folders.items():
            vendor = name.removeprefix("emoji-")
            known = {entry["unified"]: entry for entry in listed[name]}
            mine = [
                known.get(entry["unified"], {**entry, "skin_variations": {}}) for entry in entries
            ]
            yield from _rows(folder, vendor, mine, skin_tones, splits)

    held = sorted(f"{c} / {s}".lower() for (c, s), split in splits.items() if split == "test")
    meta = {"classes": class_names(entries), "held_out": held}
    return _batches(rows()), meta


def sentences(row: Mapping[str, Any]) -> list[str]:
    """Return what a patient captioner would say of an emoji, from its names and categories."""
    keywords = " ".join(row["keywords"])
    group = row["subcategory"].replace("-", " ")
    return [
        row["name"],
        f"a drawing of {row['name']}",
        f"{row['name']}, a kind of {group}",
        keywords,
    ]


def write_captions(store: Store, column: str = "caption.template") -> Store:
    """Write template captions of every emoji as a knowledge column; nothing if it is there."""
    from understudy.core.provenance import versions
    from understudy.data.card import Card

    card = Card(
        column=column,
        writer="template",
        config={"from": ["name", "subcategory", "keywords"], "revision": 1},
        versions=versions(),
    )
    kind = pa.list_(pa.string())
    with store.job([card], {column: kind}) as job:
        for unit in job.todo():
            wanted = np.arange(unit.start, unit.stop)
            rows = store.take(wanted, ["name", "subcategory", "keywords"]).to_pylist()
            job.write(unit, {column: pa.array([sentences(row) for row in rows], kind)})
    return store.refresh()
