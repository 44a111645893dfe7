"""How a map is learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.objectives.checks import fraction
from understudy.objectives.compatible import LOSSES, check_weights, uses_uncertainty
from understudy.train.config import TrainConfig

WEIGHT_DECAY = 2.0**-15
KINDS = ("transform", "least-squares", "orthogonal")


@dataclass(frozen=True, kw_only=True, slots=True)
class FitConfig:
    """Say how a map is learned; the defaults are those of the papers.

    Attributes:
        kind: `transform` is the published network; `least-squares` and `orthogonal` are solved in
            closed form and use none of what follows but `held_out` and `seed`.
        loss: `l2` (FCT), `l2+disc+unc` (FastFill), `l2+disc` or `l2+unc`.
        mu_sim: weight of the distance to the new vector.
        mu_disc: weight of the classifier's term.
        mu_unc: weight of the predicted uncertainty itself.
        smoothing: of labels.
        inner: width of the network's hidden layers.
        epochs: passes over the pairs.
        warmup_epochs: of linear growth of the learning rate.
        batch_size: pairs of a step; all of them where there are fewer.
        lr: peak learning rate of Adam.
        weight_decay: added to the gradient, of all parameters.
        frozen_share: share of the epochs, the last ones, in which batch normalisation uses its
            running statistics while weights go on learning.
        held_out: share of the pairs that is not learned from and scored instead, chosen by id.
        seed: of weights, order and held-out pairs.
        evaluations: how often the held-out pairs are scored during training.
        checkpoints: how often the state is kept during training.
        device: `auto`, `cpu`, `cuda`, ...
    """

    kind: Literal["transform", "least-squares", "orthogonal"] = "transform"
    loss: Literal["l2", "l2+disc", "l2+unc", "l2+disc+unc"] = "l2"
    mu_sim: float = 1.0
    mu_disc: float = 1.0
    mu_unc: float = 0.5
    smoothing: float = 0.1
    inner: int = 2048
    epochs: int = 80
    warmup_epochs: int = 5
    batch_size: int = 1024
    lr: float = 5e-4
    weight_decay: float = WEIGHT_DECAY
    frozen_share: float = 0.5
    held_out: float = 0.1
    seed: int = 0
    evaluations: int = 8
    checkpoints: int = 8
    device: str = "auto"

    def __post_init__(self) -> None:
        check_choice(self.kind, KINDS, "FitConfig.kind")
        check_choice(self.loss, LOSSES, "FitConfig.loss")
        check_weights(self.mu_sim, self.mu_disc, self.mu_unc)
        fraction(self.smoothing, "FitConfig.smoothing")
        fraction(self.frozen_share, "FitConfig.frozen_share")
        least = {"inner": 1, "epochs": 1, "warmup_epochs": 0, "batch_size": 2, "seed": 0}
        least |= {"evaluations": 0, "checkpoints": 0, "weight_decay": 0}
        for name, value in least.items():
            if not getattr(self, name) >= value:
                raise ConfigError(
                    f"FitConfig.{name}: expected at least {value}, got {getattr(self, name)}."
                )
        if not 0 <= self.held_out < 1:
            raise ConfigError(
                f"FitConfig.held_out: expected a share of the pairs from 0 up to 1 (0.1 is a "
                f"tenth), got {self.held_out}."
            )
        if not self.lr > 0:
            raise ConfigError(f"FitConfig.lr: expected more than 0, got {self.lr}.")
        if self.warmup_epochs >= self.epochs:
            raise ConfigError(
                f"FitConfig.warmup_epochs: {self.warmup_epochs} of {self.epochs} epochs; the "
                "warm-up must end before the run does."
            )
        if self.kind != "transform" and self.loss != "l2":
            raise ConfigError(
                f"FitConfig.loss: '{self.loss}' needs the network (kind 'transform'); a map of "
                f"kind '{self.kind}' is solved for the loss 'l2'."
            )

    @property
    def uncertainty(self) -> bool:
        """Whether the map predicts uncertainties."""
        return uses_uncertainty(self.loss)

    @property
    def frozen_epochs(self) -> int:
        """Epochs at the end with frozen running statistics."""
        return int(self.epochs * self.frozen_share)

    def train_config(self, steps_per_epoch: int, batch_size: int) -> TrainConfig:
        """Return the loop's configuration.

        Args:
            steps_per_epoch: of the pairs that are learned from.
            batch_size: pairs of a step.
        """
        steps = self.epochs * steps_per_epoch

        def every(times: int) -> int:
            epochs = max(self.epochs // times, 1) if times else 0
            return epochs * steps_per_epoch

        return TrainConfig(
            steps=steps,
            batch_size=batch_size,
            lr=self.lr,
            warmup_steps=self.warmup_epochs * steps_per_epoch,
            schedule="cosine",
            optimizer="adam",
            weight_decay=self.weight_decay,
            decay_all=True,
            betas=(0.9, 0.999),
            rate_every=steps_per_epoch,
            seed=self.seed,
            log_every=steps_per_epoch,
            eval_every=every(self.evaluations),
            checkpoint_every=every(self.checkpoints),
            device=self.device,
        )
