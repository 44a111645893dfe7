from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from understudy.core.errors import ConfigError, DataError
from understudy.objectives.supervised import (
    classify,
    hard_distillation,
    mixed_targets,
    one_hot,
    online_kd,
    smoothed_ce,
    soft_ce,
)


def logits(seed: int, rows: int = 4, classes: int = 6) -> torch.Tensor:
    return torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed))


LABELS = torch.tensor([0, 3, 5, 2])


def test_smoothed_ce_is_soft_ce_of_smoothed_targets():
    for eps in (0.0, 0.1, 1.0):
        targets = one_hot(LABELS, 6, eps)
        torch.testing.assert_close(targets.sum(-1), torch.ones(4))
        torch.testing.assert_close(smoothed_ce(logits(0), LABELS, eps), soft_ce(logits(0), targets))


def test_mixed_targets_at_the_ends_and_between():
    other = torch.tensor([1, 1, 1, 1])
    assert torch.equal(mixed_targets(LABELS, other, 1.0, 6), one_hot(LABELS, 6))
    assert torch.equal(mixed_targets(LABELS, other, 0.0, 6), one_hot(other, 6))
    lam = torch.tensor([0.25, 1.0, 0.0, 0.5])
    q = mixed_targets(LABELS, other, lam, 6)
    assert q[0].tolist() == [0.25, 0.75, 0, 0, 0, 0]
    loss = classify({"logits": logits(1)}, {"targets": q})
    expected = lam @ F.cross_entropy(logits(1), LABELS, reduction="none") + (
        1 - lam
    ) @ F.cross_entropy(logits(1), other, reduction="none")
    torch.testing.assert_close(loss["loss"], expected / 4)
    assert "top1" not in loss  # a mixed image has no single label


def test_classify_reports_accuracy_of_unmixed_images():
    z = F.one_hot(torch.tensor([0, 3, 5, 1]), 6).float()
    found = classify({"logits": z}, {"labels": LABELS}, smoothing=0.1)
    assert float(found["top1"]) == 0.75


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_online_kd_is_the_written_formula(temperature):
    student, teacher = logits(2).requires_grad_(), logits(3)
    found = online_kd(
        {"logits": student},
        {"teacher_logits": teacher, "labels": LABELS},
        lambda_kd=0.7,
        lambda_cls=0.3,
        temperature=temperature,
    )
    p = torch.softmax(teacher / temperature, -1)
    q = torch.softmax(student / temperature, -1)
    kl = (p * (p.log() - q.log())).sum() / 4
    expected = 0.7 * temperature**2 * kl + 0.3 * F.cross_entropy(student, LABELS)
    torch.testing.assert_close(found["loss"], expected)
    by_probs = online_kd(
        {"logits": student},
        {"teacher_probs": teacher.softmax(-1), "labels": LABELS},
        lambda_kd=0.7,
        lambda_cls=0.3,
        temperature=temperature,
    )
    torch.testing.assert_close(by_probs["loss"], expected, rtol=1e-4, atol=1e-5)


def test_online_kd_of_an_equal_teacher_has_no_gradient():
    student = logits(4).requires_grad_()
    loss = online_kd({"logits": student}, {"teacher_logits": student.detach()})["loss"]
    assert float(torch.autograd.grad(loss, student)[0].abs().max()) < 1e-7


def test_hard_distillation_uses_the_teachers_class():
    student, teacher = logits(5), logits(6)
    found = hard_distillation({"logits": student}, {"labels": LABELS, "teacher_logits": teacher})
    expected = 0.5 * F.cross_entropy(student, LABELS)
    expected = expected + 0.5 * F.cross_entropy(student, teacher.argmax(-1))
    torch.testing.assert_close(found["loss"], expected)
    head = logits(7)
    two = hard_distillation(
        {"logits": student, "distill_logits": head},
        {"labels": LABELS, "teacher_probs": teacher.softmax(-1)},
        alpha=1.0,
    )
    torch.testing.assert_close(two["loss"], F.cross_entropy(head, teacher.argmax(-1)))


def test_bad_input_is_refused():
    with pytest.raises(DataError, match=r"labels: 0\.\.5 for 3 classes"):
        one_hot(LABELS, 3)
    with pytest.raises(DataError, match=r"the teacher gives \[4, 9\], the student \[4, 6\]"):
        online_kd({"logits": logits(0)}, {"teacher_logits": logits(0, classes=9)})
    with pytest.raises(DataError, match="the teacher gives"):
        hard_distillation(
            {"logits": logits(0)}, {"labels": LABELS, "teacher_logits": logits(0, classes=9)}
        )
    with pytest.raises(ConfigError, match="temperature must be positive"):
        online_kd({"logits": logits(0)}, {"teacher_logits": logits(0)}, temperature=0)
    with pytest.raises(ConfigError, match="not both 0"):
        online_kd({"logits": logits(0)}, {"teacher_logits": logits(0)}, lambda_kd=0)
    with pytest.raises(ConfigError, match=r"smoothing: expected a number in \[0, 1\]"):
        smoothed_ce(logits(0), LABELS, 1.2)
    with pytest.raises(DataError, match="distillation: the batch has no 'teacher_probs'"):
        online_kd({"logits": logits(0)}, {})
