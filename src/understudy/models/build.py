"""Configurations to models, and plain data to configurations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from understudy.core.config import check_choice, check_keys, from_dict, to_dict
from understudy.core.errors import ConfigError
from understudy.core.seeds import seed_for
from understudy.models.base import Model
from understudy.models.image.classifier import Classifier, ClassifierConfig
from understudy.models.language.language_config import LanguageConfig
from understudy.models.language.language_model import LanguageModel
from understudy.models.multimodal.clip import CLIP, CLIPConfig
from understudy.models.multimodal.coca import CoCa, CoCaConfig
from understudy.models.multimodal.vlm import VLM
from understudy.models.multimodal.vlm_config import VLMConfig
from understudy.models.text.tokenizer import Tokenizer
from understudy.models.towers import image_config

ModelConfig = CLIPConfig | CoCaConfig | ClassifierConfig | VLMConfig | LanguageConfig
KINDS = {
    "clip": CLIPConfig,
    "coca": CoCaConfig,
    "classifier": ClassifierConfig,
    "vlm": VLMConfig,
    "language": LanguageConfig,
}


def config_to_dict(config: ModelConfig, *, full: bool = False) -> dict[str, Any]:
    """Return plain data for a model's configuration, with its kind; `full` as for `to_dict`."""
    kind = next(k for k, c in KINDS.items() if isinstance(config, c))
    return {"kind": kind, **to_dict(config, full=full)}


def config_from_dict(data: Mapping[str, Any], where: str = "config") -> ModelConfig:
    """Build a model's configuration from plain data; `kind` chooses its class.

    Raises:
        ConfigError: unknown or missing keys, or values of the wrong type.
    """
    rest = dict(data)
    kind = rest.pop("kind", None)
    if kind is None:
        raise ConfigError(f"{where}: missing key 'kind' (one of {', '.join(KINDS)}).")
    check_choice(kind, KINDS, f"{where}.kind")
    cls = KINDS[kind]
    if cls is LanguageConfig:
        return from_dict(LanguageConfig, rest, where)
    image = rest.pop("image", None)
    if image is None:
        raise ConfigError(f"{where}: missing key 'image'.")
    rest["image"] = image_config(image, f"{where}.image")
    return from_dict(cls, rest, where)  # type: ignore[return-value]


def override(config: ModelConfig, changes: Mapping[str, Any]) -> ModelConfig:
    """Return a configuration with some values replaced.

    Args:
        config: where to start.
        changes: new values by key; a nested mapping, or a key with dots (`"image.drop_path"`),
            changes only what it names. A new `image.kind` replaces the whole tower. A new
            `image.image_size` alone also moves `preprocess.size` and the other way round, unless
            both are given.

    Raises:
        ConfigError: a key that does not exist.
    """
    tree: dict[str, Any] = {}
    for key, value in changes.items():
        node = tree
        *path, last = key.split(".")
        for part in path:
            node = node.setdefault(part, {})
        value = to_dict(value, full=True)
        if isinstance(value, Mapping):
            node.setdefault(last, {}).update(value)
        else:
            node[last] = value
    _match_sizes(tree)
    data = config_to_dict(config, full=True)
    _merge(data, tree, type(config).__name__)
    return config_from_dict(data, type(config).__name__)


def _match_sizes(tree: dict[str, Any]) -> None:
    side = tree.get("image", {}).get("image_size")
    size = tree.get("preprocess", {}).get("size")
    if side is not None and size is None:
        tree.setdefault("preprocess", {})["size"] = side
    if size is not None and side is None:
        tree.setdefault("image", {})["image_size"] = size


def _merge(data: dict[str, Any], changes: Mapping[str, Any], where: str) -> None:
    check_keys(changes, data, where)
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(data[key], dict):
            if "kind" in value and value["kind"] != data[key].get("kind"):
                data[key] = dict(value)
            else:
                _merge(data[key], value, f"{where}.{key}")
        else:
            data[key] = value


def build(
    config: ModelConfig, *, tokenizer: Tokenizer | None = None, seed: int | None = None
) -> Model:
    """Build a model in training form with fresh weights.

    Args:
        config: what to build.
        tokenizer: attached to a model that reads or writes texts.
        seed: of the weights; None draws from torch's global generator.
    """
    if seed is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for("model", seed))
            return build(config, tokenizer=tokenizer)
    if isinstance(config, CLIPConfig):
        return CLIP(config, tokenizer)
    if isinstance(config, CoCaConfig):
        return CoCa(config, tokenizer)
    if isinstance(config, VLMConfig):
        return VLM(config, tokenizer)
    if isinstance(config, LanguageConfig):
        return LanguageModel(config, tokenizer)
    if tokenizer is not None:
        raise ConfigError("build: a classifier reads no text; leave the tokenizer out.")
    return Classifier(config)


def create_from(
    config: ModelConfig,
    *,
    tokenizer: Tokenizer | None = None,
    seed: int | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Model:
    """Build a model from a named configuration with changes; see `understudy.models.create`."""
    changes = dict(changes or {})
    if tokenizer is not None and isinstance(config, CLIPConfig | CoCaConfig):
        changes["text.vocab_size"] = tokenizer.vocab_size
    if tokenizer is not None and isinstance(config, VLMConfig):
        changes["language.vocab_size"] = tokenizer.vocab_size
    if tokenizer is not None and isinstance(config, LanguageConfig) and config.tokenizer == "own":
        changes["decoder.vocab_size"] = tokenizer.vocab_size
    if changes:
        config = override(config, changes)
    return build(config, tokenizer=tokenizer, seed=seed)
