"""The stores: their rows, knowledge columns, and the card of each column."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from understudy.core.errors import UnderstudyError
from understudy.ui.site import RefusedError, site_of

DEPTH = 3
"""How deep folders are searched for stores."""
MOST = 500
"""Most stores that are listed."""


def _is_store(folder: Path) -> bool:
    return (folder / "_versions").is_dir()


def _below(folder: Path, depth: int) -> Iterator[Path]:
    if _is_store(folder):
        yield folder
        return
    if depth == 0:
        return
    try:
        entries = sorted(
            e.path for e in os.scandir(folder) if e.is_dir(follow_symlinks=False)
            and not e.name.startswith(".")
        )  # fmt: skip
    except OSError:
        return
    for entry in entries:
        yield from _below(Path(entry), depth - 1)


def find_stores(places: Sequence[str]) -> dict[str, str]:
    """Return the path of each store by a name that is unique among them.

    Args:
        places: stores, folders with stores (three levels deep; links are not followed), or URLs.
    """
    found: dict[str, str] = {}
    for place in places:
        if "://" in place:
            pairs = [(place.rstrip("/").rpartition("/")[2], place)]
        else:
            root = Path(place).absolute()
            pairs = [(p.relative_to(root.parent).as_posix(), str(p)) for p in _below(root, DEPTH)]
        for name, path in pairs:
            if path in found.values() or len(found) >= MOST:
                continue
            unique, number = name, 2
            while unique in found:
                unique, number = f"{name} ({number})", number + 1
            found[unique] = path
    return found


def _info(path: str) -> dict[str, Any]:
    from understudy.data.store import Store

    return Store.open(path).info()


def _row(name: str, path: str) -> dict[str, Any]:
    try:
        info = _info(path)
    except UnderstudyError as error:
        return {"name": name, "path": path, "error": str(error)}
    knowledge = [c["name"] for c in info["columns"] if "card" in c]
    facts = {k: info[k] for k in ("num_rows", "version", "bytes")}
    return {"name": name, "path": path, "error": "", "knowledge": knowledge, **facts}


def page(request: Request) -> Response:
    """Answer `/stores`."""
    site = site_of(request)
    found = find_stores(site.config.stores)
    rows = [_row(name, path) for name, path in found.items()]
    return site.render(request, "stores", stores=rows, places=site.config.stores)


def one(request: Request) -> Response:
    """Answer `/stores/NAME`; only names of the list lead to a path."""
    site = site_of(request)
    name = request.path_params["name"]
    path = find_stores(site.config.stores).get(name)
    if path is None:
        raise RefusedError(404, f"there is no store '{name[:200]}'.")
    return site.render(request, "store", name=name, info=_info(path))
