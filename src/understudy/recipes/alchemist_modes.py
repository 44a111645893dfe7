"""The training of claim B: a worker under torchrun that trains by one of the modes and times it.

    torchrun --nproc-per-node 2 -m understudy.recipes.alchemist_modes DATA.npz --facts DIR

Weights are copied every few steps with the time that training took until then, and scored at the
end, so that scoring costs no training time. A straggler sleeps after each gradient for a multiple
of what the gradient took.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from understudy.core.files import write_json
from understudy.recipes.alchemist_script import leave, load, network, rows_of
from understudy.train.distributed import join
from understudy.train.parallel.server import ParameterServer
from understudy.train.parallel.serving import meet
from understudy.train.parallel.step_model import fit_link

SMALL, LARGE = 1_000, 4_000_000
"""Bytes of the messages that the link is measured with."""


@dataclass(kw_only=True)
class Trace:
    """Copies of weights on the way.

    Attributes:
        samples: samples that had moved the weights.
        seconds: of training until then.
        weights: the copies.
        steps: seconds of each step of this worker.
    """

    samples: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    weights: list[list[Tensor]] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)

    def keep(self, samples: int, seconds: float, parameters: Any) -> None:
        """Copy weights."""
        self.samples.append(samples)
        self.seconds.append(seconds)
        self.weights.append([p.detach().clone() for p in parameters])


Gradient = Callable[[int, np.ndarray], None]


def synchronous(options: Any, parallel: nn.Module, gradient: Gradient, trace: Trace) -> None:
    """Average gradients in every step."""
    optimizer = torch.optim.SGD(parallel.parameters(), lr=options.lr, momentum=options.momentum)
    rank, world = dist.get_rank(), dist.get_world_size()
    begun = time.perf_counter()
    for step in range(options.steps):
        start = time.perf_counter()
        rows = rows_of(step, options.seed, options.batch, options.count)
        optimizer.zero_grad()
        gradient(rank, rows[rank::world])
        optimizer.step()
        trace.steps.append(time.perf_counter() - start)
        if (step + 1) % options.keep == 0:
            samples = (step + 1) * options.batch
            trace.keep(samples, time.perf_counter() - begun, parallel.parameters())


def asynchronous(options: Any, model: nn.Module, gradient: Gradient, trace: Trace) -> None:
    """Send gradients to a parameter server without a bound, until enough samples have been seen.

    Every worker goes through a shuffle of its own, as fast as it can.
    """
    ranks = join("cpu", "async_ps")
    own = list(model.parameters())
    share = options.batch // ranks.world
    server = None
    begun = [0.0]
    if ranks.rank == 0:
        copies = [nn.Parameter(p.detach().clone()) for p in own]
        optimizer = torch.optim.SGD(copies, lr=options.lr, momentum=options.momentum)

        def after() -> None:
            assert server is not None
            done = server.version + 1
            if done % (options.keep * ranks.world) == 0:
                trace.keep(done * share, time.perf_counter() - begun[0], copies)

        server = ParameterServer(
            copies,
            optimizer,
            ranks.world,
            None,
            after=after,
            limit=options.steps * ranks.world,
        )
    worker, host = meet(ranks, server, own)
    ranks.barrier()
    begun[0] = time.perf_counter()
    step = 0
    while (found := worker.read()) is not None:
        start = time.perf_counter()
        with torch.no_grad():
            for parameter, value in zip(own, found.weights, strict=True):
                parameter.copy_(value)
        model.zero_grad()
        rows = rows_of(step, options.seed * 1000 + ranks.rank, share, options.count)
        gradient(ranks.rank, rows)
        worker.push([p.grad for p in own])
        trace.steps.append(time.perf_counter() - start)
        step += 1
    worker.close()
    ranks.barrier()
    if host is not None:
        host.close()


def scores(model: nn.Module, trace: Trace, path: str) -> list[float]:
    """Return the accuracy of every copy on the validation pictures."""
    with np.load(path) as data:
        pictures = torch.tensor(data["test_x"], dtype=torch.float32).view(-1, 1, 8, 8)
        labels = torch.tensor(data["test_y"], dtype=torch.int64)
    found = []
    with torch.no_grad():
        for weights in trace.weights:
            for parameter, value in zip(model.parameters(), weights, strict=True):
                parameter.copy_(value)
            found.append(float((model(pictures).argmax(1) == labels).float().mean()))
    return found


def link(world: int, size: int, rounds: int = 30) -> dict[str, float]:
    """Time all-reduces of a short message, a long one and one of `size` bytes; collective."""
    found = {}
    for name, count in (("small", SMALL), ("large", LARGE), ("gradient", size)):
        buffer = torch.zeros(max(1, count // 4))
        seconds = []
        for _ in range(rounds):
            dist.barrier()
            start = time.perf_counter()
            dist.all_reduce(buffer)
            seconds.append(time.perf_counter() - start)
        found[name] = statistics.median(seconds)
    if world < 2:
        return {"communicate_s": 0.0, "bandwidth": 0.0, "latency_s": 0.0}
    bandwidth, latency = fit_link(world, (SMALL, found["small"]), (LARGE, found["large"]))
    return {"communicate_s": found["gradient"], "bandwidth": bandwidth, "latency_s": latency}


def main() -> None:
    """Train and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--facts", required=True)
    parser.add_argument("--mode", default="sync", choices=("sync", "async_ps"))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=int, default=5)
    parser.add_argument("--slow", type=float, default=1.0, help="how much slower the last rank is")
    options = parser.parse_args()
    torch.set_num_threads(1)
    ranks = join("cpu", "ddp")
    pictures, labels = load(options.data)
    options.count = len(labels)
    model = network(options.width, options.seed)
    parallel: nn.Module = model
    if options.mode == "sync":
        parallel = nn.parallel.DistributedDataParallel(model)

    def gradient(rank: int, rows: np.ndarray) -> None:
        loss = cross_entropy(parallel(pictures[rows]), labels[rows])
        if options.slow > 1 and rank == ranks.world - 1:
            # Between forward and backward: the gradient's all-reduce waits for it as well.
            time.sleep((options.slow - 1) * usual * len(rows))
        loss.backward()

    usual = pace(model, pictures, labels, options.batch // ranks.world) if options.slow > 1 else 0.0
    trace = Trace()
    run = synchronous if options.mode == "sync" else asynchronous
    run(options, parallel, gradient, trace)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    measured = link(ranks.world, size)
    if ranks.writes:
        facts = {
            "samples": trace.samples,
            "seconds": trace.seconds,
            "accuracy": scores(model, trace, options.data),
            "step_s": statistics.median(trace.steps),
            "bytes": size,
            **measured,
        }
        write_json(Path(options.facts) / "modes.json", facts)
    leave()


def pace(model: nn.Module, pictures: Tensor, labels: Tensor, batch: int) -> float:
    """Return the seconds of a sample's gradient, all workers computing at once."""
    seconds = []
    for _ in range(8):
        dist.barrier()
        start = time.perf_counter()
        cross_entropy(model(pictures[:batch]), labels[:batch]).backward()
        seconds.append(time.perf_counter() - start)
    model.zero_grad()
    return statistics.median(seconds) / batch


if __name__ == "__main__":
    main()
