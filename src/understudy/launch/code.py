"""The code of a job: files of a folder chosen by globs, named by the hash of their content."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from understudy.core.errors import ConfigError
from understudy.core.hashing import hash_bytes, hash_file

ALWAYS_OUT = (
    ".git", ".hg", ".venv", "venv", "node_modules", "__pycache__", "*.pyc", ".*_cache", ".DS_Store",
)  # fmt: skip
"""Globs that are never packed."""
MAX_BYTES = 200_000_000
"""Most bytes of code; data belong into inputs."""
MAX_FILES = 20_000


@lru_cache(maxsize=256)
def _pattern(glob: str) -> re.Pattern[str]:
    """Translate a glob.

    `*` and `?` stay inside one name, `**` does not; without a slash (but at its end) it matches at
    any depth; what matches a folder matches what is in it.
    """
    glob = glob.rstrip("/")
    if "/" not in glob and glob != "**":
        glob = f"**/{glob}"
    out, i = "", 0
    glob = glob.lstrip("/")
    while i < len(glob):
        if glob.startswith("**/", i):
            out, i = out + "(?:.*/)?", i + 3
        elif glob.startswith("**", i):
            out, i = out + ".*", i + 2
        elif glob[i] == "*":
            out, i = out + "[^/]*", i + 1
        elif glob[i] == "?":
            out, i = out + "[^/]", i + 1
        else:
            out, i = out + re.escape(glob[i]), i + 1
    return re.compile(f"{out}(?:/.*)?")


def matches(path: str, globs: Iterable[str]) -> bool:
    """Say whether a relative path (with `/`) matches one of the globs."""
    return any(_pattern(glob).fullmatch(path) for glob in globs)


@dataclass(frozen=True, slots=True)
class Code:
    """What would be packed.

    Attributes:
        root: the folder.
        files: relative paths, sorted.
        bytes: their size together.
        digest: hash of paths, modes (executable or not) and contents.
    """

    root: Path
    files: tuple[str, ...]
    bytes: int
    digest: str

    def unpack(self, target: Path) -> Path:
        """Copy the files to `target`, which is whole or absent, and return it."""
        if target.exists():
            return target
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            for name in self.files:
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(self.root / name, temporary / name)
            try:
                os.rename(temporary, target)
            except OSError:
                # another process was faster: contents with one name are one
                if not target.exists():
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return target


def scan(
    workdir: str | Path, include: Sequence[str] = ("**",), exclude: Sequence[str] = ()
) -> Code:
    """Choose and hash the code of a folder.

    Links to files are packed as files; links to folders are passed over.

    Args:
        workdir: the folder.
        include: globs of what is packed; `*.py` matches at any depth, `src/**` below `src`.
        exclude: globs of what is not; `ALWAYS_OUT` is added.

    Raises:
        ConfigError: the folder is missing, or holds more than code.
    """
    root = Path(workdir)
    if not root.is_dir():
        raise ConfigError(f"workdir '{workdir}' is not a folder.")
    out = (*exclude, *ALWAYS_OUT)
    files: list[str] = []
    for base, folders, names in os.walk(root):
        inner = Path(base).relative_to(root).as_posix()
        prefix = "" if inner == "." else f"{inner}/"
        folders[:] = sorted(f for f in folders if not matches(prefix + f, out))
        for name in names:
            path = prefix + name
            if matches(path, include) and not matches(path, out) and (root / path).is_file():
                files.append(path)
    files.sort()
    sizes = {name: (root / name).stat().st_size for name in files}
    total = sum(sizes.values())
    if total > MAX_BYTES or len(files) > MAX_FILES:
        largest = sorted(sizes, key=lambda n: -sizes[n])[:3]
        raise ConfigError(
            f"workdir '{workdir}' has {len(files):,} files of {total / 1e6:,.0f} MB (at most "
            f"{MAX_FILES:,} of {MAX_BYTES / 1e6:,.0f} MB; largest: "
            f"{', '.join(f'{n} {sizes[n] / 1e6:.0f} MB' for n in largest)}); leave data out with "
            "exclude, or name them as inputs."
        )
    chunks: list[bytes] = []
    for name in files:
        mode = b"x" if os.access(root / name, os.X_OK) else b"-"
        chunks += [name.encode("utf-8", "surrogateescape"), mode, hash_file(root / name).encode()]
    return Code(root, tuple(files), total, hash_bytes(*chunks))
