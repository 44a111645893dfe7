"""The training job of `chaos.py`: a tiny network, data-parallel, the same bytes every time.

Run by torchrun. Everything that a step sees is a function of its number and rank, and the state is
in checkpoints, so a run that was killed ends with the weights of one that was not.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from understudy.core.files import write_bytes
from understudy.launch.checkpoints import Checkpointer

STEPS, SAVE_EACH, PAUSE_S = 300, 4, 0.02


def batch(step: int, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what a rank sees in a step: float32 [16, 8] and [16, 1]."""
    draw = torch.Generator().manual_seed(1000 * step + rank)
    x = torch.randn(16, 8, generator=draw)
    return x, torch.sin(x.sum(1, keepdim=True))


def main(out: str) -> None:
    """Train, and let rank 0 write the weights as raw float32."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)
    dist.init_process_group("gloo")
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Dropout(0.1), nn.Linear(32, 1))
    parallel = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    keeper = Checkpointer()
    state = {"model": model, "optimizer": optimizer, "steps": (steps := {"done": []})}
    for step in range(keeper.restore(state), STEPS):
        torch.manual_seed(step)  # the dropout of a step, on every rank
        x, y = batch(step, dist.get_rank())
        optimizer.zero_grad()
        nn.functional.mse_loss(parallel(x), y).backward()
        optimizer.step()
        steps["done"].append(step)
        time.sleep(PAUSE_S)
        if (step + 1) % SAVE_EACH == 0:
            keeper.save(step + 1, state)
    if dist.get_rank() == 0:
        assert steps["done"] == list(range(STEPS)), "a step is missing, or was made twice"
        write_bytes(Path(out), b"".join(p.detach().numpy().tobytes() for p in model.parameters()))
    dist.barrier()
    # together, and at once: who dies when the others have left waits for them in vain
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
