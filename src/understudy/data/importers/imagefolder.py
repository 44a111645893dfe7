"""A folder of images, labelled by sub-folder, to a store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from understudy.core.errors import DataError
from understudy.core.progress import Bar, bar
from understudy.data.importers.common import (
    BATCH_ROWS,
    Late,
    Pool,
    Skips,
    Unusable,
    check_image,
    check_mode,
    import_facts,
    write_store,
)
from understudy.data.importers.streams import inside
from understudy.data.interchange import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from understudy.data.store import Store

SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing")


def list_images(source: Path) -> list[str]:
    """Return the images of a folder as relative paths with slashes, sorted; links are followed.

    Raises:
        DataError: there are none, or a link leads out of the folder.
    """
    found: list[str] = []
    for folder, names, files in os.walk(source):
        names.sort()
        base = Path(folder).relative_to(source)
        for name in [*names, *files]:
            if (Path(folder) / name).is_symlink():
                inside(source, str(base / name), str(source))
        found += [
            (base / f).as_posix()
            for f in files
            if f.rpartition(".")[2].lower() in IMAGE_SUFFIXES and not f.startswith(".")
        ]
    if not found:
        raise DataError(f"{source}: no images ({', '.join(IMAGE_SUFFIXES)}) in this folder.")
    return sorted(found)


def _places(paths: list[str]) -> tuple[list[str | None], list[str | None]]:
    """Return each image's split and class name, from the folders it lies in."""
    tops = {p.split("/")[0] for p in paths if "/" in p}
    by_split = bool(tops) and tops <= set(SPLITS) and all("/" in p for p in paths)
    splits: list[str | None] = []
    classes: list[str | None] = []
    for path in paths:
        folders = path.split("/")[:-1]
        splits.append(folders.pop(0) if by_split else None)
        classes.append(folders[0] if folders else None)
    if any(classes) and not all(classes):
        lone = next(p for p, c in zip(paths, classes, strict=True) if c is None)
        raise DataError(
            f"{lone}: lies beside the class folders; move it into one, or take the folders away."
        )
    return splits, classes


def import_imagefolder(
    source: str | Path,
    store: str | Path,
    *,
    split: str | None = None,
    on_missing: str | None = None,
    check_images: str = "decode",
    threads: int = 2,
    overwrite: bool = False,
    rows_per_fragment: int | None = None,
    storage_options: dict[str, str] | None = None,
) -> Store:
    """Make a store of a folder of images.

    The first-level folders are the classes: `label` is their number in sorted order and
    `store.meta["classes"]` their names. Folders named train, val or test around them become the
    column `split`. A `.txt` file beside an image is its `text`. The `id` is the relative path.

    Args:
        source: the folder.
        store: where the store is written.
        split: written into every row's `split`.
        on_missing: `error` or `skip` for damaged images and missing captions.
        check_images: `decode` every image, read its `header`, or `none`.
        threads: threads that read and decode.
        overwrite: replace a store that is there.
        rows_per_fragment: rows that the store keeps together.
        storage_options: for object stores.

    Raises:
        DataError: no images, a damaged one (named), a link that leads out of the folder.
    """
    source = Path(source)
    if not source.is_dir():
        raise DataError(f"{source}: no such folder.")
    check_mode(check_images)
    skips = Skips(on_missing or "error")
    paths = list_images(source)
    splits, names = _places(paths)
    classes = sorted({n for n in names if n is not None})
    numbers = {name: i for i, name in enumerate(classes)}
    captions = any((source / p).with_suffix(".txt").is_file() for p in paths[:64])
    types: dict[str, pa.DataType] = {"id": pa.string(), "image": pa.binary()}
    if captions:
        types["text"] = pa.string()
    if classes:
        types["label"] = pa.int64()
    if split is not None or any(splits):
        types["split"] = pa.string()

    def parse(i: int) -> dict[str, Any] | Unusable:
        file = source / paths[i]
        row: dict[str, Any] = {"id": paths[i], "split": split or splits[i]}
        row["label"] = numbers.get(names[i] or "")
        try:
            row["image"] = file.read_bytes()
            check_image(row["image"], str(file), check_images)
            if captions:
                beside = file.with_suffix(".txt")
                if not beside.is_file():
                    raise Unusable("missing txt", f"{file}: no caption in {beside.name}.")
                row["text"] = beside.read_text("utf-8").strip()
        except UnicodeDecodeError as error:
            raise DataError(f"{file.with_suffix('.txt')}: not UTF-8 text ({error}).") from None
        except Unusable as error:
            return error
        return row

    def batches(progress: Bar, pool: Pool) -> Iterator[pa.RecordBatch]:
        done = 0
        for start in range(0, len(paths), BATCH_ROWS):
            rows = []
            for row in pool.map(parse, range(start, min(start + BATCH_ROWS, len(paths)))):
                if isinstance(row, Unusable):
                    skips.add(row)
                else:
                    rows.append(row)
            progress.advance(min(BATCH_ROWS, len(paths) - start))
            done += len(rows)
            if rows:
                yield pa.RecordBatch.from_pylist(rows, schema=schema)
        if not done:
            raise DataError(f"{source}: none of {len(paths)} images can be used.")

    def late() -> Late:
        meta: dict[str, Any] = {"import": import_facts("imagefolder", source, skips)}
        return Late({**meta, "classes": classes} if classes else meta)

    schema = pa.schema(list(types.items()))
    with bar("import", len(paths), "images") as progress, Pool(threads) as pool:
        return write_store(
            store,
            batches(progress, pool),
            schema,
            late=late,
            overwrite=overwrite,
            rows_per_fragment=rows_per_fragment,
            storage_options=storage_options,
        )
