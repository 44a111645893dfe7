"""How a dense model is fine-tuned, and how its label efficiency is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.core.transfer_rows import METRICS
from understudy.data.dense import DepthSpec, MaskSpec
from understudy.data.dense_augment import DenseAugment
from understudy.models.dense.config import HeadConfig
from understudy.objectives.checks import fraction
from understudy.train.config import TrainConfig


def _small_run() -> TrainConfig:
    return TrainConfig(
        steps=1000, batch_size=16, lr=1e-3, warmup_steps=50, weight_decay=0.05, clip_norm=1.0
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class FineTuneConfig:
    """Describe one fine-tuning of a tower with a head.

    Attributes:
        head: what is put on the tower; its classes must be those of `masks`.
        masks: labels of seg and det.
        depth: labels of depth.
        size: side of the crops in pixels.
        augment: zoom, mirroring and colours, the same for every arm.
        frozen: the head alone learns.
        layer_decay: factor of the learning rate from layer to layer, downwards; 1 for none, 0.65 to
            0.9 for a ViT.
        drop_path: of the tower while it is tuned; negative keeps that of its configuration.
        aux_weight: of UperNet's auxiliary head.
        alpha: of the scale-invariant loss.
        image_column: payload column of encoded images.
        mean: normalisation that is expected; refused unless it is the tower's own.
        std: the same.
        train: how long and how fast.
        seed: of the head's weights, order, crops and everything random inside a step.
        workers: threads that make batches ahead; 0 makes them in between.
    """

    head: HeadConfig
    masks: MaskSpec | None = None
    depth: DepthSpec | None = None
    size: int = 512
    augment: DenseAugment = field(default_factory=DenseAugment)
    frozen: bool = False
    layer_decay: float = 1.0
    drop_path: float = -1.0
    aux_weight: float = 0.4
    alpha: float = 0.5
    image_column: str = "image"
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    train: TrainConfig = field(default_factory=_small_run)
    seed: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        fraction(self.alpha, "alpha")
        if not 0 < self.layer_decay <= 1:
            raise ConfigError(f"layer_decay: expected (0, 1], got {self.layer_decay}.")
        if self.layer_decay < 1 and self.train.strategy == "fsdp":
            raise ConfigError(
                "layer_decay: sharded parameters (fsdp) lose their own learning rates; use ddp, or "
                "set layer_decay to 1."
            )
        if self.drop_path >= 1 or self.aux_weight < 0:
            raise ConfigError(
                f"drop_path and aux_weight: expected below 1 and at least 0, got {self.drop_path} "
                f"and {self.aux_weight}."
            )
        if self.head.task == "depth":
            if self.depth is None:
                raise ConfigError("fine-tuning depth: say where the depth maps are (depth).")
        elif self.masks is None:
            raise ConfigError(f"fine-tuning {self.head.task}: say where the masks are (masks).")
        else:
            _check_classes(self.head, self.masks)


def _check_classes(head: HeadConfig, masks: MaskSpec) -> None:
    from understudy.data.dense import check_same_classes

    # a detector does not predict the background, class 0 of object masks
    wanted: Sequence[str] = masks.classes[1:] if head.task == "det" else masks.classes
    check_same_classes(head.classes, wanted)


@dataclass(frozen=True, kw_only=True, slots=True)
class TransferConfig:
    """Describe a comparison of label counts: the same fine-tuning on nested subsets.

    Attributes:
        tune: the fine-tuning; `tune.train.lr` is replaced by the one that is chosen.
        labels: fractions in (0, 1] or counts above 1 of labelled rows, nested.
        lrs: learning rates to choose from, for each arm on its own; one value chooses nothing.
        validation: labelled rows that are held back from all subsets to choose on.
        search_labels: fraction or count of the labelled rows that the choice trains on; 0 takes the
            largest of `labels`.
        metric: what is chosen by and reported first; empty takes `miou`, `rmse_pixels` or `box_ap`.
        rows: SQL filter of the labelled rows; empty takes the split `train` if there is one.
    """

    tune: FineTuneConfig
    labels: tuple[float, ...] = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
    lrs: tuple[float, ...] = (1e-3,)
    validation: int = 0
    search_labels: float = 0
    metric: str = ""
    rows: str = ""

    def __post_init__(self) -> None:
        if not self.labels or min(self.labels) <= 0:
            raise ConfigError(f"labels: expected positive fractions or counts, got {self.labels}.")
        if not self.lrs or min(self.lrs) <= 0 or len(set(self.lrs)) < len(self.lrs):
            raise ConfigError(
                f"lrs: expected different positive learning rates, got {list(self.lrs)}."
            )
        if self.validation < 0 or (len(self.lrs) > 1 and not self.validation):
            raise ConfigError(
                "validation: choosing among learning rates takes labelled rows of the training "
                f"set that no subset uses, got {self.validation}."
            )
        if self.metric:
            check_choice(self.metric, METRICS[self.tune.head.task], "metric")

    @property
    def watched(self) -> str:
        """The metric that decides."""
        return self.metric or METRICS[self.tune.head.task][0]
