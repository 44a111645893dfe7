"""Weights and configuration in one safetensors file.

The header's metadata hold the configuration, the folding state, the tokenizer and whatever the
caller adds, all as JSON. Files are written whole or not at all and hold no code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from understudy.core.errors import DataError, ModelError
from understudy.core.files import atomic_path
from understudy.core.hashing import hash_bytes
from understudy.models.base import FOLD_STATES, UNFOLDED, Model
from understudy.models.build import build, config_from_dict, config_to_dict
from understudy.models.text.tokenizer import Tokenizer

FORMAT = "understudy-model"
VERSION = 1
_QKV_BIAS = ".mixer.attention.qkv.bias"


def save(model: Model, path: str | Path, extra: Mapping[str, Any] | None = None) -> Path:
    """Write weights, configuration and tokenizer to one safetensors file, atomically.

    Args:
        model: a model of this package, folded or not.
        path: where to.
        extra: JSON-like facts to keep beside the configuration.

    Returns:
        the path.
    """
    from safetensors.torch import save_file

    header = {
        "format": FORMAT,
        "version": VERSION,
        "config": config_to_dict(model.config),
        "folded": model.fold_state,
        "extra": dict(extra or {}),
    }
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is not None:
        header["tokenizer"] = tokenizer.to_json()
    # One entry only: the file format writes several in no fixed order, and equal models should be
    # equal bytes.
    metadata = {"understudy": json.dumps(header, sort_keys=True)}
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata=metadata)
    return Path(path)


def read_header(path: str | Path) -> tuple[dict[str, Any], str | None]:
    """Return (header, tokenizer JSON or None) of a weights file, without reading weights.

    Raises:
        DataError: missing, or not a safetensors file.
        ModelError: a safetensors file that this package did not write, or a newer version's.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such weights file.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise DataError(
            f"{path}: not a safetensors file ({error}); released checkpoints are brought in with "
            f"'understudy model import {path} --model NAME --out FILE'."
        ) from None
    if "understudy" not in metadata:
        raise ModelError(
            f"{path}: a safetensors file without this package's configuration; bring released "
            f"weights in with 'understudy model import {path} --model NAME --out FILE'."
        )
    header = json.loads(metadata["understudy"])
    if header.get("format") != FORMAT or header.get("version") != VERSION:
        raise ModelError(
            f"{path}: {header.get('format')!r} version {header.get('version')!r}; this version "
            f"reads {FORMAT!r} version {VERSION}."
        )
    return header, header.pop("tokenizer", None) or metadata.get("tokenizer")


def config_of(path: str | Path) -> dict[str, Any]:
    """Return a weights file's header: `config`, `folded`, `extra`, `format`, `version`.

    Raises:
        DataError: missing, or not a safetensors file.
        ModelError: not a file of this package.
    """
    return read_header(path)[0]


def skeleton(config: Any, fold_state: str = UNFOLDED) -> Model:
    """Return a model without memory for weights (device meta), in eval mode.

    Args:
        config: what to build.
        fold_state: `"no"`, `"branches"` or `"all"`.
    """
    with torch.device("meta"):
        model = build(config).eval()
        return model if fold_state == UNFOLDED else model.fold(fold_state)  # type: ignore[arg-type]


def load(path: str | Path, *, folded: bool | None = None) -> Model:
    """Load a model, in eval mode.

    Args:
        path: a file that `save` wrote.
        folded: True wants the inference form and folds if need be; False wants the training form;
            None takes what is there.

    Raises:
        DataError: missing, or not a safetensors file.
        ModelError: not a file of this package; weights that do not fit their configuration; or a
            folded file where `folded=False` was asked.
    """
    from safetensors.torch import load_file

    header, tokenizer = read_header(path)
    state = header["folded"]
    if state not in FOLD_STATES:
        raise ModelError(f"{path}: unknown folding state {state!r}.")
    if folded is False and state != UNFOLDED:
        raise ModelError(
            f"{path}: holds a folded model ('{state}'), which cannot be unfolded; load it with "
            "folded=None or folded=True, or load the file it was folded from."
        )
    model = skeleton(config_from_dict(header["config"], str(path)), state)
    assign(model, load_file(path), str(path))
    if tokenizer is not None:
        read = getattr(model, "read_tokenizer", Tokenizer.from_json)
        model.set_tokenizer(read(tokenizer))  # type: ignore[operator]
    if folded and state == UNFOLDED:
        return model.fold()
    return model


