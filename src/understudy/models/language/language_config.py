"""What a language model looks like, and the named sizes.

Widths, depths and heads of OpenLM's configurations (mlfoundations/open_lm, `model_configs`), as
DataComp-LM (arXiv 2406.11794, table 10) and Dataset Decomposition (arXiv 2405.13226, app. C) train
them; their vocabulary is that of the GPT-NeoX tokenizer, padded to 50,432 ids.
"""

from __future__ import annotations

from dataclasses import dataclass

from understudy.core.errors import ConfigError
from understudy.models.language.decoder_config import DecoderConfig

NEOX_VOCABULARY = 50_432
"""Ids of the GPT-NeoX tokenizer, up to a multiple of 256."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageConfig:
    """Describe a causal language model.

    Attributes:
        name: a name for people and reports.
        decoder: the network.
        tokenizer: `"own"` for one that comes with the model and decides its vocabulary size; else
            the name of a published one, whose (padded) vocabulary size is `decoder.vocab_size`.
    """

    name: str
    decoder: DecoderConfig
    tokenizer: str = "own"

    def __post_init__(self) -> None:
        if not self.name or not self.tokenizer:
            raise ConfigError(
                f"LanguageConfig: expected a name and a tokenizer, got '{self.name}' and "
                f"'{self.tokenizer}'."
            )


def openlm_decoder(
    width: int, depth: int, num_heads: int, *, context: int = 2048, rope_base: float = 10_000.0
) -> DecoderConfig:
    """Return an OpenLM decoder: layer norms without bias, normed queries and keys, untied head."""
    return DecoderConfig(
        vocab_size=NEOX_VOCABULARY,
        context=context,
        width=width,
        depth=depth,
        num_heads=num_heads,
        ffn_multiple=256,
        rope_base=rope_base,
        tied=False,
        norm="layer",
        qk_norm=True,
        init="fan-in",
    )


def _openlm(name: str, decoder: DecoderConfig) -> LanguageConfig:
    return LanguageConfig(name=name, decoder=decoder, tokenizer="gpt-neox-20b")


def openlm_160m() -> LanguageConfig:
    """12 layers of 768 channels, 12 heads: 162,435,840 parameters."""
    return _openlm("openlm-160m", openlm_decoder(768, 12, 12, context=8192, rope_base=1e5))


def openlm_410m() -> LanguageConfig:
    """24 layers of 1,024 channels, 16 heads: 411,665,408 parameters."""
    return _openlm("openlm-410m", openlm_decoder(1024, 24, 16, context=8192, rope_base=1e5))


def dclm_400m() -> LanguageConfig:
    """24 layers of 1,024 channels, 8 heads: 411,665,408 parameters, the 400M-1x scale."""
    return _openlm("dclm-400m", openlm_decoder(1024, 24, 8))


def openlm_1b() -> LanguageConfig:
    """24 layers of 2,048 channels, 16 heads: 1,439,893,504 parameters."""
    return _openlm("openlm-1b", openlm_decoder(2048, 24, 16))


def openlm_3b() -> LanguageConfig:
    """32 layers of 2,560 channels, 32 heads: 2,796,096,000 parameters."""
    return _openlm("openlm-3b", openlm_decoder(2560, 32, 32))


def openlm_7b() -> LanguageConfig:
    """32 layers of 4,096 channels, 32 heads: 6,889,672,704 parameters."""
    return _openlm("openlm-7b", openlm_decoder(4096, 32, 32))


def openlm_nano() -> LanguageConfig:
    """4 layers of 128 channels, 4 heads, 1,024 tokens: for a laptop's processor."""
    return LanguageConfig(
        name="openlm-nano",
        decoder=DecoderConfig(
            vocab_size=4096, context=1024, width=128, depth=4, num_heads=4, ffn_multiple=64,
            rope_base=1e5, tied=False, norm="layer", qk_norm=True, init="fan-in",
        ),
    )  # fmt: skip


def openlm_micro() -> LanguageConfig:
    """2 layers of 32 channels, 2 heads, 128 tokens: for tests."""
    return LanguageConfig(
        name="openlm-micro",
        decoder=DecoderConfig(
            vocab_size=256, context=128, width=32, depth=2, num_heads=2, rope_base=1e5,
            tied=False, norm="layer", qk_norm=True, init="fan-in",
        ),
    )  # fmt: skip


def llama_nano() -> LanguageConfig:
    """4 layers of 128 channels, 4 heads, 1,024 tokens, Llama's layers: other tools can read it."""
    return LanguageConfig(
        name="llama-nano",
        decoder=DecoderConfig(
            vocab_size=4096, context=1024, width=128, depth=4, num_heads=4, ffn_multiple=64,
            rope_base=1e5, tied=False, init="fan-in",
        ),
    )  # fmt: skip
