"""Depthwise convolutions on small maps: equal to the convolution, forward and backward."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from understudy import models
from understudy.models.image.mobileone import ConvBN
from understudy.models.image.small_map import fits_small_map, small_map_conv


@given(
    channels=st.integers(2, 5),
    multiplier=st.integers(1, 2),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.sampled_from([3, 5, 7]),
    stride=st.integers(1, 2),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_the_product_is_the_convolution(channels, multiplier, size, kernel, stride, seed):
    torch.manual_seed(seed)
    conv = nn.Conv2d(
        channels, channels * multiplier, kernel, stride, kernel // 2, groups=channels, bias=False
    ).double()
    x = torch.randn(3, channels, *size, dtype=torch.float64, requires_grad=True)
    expected, found = conv(x), small_map_conv(conv, x)
    assert torch.allclose(found, expected, atol=1e-12)
    weight = torch.randn_like(expected)
    for wanted in (x, conv.weight):
        a = torch.autograd.grad((expected * weight).sum(), wanted, retain_graph=True)[0]
        b = torch.autograd.grad((found * weight).sum(), wanted, retain_graph=True)[0]
        assert torch.allclose(a, b, atol=1e-12)


@pytest.mark.parametrize(
    ("conv", "size", "fits"),
    [
        (nn.Conv2d(8, 8, 7, padding=3, groups=8, bias=False), 3, True),
        (nn.Conv2d(8, 16, 7, 2, 3, groups=8, bias=False), 12, True),
        (nn.Conv2d(8, 8, 7, padding=3, groups=8, bias=False), 24, False),
        (nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), 24, False),
        (nn.Conv2d(8, 8, 7, padding=3, bias=False), 3, False),
        (nn.Conv2d(8, 8, 7, padding=3, groups=8), 3, False),
        (nn.Conv2d(8, 8, 1, groups=8, bias=False), 3, False),
        (nn.Conv2d(8, 8, (1, 11), padding=(0, 5), groups=8, bias=False), 3, False),
    ],
)
def test_it_is_used_where_it_is_faster(conv, size, fits):
    assert fits_small_map(conv, torch.zeros(1, 8, size, size)) is fits
    assert not fits_small_map(conv, torch.zeros(1, 8, size, size, device="meta"))


def test_a_block_gives_the_same_with_and_without_it(monkeypatch):
    torch.manual_seed(0)
    block = ConvBN(6, 12, 7, stride=2, groups=6).eval()
    x = torch.randn(2, 6, 6, 6)
    ours = block(x)
    monkeypatch.setattr("understudy.models.image.mobileone.fits_small_map", lambda *_: False)
    assert torch.allclose(block(x), ours, atol=1e-6)


def test_exported_graphs_hold_convolutions():
    tower = models.create("mobileclip-nano", seed=0).image.eval()
    program = torch.export.export(tower, (torch.zeros(1, 3, 48, 48),))
    names = {str(node.target) for node in program.graph.nodes}
    assert not any("bmm" in name for name in names)
    assert any("conv" in name for name in names)


def test_what_inference_leaves_behind_does_not_stop_training():
    # The place table is kept between calls; this size is used by no other test.
    block = ConvBN(4, 4, 7, groups=4).eval()
    with torch.inference_mode():
        block(torch.randn(2, 4, 5, 7))
    block.train()
    block(torch.randn(2, 4, 5, 7)).sum().backward()
    assert block.conv.weight.grad is not None
