"""Secrets by name: a file each, readable by its owner alone, read when a job starts."""

from __future__ import annotations

import stat
from pathlib import Path

from understudy.core.errors import ConfigError


def check_secret(folder: Path, name: str) -> Path:
    """Return the file of a secret.

    Raises:
        ConfigError: it is missing, or others may read it.
    """
    path = folder / name
    if not path.is_file():
        raise ConfigError(
            f"secret '{name}' has no file {path}; write its value there, readable by you alone "
            "(chmod 600)."
        )
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ConfigError(f"secret '{name}': {path} is open to others; chmod 600 {path}")
    return path


def read_secret(folder: Path, name: str) -> str:
    """Return a secret's value, without the newline at its end.

    Raises:
        ConfigError: as `check_secret`.
    """
    return check_secret(folder, name).read_text().rstrip("\n")
