"""Load the vision tower of a released FastVLM checkpoint (arXiv 2412.13303).

The released towers are folded ("branches"): fine-tuning them trains folded kernels, without the
extra branches and without batch normalisation in them. An unfolded tower comes from contrastive
pretraining. Facts about tensor names only; nothing but tensors is read, and of a checkpoint's
files only the tower's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from understudy import models
from understudy.core.errors import DataError, ModelError
from understudy.models.convert import load_timm, read_state
from understudy.models.convert_names import original_mci_rules, rename
from understudy.models.image.classifier import Classifier
from understudy.models.image.mci import MciConfig
from understudy.models.preprocess import Preprocess

_TOWER = re.compile(r"^.*?vision_tower\.(?:vision_tower\.model|timm_model)\.")
"""What precedes the tower's own names: in the original checkpoints, and in Transformers' ones."""


def read_vision_tower(path: str | Path) -> dict[str, Tensor]:
    """Read a checkpoint's tensors of the vision tower, under their own names.

    Args:
        path: a `.safetensors` or `.pt`/`.bin` file, or a folder of `.safetensors` files; the
            language model's tensors are not read from the latter.

    Raises:
        DataError: missing, or without a vision tower.
    """
    path = Path(path)
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    found: dict[str, Tensor] = {}
    for file in files:
        found |= _read(file)
    if not found:
        raise DataError(
            f"{path}: no tensors of a vision tower ('...vision_tower.vision_tower.model.' or "
            "'...vision_tower.timm_model.')."
        )
    return found


def _read(file: Path) -> dict[str, Tensor]:
    if file.suffix != ".safetensors" or not file.is_file():
        return {k: v for k, v in read_state(file).items() if _TOWER.match(k)}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as tensors:
            return {k: tensors.get_tensor(k) for k in tensors.keys() if _TOWER.match(k)}
    except SafetensorError as error:
        raise DataError(f"{file}: not a safetensors file ({error}).") from None


def load_vision_tower(
    source: str | Path | Mapping[str, Tensor],
    name: str = "fastvithd",
    *,
    preprocess: Preprocess | None = None,
    dtype: torch.dtype = torch.float32,
) -> Classifier:
    """Make an image tower without a head from a FastVLM checkpoint.

    Args:
        source: a file or folder (see `read_vision_tower`), or tensors with a prefix that ends in
            `vision_tower.vision_tower.model.` (original names) or `vision_tower.timm_model.`
            (Transformers).
        name: our name of the tower.
        preprocess: what images will go through; None pads to a square and takes [0, 1], as the
            released weights expect.
        dtype: of the weights; the released ones are 16 bits wide.

    Returns:
        the tower, folded if the checkpoint is; its `image.expanded_map` gives the visual tokens.

    Raises:
        DataError: no such file, or one without a vision tower.
        ModelError: the tensors do not fit that tower, or `preprocess` contradicts the family.
    """
    config = models.config(name)
    tower = getattr(config, "image", None)
    if not isinstance(tower, MciConfig):
        raise ModelError(f"vision tower {name}: not an MCi tower; known: fastvithd.")
    state = source if isinstance(source, Mapping) else read_vision_tower(source)
    rules = original_mci_rules(tower)
    merged: dict[str, Tensor] = {}
    for key, value in state.items():
        if not _TOWER.match(key):
            continue
        own = _TOWER.sub("", key)
        if own.startswith("head."):
            continue  # the contrastive head; the language model never sees it
        if ".timm_model." not in key:
            own = rename(own, rules)
        merged[own] = value.to(dtype) if value.is_floating_point() else value
    if not merged:
        raise ModelError(
            f"vision tower {name}: expected tensors under 'vision_tower.vision_tower.model.' or "
            "'vision_tower.timm_model.'; for a tower alone use understudy.models.convert."
        )
    return load_timm(merged, name, preprocess=preprocess)
