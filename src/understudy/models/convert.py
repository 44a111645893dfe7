"""Load released weights: original MobileCLIP checkpoints, OpenCLIP's and timm's state dicts.

FastVLM's vision tower is read by `understudy.models.convert_vlm`.

Only tensors are read, never code. What a checkpoint's family is known to expect of its input is
checked, so that the wrong normalisation is an error and not a few lost points.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from understudy import models
from understudy.core.errors import DataError, ModelError
from understudy.models.base import UNFOLDED
from understudy.models.convert_names import FASTVIT, OPENCLIP, ORIGINAL, Naming, Rules, rename
from understudy.models.families import FAMILIES
from understudy.models.image.classifier import Classifier, ClassifierConfig
from understudy.models.image.mci import MciConfig
from understudy.models.image.vit_config import VitConfig
from understudy.models.io import assign, skeleton
from understudy.models.multimodal.clip import CLIP, CLIPConfig
from understudy.models.preprocess import Preprocess
from understudy.models.text.tokenizer import Tokenizer

State = Mapping[str, Tensor]
SKIPPED = ("attn_mask", "num_batches_tracked")


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Read a checkpoint's tensors from `.safetensors`, or from a `.pt`/`.bin` without its code.

    Raises:
        DataError: missing, or not a file of tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such checkpoint.")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise DataError(f"{path}: not a safetensors file ({error}).") from None
    import pickle

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        detail = str(error).splitlines()[0]
        raise DataError(f"{path}: not a checkpoint of plain tensors ({detail}).") from None
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise DataError(f"{path}: expected a mapping of names to tensors.")
    return {k.removeprefix("module."): v for k, v in state.items()}


def _part(state: State, prefix: str) -> dict[str, Tensor]:
    return {
        k[len(prefix) :]: v
        for k, v in state.items()
        if k.startswith(prefix) and not k.endswith(SKIPPED)
    }


def _apply(state: State, *tables: Rules) -> dict[str, Tensor]:
    """Rename tensors by one table after the other."""
    out = dict(state)
    for rules in tables:
        named, out = out, {}
        for key, value in named.items():
            key = rename(key, rules)
            if key == "head.T":
                key, value = "head.weight", value.T
            out[key] = value
    return out


def _fold_state(image: State) -> str:
    return UNFOLDED if any(".skip." in k or ".large." in k for k in image) else "branches"


def _drop_zero_bias(image: dict[str, Tensor]) -> bool:
    """Remove a head bias that is zero everywhere; say whether a real one stays."""
    bias = image.get("head.bias")
    if bias is None or bool(bias.any()):
        return bias is not None
    del image["head.bias"]
    return False


def _finish(model: Any, state: dict[str, Tensor], where: str) -> Any:
    for name, own in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros((), dtype=own.dtype)
    assign(model, {k: v.contiguous() for k, v in state.items()}, where)
    return model


def _clip_config(name: str, where: str) -> CLIPConfig:
    config = models.config(name)
    if not isinstance(config, CLIPConfig) or name not in FAMILIES:
        known = ", ".join(n for n in models.MODELS if n.startswith("mobileclip") and n in FAMILIES)
        raise ModelError(f"{where}: no released weights for '{name}'; known: {known}.")
    return config


def _image_state(state: State, config: Any, naming: Naming) -> dict[str, Tensor]:
    if not isinstance(config, VitConfig):
        return _apply(state, *naming.mci(config))
    out = _apply(state, naming.vit)
    width, rows = config.width, config.grid**2 + config.class_position
    if "positions" in out and out["positions"].numel() == width * rows:
        out["positions"] = out["positions"].reshape(1, rows, width)
    return out


def _load_clip(
    naming: Naming,
    state: State,
    name: str,
    preprocess: Preprocess | None,
    tokenizer: Tokenizer | None,
) -> CLIP:
    where = f"{naming.package} weights for {name}"
    config = replace(_clip_config(name, where), weights=name)
    if preprocess is not None:
        config = replace(config, preprocess=preprocess)
    tower: Any = config.image
    image = _image_state(_part(state, naming.image), tower, naming)
    text = _apply(_part(state, naming.text), *naming.texts)
    if not image or not text or "logit_scale" not in state:
        raise ModelError(
            f"{where}: expected tensors under '{naming.image}' and '{naming.text}' and "
            f"'logit_scale'; {naming.hint}."
        )
    if "positions" in text:
        text["positions"] = text["positions"].reshape(text["positions"].shape[-2:])
    is_vit = isinstance(tower, VitConfig)
    changes: dict[str, Any] = {"head_bias": _drop_zero_bias(image)}
    if is_vit and tower.stem == "conv":
        changes |= naming.changes
    merged = {f"image.{k}": v for k, v in image.items()}
    merged |= {f"text.{k}": v for k, v in text.items()}
    merged["logit_scale"] = state["logit_scale"].reshape(())
    model: Any = skeleton(
        replace(config, image=replace(tower, **changes)),
        UNFOLDED if is_vit else _fold_state(image),
    )
    _finish(model, merged, where)
    if tokenizer is not None:
        model.set_tokenizer(tokenizer)
    return model


def load_openclip_state_dict(
    state: State,
    name: str,
    *,
    preprocess: Preprocess | None = None,
    tokenizer: Tokenizer | None = None,
) -> CLIP:
    """Make a CLIP model from an OpenCLIP `MobileCLIP-*` or `MobileCLIP2-*` state dict.

    Args:
        state: tensors under `visual.trunk.`, `text.` and `logit_scale`.
        name: our name of the model, such as `"mobileclip-s1"`.
        preprocess: what images will go through; None takes what the family expects.
        tokenizer: CLIP's, if at hand.

    Raises:
        ModelError: the tensors do not fit that model, or `preprocess` contradicts the family.
    """
    return _load_clip(OPENCLIP, state, name, preprocess, tokenizer)


def load_original(
    state: State,
    name: str,
    *,
    preprocess: Preprocess | None = None,
    tokenizer: Tokenizer | None = None,
) -> CLIP:
    """Make a CLIP model from an original MobileCLIP checkpoint, folded or not.

    Args:
        state: tensors under `image_encoder.model.`, `text_encoder.` and `logit_scale`.
        name: our name of the model, such as `"mobileclip-s0"`.
        preprocess: what images will go through; None takes what the family expects.
        tokenizer: CLIP's, if at hand.

    Raises:
        ModelError: the tensors do not fit that model, or `preprocess` contradicts the family.
    """
    return _load_clip(ORIGINAL, state, name, preprocess, tokenizer)


def load_timm(state: State, name: str, *, preprocess: Preprocess | None = None) -> Classifier:
    """Make a classifier (or image tower) from a timm `fastvit_mci0` to `4` state dict.

    Args:
        state: timm's tensors, reparameterised or not; the head's width gives the classes.
        name: `"mci0"` to `"mci4"`, or `"fastvithd"`.
        preprocess: what images will go through; None takes the statistics that the released
            weights expect.

    Raises:
        ModelError: the tensors do not fit that tower, or `preprocess` contradicts the family.
    """
    where = f"timm weights for {name}"
    config = models.config(name)
    is_mci = isinstance(config, ClassifierConfig) and isinstance(config.image, MciConfig)
    if not is_mci or name not in FAMILIES:
        raise ModelError(f"{where}: not an MCi tower; known: mci0 to mci4, fastvithd.")
    assert isinstance(config, ClassifierConfig)
    image = _apply(_part(state, ""), FASTVIT)
    head = image.get("head.weight")
    if preprocess is None:
        mean, std = FAMILIES[name]
        preprocess = replace(config.preprocess, mean=mean, std=std)
    config = replace(
        config,
        num_classes=0 if head is None else head.shape[0],
        image=replace(config.image, head_bias="head.bias" in image),
        preprocess=preprocess,
        weights=name,
    )
    merged = {f"image.{k}": v for k, v in image.items()}
    return _finish(skeleton(config, _fold_state(image)), merged, where)


def load_released(
    path: str | Path,
    name: str,
    *,
    preprocess: Preprocess | None = None,
    tokenizer: Tokenizer | None = None,
) -> CLIP | Classifier:
    """Load a released checkpoint file, whichever package's names it uses.

    Args:
        path: `.safetensors`, or a `.pt`/`.bin` of plain tensors.
        name: our name of the model.
        preprocess: what images will go through; None takes what the family expects.
        tokenizer: CLIP's, if at hand.

    Raises:
        DataError: the file is missing or holds anything but tensors.
        ModelError: the tensors do not fit, or `preprocess` contradicts the family.
    """
    state = read_state(path)
    if any(k.startswith("image_encoder.") for k in state):
        return load_original(state, name, preprocess=preprocess, tokenizer=tokenizer)
    if any(k.startswith("visual.trunk.") for k in state):
        return load_openclip_state_dict(state, name, preprocess=preprocess, tokenizer=tokenizer)
    if any("vision_tower." in k for k in state):
        from understudy.models.convert_vlm import load_vision_tower

        return load_vision_tower(state, name, preprocess=preprocess)
    if any(k.startswith("stages.") for k in state):
        return load_timm(state, name, preprocess=preprocess)
    first = next(iter(state), "nothing")
    raise ModelError(
        f"{path}: neither an original, an OpenCLIP nor a timm checkpoint of this family (first "
        f"tensor: {first})."
    )
