"""`understudy data import|export`: files to stores and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from understudy.cli.common import parse, show
from understudy.core.errors import DataError

Positional = tyro.conf.Positional


def import_(argv: Sequence[str], prog: str) -> None:
    """Parse and run `data import`."""

    def command(
        source: Positional[str],
        store: Positional[Path],
        kind: str | None = None,
        split: str | None = None,
        teachers: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=DIM ...")] = (),
        teacher: str | None = None,
        images: Path | None = None,
        columns: Annotated[tuple[str, ...], tyro.conf.arg(metavar="OURS=THEIRS ...")] = (),
        types: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FIELD=TYPE ...")] = (),
        view_set: str | None = None,
        views: Path | None = None,
        captioner: str | None = None,
        parts: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PART ...")] = (),
        dtype: str | None = None,
        normalize: bool = False,
        ids: str | None = None,
        on_missing: str | None = None,
        check_images: str | None = None,
        threads: int | None = None,
        keys: Path | None = None,
        overwrite: bool = False,
        json: bool = False,
    ) -> None:
        """Make a store from files.

        An option that the kind of import does not have is refused.

        Args:
            source: a folder or a file: WebDataset tars (plain or in the released reinforced
                layouts, which may be JSON lines too), image folders, JSONL(.gz/.zst), Parquet,
                TFRecord, Hugging Face `save_to_disk`; an `info.json` or a pattern
                `shards/{0000..0127}.tar`; or a built-in scene set, `scenes:pairs` or
                `scenes:pairs?train=400`.
            store: where the store is written.
            kind: webdataset, imagefolder, jsonl, parquet, tfrecord, hf, conversations,
                coco or dr-reference; found out by default.
            split: write this word into every row's `split`.
            teachers: for reinforced tars, the teachers whose embeddings are concatenated there, in
                order, each with its width: `openai=768 datacomp=768`.
            teacher: for reference reinforcement files, name of the teacher; default teacher.
            images: for reinforced tars without images, the tars that hold them, joined by uid; for
                conversations and coco, the folder of the pictures.
            columns: for tables, which of their columns are ours: `text=caption image=jpg`.
            types: for JSONL, Arrow types where the first lines mislead: `n=float64`.
            view_set: for reinforced data, name of the set of views; default main.
            views: for reinforced data, a YAML or JSON file with the transforms of the stored views;
                default: what lies beside the data.
            captioner: for reinforced tars, name of the captioner; default syn.
            parts: which of captions, views, embeddings reinforced tars hold; default all.
            dtype: for reinforced tars, store embeddings as float16, bfloat16 or float32.
            normalize: for reinforced tars, scale embeddings to norm 1 instead of refusing others.
            ids: for tars: auto, key or shard-key.
            on_missing: `error` or `skip` when a sample misses one of its parts; by default an
                error, but joined images that are not found are skipped and counted.
            check_images: decode every image (the default), read its header, or none.
            threads: threads that read and decode.
            keys: for reference reinforcement files, a JSON list that maps their index to `id`.
            overwrite: replace a store that is there.
            json: print what was made as JSON.
        """
        from understudy.core.config import load_yaml
        from understudy.data.importers import import_dir

        options: dict[str, Any] = {
            "split": split,
            "teachers": _widths(teachers) or None,
            "teacher": teacher,
            "images": images,
            "columns": dict(_pair(word, "--columns") for word in columns) or None,
            "types": dict(_pair(word, "--types") for word in types) or None,
            "view_set": view_set,
            "views": None if views is None else load_yaml(views),
            "captioner": captioner,
            "parts": parts or None,
            "dtype": dtype,
            "normalize": normalize or None,
            "ids": ids,
            "on_missing": on_missing,
            "check_images": check_images,
            "threads": threads,
            "keys": keys,
            "overwrite": overwrite or None,
        }
        given = {name: value for name, value in options.items() if value is not None}
        made = import_dir(source, store, kind=kind, **given)
        facts = {
            "path": str(made.path),
            "rows": made.num_rows,
            "columns": list(made.columns),
            "import": made.meta.get("import"),
        }
        show(facts, json, _import_text)

    parse(command, argv, prog)


def _import_text(facts: dict[str, Any]) -> str:
    return f"{facts['path']}: {facts['rows']:,} rows, columns {', '.join(facts['columns'])}"


def _pair(word: str, option: str) -> tuple[str, str]:
    name, _, value = word.partition("=")
    if not name or not value:
        raise DataError(f"{option} {word}: expected NAME=VALUE.")
    return name, value


def _widths(pairs: Sequence[str]) -> dict[str, int]:
    widths = {}
    for word in pairs:
        name, dim = _pair(word, "--teachers")
        if not dim.isdigit():
            raise DataError(f"--teachers {word}: expected NAME=DIM, for example openai=768.")
        widths[name] = int(dim)
    return widths


def export(argv: Sequence[str], prog: str) -> None:
    """Parse and run `data export`."""

    def command(
        store: Positional[Path],
        destination: Positional[Path],
        format: str = "webdataset",
        embeddings: str | None = None,
        view_set: str | None = None,
        teachers: tuple[str, ...] = (),
        captioners: tuple[str, ...] = (),
        image: str | None = None,
        columns: tuple[str, ...] = (),
        compression: str | None = None,
        names: str | None = None,
        rows_per_shard: int = 10_000,
        overwrite: bool = False,
        json: bool = False,
    ) -> None:
        """Write a store in a format that other trainers read.

        An option that the format does not have is refused.

        Args:
            store: the store.
            destination: the folder to write into.
            format: webdataset (the released reinforced layout), parquet or jsonl.
            embeddings: in tars, `npz` (float32, the default) or `pth.gz` (bfloat16).
            view_set: in tars, the view set, when the store has several.
            teachers: in tars, whose knowledge, in the order of concatenation; default all.
            captioners: in tars, whose captions; default all.
            image: in tars, the column with the encoded images.
            columns: in Parquet and JSON lines, the columns to write; default all.
            compression: in Parquet and JSON lines: zstd, gzip or none; Parquet knows snappy and
                lz4 too.
            names: of tars: `number` (the default), or `content`, which adds a hash.
            rows_per_shard: samples per output file.
            overwrite: replace another export in the folder.
            json: print the written files as JSON.
        """
        from understudy.data.exporters import export as write
        from understudy.data.store import Store

        options: dict[str, Any] = {
            "embeddings": embeddings,
            "view_set": view_set,
            "teachers": teachers or None,
            "captioners": captioners or None,
            "image": image,
            "columns": columns or None,
            "compression": compression,
            "names": names,
            "overwrite": overwrite or None,
        }
        given = {name: value for name, value in options.items() if value is not None}
        opened = Store.open(store)
        written = write(opened, destination, format, rows_per_shard=rows_per_shard, **given)
        facts = {"path": str(destination), "files": [str(path) for path in written]}
        show(facts, json, lambda f: f"{f['path']}: {len(f['files']):,} files")

    parse(command, argv, prog)
