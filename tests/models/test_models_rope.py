"""Rotary positions: turning, and each scaling against Transformers' own functions."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError
from understudy.models.language.rope import (
    RopeScaling,
    frequencies,
    ntk_base,
    rotate,
    rotations,
    turned,
    yarn_attention,
)


def theirs(kind, width, base, context, seq_len=None, **options):
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = LlamaConfig(
        hidden_size=width * 2,
        num_attention_heads=2,
        max_position_embeddings=context,
        rope_parameters={"rope_type": kind, "rope_theta": base, **options},
    )
    return ROPE_INIT_FUNCTIONS[kind](config, "cpu", seq_len=seq_len)


def same(scaling, width, base, wanted):
    found, size = frequencies(width, base, scaling)
    assert torch.allclose(found, wanted[0], rtol=1e-6, atol=0)
    assert size == pytest.approx(wanted[1])


@pytest.mark.parametrize(("width", "base"), [(64, 1e4), (32, 1e5), (128, 5e5)])
def test_frequencies_equal_transformers(width, base):
    for factor in (1.0, 2.0, 8.0):
        same(
            RopeScaling(kind="linear", factor=factor), width, base,
            theirs("linear", width, base, 2048, factor=factor),
        )  # fmt: skip
        # its dynamic rule at length f * context is the fixed rule of factor f
        same(
            RopeScaling(kind="ntk", factor=factor), width, base,
            theirs("dynamic", width, base, 2048, int(2048 * factor), factor=1.0),
        )  # fmt: skip
        original = {"factor": factor, "original_max_position_embeddings": 2048}
        same(
            RopeScaling(kind="yarn", factor=factor, original_context=2048), width, base,
            theirs("yarn", width, base, 4096, **original),
        )  # fmt: skip
        options = {"beta_fast": 16.0, "beta_slow": 2.0, "truncate": False, "attention_factor": 1.5}
        same(
            RopeScaling(kind="yarn", factor=factor, original_context=2048, **options), width, base,
            theirs("yarn", width, base, 4096, **original, **options),
        )  # fmt: skip
        same(
            RopeScaling(kind="llama3", factor=factor, original_context=2048), width, base,
            theirs(
                "llama3", width, base, 4096, **original, low_freq_factor=1.0, high_freq_factor=4.0
            ),
        )  # fmt: skip


def test_what_each_scaling_does_to_the_fastest_and_the_slowest_channel():
    plain, _ = frequencies(64, 1e4)
    assert plain[0] == 1.0
    assert float(plain[-1]) == pytest.approx(1e4 ** (-62 / 64))
    for kind in ("ntk", "yarn", "llama3"):
        found, _ = frequencies(64, 1e4, RopeScaling(kind=kind, factor=4.0, original_context=1024))
        assert float(found[0]) == pytest.approx(1.0)
        assert float(found[-1]) == pytest.approx(float(plain[-1]) / 4, rel=1e-5)
        assert (found <= plain * (1 + 1e-6)).all()
    linear, _ = frequencies(64, 1e4, RopeScaling(kind="linear", factor=4.0))
    assert torch.allclose(linear, plain / 4)
    assert ntk_base(2, 1e4, 4.0) == 1e4
    assert yarn_attention(1.0) == 1.0
    assert yarn_attention(4.0) == pytest.approx(1.1386294)


def test_interpolated_positions_are_the_old_ones_in_between():
    places = torch.arange(32)[None]
    old = rotations(places[:, :8], 16, 1e4)
    new = rotations(places, 16, 1e4, RopeScaling(kind="linear", factor=4.0))
    for a, b in zip(old, new, strict=True):
        assert torch.allclose(a, b[:, :, ::4], atol=1e-6)


def test_turning_equals_transformers_and_its_gradient_turns_back():
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 5, 8, generator=draw, requires_grad=True)
    positions = torch.randint(0, 500, (2, 5), generator=draw)
    cos, sin = rotations(positions, 8, 1e4)
    wide = [torch.cat([part, part], -1)[:, 0] for part in (cos, sin)]
    wanted, _ = apply_rotary_pos_emb(x, x, *wide)
    found = rotate(x, (cos, sin))
    assert torch.allclose(found, wanted, atol=1e-6)
    weight = torch.randn(found.shape, generator=draw)
    (ours,) = torch.autograd.grad((found * weight).sum(), x)
    (other,) = torch.autograd.grad((wanted * weight).sum(), x)
    assert torch.allclose(ours, other, atol=1e-6)
    assert torch.allclose(turned(found.detach(), cos, -sin), x, atol=1e-6)
    double = x.detach().double().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: rotate(v, (cos, sin)), (double,), eps=1e-2, atol=1e-4)
    assert rotate(x.bfloat16(), (cos, sin)).dtype == torch.bfloat16


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 3000), st.integers(0, 3000), st.integers(0, 500), st.integers(0, 99))
def test_products_depend_on_distances_alone(first, second, shift, seed):
    draw = torch.Generator().manual_seed(seed)
    query, key = (torch.randn(1, 1, 1, 16, generator=draw) for _ in range(2))

    def product(a, b):
        one, two = (rotations(torch.tensor([[p]]), 16, 1e4) for p in (a, b))
        return float((rotate(query, one) * rotate(key, two)).sum())

    assert product(first, second) == pytest.approx(product(first + shift, second + shift), abs=5e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "longrope", "factor": 2.0}, "'longrope' is not one of linear, ntk, yarn"),
        ({"kind": "linear", "factor": 0.5}, "factor: expected at least 1, got 0.5"),
        ({"kind": "yarn", "factor": 2.0}, "original_context: 'yarn' needs the tokens"),
        (
            {"kind": "llama3", "factor": 2.0, "original_context": 9, "low_frequency": 4.0},
            "low_frequency: expected more than 0 and less than high_frequency 4.0, got 4.0",
        ),
        (
            {"kind": "yarn", "factor": 2.0, "original_context": 9, "attention_factor": -1.0},
            "attention_factor: expected 0 or more",
        ),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ConfigError, match=message):
        RopeScaling(**options)
