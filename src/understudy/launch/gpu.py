"""Accelerators of this machine, as `nvidia-smi` lists them; none where it is missing."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Collection

WAIT_S = 10.0


def _query(what: str) -> list[list[str]]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        done = subprocess.run(
            [program, f"--query-gpu={what}", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=WAIT_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    if done.returncode:
        return []
    return [[cell.strip() for cell in line.split(",")] for line in done.stdout.splitlines() if line]


def types() -> tuple[str, ...]:
    """Return the model of each accelerator, by index."""
    return tuple(row[0] for row in _query("name"))


def used_mb(indices: Collection[int]) -> float | None:
    """Return the memory in use on these accelerators, MB; None if it cannot be asked."""
    used = [float(row[1]) for row in _query("index,memory.used") if int(row[0]) in indices]
    return sum(used) if used else None
