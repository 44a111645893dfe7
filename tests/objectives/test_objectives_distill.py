from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError, DataError
from understudy.objectives.contrastive import clip_loss
from understudy.objectives.distill import (
    affinity_distill,
    average_targets,
    sigmoid_distill,
    sigmoid_targets,
    teacher_affinities,
)


def unit(seed: int, rows: int = 5, dim: int = 7) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, dim, generator=generator), dim=-1)


def teachers(seed: int, rows: int = 5, dims=(4, 9)):
    images = [unit(seed + 10 * k, rows, d) for k, d in enumerate(dims)]
    texts = [unit(seed + 10 * k + 1, rows, d) for k, d in enumerate(dims)]
    return images, texts


def softmax_rows(a, b, s):
    return torch.softmax(s * a.double() @ b.double().T, dim=-1)


def brute_mean_kl(u, v, s, images, texts, scales):
    """The formula of the paper, term by term, in float64."""
    total = torch.zeros((), dtype=torch.float64)
    b = len(u)
    for a, t, sigma in zip(images, texts, scales, strict=True):
        for x, y, p, q in ((a, t, u, v), (t, a, v, u)):
            target, student = softmax_rows(x, y, sigma), softmax_rows(p, q, s)
            total += (target * (target.log() - student.log())).sum()
    return total / (2 * b * len(images))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), rows=st.integers(1, 6))
def test_value_is_the_papers_mean_kl(seed, rows):
    u, v = unit(seed, rows), unit(seed + 1, rows)
    images, texts = teachers(seed + 2, rows)
    expected = float(brute_mean_kl(u, v, 9.0, images, texts, (20.0, 50.0)))
    for combine in ("average", "mean-kl"):
        found = affinity_distill(
            u, v, 9.0, images, texts, (20.0, 50.0), combine=combine, value="kl"
        )
        assert float(found) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def gradients(**options):
    u, v = unit(0).requires_grad_(), unit(1).requires_grad_()
    s = torch.tensor(12.0, requires_grad=True)
    images, texts = teachers(2)
    loss = affinity_distill(u, v, s, images, texts, (30.0, 80.0), **options)
    return torch.autograd.grad(loss, (u, v, s)), float(loss.detach())


