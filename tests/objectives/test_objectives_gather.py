"""Sharded objectives on two real ranks: loss and gradients of the whole batch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from understudy.objectives.gather import LOCAL

SCRIPT = """
import os
import sys, torch, torch.nn.functional as F, torch.distributed as dist
torch.set_num_threads(1)
from understudy.objectives.gather import LOCAL, GatherGroup
from understudy.objectives.contrastive import clip_loss, sigmoid_loss
from understudy.objectives.reinforced import reinforced, reinforced_sigmoid
from understudy.objectives.alignment import pair_loss
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
group = GatherGroup()
assert (group.rank, group.world) == (rank, 2)
B, D = 4, 6
generator = torch.Generator().manual_seed(0)
def unit(rows=2 * B, dim=D):
    return F.normalize(torch.randn(rows, dim, generator=generator), dim=-1)
X, R, C = unit(), unit(), unit()
KEYS = ("teacher_images", "teacher_texts", "teacher_syn_texts")
T = {k: [unit(dim=5), unit(dim=9)] for k in KEYS}
GROUPS = torch.tensor([0, 1, 0, 2, 1, 3, 0, 4])
W = [torch.randn(D, 7, generator=generator) for _ in range(2)]

def losses(rows, group):
    weights = [w.clone().requires_grad_() for w in W]
    theta = torch.tensor(2.0, requires_grad=True)
    bias = torch.tensor(-3.0, requires_grad=True)
    out = {
        "image_features": F.normalize(X[rows] @ weights[0], dim=-1),
        "text_features": F.normalize(R[rows] @ weights[1], dim=-1),
        "syn_text_features": F.normalize(C[rows] @ weights[1], dim=-1),
        "logit_scale": theta.exp(), "logit_bias": bias,
    }
    batch = {k: [m[rows] for m in v] for k, v in T.items()}
    pair = out["image_features"], out["text_features"], out["logit_scale"]
    found = [clip_loss(*pair, group=group), sigmoid_loss(*pair, bias, group=group)]
    for combine in ("average", "mean-kl", "concat"):
        for value in ("ce", "kl"):
            found.append(reinforced(out, batch, lam=0.75, scales=(30.0, 60.0), combine=combine,
                                    value=value, group=group)["loss"])
    found.append(reinforced_sigmoid(out, batch, lam=0.5, scales=(30.0, 60.0), biases=(-5.0, -7.0),
                                    group=group)["loss"])
    for groups in (None, GROUPS[rows]):
        for chunk in (0, 3):
            found.append(pair_loss(*pair, groups=groups, chunk=chunk, group=group))
    grads = [torch.autograd.grad(l, (*weights, theta, bias), retain_graph=True, allow_unused=True)
             for l in found]
    return found, grads

local, local_grads = losses(slice(rank * B, rank * B + B), group)
whole, whole_grads = losses(slice(None), LOCAL)
count = 0
for a, b, ga, gb in zip(local, whole, local_grads, whole_grads, strict=True):
    mean = a.detach().clone()
    dist.all_reduce(mean); mean /= 2                 # what the log shows
    torch.testing.assert_close(mean, b.detach(), rtol=1e-5, atol=1e-6)
    for x, y in zip(ga, gb, strict=True):
        assert (x is None) == (y is None)
        if x is not None:
            x = x.clone(); dist.all_reduce(x); x /= 2    # what DistributedDataParallel does
            torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-6)
            count += 1
constant = group.gather_constant(X[rank * B:rank * B + B].requires_grad_())
assert torch.equal(constant, X.detach()) and not constant.requires_grad
assert count == 41, count
dist.barrier()  # neither rank leaves while the other still talks to it
print("ok", count, flush=True)
dist.destroy_process_group()
os._exit(0)  # gloo's threads may outlive the group and abort a normal exit
"""


def test_two_ranks_equal_one_process(tmp_path: Path):
    command = [sys.executable, "-c", SCRIPT]
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in ranks:
        out, err = process.communicate(timeout=200)
        assert process.returncode == 0, err[-2000:]
        assert out.startswith("ok")


def test_one_process_gathers_nothing():
    x = torch.randn(3, 2, requires_grad=True)
    assert LOCAL.gather(x) is x
    assert not LOCAL.gather_constant(x).requires_grad
    assert LOCAL.targets(3).tolist() == [0, 1, 2]
