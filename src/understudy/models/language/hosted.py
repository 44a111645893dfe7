"""Any Transformers causal language model behind the interface of `Decoder`.

The library is imported when such a model is made or loaded. Weights are read from safetensors only
and code that a folder brings is never run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from understudy.core.errors import ConfigError, DataError, ModelError
from understudy.core.lazy import require


@dataclass(frozen=True, kw_only=True, slots=True)
class HostedConfig:
    """Describe a Transformers causal language model.

    Attributes:
        kind: always `"transformers"`.
        settings: the model's `config.json` as JSON text, `model_type` among them.
    """

    kind: Literal["transformers"] = "transformers"
    settings: str

    def __post_init__(self) -> None:
        try:
            found = json.loads(self.settings)
        except ValueError as error:
            raise ConfigError(f"HostedConfig.settings: not valid JSON ({error}).") from None
        if not isinstance(found, dict) or "model_type" not in found:
            raise ConfigError("HostedConfig.settings: expected an object with a 'model_type'.")

    @property
    def values(self) -> dict[str, Any]:
        """The settings as a dictionary."""
        return json.loads(self.settings)


def hosted_config(model_type: str, **settings: Any) -> HostedConfig:
    """Return the configuration of a model of a family: `hosted_config("qwen2", hidden_size=64)`."""
    return HostedConfig(settings=json.dumps({"model_type": model_type, **settings}))


def _library_config(config: HostedConfig) -> Any:
    library = require("transformers", "text", "A Transformers language model")
    values = config.values
    kind = values.pop("model_type")
    try:
        return library.AutoConfig.for_model(kind, **values)
    except (KeyError, ValueError) as error:
        detail = str(error).splitlines()[0]
        raise ConfigError(
            f"language: this Transformers knows no model of type '{kind}' ({detail})."
        ) from None


class Hosted(nn.Module):
    """A Transformers causal language model.

    Args:
        config: what to build, with fresh weights.
    """

    def __init__(self, config: HostedConfig) -> None:
        super().__init__()
        self.config = config
        library = require("transformers", "text", "A Transformers language model")
        # rotary tables are buffers that weights files leave out: make them for real
        with torch.device("cpu"):
            self.model = library.AutoModelForCausalLM.from_config(
                _library_config(config), dtype=torch.float32
            )
        self.eval()
        self._register_state_dict_hook(_drop_tied)
        self._register_load_state_dict_pre_hook(self._restore_tied)
        self.register_load_state_dict_post_hook(_tie_again)

    @property
    def settings(self) -> Any:
        """The library's own configuration."""
        return self.model.config

    @property
    def width(self) -> int:
        """Channels of the embeddings."""
        return int(self.settings.hidden_size)

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return int(self.settings.vocab_size)

    @property
    def context(self) -> int:
        """Tokens a sequence may have."""
        return int(self.settings.max_position_embeddings)

    def tied_names(self) -> dict[str, str]:
        """Return {name of a tied tensor: the one that it equals}."""
        seen: dict[int, str] = {}
        tied = {}
        for name, parameter in self.named_parameters(remove_duplicate=False):
            first = seen.setdefault(id(parameter), name)
            if first != name:
                tied[name] = first
        return tied

    def _restore_tied(self, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
        for name, first in self.tied_names().items():
            if prefix + name not in state and prefix + first in state:
                state[prefix + name] = state[prefix + first]

    def embed(self, ids: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape width"]:
        """Return token embeddings."""
        return self.model.get_input_embeddings()(ids)

    def new_cache(self) -> Any:
        """Return an empty cache of the library."""
        library = require("transformers", "text", "A Transformers language model")
        return library.DynamicCache(config=self.settings)

    def forward(
        self,
        embedded: Float[Tensor, "rows length width"],
        valid: Bool[Tensor, "rows keys"] | None = None,
        positions: Int[Tensor, "rows length"] | None = None,
        cache: Any = None,
        last: Int[Tensor, " rows"] | None = None,
    ) -> Tensor:
        """Return logits; see `Decoder.forward`."""
        out = self.model(
            inputs_embeds=embedded,
            attention_mask=None if valid is None else valid.long(),
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
        )
        if last is None:
            return out.logits
        return out.logits[torch.arange(len(embedded), device=embedded.device), last]


def _drop_tied(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    assert isinstance(module, Hosted)
    for name in module.tied_names():
        state.pop(prefix + name, None)


def _tie_again(module: nn.Module, _: Any) -> None:
    # assigning tensors makes a parameter of each name
    assert isinstance(module, Hosted)
    module.model.tie_weights()


def load_hosted(folder: str | Path) -> Hosted:
    """Load a Transformers causal language model from a local folder, in eval mode.

    Args:
        folder: with `config.json` and safetensors.

    Raises:
        DataError: there is no such folder, or only pickled weights in it.
        ModelError: the folder asks for code of its own, or its tensors do not fit.
    """
    folder = Path(folder)
    settings = read_settings(folder)
    if "auto_map" in settings:
        raise ModelError(
            f"{folder}: its configuration names code of its own (auto_map), which is not run; use "
            "a model whose code is part of Transformers."
        )
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise DataError(
            f"{folder}: no safetensors; pickled weights (.bin, .pt) are not opened. Convert them "
            "first (save_pretrained of a current Transformers writes safetensors)."
        )
    from safetensors.torch import load_file

    model = Hosted(HostedConfig(settings=json.dumps(settings)))
    state = {f"model.{k}": v.float() for file in files for k, v in load_file(file).items()}
    found = model.load_state_dict(state, strict=False)
    missing = [name for name in found.missing_keys if name not in model.tied_names()]
    if missing or found.unexpected_keys:
        first = (missing or found.unexpected_keys)[0]
        raise ModelError(
            f"{folder}: {len(missing)} tensors missing and {len(found.unexpected_keys)} unknown "
            f"(first: {first}); the weights are of another model than config.json."
        )
    return model.eval()


def read_settings(folder: Path) -> dict[str, Any]:
    """Return a folder's `config.json`.

    Raises:
        DataError: it is missing or is not an object.
    """
    from understudy.core.files import read_json

    found = read_json(folder / "config.json")
    if not isinstance(found, dict):
        raise DataError(f"{folder / 'config.json'}: expected an object.")
    return found