def assign(model: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Put tensors into a model, all of them and nothing else.

    Raises:
        ModelError: tensors missing, left over or of other shapes; if the difference is that one
            side is folded, the message names the switch.
    """
    own = model.state_dict()
    missing = sorted(own.keys() - state.keys())
    surplus = sorted(state.keys() - own.keys())
    if missing or surplus:
        raise ModelError(f"{where}: {_difference(model, own, state, missing, surplus)}")
    for name, tensor in own.items():
        if tensor.shape != state[name].shape:
            raise ModelError(
                f"{where}: {name} has shape {list(state[name].shape)}, the model expects "
                f"{list(tensor.shape)}; the configuration differs from the weights'."
            )
    # Tensors of a file lie at any address; the same numbers at an aligned one give the same bits as
    # the model that was saved.
    state = {name: tensor.clone() for name, tensor in state.items()}
    grads = {k: p.requires_grad for k, p in model.named_parameters()}
    model.load_state_dict(state, assign=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(grads[name])


def _difference(
    model: nn.Module,
    own: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    missing: list[str],
    surplus: list[str],
) -> str:
    branched_model = any(k.endswith("running_var") for k in own)
    branched_state = any(k.endswith("running_var") for k in state)
    if branched_model and not branched_state:
        return (
            "these weights are folded, the model is not; load them with folded=True "
            "(models.load) or into model.fold()."
        )
    if branched_state and not branched_model and getattr(model, "is_folded", False):
        return (
            "these weights are not folded, the model is; load them into the unfolded model "
            "and call fold()."
        )
    differ = sorted({*missing, *surplus})
    if all(k.endswith(_QKV_BIAS) or ".mixer.norm." in k for k in differ):
        # only batch normalisation has statistics, or can be folded into the projection after it
        batch = any(k in state and k.endswith((".running_mean", _QKV_BIAS)) for k in differ)
        theirs, ours = ("batch", "layer") if batch else ("layer", "batch")
        return (
            f"{differ[0]}: the weights' attention blocks have {theirs} normalisation, the model's "
            f"{ours} normalisation; create the model with image.attention_norm='{theirs}', or take "
            "the weights of this model."
        )
    first = f"missing {missing[0]}" if missing else f"unknown {surplus[0]}"
    return (
        f"{len(missing)} tensors missing and {len(surplus)} unknown ({first}); the weights are of "
        "another model or configuration."
    )


def load_weights(model: Model, path: str | Path) -> Model:
    """Load the weights of a file into a model that exists.

    Raises:
        ModelError: they do not fit; a folded file and an unfolded model are told apart.
    """
    from safetensors.torch import load_file

    header, _ = read_header(path)
    if header["folded"] != model.fold_state:
        switch = (
            "these weights are folded, the model is not; load them with folded=True (models.load)"
            if model.fold_state == UNFOLDED
            else "the model is folded, these weights are not (or in another mode); load them into "
            "the unfolded model and call fold()"
        )
        raise ModelError(
            f"{path}: {switch}. Folding states: file '{header['folded']}', model "
            f"'{model.fold_state}'."
        )
    assign(model, load_file(path), str(path))
    return model


def weights_hash(model: nn.Module) -> str:
    """Return a hash of all tensors by name: the fingerprint of a model's weights."""
    chunks: list[bytes] = []
    for name, tensor in sorted(model.state_dict().items()):
        value = tensor.detach().cpu().contiguous()
        chunks += [name.encode(), str(value.dtype).encode(), str(list(value.shape)).encode()]
        chunks.append(value.flatten().view(torch.uint8).numpy().tobytes())
    return hash_bytes(*chunks)