def test_averaged_softmax_has_the_gradient_of_mean_kl():
    (average, ce), (each, kl) = gradients(), gradients(combine="mean-kl", value="kl")
    for a, b in zip(average, each, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    # The values differ by the teachers' mean entropy, which has no gradient.
    both = teacher_affinities(*teachers(2), (30.0, 80.0))
    entropy = float(average_targets(both, entropy=True).entropy)
    assert entropy > 0
    assert ce - kl == pytest.approx(entropy, abs=1e-5)
    assert gradients(combine="mean-kl", value="ce")[1] == pytest.approx(ce, abs=1e-5)


def test_concatenation_is_another_objective_and_multiplies_the_experts():
    images, texts = teachers(2)
    (one,) = teacher_affinities(images, texts, (30.0, 80.0), concat=True)
    a, b = teacher_affinities(images, texts, (30.0, 80.0))
    product = torch.softmax(a.image_to_text + b.image_to_text, dim=-1)
    torch.testing.assert_close(one.image_to_text.exp(), product)
    assert abs(gradients(combine="concat")[1] - gradients()[1]) > 1e-3
    # It is one softmax of the concatenated embeddings, each block scaled by sqrt(sigma).
    cat_i = torch.cat([images[0] * 30**0.5, images[1] * 80**0.5], dim=1)
    cat_t = torch.cat([texts[0] * 30**0.5, texts[1] * 80**0.5], dim=1)
    torch.testing.assert_close(one.image_to_text.exp(), torch.softmax(cat_i @ cat_t.T, dim=-1))


def test_teacher_equal_to_student_at_equal_scale_gives_no_gradient():
    u, v = unit(0).requires_grad_(), unit(1).requires_grad_()
    pairs = [u.detach()] * 2, [v.detach()] * 2
    for options in ({}, {"combine": "mean-kl"}, {"value": "kl"}):
        loss = affinity_distill(u, v, 20.0, *pairs, (20.0, 20.0), **options)
        for grad in torch.autograd.grad(loss, (u, v)):
            assert float(grad.abs().max()) < 1e-5
    value = affinity_distill(u, v, 20.0, *pairs, (20.0, 20.0), value="kl")
    assert float(value.detach()) == pytest.approx(0.0, abs=1e-5)


def test_ensemble_of_identical_members_is_the_member():
    (images,), (texts,) = teachers(4, dims=(6,))
    u, v = unit(0), unit(1)
    one = affinity_distill(u, v, 9.0, [images], [texts], 40.0)
    three = affinity_distill(u, v, 9.0, [images] * 3, [texts] * 3, (40.0,) * 3)
    torch.testing.assert_close(one, three)


def test_very_sharp_teachers_turn_distillation_into_clip():
    u, v = unit(0), unit(1)
    same = unit(3, dim=16)
    found = affinity_distill(u, v, 9.0, [same], [same], (1e4,))
    torch.testing.assert_close(found, clip_loss(u, v, 9.0))


def test_rows_of_targets_sum_to_one_and_permute_with_the_batch():
    images, texts = teachers(5)
    plain = average_targets(teacher_affinities(images, texts, (30.0, 80.0)))
    for matrix in plain[:2]:
        torch.testing.assert_close(matrix.sum(dim=-1), torch.ones(5))
    order = torch.tensor([2, 0, 1, 4, 3])
    shuffled = average_targets(
        teacher_affinities([m[order] for m in images], [m[order] for m in texts], (30.0, 80.0))
    )
    torch.testing.assert_close(shuffled.image_to_text, plain.image_to_text[order][:, order])


def test_no_gradient_reaches_a_teacher():
    images, texts = teachers(6)
    for tensor in (*images, *texts):
        tensor.requires_grad_()
    u = unit(0).requires_grad_()
    affinity_distill(u, unit(1), 9.0, images, texts, (30.0, 80.0)).backward()
    assert u.grad is not None
    assert all(t.grad is None for t in (*images, *texts))


def test_half_precision_teachers_are_used_in_float32():
    images, texts = teachers(7)
    full = affinity_distill(unit(0), unit(1), 9.0, images, texts, (30.0, 80.0))
    half = affinity_distill(
        unit(0),
        unit(1),
        9.0,
        [m.half() for m in images],
        [m.half() for m in texts],
        (30.0, 80.0),
    )
    assert half.dtype == torch.float32
    assert float(half) == pytest.approx(float(full), rel=1e-2)


def test_sigmoid_form_matches_bce_and_compat_is_another_loss():
    u, v = unit(0), unit(1)
    images, texts = teachers(8)
    scales, biases = (10.0, 20.0), (-2.0, -4.0)
    p = (
        sum(
            torch.sigmoid(s * a @ b.T + beta)
            for a, b, s, beta in zip(images, texts, scales, biases, strict=True)
        )
        / 2
    )
    torch.testing.assert_close(sigmoid_targets(images, texts, scales, biases), p)
    logits = 9.0 * u @ v.T - 3.0
    expected = F.binary_cross_entropy_with_logits(logits, p, reduction="sum") / len(u)
    found = sigmoid_distill(u, v, 9.0, -3.0, images, texts, scales, biases)
    torch.testing.assert_close(found, expected)
    compat = sigmoid_distill(u, v, 9.0, -3.0, images, texts, scales, biases, compat=True)
    torch.testing.assert_close(compat, -F.logsigmoid((2 * p - 1) * logits).sum() / len(u))
    assert abs(float(compat - found)) > 1e-3


def test_sigmoid_bce_is_least_at_the_teachers_probability_and_compat_is_not():
    one = torch.ones(1, 1)

    def slope(compat: bool) -> float:
        bias = torch.tensor(0.8473, requires_grad=True)  # sigmoid = 0.7
        loss = sigmoid_distill(one, one, 0.0, bias, [one], [one], (1e-9,), (0.8473,), compat=compat)
        return float(torch.autograd.grad(loss, bias)[0])

    assert abs(slope(compat=False)) < 1e-5
    assert slope(compat=True) < -0.1


BAD = [
    ((100.0,), "1 logit scales for 2 teachers; give one per teacher"),
    (100, "single number 100 for 2 teachers"),
    (70.0, "single number 70.0 for 2 teachers"),
    ((1.0, 2.0, 3.0), "3 logit scales for 2 teachers"),
    ((70.0, 0.0), r"scales\[1\]: expected a positive number, got 0.0"),
    ((float("nan"), 60.0), r"scales\[0\]: expected a positive number"),
    ("50", "expected a list of numbers, got '50'"),
]


@pytest.mark.parametrize(("scales", "message"), BAD)
def test_bad_scales_are_refused(scales, message):
    with pytest.raises(ConfigError, match=message):
        affinity_distill(unit(0), unit(1), 9.0, *teachers(2), scales)


def test_a_single_number_is_the_scale_of_a_single_teacher():
    images, texts = teachers(2, dims=(4,))
    a = affinity_distill(unit(0), unit(1), 9.0, images, texts, 50)
    torch.testing.assert_close(a, affinity_distill(unit(0), unit(1), 9.0, images, texts, [50.0]))


def test_mismatched_teachers_are_refused():
    images, texts = teachers(2)
    with pytest.raises(DataError, match="2 teachers' image embeddings and 1 teachers' text"):
        affinity_distill(unit(0), unit(1), 9.0, images, texts[:1], (1.0, 2.0))
    with pytest.raises(DataError, match=r"teacher 1 has image embeddings \[5, 9\]"):
        affinity_distill(unit(0), unit(1), 9.0, images, [texts[0], texts[1][:, :3]], (1.0, 2.0))
    with pytest.raises(ConfigError, match="biases: 1 values for 2 teachers"):
        sigmoid_distill(unit(0), unit(1), 9.0, 0.0, images, texts, (1.0, 2.0), (0.0,))
    with pytest.raises(ConfigError, match="combine: 'avrage' is not one of"):
        affinity_distill(unit(0), unit(1), 9.0, images, texts, (1.0, 2.0), combine="avrage")
