"""How a stream is gone through: which method, which memory, how long a step is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.data.sampler_replay_plan import BUFFERS, Buffer, ReplayPlan
from understudy.train.config import TrainConfig
from understudy.train.student_config import StudentConfig
from understudy.update.continual_methods import Method, method_of

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)


def _student() -> StudentConfig:
    return StudentConfig(captions="real", lam=0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class ContinualConfig:
    """Describe continual training of a CLIP model.

    Attributes:
        method: a key of `understudy.update.continual_methods.METHODS`.
        memory: capacity for old samples, in mean sizes of the steps seen so far; methods
            `cumulative-exp` and `cumulative-equal`.
        capacity: the same in samples; 0 takes `memory`.
        buffer: `streaming`: what was dropped cannot return; `archive` draws anew from all old data.
        replacement: draw rows with replacement instead of passing over them.
        student: the model and one step's budget: `train.steps` iterations are the compute C. Which
            rows it learns from is the stream's business.
        rewarm_steps: warm-up of steps that begin with trained weights; the first step and steps of
            fresh weights warm up as `student.train` says.
        new_run: a step takes over the last one's weights alone; its optimiser's moments and
            gradient scaler begin anew. False takes these over too.
        lwf_weight: of the divergence from the last checkpoint, method `lwf`.
        tau: temperature of that divergence.
        alphas: weights of the newly trained model to choose from, method `patching`.
        norm_batches: batches that recompute statistics of batch normalisation after interpolation.
    """

    method: str = "cumulative-all"
    memory: float = 2.0
    capacity: int = 0
    buffer: Buffer = "streaming"
    replacement: bool = False
    student: StudentConfig = field(default_factory=_student)
    rewarm_steps: int = 0
    new_run: bool = True
    lwf_weight: float = 1.0
    tau: float = 1.0
    alphas: tuple[float, ...] = ALPHAS
    norm_batches: int = 50

    def __post_init__(self) -> None:
        method_of(self.method)
        check_choice(self.buffer, BUFFERS, "replay buffer")
        for name in ("rewarm_steps", "capacity", "lwf_weight"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: expected at least 0, got {getattr(self, name)}.")
        for name in ("memory", "tau", "norm_batches"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}: expected more than 0, got {getattr(self, name)}.")
        if not self.alphas or not all(0.0 <= alpha <= 1.0 for alpha in self.alphas):
            raise ConfigError(f"alphas: expected numbers in [0, 1], got {self.alphas}.")
        if self.student.online or self.student.range_augment:
            raise ConfigError(
                "student: continual training takes stored targets only; leave online and "
                "range_augment out."
            )
        if self.student.train.accumulate > 1:
            raise ConfigError("student.train.accumulate: continual training takes 1 only.")

    @property
    def how(self) -> Method:
        """The method."""
        return method_of(self.method)

    def plan(self) -> ReplayPlan:
        """Return which old samples a step replays."""
        return ReplayPlan(
            method=self.how.replay,
            memory=self.memory,
            capacity=self.capacity or None,
            buffer=self.buffer,
            seed=self.student.seed,
        )

    def train(self, iterations: int, *, trained: bool) -> TrainConfig:
        """Return the budget of a step.

        Args:
            iterations: of this step.
            trained: it begins with trained weights, so it does not warm up unless told to.
        """
        warmup = self.rewarm_steps if trained else self.student.train.warmup_steps
        changed = replace(self.student.train, steps=iterations, warmup_steps=warmup)
        return changed.seeded(self.student.seed)
