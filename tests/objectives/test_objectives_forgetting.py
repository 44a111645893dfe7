"""Learning without forgetting: nothing to learn where both models agree, and no order matters."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError, DataError
from understudy.objectives.contrastive import clip_loss
from understudy.objectives.forgetting import lwf_loss


def unit(rows, dim, seed):
    draw = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, dim, generator=draw), dim=-1)


def by_hand(images, texts, scale, old_images, old_texts, old_scale, tau):
    new, old = scale * images @ texts.T / tau, old_scale * old_images @ old_texts.T / tau
    total = torch.zeros(())
    for s, o in ((new, old), (new.T, old.T)):
        p, q = o.softmax(1), s.softmax(1)
        total = total + (p * (p / q).log()).sum() / len(p)
    return total / 2


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 9), tau=st.floats(0.5, 4), seed=st.integers(0, 999))
def test_against_the_formula(rows, tau, seed):
    a, b, c, d = (unit(rows, 5, seed + i) for i in range(4))
    found = lwf_loss(a, b, torch.tensor(7.0), c, d, 9.0, tau=tau)
    torch.testing.assert_close(found, by_hand(a, b, 7.0, c, d, 9.0, tau), rtol=1e-4, atol=1e-6)
    assert float(found) >= -1e-6


def test_nothing_to_learn_from_oneself():
    images = unit(6, 8, 0).requires_grad_()
    texts = unit(6, 8, 1).requires_grad_()
    scale = torch.tensor(14.0, requires_grad=True)
    loss = lwf_loss(images, texts, scale, images.detach(), texts.detach(), 14.0)
    assert float(loss.detach()) == 0.0
    loss.backward()
    for leaf in (images, texts, scale):
        assert float(leaf.grad.abs().max()) < 1e-6
    # and there is something to learn from another
    loss = lwf_loss(images, texts, scale, texts.detach(), unit(6, 8, 9), 14.0)
    assert float(loss.detach()) > 0.1


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(7)))
def test_the_order_of_a_batch_does_not_matter(order):
    order = torch.tensor(order)
    a, b, c, d = (unit(7, 5, i) for i in range(4))
    straight = lwf_loss(a, b, 10.0, c, d, 12.0)
    turned = lwf_loss(a[order], b[order], 10.0, c[order], d[order], 12.0)
    torch.testing.assert_close(straight, turned)


def test_no_gradient_reaches_the_old_model():
    old = unit(4, 5, 2).requires_grad_()
    new = unit(4, 5, 0).requires_grad_()
    lwf_loss(new, unit(4, 5, 1), 5.0, old, unit(4, 5, 3), 5.0).backward()
    assert old.grad is None
    assert new.grad is not None


def test_what_is_refused():
    a = unit(3, 4, 0)
    with pytest.raises(ConfigError, match="tau must be above 0, got 0"):
        lwf_loss(a, a, 1.0, a, a, 1.0, tau=0)
    with pytest.raises(DataError, match="3 pairs, but 2 of the last checkpoint"):
        lwf_loss(a, a, 1.0, a[:2], a[:2], 1.0)


def test_contrastive_loss_of_one_pair_and_of_chance():
    """A batch of one has nothing to tell apart; unrelated features score as chance, log N."""
    assert float(clip_loss(unit(1, 8, 0), unit(1, 8, 1), 50.0)) == 0.0
    n, dim = 64, 4096
    chance = clip_loss(unit(n, dim, 0), unit(n, dim, 1), 1.0)
    assert float(chance) == pytest.approx(torch.log(torch.tensor(float(n))).item(), abs=0.02)
