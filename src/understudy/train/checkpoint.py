"""Checkpoints: a folder per step, whole or absent, tensors in safetensors and the rest in JSON.

    checkpoints/step-00000200/model.safetensors      what learns, and the buffers
                              optimizer.safetensors  the optimiser's state by parameter
                              ema.safetensors        averaged weights, if any
                              state.json             step, identity of the run, sizes

No random state is stored: every step seeds itself from (seed, step, rank).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from understudy.core.errors import ConfigError, DataError
from understudy.core.files import read_json, write_json

FORMAT = "understudy-checkpoint"
VERSION = 1
_STEP = re.compile(r"step-(\d{8})")


def step_folder(root: Path, step: int) -> Path:
    """Return the folder of a step's checkpoint."""
    return root / f"step-{step:08d}"


def write(
    folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
) -> Path:
    """Write one checkpoint atomically: into a temporary folder, synced, then renamed.

    Args:
        folder: the checkpoint's folder; replaced if it exists.
        tensors: file name (without suffix) to named tensors in host memory.
        state: JSON-like facts.

    Returns:
        the folder.
    """
    from safetensors.torch import save_file

    temporary = folder.parent / f".{folder.name}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        sizes = {}
        for name, group in tensors.items():
            path = temporary / f"{name}.safetensors"
            save_file(dict(group), path)
            _sync(path)
            sizes[path.name] = path.stat().st_size
        header = {"format": FORMAT, "version": VERSION, "bytes": sizes}
        write_json(temporary / "state.json", {**header, **state})
        _sync(temporary)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(temporary, folder)
        _sync(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def steps(root: Path) -> list[int]:
    """Return the steps that have a checkpoint, ascending."""
    if not root.is_dir():
        return []
    found = (_STEP.fullmatch(p.name) for p in root.iterdir())
    return sorted(int(m.group(1)) for m in found if m)


def prune(root: Path, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints, and whatever a killed writer left."""
    known = steps(root)
    for step in known[: max(len(known) - keep, 0)]:
        shutil.rmtree(step_folder(root, step))
    for path in root.glob(".step-*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


def read(folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Return (tensors by file, state) of a checkpoint.

    Raises:
        DataError: it is damaged, or of a newer version; the message says what to delete.
    """
    from safetensors.torch import load_file

    state = read_json(folder / "state.json")
    if state.get("format") != FORMAT or state.get("version", 0) > VERSION:
        raise DataError(
            f"{folder}: not a checkpoint that this version can read (version "
            f"{state.get('version')}, expected at most {VERSION})."
        )
    tensors = {}
    for name, size in state["bytes"].items():
        path = folder / name
        if not path.exists() or path.stat().st_size != size:
            raise DataError(
                f"{path}: missing or damaged (expected {size} bytes); delete {folder} to resume "
                "from the checkpoint before it."
            )
        tensors[path.stem] = load_file(path)
    return tensors, state


def same_run(found: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Raise `ConfigError` naming the first fact in which a checkpoint's run differs from this one.

    Args:
        found: the checkpoint's `run` facts: sections of values.
        now: this run's.
        folder: the checkpoint, for the message.
    """
    for section, values in now.items():
        before = found.get(section)
        if before == values:
            continue
        if isinstance(values, Mapping) and isinstance(before, Mapping):
            for key in sorted({*values, *before}):
                if values.get(key) != before.get(key):
                    raise ConfigError(
                        f"resume: {section}.{key} is {values.get(key)!r} now and was "
                        f"{before.get(key)!r} in {folder}; use the same, another output folder, or "
                        "resume=False to start over."
                    )
        raise ConfigError(
            f"resume: {section} is {values!r} now and was {before!r} in {folder}; use the same, "
            "another output folder, or resume=False to start over."
        )
