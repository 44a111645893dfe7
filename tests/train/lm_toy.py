"""Small language-model runs for tests, and a script: `python lm_toy.py OUT` on each of 2 ranks."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from understudy import models
from understudy.data.samplers import SequentialSampler
from understudy.train.lm import train_lm
from understudy.train.lm_batches import MemoryTokens
from understudy.train.lm_config import LMConfig, lm_train_config

VOCABULARY = 32


def sequences(count=24, longest=24, seed=0):
    """Return rows that count up from a random start: after one token all others are known."""
    draw = np.random.default_rng(seed)
    sizes = draw.integers(4, longest, count) if longest else [16] * count
    return [
        (np.arange(size + 1) + draw.integers(VOCABULARY)).astype(np.uint16) % VOCABULARY
        for size in sizes
    ]


def model(seed=0):
    return models.create("openlm-micro", seed=seed, **{"decoder.vocab_size": VOCABULARY})


def settings(steps=4, **changes):
    train = {"warmup_steps": 1, "log_every": 1, "device": "cpu", **changes.pop("train", {})}
    return LMConfig(**{"train": lm_train_config(steps, **train), "workers": 0, **changes})


class Uneven(SequentialSampler):
    """Rank 0 gets 2 rows of every 8, rank 1 the other 6: their targets differ in number."""

    def __init__(self, rank=None):
        super().__init__(24, 8)
        self.part = slice(None) if rank is None else (slice(0, 2), slice(2, 8))[rank]

    def batch(self, step):
        found = super().batch(step % self.steps)
        return type(found)(rows=found.rows[self.part], view=0, epoch=0, step=step)


def train_on_ranks(out: Path) -> None:
    import torch.distributed as dist

    rank = int(os.environ["RANK"])
    config = settings(train={"strategy": "ddp"})
    train_lm(MemoryTokens(sequences()), model(), config, out, sampler=Uneven(rank))
    dist.barrier()
    dist.destroy_process_group()
    print("ok", flush=True)


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    train_on_ranks(Path(sys.argv[1]))
    os._exit(0)
