"""A vision-language model as a folder, with the configuration keys that LLaVA's folders have.

| file | holds |
| --- | --- |
| `config.json` | LLaVA's keys (`mm_vision_tower`, ...) and, under `understudy`, ours |
| `model.safetensors` | weights, configuration and tokenizer; `models.load` reads it alone |
| `tokenizer.json` | the tokenizer, where it is of the tokenizers library |

Nothing in a folder is executed and nothing pickled is opened.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from understudy.core.errors import ConfigError, DataError, ModelError
from understudy.core.files import write_json, write_text
from understudy.models import io
from understudy.models.build import config_from_dict, config_to_dict
from understudy.models.image.mci_sizes import MCI3
from understudy.models.language.hosted import HostedConfig, hosted_config, read_settings
from understudy.models.multimodal.vlm import VLM
from understudy.models.multimodal.vlm_config import VLMConfig, square

TOWERS = {"mobileclip_l": ("fastvithd", MCI3)}
"""Released names of vision towers: `mm_vision_tower` is one of these, `_` and R in pixels."""
LLAVA_KEYS = (
    "mm_vision_tower",
    "mm_hidden_size",
    "mm_projector_type",
    "mm_patch_merge_type",
    "mm_use_im_start_end",
    "mm_use_im_patch_token",
    "mm_vision_select_layer",
    "mm_vision_select_feature",
    "mm_projector_lr",
    "image_aspect_ratio",
    "image_grid_pinpoints",
    "tokenizer_model_max_length",
    "tokenizer_padding_side",
    "unfreeze_mm_vision_tower",
    "tune_mm_mlp_adapter",
    "freeze_mm_mlp_adapter",
    "use_mm_proj",
)
"""Keys of LLaVA's configuration that are not the language model's own."""


def llava_keys(config: VLMConfig, context: int, width: int) -> dict[str, Any]:
    """Return LLaVA's configuration keys of a model.

    Args:
        config: the model's.
        context: tokens of a sequence at most.
        width: channels of a visual token before the projector.
    """
    kind = config.image.kind
    name = "mobileclip_l" if config.image == MCI3 or config.weights else f"understudy_{kind}"
    return {
        "mm_vision_tower": f"{name}_{config.preprocess.size}",
        "mm_hidden_size": width,
        "mm_projector_type": config.projector,
        "mm_patch_merge_type": "flat",
        "image_aspect_ratio": "anyres" if config.pinpoints else "pad",
        "image_grid_pinpoints": [list(p) for p in config.pinpoints] or None,
        "tokenizer_model_max_length": context,
        "tokenizer_padding_side": config.padding,
        "unfreeze_mm_vision_tower": True,
        "tune_mm_mlp_adapter": False,
    }


def tower_of(name: str) -> tuple[str, Any, int]:
    """Return (family, tower configuration, R) of a `mm_vision_tower`.

    Raises:
        ConfigError: no known tower, or its last field is no resolution.
    """
    stem, _, last = name.rpartition("_")
    if stem not in TOWERS:
        raise ConfigError(
            f"mm_vision_tower: '{name}' is not known; expected {' or '.join(TOWERS)}, '_' and the "
            "side of the images in pixels, such as mobileclip_l_1024."
        )
    if not last.isdigit():
        raise ConfigError(f"mm_vision_tower: '{name}' does not end in a resolution in pixels.")
    return (*TOWERS[stem], int(last))


def config_of_keys(settings: Mapping[str, Any], where: str = "config.json") -> VLMConfig:
    """Return the configuration that LLaVA's keys describe, around a Transformers language model.

    Args:
        settings: a `config.json`: LLaVA's keys and the language model's own.
        where: what to call it in errors.

    Raises:
        ConfigError: a key is missing or has a value that is not known.
    """
    for key in ("mm_vision_tower", "mm_projector_type", "model_type"):
        if key not in settings:
            raise ConfigError(f"{where}: missing key '{key}'; it is no LLaVA configuration.")
    family, image, size = tower_of(str(settings["mm_vision_tower"]))
    width = settings.get("mm_hidden_size", image.width)
    if width != image.width:
        raise ConfigError(
            f"{where}: mm_hidden_size is {width}, the tower '{settings['mm_vision_tower']}' gives "
            f"{image.width} channels."
        )
    aspect = settings.get("image_aspect_ratio", "pad")
    if aspect not in ("pad", "anyres"):
        raise ConfigError(
            f"{where}: image_aspect_ratio '{aspect}' is not supported; expected pad or anyres."
        )
    pinpoints = settings.get("image_grid_pinpoints") or ()
    if isinstance(pinpoints, str):
        try:
            pinpoints = json.loads(pinpoints.replace("(", "[").replace(")", "]"))
        except ValueError:
            raise ConfigError(
                f"{where}: image_grid_pinpoints {pinpoints!r} is no list of pairs."
            ) from None
    kind = str(settings["model_type"]).removeprefix("llava_")
    own = {
        k: v
        for k, v in settings.items()
        if k not in LLAVA_KEYS
        and k not in ("model_type", "architectures", "auto_map", "understudy")
    }
    return VLMConfig(
        name=str(settings.get("_name_or_path") or f"fastvlm-{kind}"),
        image=replace(image, image_size=size),
        language=hosted_config(kind, **own),
        preprocess=square(size),
        projector=str(settings["mm_projector_type"]),
        pinpoints=tuple((int(w), int(h)) for w, h in pinpoints) if aspect == "anyres" else (),
        padding=str(settings.get("tokenizer_padding_side", "right")),
        template="qwen2" if kind == "qwen2" else "words",
        context=int(settings.get("tokenizer_model_max_length", 0)),
        weights=family,
    )


def save_folder(model: VLM, folder: str | Path) -> Path:
    """Write a model as a folder; see the top of this file.

    Args:
        model: folded or not.
        folder: files of the same names in it are replaced.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    io.save(model, folder / "model.safetensors")
    language = model.config.language
    own = language.values if isinstance(language, HostedConfig) else {"model_type": "understudy"}
    settings = {
        **own,
        "model_type": f"llava_{own['model_type']}",
        **llava_keys(model.config, model.context, model.image.width),
        "understudy": {"config": config_to_dict(model.config), "folded": model.fold_state},
    }
    write_json(folder / "config.json", settings)
    text = getattr(model.tokenizer, "to_json", lambda: "")()
    found = json.loads(text) if text else {}
    if "tokenizer" in found:
        write_text(folder / "tokenizer.json", json.dumps(found["tokenizer"], ensure_ascii=False))
    return folder


