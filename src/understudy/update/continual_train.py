"""Train one step of a stream: the student's own trainer on the rows that the plan names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.core.config import to_dict
from understudy.core.errors import ConfigError, DataError
from understudy.core.seeds import seed_for
from understudy.data.loader import Loader
from understudy.data.sampler_replay import ReplayMix, ReplaySampler
from understudy.models.io import weights_hash
from understudy.models.multimodal.clip import CLIP
from understudy.train.config import TrainConfig
from understudy.train.distributed import join
from understudy.train.result import plain
from understudy.train.state import frozen_hash
from understudy.train.student import clip_loader, clip_step
from understudy.train.student_run import StudentResult, run_student
from understudy.update.continual_config import ContinualConfig
from understudy.update.continual_lwf import LwfStep
from understudy.update.continual_start import carry_optimizer, check_start

if TYPE_CHECKING:
    from understudy.data.store import Store


@dataclass(frozen=True, kw_only=True)
class StepTask:
    """What a step is given.

    Attributes:
        name: of the period.
        mix: what it learns from.
        train: its budget.
        last: folder of the training before it; None at the first step and for fresh weights.
        teacher: the last checkpoint, for methods that ask it.
    """

    name: str
    mix: ReplayMix
    train: TrainConfig
    last: Path | None = None
    teacher: CLIP | None = None


def step_loader(store: Store, model: CLIP, config: ContinualConfig, task: StepTask) -> Loader:
    """Return the batches of a step.

    Raises:
        DataError: fewer rows than a batch; the step and its size are named.
    """
    train, student = task.train, config.student
    ranks = join(train.device, train.strategy)
    if not train.batch_size or train.batch_size % ranks.world:
        raise ConfigError(
            f"train.batch_size: {train.batch_size} pairs cannot be shared by {ranks.world} ranks; "
            f"give a multiple of {ranks.world}."
        )
    if len(task.mix.rows) < train.batch_size:
        raise DataError(
            f"time step '{task.name}': {len(task.mix.rows)} rows are fewer than a batch of "
            f"{train.batch_size}; merge it with a neighbour (periods.merge) or lower "
            "train.batch_size."
        )
    # The student's own loader knows which columns a batch holds; which rows is ours to say.
    own = clip_loader(store, model, replace(student, train=train))
    assert isinstance(own, Loader)
    sampler = ReplaySampler(
        task.mix,
        train.batch_size // ranks.world,
        seed_for("continual", student.seed, task.name) % 2**31,
        replacement=config.replacement,
        num_views=getattr(own.sampler, "num_views", 0),
        rank=ranks.rank,
        world=ranks.world,
        view_order="random" if config.replacement else student.view_order,
    )
    return Loader(store, sampler, own.fields, seed=student.seed, workers=student.workers)


def train_step(
    store: Store, model: CLIP, config: ContinualConfig, task: StepTask, out: Path
) -> StudentResult:
    """Train a model on a step, in place; killed and called again it goes on.

    Args:
        store: holds everything.
        model: with the weights that the step begins with.
        config: the method.
        task: of the step.
        out: folder of the run.

    Raises:
        ConfigError: the folder holds a step that began otherwise.
        DataError: fewer rows than a batch.
    """
    student = replace(config.student, train=task.train)
    loader = step_loader(store, model, config, task)
    step: Any = clip_step(store, student)
    start = {"new_run": config.new_run or task.last is None, "weights": weights_hash(model)}
    learned: dict[str, Any] = {
        "captions": student.captions,
        "lam": student.lam,
        "loss": student.loss,
        "start": start,
    }
    if task.teacher is not None:
        teacher = task.teacher.to(join(task.train.device, task.train.strategy).device).eval()
        step = LwfStep(
            base=step,
            teacher=teacher.requires_grad_(False),
            weight=config.lwf_weight,
            tau=config.tau,
        )
        learned["lwf"] = {"weight": config.lwf_weight, "tau": config.tau}
    check_start(out, start)
    if not start["new_run"]:
        assert task.last is not None
        facts = {
            "config": plain(task.train.identity()),
            "data": plain({"loader": loader.describe(), "objective": learned}),
            "frozen": frozen_hash(model),
            "world": join(task.train.device, task.train.strategy).world,
        }
        carry_optimizer(task.last, out, model, facts)
    return run_student(
        store,
        model,
        step,
        loader,
        student,
        out,
        None,
        learned=learned,
        context={"continual": to_dict(config), "period": task.name},
    )
