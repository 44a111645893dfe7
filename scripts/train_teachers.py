"""Train the teachers that ship inside the package, and write their cards.

    python scripts/train_teachers.py [--steps 4000] [--only clip-teacher-a]

Two CLIPs learn scenes of handwritten digits with clean captions, from scans that no student and no
test sees. About six minutes each on one core. A stopped run goes on where it was.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch

from understudy import models
from understudy.core import progress
from understudy.core.files import write_json
from understudy.core.provenance import versions
from understudy.data import scenes
from understudy.evaluate.held_out import needed_scorer
from understudy.models.count import parameters
from understudy.models.io import weights_hash
from understudy.recipes.mobileclip_arms import VIEWS
from understudy.reinforce.teachers.shipped import NAMES, shipped
from understudy.train.config import TrainConfig
from understudy.train.student import StudentConfig, train_clip

SEED = 7
PAIRS, TEST = 20_000, 1_000
LIMIT_BYTES = 1_000_000


def train(name: str, k: int, steps: int, work: Path) -> None:
    made = {"train": 0, "teacher": PAIRS, "test": TEST, "num_captions": 1, "masks": False}
    store = scenes.to_store("pairs", work / "pairs", seed=SEED, **made)
    config = StudentConfig(
        model=name,
        captions="real",
        lam=0.0,
        augment=VIEWS["weak"],
        vocab_size=545,
        rows="split = 'teacher'",
        train=TrainConfig(
            steps=steps,
            batch_size=64,
            lr=2e-3,
            warmup_steps=100,
            weight_decay=0.1,
            clip_norm=1.0,
            checkpoint_every=500,
            keep_checkpoints=1,
            log_every=100,
        ),
        seed=SEED + k,
    )
    run = train_clip(store, None, config, work / name, needed_scorer(store))
    target = shipped(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    model = models.load(run.path / "model.safetensors").eval().fold()
    models.save(model, target)
    if target.stat().st_size >= LIMIT_BYTES:
        raise SystemExit(f"{target}: {target.stat().st_size:,} bytes, the limit is {LIMIT_BYTES:,}")
    card = {
        "name": name,
        "kind": "CLIP, folded",
        "licence": "Apache-2.0",
        "parameters": parameters(model),
        "weights_hash": weights_hash(model),
        "data": f"{PAIRS:,} scenes (scenes:pairs, split teacher, seed {SEED}) with clean captions",
        "augmentation": VIEWS["weak"],
        "steps": steps,
        "batch_size": 64,
        "seed": SEED + k,
        "scores": {n: round(v, 4) for n, v in run.weights["final"].items()},
        "scored_on": f"{TEST:,} scenes of scans that it never saw",
        "versions": versions(),
    }
    write_json(target.with_suffix(".json"), card)
    print(f"{target}: {card['scores']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--only", choices=NAMES)
    parser.add_argument("--work", type=Path, default=Path("runs/teachers"))
    parser.add_argument("--fresh", action="store_true", help="train again from the start")
    options = parser.parse_args()
    torch.set_num_threads(1)
    progress.enable()
    if options.fresh:
        shutil.rmtree(options.work, ignore_errors=True)
    for k, name in enumerate(NAMES):
        if options.only in (None, name):
            train(name, k, options.steps, options.work)


if __name__ == "__main__":
    main()
