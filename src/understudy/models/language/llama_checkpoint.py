"""Language models as folders that Transformers and its peers read, and the way back.

    >>> from understudy.models.language.llama_checkpoint import load_llama, save_llama
    >>> save_llama(model, "out")                    # doctest: +SKIP
    >>> again = load_llama("out")                   # doctest: +SKIP

A folder holds `config.json`, `model.safetensors`, `generation_config.json` and, with a tokenizer,
`tokenizer.json` and `tokenizer_config.json`. Only Llama's layers have such a form: a decoder with
layer norms or normed queries and keys is refused. Both sides turn the two halves of a head, so that
no weight is reordered (the format of llama2.c turns neighbouring channels and is).

Weights are read from safetensors only, and code that a folder brings is never run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from understudy.core.config import check_choice
from understudy.core.errors import DataError, ModelError
from understudy.core.files import atomic_path, read_json, write_json, write_text
from understudy.models.language.coder import JsonCoder
from understudy.models.language.decoder_config import DecoderConfig
from understudy.models.language.hosted import read_settings
from understudy.models.language.language_config import LanguageConfig
from understudy.models.language.language_model import LanguageModel
from understudy.models.language.llama_config import (
    decoder_from_llama,
    llama_from_decoder,
    obstacles,
)

DTYPES = ("float32", "bfloat16", "float16")
_LAYER = {
    "attention_norm": "input_layernorm",
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "out": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}


def llama_names(config: DecoderConfig) -> dict[str, str]:
    """Return {name of a tensor in `Decoder`: its name in a Llama checkpoint}."""
    names = {"tokens.weight": "model.embed_tokens.weight", "norm.weight": "model.norm.weight"}
    for i in range(config.depth):
        for ours, theirs in _LAYER.items():
            names[f"layers.{i}.{ours}.weight"] = f"model.layers.{i}.{theirs}.weight"
    if not config.tied:
        names["head.weight"] = "lm_head.weight"
    return names


def load_llama(folder: str | Path, *, name: str = "") -> LanguageModel:
    """Load a folder of Llama type, in eval mode, in float32.

    Args:
        folder: with `config.json` and safetensors (one file or several); its `tokenizer.json` is
            attached if there is one and `tokenizer_config.json` names an end token.
        name: of the model; empty for the folder's.

    Raises:
        DataError: no such folder, or only pickled weights in it.
        ModelError: another type of model, an option that the decoder lacks, or tensors that do not
            fit the configuration.
    """
    folder = Path(folder)
    config = decoder_from_llama(read_settings(folder), str(folder))
    state = _read_weights(folder, config)
    with torch.device("meta"):
        model = LanguageModel(LanguageConfig(name=name or folder.resolve().name, decoder=config))
    for key, own in model.decoder.state_dict().items():
        if state[key].shape != own.shape:
            raise ModelError(
                f"{folder}: {llama_names(config)[key]} has shape {list(state[key].shape)}, its "
                f"config.json makes it {list(own.shape)}."
            )
    model.decoder.load_state_dict(state, assign=True)
    tokenizer = _read_tokenizer(folder)
    if tokenizer is not None:
        model.set_tokenizer(tokenizer)
    return model.requires_grad_(True).eval()


def _read_weights(folder: Path, config: DecoderConfig) -> dict[str, Tensor]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise DataError(
            f"{folder}: no safetensors; pickled weights (.bin, .pt) are not opened. Convert them "
            "first (save_pretrained of a current Transformers writes safetensors)."
        )
    from safetensors.torch import load_file

    found: dict[str, Tensor] = {}
    for file in files:
        found |= load_file(file)
    names = llama_names(config)
    missing = sorted(theirs for theirs in names.values() if theirs not in found)
    # tables of rotary positions of older versions are computed here; a tied head is the table
    known = {*names.values(), "lm_head.weight"}
    unknown = sorted(n for n in found if n not in known and not n.endswith("rotary_emb.inv_freq"))
    if missing or unknown:
        raise ModelError(
            f"{folder}: {len(missing)} tensors missing and {len(unknown)} unknown (first: "
            f"{(missing or unknown)[0]}); the weights are of another model than config.json."
        )
    # a copy: tensors of a file lie at any address
    return {ours: found[theirs].float().clone() for ours, theirs in names.items()}


def _read_tokenizer(folder: Path) -> JsonCoder | None:
    if not (folder / "tokenizer.json").is_file():
        return None
    settings: dict[str, Any] = {}
    if (folder / "tokenizer_config.json").is_file():
        settings = read_json(folder / "tokenizer_config.json")
    start = settings.get("bos_token")
    start = start.get("content", "") if isinstance(start, dict) else str(start or "")
    return JsonCoder.from_folder(folder, start=start)


def save_llama(
    model: LanguageModel,
    folder: str | Path,
    *,
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    tokenizer: bool = True,
) -> Path:
    """Write a folder that `transformers.AutoModelForCausalLM.from_pretrained` loads.

    Args:
        model: with Llama's layers (`norm="rms"`, `qk_norm=False`).
        folder: where to; files in it are replaced one by one, the weights last.
        dtype: of the stored weights.
        tokenizer: also write the model's tokenizer.

    Returns:
        the folder.

    Raises:
        ModelError: layers that Llama has not, or a tokenizer that is not of the tokenizers library.
    """
    from safetensors.torch import save_file

    check_choice(dtype, DTYPES, "save_llama.dtype")
    config, folder = model.config.decoder, Path(folder)
    reasons = obstacles(config)
    if reasons:
        raise ModelError(
            f"{model.config.name}: no exact Transformers class exists for {' and '.join(reasons)}; "
            "train a Llama-type model (norm='rms', qk_norm=False, such as llama-nano) to export "
            "it, or keep this one as this package's safetensors (models.save)."
        )
    coder = model.tokenizer if tokenizer else None
    if coder is not None and not isinstance(coder, JsonCoder):
        raise ModelError(
            f"{model.config.name}: its tokenizer ({type(coder).__name__}) has no tokenizer.json "
            "form; use one of the tokenizers library (JsonCoder), or save with tokenizer=False."
        )
    ends = {
        "bos_token_id": None if coder is None else coder.start_id,
        "eos_token_id": None if coder is None else coder.end_id,
    }
    settings = {**llama_from_decoder(config), **ends, "torch_dtype": dtype}
    write_json(folder / "config.json", settings)
    write_json(folder / "generation_config.json", {**ends, "do_sample": False})
    if coder is not None:
        write_text(folder / "tokenizer.json", coder.library_json)
        write_json(folder / "tokenizer_config.json", _tokenizer_settings(coder, config.context))
    kept = getattr(torch, dtype)
    state = model.decoder.state_dict()
    tensors = {
        theirs: state[ours].detach().to("cpu", kept).contiguous()
        for ours, theirs in llama_names(config).items()
    }
    with atomic_path(folder / "model.safetensors") as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    return folder


def _tokenizer_settings(coder: JsonCoder, context: int) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": coder.start_token or None,
        "eos_token": coder.end_token,
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        "add_bos_token": False,
        "add_eos_token": False,
    }
