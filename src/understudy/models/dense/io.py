"""Weights and configuration of a dense model in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from understudy.core.config import from_dict, to_dict
from understudy.core.errors import DataError, ModelError
from understudy.core.files import atomic_path
from understudy.models.base import UNFOLDED
from understudy.models.dense.config import DenseConfig
from understudy.models.dense.model import DenseModel, synchronised
from understudy.models.io import assign
from understudy.models.towers import image_config

FORMAT = "understudy-dense"
VERSION = 1


def save_dense(model: DenseModel, path: str | Path, extra: Mapping[str, Any] | None = None) -> Path:
    """Write a dense model, atomically, and return the path.

    Args:
        model: folded or not.
        path: where to.
        extra: JSON-like facts to keep beside the configuration.
    """
    from safetensors.torch import save_file

    header = {
        "format": FORMAT,
        "version": VERSION,
        "config": to_dict(model.config),
        "folded": model.fold_state,
        "extra": dict(extra or {}),
    }
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata={"understudy": json.dumps(header, sort_keys=True)})
    return Path(path)


def load_dense(path: str | Path) -> DenseModel:
    """Load a dense model, in eval mode.

    Raises:
        DataError: missing, or not a safetensors file.
        ModelError: a file of another kind or version.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such weights file.")
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("understudy", "{}"))
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: not a safetensors file ({error}).") from None
    if header.get("format") != FORMAT or header.get("version") != VERSION:
        raise ModelError(
            f"{path}: {header.get('format')!r} version {header.get('version')!r}, expected "
            f"{FORMAT!r} version {VERSION}; it holds no dense model of this version."
        )
    data = dict(header["config"])
    data["image"] = image_config(data["image"], f"{path}: image")
    config = from_dict(DenseConfig, data, str(path))
    # torchvision's anchors are no buffers: they would stay without memory on the meta device
    with torch.device("cpu" if config.head.task == "det" else "meta"):
        model = DenseModel(config).eval()
        if header["folded"] != UNFOLDED:
            model = model.fold(header["folded"])
    assign(model, load_file(path), str(path))
    return synchronised(model)
