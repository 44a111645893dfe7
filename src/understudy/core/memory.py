"""How much memory is left, for work that is planned before it starts."""

from __future__ import annotations

from pathlib import Path


def available_bytes(root: str | Path = "/") -> int | None:
    """Return the bytes that this process can still take, or None where that is unknown.

    The smaller of the machine's `MemAvailable` and what the control groups that the process runs
    in (version 1 or 2) leave below their limits.

    Args:
        root: of the file system that holds `proc` and `sys`.
    """
    root = Path(root)
    found = [_machine(root), *_groups(root)]
    known = [value for value in found if value is not None]
    return max(0, min(known)) if known else None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _machine(root: Path) -> int | None:
    for line in _read(root / "proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None


def _groups(root: Path) -> list[int]:
    """Return what each control group above this process leaves."""
    base, left = root / "sys/fs/cgroup", []
    for line in _read(root / "proc/self/cgroup").splitlines() or ["0::/"]:
        _, kinds, group = [*line.split(":", 2), "", ""][:3]
        if kinds == "":
            names = ("memory.max", "memory.current", "inactive_file")
            left += _chain(base, group, names)
        elif "memory" in kinds.split(","):
            names = (
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
                "total_inactive_file",
            )
            left += _chain(base / "memory", group, names)
    return left


def _chain(base: Path, group: str, names: tuple[str, str, str]) -> list[int]:
    limit_name, used_name, cache_name = names
    parts = [p for p in group.split("/") if p and p != ".."]
    left = []
    for depth in range(len(parts) + 1):
        folder = base.joinpath(*parts[:depth])
        limit, used = _read(folder / limit_name), _read(folder / used_name)
        # version 1 writes a number near 2^63 for "no limit"
        if limit.isdigit() and used.isdigit() and int(limit) < 1 << 60:
            # pages of files count as used, but are given back on demand
            cached = 0
            for line in _read(folder / "memory.stat").splitlines():
                name, _, value = line.partition(" ")
                if name == cache_name:
                    cached = int(value)
            left.append(int(limit) - max(0, int(used) - cached))
    return left
