"""Folders of saved state, a folder per step: whole or absent, checked by content, the newest named.

    step-00000200/          what was saved at that step
        manifest.json       every file's size and sha256, written last
    LATEST                  the name of the newest folder

A folder is written under another name, synced, and renamed; then `LATEST` is replaced by renaming.
Readers take the newest folder whose manifest is true and pass over those that are not whole. Loops
and jobs share this; neither torch nor NumPy is needed.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from understudy.core.errors import DataError
from understudy.core.files import read_json, write_json, write_text
from understudy.core.hashing import hash_file

MANIFEST, LATEST = "manifest.json", "LATEST"
FORMAT = "understudy-saved-state"
VERSION = 1
_STEP = re.compile(r"step-(\d{8})")


def step_folder(root: Path, step: int) -> Path:
    """Return the folder of a step."""
    return root / f"step-{step:08d}"


def steps(root: Path) -> list[int]:
    """Return the steps that have a folder, ascending; whether they are whole is not looked at."""
    if not root.is_dir():
        return []
    found = (_STEP.fullmatch(p.name) for p in root.iterdir())
    return sorted(int(m.group(1)) for m in found if m)


def sync(path: Path) -> None:
    """Wait until a file or a folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def saving(folder: Path, facts: Mapping[str, Any] | None = None) -> Iterator[Path]:
    """Yield a temporary folder; on success it becomes `folder`, whole, with its manifest.

    When the block raises nothing is left behind. A folder of a step is named in `LATEST`.

    Args:
        folder: where the state goes; replaced if it is there.
        facts: what the manifest also says.
    """
    temporary = folder.parent / f".{folder.name}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        files: dict[str, dict[str, Any]] = {}
        for path in sorted(p for p in temporary.rglob("*") if p.is_file()):
            sync(path)
            name = path.relative_to(temporary).as_posix()
            files[name] = {"bytes": path.stat().st_size, "sha256": hash_file(path)}
        header = {"format": FORMAT, "version": VERSION}
        write_json(temporary / MANIFEST, {**header, **(facts or {}), "files": files})
        sync(temporary)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(temporary, folder)
        sync(folder.parent)
        if _STEP.fullmatch(folder.name):
            write_text(folder.parent / LATEST, folder.name + "\n")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def problem(folder: Path) -> str:
    """Return what is wrong with a folder of saved state, or an empty string.

    Every file is read. A folder without a manifest, as older versions wrote, is not judged here.
    """
    try:
        manifest = read_json(folder / MANIFEST)
        files = dict(manifest["files"])
        if manifest["format"] != FORMAT or manifest["version"] > VERSION:
            return f"{folder / MANIFEST}: of another kind or a newer version"
        for name, facts in files.items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != facts["bytes"]:
                return f"{path}: missing or of another size"
            if hash_file(path) != facts["sha256"]:
                return f"{path}: its content is not what was written"
    except (DataError, KeyError, TypeError, ValueError) as error:
        return f"{folder / MANIFEST}: missing or damaged ({error})"
    return ""


def newest(root: Path, *, old_format: str | None = None) -> int | None:
    """Return the newest step that is whole; None if there is none.

    Args:
        root: the folder of all.
        old_format: a folder without a manifest counts as whole if it has this file.
    """
    for step in reversed(steps(root)):
        folder = step_folder(root, step)
        if old_format and not (folder / MANIFEST).exists() and (folder / old_format).exists():
            return step
        if not problem(folder):
            return step
    return None


def prune(root: Path, keep: int, keep_every: int = 0) -> None:
    """Delete all but the newest `keep`, and whatever a killed writer left.

    Args:
        root: the folder of all.
        keep: how many of the newest stay.
        keep_every: steps divisible by this stay too; 0: none.
    """
    known = steps(root)
    for step in known[: max(len(known) - keep, 0)]:
        if not keep_every or step % keep_every:
            shutil.rmtree(step_folder(root, step))
    for path in root.glob(".step-*.tmp"):
        shutil.rmtree(path, ignore_errors=True)
    if not steps(root):
        (root / LATEST).unlink(missing_ok=True)
