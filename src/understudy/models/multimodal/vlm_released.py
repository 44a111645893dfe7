"""Read a released FastVLM folder: LLaVA's configuration keys, tensors from safetensors alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from understudy.core.errors import DataError, ModelError
from understudy.models.convert_vlm import load_vision_tower
from understudy.models.language.coder import JsonCoder
from understudy.models.language.hosted import Hosted, read_settings
from understudy.models.multimodal.vision_tower import Projector
from understudy.models.multimodal.vlm import VLM
from understudy.models.multimodal.vlm_io import config_of_keys
from understudy.models.multimodal.vlm_parts import assemble

_PROJECTOR = "mm_projector."


def load_released(folder: str | Path) -> VLM:
    """Load a released checkpoint, in eval mode: tower, projector, language model, tokenizer.

    Args:
        folder: with `config.json` and safetensors; `tokenizer.json` is read where there is one.

    Raises:
        ConfigError: configuration keys that are missing or not known.
        DataError: only pickled weights, which are not opened.
        ModelError: tensors that do not fit; a projector of another width is named.
    """
    folder = Path(folder)
    config = config_of_keys(read_settings(folder), str(folder / "config.json"))
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise DataError(
            f"{folder}: no safetensors; pickled weights are not opened. Convert them first."
        )
    tower: Any = load_vision_tower(folder, config.weights, preprocess=config.preprocess)
    rest = _rest(files)
    language = Hosted(config.language)  # type: ignore[arg-type]
    projector = _projector(rest, folder)
    _fill(language, rest, folder)
    has_tokenizer = (folder / "tokenizer.json").is_file()
    tokenizer = JsonCoder.from_folder(folder) if has_tokenizer else None
    state = {k: v for k, v in tower.image.state_dict().items() if not k.startswith("head.")}
    model = assemble(config, language, tokenizer, (state, tower.fold_state))
    model.set_projector(projector)
    return model.eval()


def _rest(files: list[Path]) -> dict[str, Tensor]:
    """Return all tensors but the vision tower's, in float32."""
    from safetensors import safe_open

    found: dict[str, Tensor] = {}
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            for key in tensors.keys():
                if "vision_tower." not in key:
                    found[key] = tensors.get_tensor(key).float()
    return found


def _projector(state: dict[str, Tensor], folder: Path) -> Projector:
    mine = {k.split(_PROJECTOR)[1]: state.pop(k) for k in [k for k in state if _PROJECTOR in k]}
    weights = [mine[k] for k in sorted(mine) if k.endswith("weight")]
    if not weights:
        raise ModelError(f"{folder}: no tensors of a projector ('...mm_projector.0.weight').")
    kind = "linear" if len(weights) == 1 else "mlp2x_gelu"
    made = Projector(weights[0].shape[1], weights[-1].shape[0], kind)
    renamed = {f"layers.{k}" if k[0].isdigit() else f"layers.0.{k}": v for k, v in mine.items()}
    if renamed.keys() != made.state_dict().keys():
        raise ModelError(f"{folder}: the projector's tensors {sorted(mine)} are not {kind}'s.")
    made.load_state_dict(renamed)
    return made


def _fill(language: Hosted, state: dict[str, Tensor], folder: Path) -> None:
    found = language.load_state_dict({f"model.{k}": v for k, v in state.items()}, strict=False)
    missing = [name for name in found.missing_keys if name not in language.tied_names()]
    if missing or found.unexpected_keys:
        first = (missing or found.unexpected_keys)[0]
        raise ModelError(
            f"{folder}: {len(missing)} tensors of the language model missing, "
            f"{len(found.unexpected_keys)} unknown (first: {first})."
        )
