"""The price of a reinforced step against a plain CLIP step of the same student and batch.

A reinforced step reads one stored view, two captions and two teachers' embeddings of 768 numbers
each, runs the image tower once and the text tower on twice the rows, and compares affinities. Arms
take whole steps (batch, forward, backward, update) turn by turn on one thread:

- `plain`: images and real captions, CLIP loss;
- `data`: the reinforced batch, but the plain loss: what reading alone adds;
- `one-caption`: imitation with one of both captions a pair: what targets add;
- `reinforced`: both captions, the published step;
- `online`: the same with the teachers asked at every step.

    .venv/bin/python benchmarks/step.py [--quick]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import alternate, ratio, write_result

STUDENT, BATCH, VIEWS, DIM, CONTEXT = "mobileclip-nano", 64, 4, 768, 16
STEP_GOAL, DATA_GOAL = 1.3, 1.05


def teacher(name: str, seed: int, channels: tuple[int, ...]) -> Any:
    """Return a fresh teacher; what it says does not matter here."""
    from understudy import models
    from understudy.models.text.train_tokenizer import train_words

    words = train_words(
        ["a small large 0 1 2 3 4 5 6 7 8 9 left of above below right with them"],
        context_length=CONTEXT,
    )
    return models.create(
        name,
        seed=seed,
        tokenizer=words,
        embed_dim=DIM,
        **{"image.channels": channels, "text.context_length": CONTEXT},
    ).eval()


def reinforced_store(path: Path, rows: int, teachers: dict[str, Any]) -> Any:
    """Return a store of scenes whose rows hold views and both teachers' embeddings."""
    from understudy.data import scenes
    from understudy.data.store import Store
    from understudy.data.view_config import ViewConfig
    from understudy.reinforce.config import ReinforceConfig, TeacherSpec
    from understudy.reinforce.generate import reinforce
    from understudy.reinforce.teachers.own import OwnTeacher

    store = scenes.to_store("pairs", path, train=rows, teacher=0, test=0, masks=False)
    config = ReinforceConfig(
        view_set="main",
        num_views=VIEWS,
        views=ViewConfig(size=48),
        teachers=tuple(TeacherSpec(name=name, outputs=("image", "text")) for name in teachers),
    )
    own = {name: OwnTeacher(name, model, logit_scale=50.0) for name, model in teachers.items()}
    reinforce(store, config, teachers=own)
    return Store.open(path)


def arms(store: Any, teachers: dict[str, Any], calls: int) -> dict[str, Any]:
    """Return what takes one step of each arm."""
    from understudy.train.config import TrainConfig
    from understudy.train.online import OnlineTeachers
    from understudy.train.step_timing import make_step
    from understudy.train.student import StudentConfig, clip_loader, clip_step, make_student

    full = StudentConfig(
        model=STUDENT,
        changes={"text.context_length": CONTEXT},
        view_set="main",
        train=TrainConfig(steps=calls, batch_size=BATCH, lr=1e-4),
        workers=0,
    )
    views = {"random_resized_crop": {}, "rand_augment": {}}
    plain = replace(full, lam=0.0, captions="real", view_set="", augment=views)
    settings = {
        "plain": (plain, plain),
        "data": (full, plain),
        "one-caption": (full, replace(full, captions="mix")),
        "reinforced": (full, full),
    }
    found = {}
    for name, (read, learn) in settings.items():
        model = make_student(store, full)
        found[name] = make_step(
            model, clip_step(store, learn), clip_loader(store, model, read)(0, calls), full.train
        )
    model = make_student(store, full)
    loader = clip_loader(store, model, replace(full, lam=0.0))
    asked = OnlineTeachers(
        store, loader, list(teachers.values()), model.preprocess, captioner="template"
    )
    found["online"] = make_step(model, clip_step(store, full), asked(0, calls), full.train)
    return found


def main() -> None:
    import torch

    torch.set_num_threads(1)
    rounds = 6 if "--quick" in sys.argv else 40
    teachers = {
        "a": teacher("clip-teacher-a", 1, (24, 48, 48, 96, 96)),
        "b": teacher("clip-teacher-b", 2, (32, 48, 64, 96)),
    }
    with tempfile.TemporaryDirectory() as folder:
        store = reinforced_store(Path(folder) / "store", 512, teachers)
        seconds = alternate(arms(store, teachers, rounds + 3), rounds, warmup=3)
    over = {name: round(ratio(times, seconds["plain"]), 3) for name, times in seconds.items()}
    online = round(ratio(seconds["reinforced"], seconds["online"]), 3)
    result = {
        "student": STUDENT,
        "batch": BATCH,
        "context": CONTEXT,
        "teacher_dims": [DIM, DIM],
        "threads": 1,
        "rounds": rounds,
        "median_ms": {k: round(statistics.median(v) * 1e3, 2) for k, v in seconds.items()},
        "over_plain": over,
        "reinforced_over_online": online,
        "goals": {"reinforced": STEP_GOAL, "data": DATA_GOAL},
    }
    for name, value in over.items():
        print(f"{name}: {result['median_ms'][name]:.1f} ms, {value:.3f} plain steps")  # type: ignore[index]
    print(f"reinforced / online: {online:.3f}")
    write_result("step", result)
    met = over["reinforced"] <= STEP_GOAL and over["data"] <= DATA_GOAL
    print(f"goals (reinforced <= {STEP_GOAL}, data <= {DATA_GOAL}): {'met' if met else 'missed'}")
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
