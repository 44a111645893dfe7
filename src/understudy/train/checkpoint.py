"""Checkpoints: a folder per step, whole or absent, tensors in safetensors and the rest in JSON.

    checkpoints/step-00000200/model.safetensors      what learns, and the buffers
                              optimizer.safetensors  the optimiser's state by parameter
                              ema.safetensors        averaged weights, if any
                              state.json             step, identity of the run, sizes
                              manifest.json          sizes and sha256 of all files
    checkpoints/LATEST                               the newest folder's name

No random state is stored: every step seeds itself from (seed, step, rank).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from understudy.core import checkpoints
from understudy.core.checkpoints import prune, saving, step_folder, steps
from understudy.core.errors import ConfigError, DataError
from understudy.core.files import read_json, write_json

FORMAT = "understudy-checkpoint"
VERSION = 1

__all__ = ["newest", "prune", "read", "same_run", "step_folder", "steps", "write"]


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

    with saving(folder) as temporary:
        sizes = {}
        for name, group in tensors.items():
            path = temporary / f"{name}.safetensors"
            save_file(dict(group), path)
            sizes[path.name] = path.stat().st_size
        header = {"format": FORMAT, "version": VERSION, "bytes": sizes}
        write_json(temporary / "state.json", {**header, **state})
    return folder


def newest(root: Path) -> int | None:
    """Return the newest step whose checkpoint is whole; None if there are no checkpoints.

    Those of versions before manifests are taken at their word; `read` checks their sizes.

    Raises:
        DataError: there are checkpoints, and none is whole: starting over would lose the run.
    """
    found = checkpoints.newest(root, old_format="state.json")
    known = steps(root)
    if found is None and known:
        wrong = checkpoints.problem(step_folder(root, known[-1]))
        raise DataError(f"{root}: no checkpoint is whole ({wrong}); delete them to start over.")
    return found


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
