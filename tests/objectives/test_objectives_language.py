"""Losses of language models: known values, pieces, gradients, bad input."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import DataError
from understudy.objectives.language import IGNORE, causal_lm, head_causal_lm
from understudy.objectives.language_tokens import head_losses, piece_length, token_losses


def drawn(rows=3, length=7, width=5, vocabulary=11, seed=0, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    states = torch.randn(rows, length, width, generator=draw, dtype=dtype)
    table = torch.randn(vocabulary, width, generator=draw, dtype=dtype)
    targets = torch.randint(0, vocabulary, (rows, length), generator=draw)
    targets[torch.rand(rows, length, generator=draw) < 0.3] = IGNORE
    return states.requires_grad_(), table.requires_grad_(), targets


def expected(logits, targets, z_loss):
    """Return the loss by PyTorch's own functions."""
    flat, kept = logits.flatten(0, 1), targets.flatten() != IGNORE
    nll = F.cross_entropy(flat, targets.flatten(), ignore_index=IGNORE)
    return nll + z_loss * flat[kept].logsumexp(-1).square().mean(), nll


@pytest.mark.parametrize("z_loss", [0.0, 1e-4, 0.3])
@pytest.mark.parametrize("chunk", [0, 1, 4, 21])
def test_both_forms_equal_pytorch(z_loss, chunk):
    states, table, targets = drawn()
    wanted, nll = expected(states @ table.T, targets, z_loss)
    by_torch = torch.autograd.grad(wanted, (states, table))
    logits = states @ table.T
    for found in (
        causal_lm({"logits": logits}, {"targets": targets}, z_loss=z_loss, chunk=chunk),
        head_causal_lm(states, table, {"targets": targets}, z_loss=z_loss, chunk=chunk),
    ):
        assert torch.allclose(found["loss"], wanted, atol=1e-12)
        assert torch.allclose(found["nll"] + found["z_loss"], wanted, atol=1e-12)
        assert torch.allclose(found["nll"], nll)
        assert int(found["tokens"]) == int((targets != IGNORE).sum())
        assert not any(v.requires_grad for k, v in found.items() if k != "loss")
        kept = targets != IGNORE
        hits = (logits.argmax(-1) == targets)[kept].double().mean()
        assert torch.allclose(found["token_accuracy"], hits)
        grads = torch.autograd.grad(found["loss"] * 3, (states, table), retain_graph=True)
        for ours, theirs in zip(grads, by_torch, strict=True):
            assert torch.allclose(ours, 3 * theirs, atol=1e-12)


@pytest.mark.parametrize("chunk", [0, 2])
def test_gradients_are_those_of_differences(chunk):
    states, table, targets = drawn(2, 3, 3, 4, seed=1)
    flat, labels = states.detach().flatten(0, 1).requires_grad_(), targets.flatten()

    def from_logits(logits):
        return token_losses(logits, labels, 0.1, chunk).loss

    def from_states(states, table):
        return head_losses(states, table, labels, 0.1, chunk).loss

    assert torch.autograd.gradcheck(from_logits, (flat @ table.detach().T,))
    assert torch.autograd.gradcheck(from_states, (flat, table))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 40), st.floats(0, 1), st.floats(0.1, 200.0))
def test_pieces_change_nothing(seed, chunk, z_loss, scale):
    states, table, targets = drawn(2, 13, 4, 9, seed=seed, dtype=torch.float32)
    logits = (states @ table.T * scale).detach().requires_grad_()
    whole = token_losses(logits.flatten(0, 1), targets.flatten(), z_loss, 26)
    parts = token_losses(logits.flatten(0, 1), targets.flatten(), z_loss, chunk)
    assert torch.allclose(whole.loss, parts.loss, rtol=1e-5, atol=1e-6)
    one, two = (torch.autograd.grad(s.loss, logits)[0] for s in (whole, parts))
    assert torch.allclose(one, two, rtol=1e-5, atol=1e-7)


def test_nothing_to_learn_is_no_loss():
    states, table, targets = drawn()
    targets.fill_(IGNORE)
    found = head_causal_lm(states, table, {"targets": targets}, z_loss=1.0)
    assert [float(found[k].detach()) for k in ("loss", "nll", "token_accuracy", "tokens")] == [
        0.0
    ] * 4
    found["loss"].backward()
    assert not states.grad.any()
    assert not table.grad.any()


def test_large_logits_stay_finite():
    logits = torch.tensor([[[3e4, -3e4, 0.0]]], requires_grad=True)
    found = causal_lm({"logits": logits}, {"targets": torch.tensor([[1]])}, z_loss=1e-4)
    assert float(found["nll"]) == pytest.approx(6e4)
    assert float(found["z_loss"]) == pytest.approx(1e-4 * 9e8)
    found["loss"].backward()
    assert torch.isfinite(logits.grad).all()


def test_half_precision_is_summed_in_float32():
    states, table, targets = drawn(4, 32, 8, 50, dtype=torch.float32)
    logits = (states @ table.T).detach()
    wanted, _ = expected(logits.bfloat16().float(), targets, 1e-4)
    half = logits.bfloat16().requires_grad_()
    found = causal_lm({"logits": half}, {"targets": targets}, z_loss=1e-4)
    assert found["loss"].dtype == torch.float32
    assert torch.allclose(found["loss"], wanted, atol=1e-6)
    found["loss"].backward()
    assert half.grad.dtype == torch.bfloat16


def test_autocast_rounds_products_only():
    states, table, targets = drawn(4, 32, 8, 50, dtype=torch.float32)
    batch = {"targets": targets}
    exact = head_causal_lm(states, table, batch)
    grads = torch.autograd.grad(exact["loss"], (states, table))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = head_causal_lm(states, table, batch)
    assert torch.allclose(rounded["loss"], exact["loss"], rtol=0.02)
    for ours, theirs in zip(
        torch.autograd.grad(rounded["loss"], (states, table)), grads, strict=True
    ):
        assert ours.dtype == torch.float32
        assert F.cosine_similarity(ours.flatten(), theirs.flatten(), 0) > 0.999


def test_without_gradients_none_are_made():
    states, table, targets = drawn()
    with torch.no_grad():
        found = head_causal_lm(states, table, {"targets": targets})
    assert not found["loss"].requires_grad
    assert torch.allclose(found["loss"], expected(states @ table.T, targets, 0.0)[0])


def test_pieces_suit_the_device():
    assert piece_length(4096, torch.device("cpu")) == 512
    assert piece_length(50_432, torch.device("cuda")) == 5_322
    assert piece_length(10**9, torch.device("cpu")) == 64
    assert piece_length(4096, torch.device("cpu"), 7) == 7


def test_bad_input():
    logits, targets = torch.zeros(2, 3, 5), torch.zeros(2, 3, dtype=torch.long)
    with pytest.raises(DataError, match=r"outputs of \[2, 3\] tokens, targets of \[2, 2\]"):
        causal_lm({"logits": logits}, {"targets": targets[:, :2]})
    with pytest.raises(DataError, match="the batch has no 'targets'"):
        causal_lm({"logits": logits}, {"ids": targets})
    with pytest.raises(DataError, match="the batch has no 'logits'"):
        causal_lm({"states": logits}, {"targets": targets})
    for wrong in (5, -1):
        with pytest.raises(DataError, match="but the model has 5 tokens"):
            causal_lm({"logits": logits}, {"targets": targets + wrong})
