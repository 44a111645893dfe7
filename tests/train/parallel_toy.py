"""The parallel modes on real ranks; a script: `python parallel_toy.py OUT` as one of them."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from understudy.core.errors import ConfigError
from understudy.core.seeds import rng
from understudy.train.config import TrainConfig
from understudy.train.distributed import Ranks, join
from understudy.train.loop import fit
from understudy.train.parallel.averaging import average

STEPS = 8


class Plain(nn.Module):
    """Two layers; the first weights differ from rank to rank, as without a common seed."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.body = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
        self.unused = nn.Parameter(torch.zeros(2))

    def forward(self, x):
        return self.body(x)


class Batches:
    def __init__(self, rank: int, delay_s: float = 0.0) -> None:
        self.rank, self.delay_s = rank, delay_s

    def __call__(self, start: int, count: int):
        for number in range(start, start + count):
            time.sleep(self.delay_s)
            draw = rng("parallel", self.rank, number)
            x = torch.tensor(draw.standard_normal((8, 6)), dtype=torch.float32)
            yield {"x": x, "labels": (x[:, 0] > 0).long() + (x[:, 1] > 0).long()}


def objective(model, batch):
    # The unused parameter has a gradient of zeros, which DDP asks for.
    loss = F.cross_entropy(model(batch["x"]), batch["labels"])
    held = model.module if hasattr(model, "module") else model
    return {"loss": loss + 0 * held.unused.sum()}


def run(out: Path, ranks: Ranks, strategy: str, delay_s: float = 0.0, **changes):
    usual = {
        "steps": STEPS, "lr": 0.1, "optimizer": "sgd", "momentum": 0.9, "schedule": "cosine",
        "log_every": 4, "checkpoint_every": 4, "weight_decay": 0.01, "device": "cpu",
    }  # fmt: skip
    config = TrainConfig(**{**usual, "strategy": strategy, **changes})
    return fit(Plain(ranks.rank), objective, Batches(ranks.rank, delay_s), config, out)


def weights(out: Path) -> dict[str, np.ndarray]:
    return {k: v.numpy() for k, v in load_file(out / "model.safetensors").items()}


def far(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    return max(float(np.abs(a[k] - b[k]).max()) for k in a)


def check_average(ranks: Ranks) -> None:
    """The mean over ranks, of odd sizes, kinds and strides, against NumPy's."""
    shapes = [(5, 3), (1,), (), (1000,), (7, 2, 2)]
    all_of = [
        [rng("average", rank, i).standard_normal(shape) for i, shape in enumerate(shapes)]
        for rank in range(ranks.world)
    ]
    own = [torch.tensor(a, dtype=torch.float32) for a in all_of[ranks.rank]]
    own[0] = own[0].t().contiguous().t()  # not contiguous
    double = torch.tensor(all_of[ranks.rank][0])
    count = torch.tensor([ranks.rank + 3])
    average([*own, double, count], ranks)
    for i, tensor in enumerate(own):
        expected = np.mean([one[i] for one in all_of], axis=0)
        assert np.abs(tensor.numpy() - expected).max() < 1e-6, i
    assert np.abs(double.numpy() - np.mean([one[0] for one in all_of], axis=0)).max() < 1e-15
    assert int(count) == ranks.rank + 3  # whole numbers are nobody's mean


def by_hand(ranks: Ranks, sync_every: int) -> dict[str, np.ndarray]:
    """Local SGD without momentum in NumPy and float64, all ranks in one process."""
    rates = [0.1 * 0.5 * (1 + np.cos(np.pi * t / STEPS)) for t in range(STEPS)]
    models = [Plain(0).double() for _ in range(ranks.world)]
    batches = [list(Batches(r)(0, STEPS)) for r in range(ranks.world)]
    for t in range(STEPS):
        for model, own in zip(models, batches, strict=True):
            model.zero_grad()
            F.cross_entropy(model(own[t]["x"].double()), own[t]["labels"]).backward()
            with torch.no_grad():
                for p in model.body.parameters():
                    p -= rates[t] * p.grad
        if (t + 1) % sync_every == 0:
            with torch.no_grad():
                for parts in zip(*(m.body.parameters() for m in models), strict=True):
                    mean = torch.stack([p.data for p in parts]).mean(0)
                    for p in parts:
                        p.copy_(mean)
    return {k: v.detach().numpy() for k, v in models[0].state_dict().items()}


def resumes(out: Path, ranks: Ranks, name: str, strategy: str, **changes) -> None:
    """Stop after half of the steps, go on, and compare with the whole run."""
    first = run(out / f"{name}-parts", ranks, strategy, seconds_limit_s=1e-6, **changes)
    assert not first.finished
    assert first.steps == 4
    assert run(out / f"{name}-parts", ranks, strategy, **changes).finished
    ranks.barrier()
    if ranks.writes:
        same = [(out / f"{name}{end}" / "model.safetensors").read_bytes() for end in ("", "-parts")]
        assert same[0] == same[1], name


def refuses(out: Path, ranks: Ranks) -> None:
    """A run does not go on under a mode that learns something else."""
    run(out / "half", ranks, "ddp", seconds_limit_s=1e-6)
    with pytest.raises(ConfigError, match=r"config\.s"):
        run(out / "half", ranks, "local_sgd", sync_every=2)


def main(out: Path) -> None:
    torch.set_num_threads(1)
    ranks = join("cpu", "ddp")
    check_average(ranks)
    plain = {"momentum": 0.0, "weight_decay": 0.0}
    for name, strategy, changes in (
        ("sync", "ddp", {}),
        ("local-1", "local_sgd", {}),
        ("local-4", "local_sgd", {"sync_every": 4}),
        ("server-0", "async_ps", {}),
        ("plain", "ddp", plain),
        ("plain-local", "local_sgd", plain),
        ("plain-local-4", "local_sgd", {**plain, "sync_every": 4}),
        ("adam", "ddp", {"optimizer": "adamw", "clip_norm": 0.1}),
        ("adam-server", "async_ps", {"optimizer": "adamw", "clip_norm": 0.1}),
    ):
        run(out / name, ranks, strategy, **changes)
    # A slow rank, and ranks that may be two steps apart: each run is another, all of them learn.
    slow = 0.02 if ranks.rank == ranks.world - 1 else 0.0
    stale = run(out / "server-2", ranks, "async_ps", slow, staleness=2)
    assert stale.finished
    resumes(out, ranks, "local-4", "local_sgd", sync_every=4)
    resumes(out, ranks, "server-0", "async_ps")
    refuses(out, ranks)
    if ranks.writes:
        sync = weights(out / "sync")
        assert far(sync, weights(out / "local-1")) < 1e-6
        assert far(sync, weights(out / "server-0")) < 1e-6
        assert far(weights(out / "plain"), weights(out / "plain-local")) < 1e-6
        assert far(weights(out / "adam"), weights(out / "adam-server")) < 1e-5
        assert far(sync, weights(out / "local-4")) > 1e-4
        by_1, by_4 = by_hand(ranks, 1), by_hand(ranks, 4)
        assert far(by_1, weights(out / "plain-local")) < 1e-6
        assert far(by_4, weights(out / "plain-local-4")) < 1e-6
        assert far(by_1, by_4) > 1e-5
        assert 0 < far(sync, weights(out / "server-2")) < 1
    ranks.barrier()
    dist.destroy_process_group()
    print("ok", flush=True)
    os._exit(0)  # gloo's threads may outlive the group and abort a normal exit


if __name__ == "__main__":
    main(Path(sys.argv[1]))
