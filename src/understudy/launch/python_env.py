"""A Python environment for a job, from a lock file and a folder of wheels; made once by content."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from understudy.core.errors import ConfigError
from understudy.core.hashing import hash_data, hash_file

DONE = ".understudy-done"


def digest(lock: str, wheelhouse: str) -> str:
    """Return what identifies an environment: the lock's content, the wheels, this Python.

    Raises:
        ConfigError: a path is missing.
    """
    if not Path(lock).is_file():
        raise ConfigError(f"python.lock: no such file '{lock}'.")
    wheels: list[tuple[str, int]] = []
    if wheelhouse:
        if not Path(wheelhouse).is_dir():
            raise ConfigError(f"python.wheelhouse: no such folder '{wheelhouse}'.")
        wheels = sorted((p.name, p.stat().st_size) for p in Path(wheelhouse).iterdir())
    return hash_data([hash_file(lock), wheels, sys.version])


def prepare(lock: str, wheelhouse: str, root: Path, say: Callable[[str], None]) -> Path:
    """Make the environment unless it is there, and return its folder.

    Packages of the Python that runs this are visible in it, those of the lock come first.

    Args:
        lock: requirements with versions.
        wheelhouse: folder of wheels that is asked alone; empty: what pip is set up to ask.
        root: where environments are kept.
        say: takes pip's output.

    Raises:
        ConfigError: the packages cannot be installed.
    """
    target = root / digest(lock, wheelhouse)
    root.mkdir(parents=True, exist_ok=True)
    with open(root / f"{target.name}.lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if (target / DONE).exists():
            return target
        shutil.rmtree(target, ignore_errors=True)
        make = [sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", target]
        python = target / "bin" / "python"
        install = [sys.executable, "-m", "pip", "--python", python, "install", "--no-input",
                   "--disable-pip-version-check", "-r", lock]  # fmt: skip
        if wheelhouse:
            install += ["--no-index", "--find-links", wheelhouse]
        for command in (make, install):
            done = subprocess.run(
                [os.fspath(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            if done.stdout:
                say(done.stdout)
            if done.returncode:
                raise ConfigError(f"python: the packages of {lock} cannot be installed.")
        (target / DONE).touch()
    return target
