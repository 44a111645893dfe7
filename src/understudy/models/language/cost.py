"""What reading a prompt and training cost: operations and bytes of a language model, by formula.

arXiv 2412.13303 adds the time of the prefill to that of the vision encoder; these are the numbers
that the time follows. Training is counted per token, as a function of the length of the sequence
that the token is in: attention is what long sequences cost (arXiv 2405.13226, sec. 3).
"""

from __future__ import annotations

from dataclasses import dataclass

from understudy.core.errors import ConfigError
from understudy.models.language.decoder_config import DecoderConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class LanguageSize:
    """Sizes of a language model that decide the cost of its prompt.

    Attributes:
        name: for people.
        parameters: in all.
        layers: how many.
        width: channels.
        kv_heads: heads of keys and values.
        head_width: channels of a head.
    """

    name: str
    parameters: int
    layers: int
    width: int
    kv_heads: int
    head_width: int


QWEN2_05B = LanguageSize(
    name="qwen2-0.5b", parameters=494_032_768, layers=24, width=896, kv_heads=2, head_width=64
)
QWEN2_15B = LanguageSize(
    name="qwen2-1.5b", parameters=1_543_714_304, layers=28, width=1536, kv_heads=2, head_width=128
)
QWEN2_7B = LanguageSize(
    name="qwen2-7b", parameters=7_615_616_512, layers=28, width=3584, kv_heads=4, head_width=128
)
VICUNA_7B = LanguageSize(
    name="vicuna-7b", parameters=6_738_415_616, layers=32, width=4096, kv_heads=32, head_width=128
)
SIZES = {size.name: size for size in (QWEN2_05B, QWEN2_15B, QWEN2_7B, VICUNA_7B)}
"""The language models of arXiv 2412.13303; parameters as their public configurations count up."""


def prefill_flop(size: LanguageSize, tokens: int) -> float:
    """Return the operations of a prompt: 2 P S + 4 L D S^2.

    Args:
        size: P parameters, L layers, D channels.
        tokens: S, visual and text tokens together.
    """
    _check(tokens)
    return 2.0 * size.parameters * tokens + 4.0 * size.layers * size.width * tokens**2


def kv_bytes(size: LanguageSize, tokens: int, itemsize: int = 2) -> int:
    """Return the bytes of the cached keys and values: 2 L S n_kv d_head bytes.

    Args:
        size: L layers, n_kv heads of d_head channels.
        tokens: S, visual and text tokens together.
        itemsize: bytes of a number.
    """
    _check(tokens)
    return 2 * size.layers * tokens * size.kv_heads * size.head_width * itemsize


def matmul_parameters(config: DecoderConfig) -> int:
    """Return the parameters that multiply each token: all but the embedding table and the gains.

    A tied table counts once, as the head.
    """
    inner, outer = (n * config.head_width for n in (config.num_heads, config.kv_heads))
    layer = config.width * (2 * inner + 2 * outer + 3 * config.ffn_width)
    return config.depth * layer + config.vocab_size * config.width


def training_flop(config: DecoderConfig, length: float, *, causal: bool = True) -> float:
    """Return the operations of training per token: 6 N + 6 L d s.

    Forward is a third of it. N are the parameters that multiply each token; attention compares each
    of s tokens with (s + 1) / 2 others on average, in L layers of d channels.

    Args:
        config: the network.
        length: s, input tokens of a sequence; of several lengths, their token-weighted mean.
        causal: whether the kernel leaves out the masked half; else attention costs 12 L d s.

    References:
        arXiv 2001.08361, sec. 2.1 (6 N per token).
    """
    _check(length)
    attended = config.depth * config.num_heads * config.head_width * length
    return 6.0 * matmul_parameters(config) + (6.0 if causal else 12.0) * attended


def _check(tokens: float) -> None:
    if tokens < 0:
        raise ConfigError(f"tokens: expected at least 0, got {tokens}.")
