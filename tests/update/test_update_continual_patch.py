"""Patching: exact ends, float32 in between, statistics of batch normalisation measured again."""

from __future__ import annotations

import copy

import pytest
import torch
from continual_world import CHANGES, states_equal
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy import models
from understudy.core.errors import ConfigError, ModelError
from understudy.models.text.train_tokenizer import train_bpe
from understudy.update.continual_patch import (
    batch_norms,
    choose_alpha,
    interpolate,
    measure_norms,
    patched,
)

TOKENIZER = train_bpe(["a scan of seven"], 520, context_length=12)


def model(seed):
    made = models.create("clip-conv-nano", seed=seed, tokenizer=TOKENIZER, **CHANGES)
    with torch.no_grad():
        draw = torch.Generator().manual_seed(seed)
        for norm in batch_norms(made):
            norm.running_mean.copy_(torch.randn(norm.running_mean.shape, generator=draw))
            norm.running_var.copy_(1 + torch.rand(norm.running_var.shape, generator=draw))
    return made.eval()


def batches(count=3, rows=5):
    draw = torch.Generator().manual_seed(7)
    return [{"images": torch.randn(rows, 3, 8, 8, generator=draw)} for _ in range(count)]


def test_the_ends_are_exact():
    last, trained = model(0), model(1)
    assert states_equal(patched(last, trained, 0.0, batches), last)
    assert states_equal(patched(last, trained, 1.0, batches), trained)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.01, 0.99))
def test_weights_are_averaged_in_float32(alpha):
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(50, generator=draw).bfloat16() for _ in range(2))
    found = interpolate({"w": a, "n": torch.tensor(3)}, {"w": b, "n": torch.tensor(5)}, alpha)
    exact = ((1 - alpha) * a.double() + alpha * b.double()).float().bfloat16()
    assert found["w"].dtype == torch.bfloat16
    assert int(found["n"]) == 5
    # one rounding at the end: half of a unit in the last place at most
    torch.testing.assert_close(found["w"].float(), exact.float(), rtol=2**-8, atol=1e-6)


def test_statistics_are_those_of_the_batches():
    last, trained = model(0), model(1)
    made = patched(last, trained, 0.5, batches)
    first = batch_norms(made)[0]
    plain = copy.deepcopy(made)
    conv = plain.image.layers[0].conv.conv
    with torch.no_grad():
        outs = [conv(b["images"]) for b in batches()]
    means = torch.stack([o.mean((0, 2, 3)) for o in outs]).mean(0)
    variances = torch.stack([o.var((0, 2, 3), unbiased=True) for o in outs]).mean(0)
    torch.testing.assert_close(first.running_mean, means)
    torch.testing.assert_close(first.running_var, variances)
    assert not made.training
    assert first.momentum == batch_norms(trained)[0].momentum
    # neither end was touched
    assert states_equal(last, model(0))
    assert states_equal(trained, model(1))


def test_a_model_without_statistics_is_left_alone():
    class Plain(torch.nn.Module):
        pass

    assert measure_norms(Plain(), batches()) == 0  # type: ignore[arg-type]


def test_the_best_weight_is_chosen_and_the_newer_of_equals():
    best, scores = choose_alpha(
        lambda alpha: alpha,
        lambda a: -abs(float(a) - 0.6),
        (1.0, 0.0, 0.5, 0.75),  # type: ignore
    )
    assert best == 0.5
    assert list(scores) == ["0", "0.5", "0.75", "1"]
    best, _ = choose_alpha(lambda alpha: alpha, lambda a: 1.0, (0.0, 0.5))  # type: ignore
    assert best == 0.5


def test_what_is_refused():
    with pytest.raises(ConfigError, match=r"alpha must lie in \[0, 1\], got 1.5"):
        interpolate({}, {}, 1.5)
    wide = models.create(
        "clip-conv-nano", seed=0, tokenizer=TOKENIZER, **{**CHANGES, "embed_dim": 16}
    )
    with pytest.raises(ModelError) as caught:
        patched(wide, model(0), 0.5, batches)
    assert "the first mismatch is 'image.head.weight'" in str(caught.value)
    assert "[16, 8] in the checkpoint, [8, 8] in the model" in str(caught.value)
