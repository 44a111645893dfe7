"""What a run of tic-clip is told: which times, which methods, how much a step may cost."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from understudy.core.errors import ConfigError
from understudy.data.periods import PeriodRule
from understudy.data.periods_stream import StreamRule
from understudy.data.sampler_replay_plan import Buffer
from understudy.train.config import TrainConfig
from understudy.train.student_config import StudentConfig
from understudy.update.continual_config import ALPHAS, ContinualConfig
from understudy.update.continual_methods import method_of

EMOJI_PERIODS = (
    "0.0..0.7",
    "1.0",
    "2.0",
    "3.0..4.0",
    "5.0..11.0",
    "12.0..12.1",
    "13.0..16.0",
)
"""Emoji versions in seven steps of at least 70 new concepts each."""
EMOJI = StreamRule(
    periods=PeriodRule(column="added_in", kind="version", merge=EMOJI_PERIODS),
    train="split = 'train' AND skin_tone = ''",
    test="split = 'vendor' AND skin_tone = ''",
    held="split = 'val' AND skin_tone = ''",
)
"""Learn from one vendor's drawings, be scored on the other's: a style that nobody has seen."""


def _budget() -> TrainConfig:
    return TrainConfig(
        steps=300,
        batch_size=64,
        lr=2e-3,
        warmup_steps=30,
        weight_decay=0.1,
        clip_norm=1.0,
        checkpoint_every=100,
        keep_checkpoints=1,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Say how the store is divided in time, and which methods go through it.

    Attributes:
        store: image-text pairs with a column of times.
        out: folder of the runs and of `result.json`.
        preset: `emoji` sets periods, splits and model for the store that `understudy data fetch
            emoji` makes, where these have their defaults; empty for none.
        stream: which rows belong to which time step, and which of them are scored.
        methods: oracle, restart, sequential, cumulative-all, cumulative-exp, cumulative-equal,
            cumulative-all-star, patching, lwf.
        memory: capacity for old pairs, in mean sizes of the steps seen so far.
        buffer: `streaming`: what was dropped cannot return; `archive` draws anew.
        replacement: draw pairs with replacement.
        model: key of `understudy.models.MODELS`.
        changes: values of the model's configuration to replace, by dotted key.
        tokenizer: see `StudentConfig`; an own one is trained on the first step's texts.
        vocab_size: ids of an own tokenizer.
        text_column: payload column of captions.
        augment: transforms of images by name, as in `ViewConfig`.
        train: budget of one step; `train.steps` are the iterations of C.
        rewarm_steps: warm-up of steps that begin with trained weights.
        lwf_weight: of the divergence from the last checkpoint, method lwf.
        tau: temperature of that divergence.
        alphas: weights to choose from, method patching.
        tasks: scores of every model on every step: retrieval, zeroshot; the first one chooses.
        prompts: of zero-shot classification; empty takes the usual ones.
        seeds: one run of every method each.
    """

    store: Path
    out: Path = Path("runs/tic-clip")
    preset: Literal["", "emoji"] = ""
    stream: StreamRule = field(default_factory=StreamRule)
    methods: tuple[str, ...] = ("sequential", "cumulative-all", "cumulative-exp", "oracle")
    memory: float = 2.0
    buffer: Buffer = "streaming"
    replacement: bool = False
    model: str = "clip-conv-nano"
    changes: dict[str, Any] = field(default_factory=dict)
    tokenizer: str = "auto"
    vocab_size: int = 1024
    text_column: str = "text"
    augment: dict[str, Any] = field(default_factory=dict)
    train: TrainConfig = field(default_factory=_budget)
    rewarm_steps: int = 0
    lwf_weight: float = 1.0
    tau: float = 1.0
    alphas: tuple[float, ...] = ALPHAS
    tasks: tuple[str, ...] = ("retrieval",)
    prompts: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        for name in self.methods:
            method_of(name)
        for name in ("methods", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ConfigError(f"{name}: expected at least one, all different, got {values}.")


def preset(config: Config) -> Config:
    """Return the configuration with what its preset says, where it has its defaults."""
    if config.preset != "emoji":
        return config
    usual = Config(store=config.store)
    wanted: dict[str, Any] = {
        "stream": EMOJI,
        "changes": {"image.image_size": 64, "text.context_length": 24},
        "augment": {"random_crop": {"padding": 4, "fill": 255}},
    }
    changed = {k: v for k, v in wanted.items() if getattr(config, k) == getattr(usual, k)}
    return replace(config, **changed)


def continual(config: Config, method: str, seed: int) -> ContinualConfig:
    """Return how one method goes through the stream."""
    return ContinualConfig(
        method=method,
        memory=config.memory,
        buffer=config.buffer,
        replacement=config.replacement,
        student=StudentConfig(
            model=config.model,
            changes=config.changes,
            tokenizer=config.tokenizer,
            vocab_size=config.vocab_size,
            captions="real",
            lam=0.0,
            augment=config.augment,
            text_column=config.text_column,
            train=config.train,
            seed=seed,
        ),
        rewarm_steps=config.rewarm_steps,
        lwf_weight=config.lwf_weight,
        tau=config.tau,
        alphas=config.alphas,
    )
