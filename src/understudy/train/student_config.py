"""What a CLIP student learns from, how long and how fast."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from understudy.core.config import LATER, check_choice
from understudy.core.errors import ConfigError
from understudy.objectives.checks import fraction, teacher_scales
from understudy.objectives.distill import Combine
from understudy.objectives.reinforced import CAPTIONS, check_weights
from understudy.train.config import TrainConfig
from understudy.train.student_base import StudentBase


def _small_run() -> TrainConfig:
    return TrainConfig(
        steps=1500, batch_size=64, lr=2e-3, warmup_steps=100, weight_decay=0.1, clip_norm=1.0
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentConfig(StudentBase):
    """Describe a CLIP student and what it learns from.

    Attributes:
        tokenizer: `"own"` trains one on the captions; a path reads CLIP's vocabulary; `"auto"` is
            `"own"` for models that bring none.
        vocab_size: ids of an own tokenizer.
        teachers: whose embeddings to imitate; empty for all that know the view set.
        captioner: whose captions to use: a name, or a regular expression matched against whole
            names, whose captions then are one pool; empty for the only one there is.
        captions: `both` (two losses), `real`, `syn`, or `mix` (one of both per pair).
        mix: share of synthetic captions for `mix`.
        pick: how one of a row's synthetic captions is chosen: `epoch` uses the same place in an
            epoch and every place once a cycle, which reads one caption's columns; `random` draws
            for each row.
        num_captions: how many of each captioner's stored captions to use, the first ones; 0 uses
            all.
        lam: weight of distillation; 1 - lam of the CLIP loss.
        scales: logit scale of each teacher; empty takes what the teachers' cards say.
        loss: `softmax` (CLIP), or `sigmoid` (SigLIP; the student learns a logit bias).
        biases: for `sigmoid`: logit bias of each teacher; empty takes what the cards say.
        compat: for `sigmoid`: the published form of the loss, see
            `objectives.distill.sigmoid_distill`.
        online: weights files or runs of CLIPs that are asked at every step, instead of stored
            embeddings: the same loss, at many times the price.
        weights: of the real and the synthetic batch.
        combine: how teachers combine, see `objectives.distill.affinity_distill`.
        range_augment: learn brightness, contrast and noise for the student (arXiv 2212.10553).
        psnr: its target at the first and the last step, in dB.
        text_column: payload column of real captions.
    """

    model: str = "mobileclip-nano"
    tokenizer: str = "auto"
    vocab_size: int = 1024
    teachers: tuple[str, ...] = ()
    captioner: str = ""
    captions: Literal["both", "real", "syn", "mix"] = "both"
    mix: float = 0.5
    pick: Literal["random", "epoch"] = "epoch"
    num_captions: int = field(default=0, metadata=LATER)
    lam: float = 1.0
    scales: tuple[float, ...] = ()
    weights: tuple[float, float] = (1.0, 1.0)
    combine: Combine = "average"
    loss: Literal["softmax", "sigmoid"] = field(default="softmax", metadata=LATER)
    biases: tuple[float, ...] = field(default=(), metadata=LATER)
    compat: bool = field(default=False, metadata=LATER)
    online: tuple[str, ...] = field(default=(), metadata=LATER)
    range_augment: bool = False
    psnr: tuple[float, float] = (40.0, 20.0)
    text_column: str = "text"
    train: TrainConfig = field(default_factory=_small_run)

    def __post_init__(self) -> None:
        fraction(self.lam, "lam")
        fraction(self.mix, "mix")
        check_weights(self.weights)
        check_choice(self.captions, CAPTIONS, "captions")
        check_choice(self.loss, ("softmax", "sigmoid"), "loss")
        if self.lam > 0 and not (self.view_set or self.online):
            raise ConfigError(
                f"lam: {self.lam} imitates teachers' embeddings of stored views; name the view set "
                "(view_set), or set lam=0 for plain CLIP training."
            )
        if self.online and (self.teachers or self.shuffle_targets):
            raise ConfigError(
                "online: teachers that are asked at every step take the place of stored ones; "
                "leave teachers and shuffle_targets out."
            )
        if self.num_captions < 0:
            raise ConfigError(f"num_captions: expected at least 0, got {self.num_captions}.")
        count = len(self.online) or len(self.teachers)
        if self.scales:
            teacher_scales(self.scales, count or len(self.scales))
        if self.biases:
            self._check_biases(count or len(self.biases))
        if self.compat and self.loss == "softmax":
            raise ConfigError("compat: it is a form of the sigmoid loss; set loss=sigmoid.")
        if self.vocab_size < 520:
            raise ConfigError(f"vocab_size: expected at least 520, got {self.vocab_size}.")

    def _check_biases(self, count: int) -> None:
        if self.loss == "softmax":
            raise ConfigError("biases: the softmax loss has none; set loss=sigmoid.")
        if len(self.biases) != count:
            raise ConfigError(
                f"biases: {len(self.biases)} logit biases for {count} teachers; give one each."
            )

    @property
    def synthetic(self) -> bool:
        """Whether synthetic captions are used."""
        return self.captions != "real"

    @property
    def real(self) -> bool:
        """Whether real captions are used."""
        return self.captions != "syn"
