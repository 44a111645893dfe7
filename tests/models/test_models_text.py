"""Text towers: what each token may see, and what is pooled."""

import pytest
import torch
from shaking import shake

from understudy.core.errors import ConfigError
from understudy.models.attention import SelfAttention
from understudy.models.layers import LayerNormFP32
from understudy.models.text.transformer import TextConfig, TextTower

SMALL = {"vocab_size": 100, "context_length": 12, "width": 32, "depth": 2, "num_heads": 4}


def tower(**changes):
    torch.manual_seed(0)
    return shake(TextTower(TextConfig(**{**SMALL, **changes}), 16), 1)


def rows():
    tokens = torch.zeros(3, 12, dtype=torch.int64)
    for i, length in enumerate((4, 7, 12)):
        tokens[i, :length] = torch.arange(1, length + 1)
        tokens[i, 0], tokens[i, length - 1] = 98, 99
    return tokens


@torch.no_grad()
def test_causal_tower_ignores_what_follows_the_end():
    model, tokens = tower(causal=True), rows()
    changed = tokens.clone()
    changed[0, 4:] = 50
    changed[1, 8:] = 60
    assert torch.equal(model(tokens), model(changed))
    changed[0, 2] = 51
    assert not torch.allclose(model(tokens)[0], model(changed)[0])


@pytest.mark.parametrize("variant", ["base", "mct"])
@torch.no_grad()
def test_other_towers_attend_to_padding_as_released(variant):
    model, tokens = tower(variant=variant), rows()
    changed = tokens.clone()
    changed[0, 4:] = 50
    out, other = model(tokens), model(changed)
    assert not torch.allclose(out[0], other[0], atol=1e-4)
    assert torch.equal(out[2], other[2])


@torch.no_grad()
def test_the_largest_id_is_pooled():
    model, tokens = tower(), rows()
    states = model.hidden(tokens)
    expected = torch.stack([states[0, 3], states[1, 6], states[2, 11]])
    assert torch.equal(model.features(tokens), expected)
    assert torch.equal(model(tokens), model.head(expected))


@torch.no_grad()
def test_attention_against_the_formula():
    torch.manual_seed(0)
    layer, x = SelfAttention(8, 2, causal=True), torch.randn(2, 5, 8)
    query, key, value = layer.qkv(x).chunk(3, -1)
    heads = []
    for part in range(2):
        q, k, v = (t[..., part * 4 : part * 4 + 4] for t in (query, key, value))
        scores = q @ k.transpose(1, 2) / 2.0
        scores = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), float("-inf"))
        heads.append(scores.softmax(-1) @ v)
    expected = layer.proj(torch.cat(heads, -1))
    assert torch.allclose(layer(x), expected, atol=1e-6)


@torch.no_grad()
def test_norm_is_computed_in_float32():
    norm = LayerNormFP32(64)
    x = torch.randn(4, 64).mul(30).add(200).bfloat16()
    expected = torch.nn.functional.layer_norm(x.float(), (64,)).bfloat16()
    for module in (norm, LayerNormFP32(64).bfloat16()):
        out = module(x)
        assert out.dtype == torch.bfloat16
        assert torch.equal(out, expected)


@torch.no_grad()
def test_shorter_rows_use_the_first_positions():
    model, tokens = tower(causal=True), rows()[:1]
    assert torch.allclose(model(tokens), model(tokens[:, :5]), atol=1e-6)


@torch.no_grad()
def test_initial_weights():
    torch.manual_seed(0)
    model = TextTower(TextConfig(vocab_size=2000, width=128, num_heads=4, depth=1), 64)
    assert model.tokens.weight.std() == pytest.approx(128**-0.5, rel=0.05)
    assert model.positions.std() == pytest.approx(128**-0.5, rel=0.05)
    assert model.blocks[0].fc1.weight.std() == pytest.approx(0.02, rel=0.05)
    assert not model.blocks[0].fc1.bias.any()


def test_bad_configurations():
    with pytest.raises(ConfigError, match="5 does not divide width 512"):
        TextConfig(num_heads=5)
    with pytest.raises(ConfigError, match="'mct' looks both ways"):
        TextConfig(variant="mct", causal=True)
    with pytest.raises(ConfigError, match="10 is even"):
        TextConfig(mixer_kernel=10)
    with pytest.raises(ConfigError, match=r"variant: 'mtc' is not one of base, mct"):
        TextConfig(variant="mtc")
