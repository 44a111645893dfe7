"""Networks: image, text and multimodal towers, exact folding, weights in one file.

    >>> from understudy import models
    >>> model = models.create("cnn-tiny", num_classes=3)     # doctest: +SKIP
    >>> models.save(model.eval().fold(), "tiny.safetensors") # doctest: +SKIP

Importing this room costs nothing: torch is imported when a model is made.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.core.lazy import LazyTable

if TYPE_CHECKING:
    from understudy.models.base import Model
    from understudy.models.build import ModelConfig
    from understudy.models.text.tokenizer import Tokenizer

MODELS = LazyTable(
    "model",
    {
        name: f"understudy.models.catalog:{name.replace('-', '_')}"
        for name in (
            "mobileclip-s0",
            "mobileclip-s1",
            "mobileclip-s2",
            "mobileclip-b",
            "mobileclip2-s0",
            "mobileclip2-s2",
            "mobileclip2-b",
            "mobileclip2-s3",
            "mobileclip2-s4",
            "mobileclip2-l",
            "mobileclip-nano",
            "clip-conv-nano",
            "clip-teacher-a",
            "clip-teacher-b",
            "coca-vit-l14",
            "coca-nano",
            "mci0",
            "mci1",
            "mci2",
            "mci3",
            "mci4",
            "fastvithd",
            "naive-4-stage",
            "mci-nano",
            "mci-nano5",
            "mci-nano4",
            "naive-nano",
            "vit-nano16",
            "cnn-teacher",
            "cnn-small",
            "cnn-tiny",
        )
    }
    | {
        name: f"understudy.models.catalog_embedders:{name.replace('-', '_')}"
        for name in (
            "resnet18-128",
            "resnet50-128",
            "resnet101-128",
            "digits-mlp-8",
            "digits-mlp-32",
            "digits-mlp-16",
        )
    }
    | {
        "fastvlm-nano": "understudy.models.multimodal.vlm_config:fastvlm_nano",
    }
    | {
        name: f"understudy.models.language.language_config:{name.replace('-', '_')}"
        for name in (
            "openlm-160m",
            "openlm-410m",
            "dclm-400m",
            "openlm-1b",
            "openlm-3b",
            "openlm-7b",
            "openlm-nano",
            "openlm-micro",
            "llama-nano",
        )
    },
)
"""Model names; each stands for a function that returns its configuration."""


def config(name: str, **overrides: Any) -> ModelConfig:
    """Return the configuration of a named model.

    Args:
        name: a key of `MODELS`.
        **overrides: values to replace, nested (`image={"drop_path": 0.1}`) or with dots.

    Raises:
        ConfigError: no such name, or no such key.
    """
    from understudy.models.build import override

    found = MODELS.load(name)()
    return override(found, overrides) if overrides else found


def create(
    name: str,
    *,
    seed: int | None = None,
    tokenizer: Tokenizer | None = None,
    **overrides: Any,
) -> Model:
    """Make a model with fresh weights.

    Args:
        name: a key of `MODELS`.
        seed: of the weights; None draws from torch's global generator.
        tokenizer: for CLIP and language models; they take its vocabulary size, unless they are
            made for a published tokenizer.
        **overrides: values of the configuration to replace, nested or with dots, such as
            `num_classes=10`, `text={"context_length": 32}`, `**{"image.drop_path": 0.1}`.

    Returns:
        a `CLIP`, a `Classifier`, a `LanguageModel`, ..., in training mode.

    Raises:
        ConfigError: no such name, or no such key.
    """
    from understudy.models.build import create_from

    found = MODELS.load(name)()
    return create_from(found, tokenizer=tokenizer, seed=seed, changes=overrides)


def load(path: str | Path, *, folded: bool | None = None) -> Model:
    """Load a model that `save` wrote; see `understudy.models.io.load`."""
    from understudy.models import io

    return io.load(path, folded=folded)


def save(model: Model, path: str | Path, extra: dict[str, Any] | None = None) -> Path:
    """Save a model into one safetensors file; see `understudy.models.io.save`."""
    from understudy.models import io

    return io.save(model, path, extra)


def config_of(path: str | Path) -> dict[str, Any]:
    """Return what a weights file says about itself; see `understudy.models.io.config_of`."""
    from understudy.models import io

    return io.config_of(path)
