"""Llama's `config.json` to a decoder's configuration and back.

Only what means the same in both is carried over; everything else is refused by name, because a
model that is read with one option ignored is another model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from understudy.core.errors import ModelError
from understudy.models.language.decoder_config import DecoderConfig
from understudy.models.language.rope import RopeScaling, ntk_base, yarn_attention

_FIXED = {
    "attention_bias": False,
    "mlp_bias": False,
    "hidden_act": "silu",
    "partial_rotary_factor": 1.0,
    "quantization_config": None,
    "auto_map": None,
}
"""Options that a decoder has in one way only."""


def decoder_from_llama(settings: Mapping[str, Any], where: str) -> DecoderConfig:
    """Return the configuration that a `config.json` describes.

    Args:
        settings: its content; rotary options as Transformers 4 writes them (`rope_theta`,
            `rope_scaling`) or as 5 does (`rope_parameters`).
        where: what to call it in errors.

    Raises:
        ModelError: another type of model, a missing size, or an option that the decoder lacks.
    """
    kind = settings.get("model_type")
    if kind != "llama":
        raise ModelError(
            f"{where}: model_type '{kind}'; expected 'llama'. Other Transformers models run as "
            "they are: see understudy.models.language.hosted.load_hosted."
        )
    for name, only in _FIXED.items():
        if settings.get(name, only) not in (only, None):
            raise ModelError(
                f"{where}: {name}={settings[name]!r} has no place in this decoder, which has "
                f"{only!r}; load it with understudy.models.language.hosted.load_hosted."
            )
    try:
        width, heads = int(settings["hidden_size"]), int(settings["num_attention_heads"])
        vocab_size, depth = int(settings["vocab_size"]), int(settings["num_hidden_layers"])
        hidden = int(settings["intermediate_size"])
    except KeyError as error:
        raise ModelError(f"{where}: no {error} in its config.json.") from None
    context = int(settings.get("max_position_embeddings") or 2048)
    rope = dict(settings.get("rope_scaling") or settings.get("rope_parameters") or {})
    head_dim = int(settings.get("head_dim") or width // heads)
    return DecoderConfig(
        vocab_size=vocab_size,
        context=context,
        width=width,
        depth=depth,
        num_heads=heads,
        hidden=hidden,
        num_kv_heads=int(settings.get("num_key_value_heads") or heads),
        norm_eps=float(settings.get("rms_norm_eps", 1e-6)),
        rope_base=float(rope.get("rope_theta") or settings.get("rope_theta") or 10_000.0),
        tied=bool(settings.get("tie_word_embeddings", False)),
        head_dim=0 if head_dim * heads == width else head_dim,
        rope_scaling=_scaling(rope, context, where),
        init="fan-in",
    )


def _scaling(rope: Mapping[str, Any], context: int, where: str) -> RopeScaling | None:
    kind = rope.get("rope_type", rope.get("type", "default"))
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise ModelError(f"{where}: positions that turn a part of each head are not supported.")
    if kind == "default":
        return None
    original = int(rope.get("original_max_position_embeddings") or context)
    factor = float(rope.get("factor") or context / original)
    if kind == "linear":
        return RopeScaling(kind="linear", factor=factor)
    if kind == "llama3":
        return RopeScaling(
            kind="llama3",
            factor=factor,
            original_context=original,
            low_frequency=float(rope["low_freq_factor"]),
            high_frequency=float(rope["high_freq_factor"]),
        )
    if kind == "yarn":
        return RopeScaling(
            kind="yarn",
            factor=factor,
            original_context=original,
            attention_factor=_attention_factor(rope, factor),
            beta_fast=float(rope.get("beta_fast") or 32),
            beta_slow=float(rope.get("beta_slow") or 1),
            truncate=bool(rope.get("truncate", True)),
        )
    raise ModelError(
        f"{where}: rotary positions of type '{kind}' are not supported (default, linear, yarn and "
        "llama3 are); load it with understudy.models.language.hosted.load_hosted."
    )


def _attention_factor(rope: Mapping[str, Any], factor: float) -> float:
    """Return YaRN's factor where a configuration sets it; 0 leaves it to the formula."""
    if rope.get("attention_factor"):
        return float(rope["attention_factor"])
    above, below = rope.get("mscale"), rope.get("mscale_all_dim")
    if above and below:  # 0.1 m ln(factor) + 1, for either m
        slope = yarn_attention(factor) - 1
        return (slope * above + 1) / (slope * below + 1)
    return 0.0


def obstacles(config: DecoderConfig) -> list[str]:
    """Return the options of a decoder that no Llama checkpoint can express, as `name=value`."""
    found = []
    if config.norm != "rms":
        found.append(f"norm='{config.norm}'")
    if config.qk_norm:
        found.append("qk_norm=True")
    return found


def llama_from_decoder(config: DecoderConfig) -> dict[str, Any]:
    """Return the `config.json` of a decoder without obstacles, as Transformers 4 and 5 read it."""
    base, scaling = config.rope_base, config.rope_scaling
    if scaling is not None and scaling.kind == "ntk":  # it is a base, and nothing else
        base, scaling = ntk_base(config.head_width, base, scaling.factor), None
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "intermediate_size": config.ffn_width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_width,
        "hidden_act": "silu",
        "max_position_embeddings": config.context,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": base,
        "rope_scaling": None if scaling is None else _rope_settings(scaling),
        "tie_word_embeddings": config.tied,
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
    }


def _rope_settings(scaling: RopeScaling) -> dict[str, Any]:
    found: dict[str, Any] = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind in ("yarn", "llama3"):
        found["original_max_position_embeddings"] = scaling.original_context
    if scaling.kind == "llama3":
        found["low_freq_factor"] = scaling.low_frequency
        found["high_freq_factor"] = scaling.high_frequency
    if scaling.kind == "yarn":
        found |= {
            "beta_fast": scaling.beta_fast,
            "beta_slow": scaling.beta_slow,
            "truncate": scaling.truncate,
            "attention_factor": scaling.attention_factor or yarn_attention(scaling.factor),
        }
    return found
