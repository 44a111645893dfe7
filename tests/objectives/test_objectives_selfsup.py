"""NT-Xent against its written formula, alone and on two ranks; reconstruction."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.errors import ConfigError, DataError
from understudy.objectives import OBJECTIVES
from understudy.objectives.selfsup import nt_xent_loss, reconstruct, simclr


def draw(seed: int, rows: int, dim: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, dim, generator=generator, dtype=torch.float64)


def brute(first: torch.Tensor, second: torch.Tensor, t: float) -> float:
    z = [v / v.norm() for v in [*first, *second]]
    n, total = len(first), 0.0
    for i in range(2 * n):
        partner = i + n if i < n else i - n
        below = sum(math.exp(float(z[i] @ z[k]) / t) for k in range(2 * n) if k != i)
        total -= math.log(math.exp(float(z[i] @ z[partner]) / t) / below)
    return total / (2 * n)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), rows=st.integers(2, 6), t=st.floats(0.1, 3))
def test_nt_xent_is_the_written_formula(seed, rows, t):
    first, second = draw(seed, rows), draw(seed + 1, rows)
    found = float(nt_xent_loss(first, second, t))
    assert found == pytest.approx(brute(first, second, t), rel=1e-6)
    # the views may be exchanged, and lengths do not count
    assert float(nt_xent_loss(second * 3, first / 2, t)) == pytest.approx(found, rel=1e-6)


def test_equal_views_and_far_others_reach_the_least_loss():
    z = torch.eye(4, dtype=torch.float64)
    t = 0.1
    least = math.log(1 + 6 * math.exp(-1 / t))  # of 7 candidates one has cosine 1, six 0
    assert float(nt_xent_loss(z, z, t)) == pytest.approx(least, rel=1e-9)


def test_gradient_by_finite_differences():
    first, second = draw(0, 4).requires_grad_(), draw(1, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: nt_xent_loss(a, b, 0.3), (first, second))


def test_objective_reports_how_aligned_views_are():
    first = draw(2, 5)
    found = OBJECTIVES.load("simclr")({"views": first, "other_views": first}, {}, temperature=0.2)
    assert set(found) == {"loss", "aligned"}
    assert float(found["aligned"]) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: nt_xent_loss(draw(0, 3), draw(0, 3), 0.0), ConfigError, "must be positive"),
        (lambda: nt_xent_loss(draw(0, 3), draw(0, 4)), DataError, r"\[3, 5\] and \[4, 5\]"),
        (lambda: nt_xent_loss(draw(0, 1), draw(1, 1)), DataError, "no negatives"),
        (lambda: simclr({"views": draw(0, 3)}, {}), DataError, "no 'other_views'"),
        (lambda: reconstruct({}, {}), DataError, "no 'rebuilt'"),
    ],
)
def test_bad_input(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_reconstruction_error_and_share_of_the_variance():
    pictures = torch.rand(6, 3, 4, 4, generator=torch.Generator().manual_seed(3))
    mean = pictures.mean(0).expand_as(pictures)
    found = reconstruct({"rebuilt": mean}, {"images": pictures})
    assert float(found["loss"]) == pytest.approx(float(((pictures - mean) ** 2).mean()))
    assert float(found["unexplained"]) == pytest.approx(1.0, rel=1e-5)
    assert float(reconstruct({"rebuilt": pictures}, {"images": pictures})["loss"]) == 0
    with pytest.raises(DataError, match="must end in the picture's shape"):
        reconstruct({"rebuilt": pictures[:, :1]}, {"images": pictures})


SCRIPT = """
import sys, torch, torch.distributed as dist
torch.set_num_threads(1)
from understudy.objectives.gather import LOCAL, GatherGroup
from understudy.objectives.selfsup import nt_xent_loss
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
group = GatherGroup()
generator = torch.Generator().manual_seed(0)
A, B = (torch.randn(6, 5, generator=generator) for _ in range(2))
def loss(rows, group):
    weight = torch.ones(5, requires_grad=True)
    value = nt_xent_loss(A[rows] * weight, B[rows] * weight, 0.3, group=group)
    return value.detach(), torch.autograd.grad(value, weight)[0]
value, grad = loss(slice(3 * rank, 3 * rank + 3), group)
for part in (value, grad):
    dist.all_reduce(part)
    part /= 2
whole, expected = loss(slice(0, 6), LOCAL)
torch.testing.assert_close(value, whole)
torch.testing.assert_close(grad, expected)
dist.barrier()
dist.destroy_process_group()
"""


def test_two_ranks_have_loss_and_gradient_of_the_whole_batch(tmp_path: Path):
    script = tmp_path / "ranks.py"
    script.write_text(SCRIPT)
    runs = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(tmp_path)], stderr=subprocess.PIPE
        )
        for rank in range(2)
    ]
    errors = [run.communicate(timeout=120)[1].decode()[-800:] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], errors


def test_normalises_in_float32_when_features_are_bfloat16():
    first, second = draw(5, 4).to(torch.bfloat16), draw(6, 4).to(torch.bfloat16)
    found = nt_xent_loss(first, second, 0.5)
    assert found.dtype == torch.float32
    a, b = F.normalize(first.float(), dim=-1), F.normalize(second.float(), dim=-1)
    assert float(found) == pytest.approx(brute(a.double(), b.double(), 0.5), rel=1e-4)
