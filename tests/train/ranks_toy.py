"""The toy run on two ranks; a script: `python ranks_toy.py OUT` under torchrun's variables."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
import train_toy
from safetensors.torch import load_file
from torch import nn

from understudy.train.loop import fit

STEPS = 6


class Toy(train_toy.Toy):
    """With a scalar, which stays whole where the rest is sharded, beside running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, images):
        return {"logits": super().forward(images)["logits"] * self.logit_scale.exp()}


class Batches(train_toy.Batches):
    """Every rank has its own share of a global batch."""

    def __init__(self, rank: int) -> None:
        super().__init__(8)
        self.rank = rank

    def batch(self, number: int):
        return super().batch(2 * number + self.rank)


def evaluate(model, step):
    batch = train_toy.Batches(32).batch(10_000)
    loss = F.cross_entropy(model(batch["images"])["logits"], batch["labels"])
    return {"loss": float(loss), "good": -float(loss)}


def run(out: Path, rank: int, strategy: str, **changes):
    """Train in `out`; call it again to go on."""
    config = train_toy.config(
        steps=STEPS,
        accumulate=2,
        warmup_steps=2,
        log_every=2,
        eval_every=3,
        checkpoint_every=2,
        best="ema_good",
        strategy=strategy,
        **changes,
    )
    return fit(Toy(), train_toy.objective, Batches(rank), config, out, evaluate=evaluate)


def check(out: Path, rank: int, strategy: str) -> None:
    """Train whole and in two parts; rank 0 compares what came out."""
    whole, parts = out / f"{strategy}-whole", out / f"{strategy}-parts"
    done = run(whole, rank, strategy)
    first = run(parts, rank, strategy, seconds_limit_s=1e-6)
    assert not first.finished
    assert first.steps == 2
    assert run(parts, rank, strategy).finished
    if rank:
        return
    for name in ("model.safetensors", "model-ema.safetensors", "model-best.safetensors"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), (strategy, name)
    for name, key in (("model", "loss"), ("model-ema", "ema_loss")):
        model = Toy()
        model.load_state_dict(load_file(whole / f"{name}.safetensors"))
        with torch.no_grad():
            loss = evaluate(model.eval(), 0)["loss"]
        # What was scored is what was written, sharded or not.
        assert abs(loss - done.metrics[key]) < 1e-5, (strategy, name, loss, done.metrics)
    assert abs(done.metrics["loss"] - done.metrics["ema_loss"]) > 1e-4


def main(out: Path) -> None:
    """Run both strategies and compare them with each other."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    for strategy in ("ddp", "fsdp"):
        check(out, rank, strategy)
    if rank == 0:
        for name in ("model", "model-ema"):
            a, b = (load_file(out / f"{s}-whole" / f"{name}.safetensors") for s in ("ddp", "fsdp"))
            # A bias before batch normalisation has no gradient but rounding, which AdamW blows up.
            for key in a.keys() - {"body.0.bias", "body.1.running_mean"}:
                assert torch.allclose(a[key].float(), b[key].float(), atol=2e-5), (name, key)
    dist.barrier()
    dist.destroy_process_group()
    print("ok", flush=True)
    os._exit(0)  # gloo's threads may outlive the group and abort a normal exit


if __name__ == "__main__":
    main(Path(sys.argv[1]))
