"""A plain training script, made to go on after a kill by the four lines that are marked.

    torchrun --nproc-per-node 2 alchemist_script.py DATA.npz --out model.pt

A small CNN on pictures of digits, data-parallel, the same bytes every time on the processor. What
it writes beside its model are facts for the claim: which rows each step of the final weights saw,
when each step ran, what a checkpoint took.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy

from understudy.launch.checkpoints import Checkpointer  # added: 1


def network(width: int, seed: int) -> nn.Module:
    """Three convolutions on [B, 1, 8, 8], ten classes."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(8 * width, 10),
    )  # fmt: skip


def rows_of(step: int, seed: int, batch: int, count: int) -> np.ndarray:
    """Rows of a step: a shuffle for each pass over the data, a function of the step alone."""
    per_pass = count // batch
    order = np.random.default_rng([seed, step // per_pass]).permutation(count)
    at = step % per_pass * batch
    return order[at : at + batch]


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--out", default="model.pt")
    parser.add_argument("--facts", default="facts")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--between-failures", type=float, default=None)
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    facts = Path(options.facts)
    facts.mkdir(parents=True, exist_ok=True)
    tell(facts / "workers.jsonl", rank=rank, pid=os.getpid(), t=time.time())
    pictures, labels = load(options.data)
    model = network(options.width, options.seed)
    parallel = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=options.lr, momentum=0.9)
    seen = {"steps": [], "digest": ""}

    state = {"model": model, "optimizer": optimizer, "seen": seen}
    keeper = Checkpointer(between_failures_s=options.between_failures)  # added: 2
    start = keeper.restore(state)  # added: 3
    for step in range(start, options.steps):
        begun = time.time()
        rows = rows_of(step, options.seed, options.batch, len(labels))
        own = rows[rank::world]
        optimizer.zero_grad()
        cross_entropy(parallel(pictures[own]), labels[own]).backward()
        optimizer.step()
        seen["steps"].append(step)
        seen["digest"] = hashlib.sha256(seen["digest"].encode() + rows.tobytes()).hexdigest()
        ended = time.time()
        if rank == 0:
            tell(facts / "steps.jsonl", step=step, begun=begun, ended=ended)
        if keeper.after(step + 1, state) and rank == 0:  # added: 4
            tell(facts / "saves.jsonl", step=step + 1, seconds=keeper.save_s,
                 interval=keeper.interval_s)  # fmt: skip
    if rank == 0:
        (facts / "seen.json").write_text(json.dumps(seen))
        torch.save(model.state_dict(), options.out)
    leave()


def leave() -> None:
    """End all workers together. Gloo's threads may outlive the group and abort a normal exit."""
    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.flush()
    os._exit(0)


def load(path: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pictures, float32 [N, 1, 8, 8], and labels, int64 [N]."""
    with np.load(path) as data:
        pictures = torch.tensor(data["train_x"], dtype=torch.float32).view(-1, 1, 8, 8)
        return pictures, torch.tensor(data["train_y"], dtype=torch.int64)


def tell(path: Path, **values: object) -> None:
    """Append a line, whole or not at all."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(handle, (json.dumps(values) + "\n").encode())
    os.close(handle)


if __name__ == "__main__":
    main()