def load_folder(folder: str | Path, *, folded: bool | None = None) -> VLM:
    """Load a model that `save_folder` wrote, in eval mode.

    Args:
        folder: with `config.json` and `model.safetensors`.
        folded: see `understudy.models.load`.

    Raises:
        ConfigError: configuration keys that contradict the weights.
        DataError: a file is missing, or there are only pickled weights.
        ModelError: the weights are of something else.
    """
    folder = Path(folder)
    settings = read_settings(folder)
    file = folder / "model.safetensors"
    if not file.is_file():
        held = sorted(p.name for p in folder.glob("*") if p.suffix in (".bin", ".pt", ".pth"))
        found = (
            f"only pickled weights ({', '.join(held)}), which are not opened" if held else "none"
        )
        raise DataError(f"{folder}: no model.safetensors, {found}.")
    if "understudy" not in settings:
        raise ModelError(
            f"{folder}: config.json is not one of this package; read a released checkpoint with "
            "understudy.models.multimodal.vlm_released.load_released."
        )
    config = config_from_dict(settings["understudy"]["config"], str(folder / "config.json"))
    model = io.load(file, folded=folded)
    if not isinstance(model, VLM) or not isinstance(config, VLMConfig):
        raise ModelError(f"{folder}: holds no vision-language model.")
    expected = llava_keys(config, model.context, model.image.width)
    for key in ("mm_hidden_size", "mm_projector_type", "mm_vision_tower"):
        if settings.get(key) != expected[key] or config != model.config:
            raise ConfigError(
                f"{folder}: config.json has {key} {settings.get(key)!r}, the weights' own "
                f"configuration {expected[key]!r}; the files are of two models."
            )
    return model
