"""What a CLIP student learns from, how long and how fast."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.objectives.checks import fraction, teacher_scales
from understudy.objectives.distill import Combine
from understudy.objectives.reinforced import CAPTIONS, check_weights
from understudy.train.config import TrainConfig


def _small_run() -> TrainConfig:
    return TrainConfig(
        steps=1500, batch_size=64, lr=2e-3, warmup_steps=100, weight_decay=0.1, clip_norm=1.0
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentConfig:
    """Describe a CLIP student and what it learns from.

    Attributes:
        model: a key of `understudy.models.MODELS`, or a weights file or run to start from.
        changes: values of the model's configuration to replace, by dotted key.
        tokenizer: `"own"` trains one on the captions; a path reads CLIP's vocabulary; `"auto"` is
            `"own"` for models that bring none.
        vocab_size: ids of an own tokenizer.
        view_set: set of stored views to replay; empty trains on plain images.
        teachers: whose embeddings to imitate; empty for all that know the view set.
        captioner: whose captions to use; empty for the only one there is.
        captions: `both` (two losses), `real`, `syn`, or `mix` (one of both per pair).
        mix: share of synthetic captions for `mix`.
        pick: how one of a row's synthetic captions is chosen: `epoch` uses the same place in an
            epoch and every place once a cycle, which reads one caption's columns; `random` draws
            for each row.
        view_order: `epoch` uses one view an epoch, each once a cycle, and reads one view's columns
            only; `random` draws a view for each row, as published, and reads many.
        lam: weight of distillation; 1 - lam of the CLIP loss.
        scales: logit scale of each teacher; empty takes what the teachers' cards say.
        weights: of the real and the synthetic batch.
        combine: how teachers combine, see `objectives.distill.affinity_distill`.
        range_augment: learn brightness, contrast and noise for the student (arXiv 2212.10553).
        psnr: its target at the first and the last step, in dB.
        augment: transforms by name for images that replay no stored view, as in `ViewConfig`.
        rescale: allow stored views of another size than the student's input.
        replay: `stored`; `fresh` is a control that breaks replay.
        shuffle_targets: a control that gives every row another row's targets.
        rows: SQL filter; empty takes the split `train` if there is one, else all rows.
        image_column: payload column of encoded images.
        text_column: payload column of real captions.
        mean: normalisation that is expected; refused unless it is the model's own.
        std: the same.
        train: how long and how fast.
        seed: of weights, order, choices and everything random inside a step.
        workers: threads that make batches ahead; 0 makes them in between.
    """

    model: str = "mobileclip-nano"
    changes: dict[str, Any] = field(default_factory=dict)
    tokenizer: str = "auto"
    vocab_size: int = 1024
    view_set: str = ""
    teachers: tuple[str, ...] = ()
    captioner: str = ""
    captions: Literal["both", "real", "syn", "mix"] = "both"
    mix: float = 0.5
    pick: Literal["random", "epoch"] = "epoch"
    view_order: Literal["epoch", "random"] = "epoch"
    lam: float = 1.0
    scales: tuple[float, ...] = ()
    weights: tuple[float, float] = (1.0, 1.0)
    combine: Combine = "average"
    range_augment: bool = False
    psnr: tuple[float, float] = (40.0, 20.0)
    augment: dict[str, Any] = field(default_factory=dict)
    rescale: bool = False
    replay: Literal["stored", "fresh"] = "stored"
    shuffle_targets: bool = False
    rows: str = ""
    image_column: str = "image"
    text_column: str = "text"
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    train: TrainConfig = field(default_factory=_small_run)
    seed: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        fraction(self.lam, "lam")
        fraction(self.mix, "mix")
        check_weights(self.weights)
        check_choice(self.captions, CAPTIONS, "captions")
        if self.lam > 0 and not self.view_set:
            raise ConfigError(
                f"lam: {self.lam} imitates teachers' embeddings of stored views; name the view set "
                "(view_set), or set lam=0 for plain CLIP training."
            )
        if self.scales:
            teacher_scales(self.scales, len(self.teachers) or len(self.scales))
        if self.vocab_size < 520:
            raise ConfigError(f"vocab_size: expected at least 520, got {self.vocab_size}.")

    @property
    def synthetic(self) -> bool:
        """Whether synthetic captions are used."""
        return self.captions != "real"

    @property
    def real(self) -> bool:
        """Whether real captions are used."""
        return self.captions != "syn"
