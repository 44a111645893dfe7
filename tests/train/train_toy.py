"""A small run that tests break in all ways; also a script: `python train_toy.py OUT [delay]`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from understudy.core.seeds import torch_generator
from understudy.train.config import TrainConfig
from understudy.train.loop import fit
from understudy.train.result import RunResult

STEPS = 24


class Toy(nn.Module):
    """Convolution, batch norm and dropout: running statistics and random numbers per step."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.body = nn.Sequential(
                nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2)
            )
            self.head = nn.Linear(8, 4)

    def forward(self, images):
        return {"logits": self.head(self.body(images).mean((2, 3)))}


class Batches:
    """Batch i is a function of i; the class is the brightest of four corners."""

    def __init__(self, size: int = 16, delay_s: float = 0.0, poison: int | None = None) -> None:
        self.size, self.delay_s, self.poison = size, delay_s, poison
        self.calls: list[tuple[int, int]] = []

    def describe(self):
        return {"size": self.size}

    def batch(self, number: int):
        generator = torch_generator("toy", number)
        labels = torch.randint(0, 4, (self.size,), generator=generator)
        images = torch.randn(self.size, 3, 8, 8, generator=generator)
        for i, label in enumerate(labels.tolist()):
            images[i, label % 3] += 1.0 + label
        if number == self.poison:
            images[0] = float("nan")
        rows = torch.arange(number * self.size, (number + 1) * self.size)
        return {"images": images, "labels": labels, "rows": rows}

    def __call__(self, start: int, count: int):
        self.calls.append((start, count))
        for number in range(start, start + count):
            time.sleep(self.delay_s)
            yield self.batch(number)


def objective(model, batch):
    logits = model(batch["images"])["logits"]
    return {"loss": F.cross_entropy(logits, batch["labels"])}


def evaluate(model, step):
    batch = Batches(64).batch(10_000)
    logits = model(batch["images"])["logits"]
    return {"top1": float((logits.argmax(1) == batch["labels"]).float().mean())}


def config(**changes) -> TrainConfig:
    base = {
        "steps": STEPS,
        "lr": 0.01,
        "warmup_steps": 3,
        "weight_decay": 0.1,
        "clip_norm": 1.0,
        "accumulate": 2,
        "ema_decay": 0.9,
        "checkpoint_every": 5,
        "log_every": 4,
        "eval_every": 8,
        "device": "cpu",
        "best": "top1",
    }
    return TrainConfig(**{**base, **changes})


def run(
    out: Path, batches: Batches | None = None, model: nn.Module | None = None, **changes
) -> RunResult:
    names = ("stop", "resume", "context", "data")
    options = {k: changes.pop(k) for k in names if k in changes}
    return fit(
        model or Toy(),
        objective,
        batches or Batches(),
        config(**changes),
        out,
        evaluate=evaluate,
        **options,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    delay_s = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    run(Path(sys.argv[1]), Batches(delay_s=delay_s))
    print("finished")
