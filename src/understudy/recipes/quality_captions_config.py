"""What a run of quality-captions is told: which captions, which tower, which labels."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from understudy.core.errors import ConfigError
from understudy.train.caption_arm import CaptionArm, parse_arm
from understudy.train.config import TrainConfig
from understudy.train.dense_config import TransferConfig
from understudy.train.student_config import StudentConfig

if TYPE_CHECKING:
    from understudy.data.store import Store


DISTILLED = "+distil"
"""What the name of a distilled arm ends with."""


def _pretraining() -> TrainConfig:
    return TrainConfig(
        steps=1500, batch_size=64, lr=2e-3, warmup_steps=100, weight_decay=0.1, clip_norm=1.0
    )


def _tuning() -> TrainConfig:
    return TrainConfig(
        steps=300, batch_size=16, lr=1e-3, warmup_steps=20, weight_decay=0.05, clip_norm=1.0
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Say which captions are compared, on which tower, and by which labels.

    Attributes:
        store: image-text pairs with several kinds of captions.
        labelled: pictures with masks or depth maps and rows of split `test`; may be `store`.
        out: folder of the runs and of `result.json`.
        arms: NAME=EXPRESSION each, the baseline first; see `understudy.train.caption_arm`.
        distil: pretrain every arm a second time with the teachers' embeddings in the store.
        scorer: run or weights file of a CLIP that teaches no arm; empty scores no captions.
        model: key of `understudy.models.MODELS` to pretrain.
        tokenizer: see `StudentConfig`.
        vocab_size: ids of an own tokenizer.
        view_set: stored views that all arms see; empty trains on plain images (no distillation).
        lam: weight of distillation in the distilled arms.
        scales: logit scale of each teacher; empty takes the teachers' own.
        rows: SQL filter of the pairs; empty takes the split `train` if there is one.
        task: seg or depth.
        head: semantic-fpn, uper, linear; decoder. Empty takes the task's first.
        width: channels of the head's pyramid.
        hidden: channels of the head's blocks.
        statistics: batch normalisation of the tower while it is tuned: train, sync or frozen.
        layer_decay: learning-rate factor from layer to layer; 0.65 to 0.9 for a ViT.
        masks: column of index masks.
        objects: column with the class of each object, if the masks' indices are objects.
        depth: column of depth maps.
        depth_scale: metres of one stored number; 0 takes millimetres for whole numbers.
        size: side of the crops.
        flip: probability of mirroring; 0 where mirroring changes the label.
        labels: fractions up to 1, or counts above 1, of labelled rows; nested subsets.
        lrs: learning rates to choose from for each arm.
        validation: labelled rows held back for that choice.
        train: budget of every pretraining.
        tune: budget of every fine-tuning; `lr` is chosen from `lrs`.
        seeds: one pretraining and one set of subsets each; several give intervals.
    """

    store: Path
    labelled: Path
    out: Path = Path("runs/quality-captions")
    arms: tuple[str, ...] = ("alt=text", "quality=text & caption.coca")
    distil: bool = False
    scorer: str = ""
    model: str = "mobileclip-nano"
    tokenizer: str = "auto"
    vocab_size: int = 1024
    view_set: str = ""
    lam: float = 1.0
    scales: tuple[float, ...] = ()
    rows: str = ""
    task: Literal["seg", "depth"] = "seg"
    head: str = ""
    width: int = 64
    hidden: int = 32
    statistics: Literal["train", "sync", "frozen"] = "train"
    layer_decay: float = 1.0
    masks: str = "mask"
    objects: str = ""
    depth: str = "depth"
    depth_scale: float = 0.0
    size: int = 64
    flip: float = 0.5
    labels: tuple[float, ...] = (0.1, 1.0)
    lrs: tuple[float, ...] = (1e-3,)
    validation: int = 0
    train: TrainConfig = field(default_factory=_pretraining)
    tune: TrainConfig = field(default_factory=_tuning)
    seeds: tuple[int, ...] = (0,)


def arms_of(config: Config) -> tuple[CaptionArm, ...]:
    """Return the arms, the baseline first.

    Raises:
        ConfigError: fewer than two, two of one name, or an expression that is empty or malformed.
    """
    arms = tuple(parse_arm(text) for text in config.arms)
    names = [arm.name for arm in arms]
    if len(arms) < 2 or len(set(names)) < len(names):
        raise ConfigError(
            f"arms: {', '.join(names) or 'none'}; give at least two, of different names, the "
            "baseline first."
        )
    if not config.seeds or len(set(config.seeds)) < len(config.seeds):
        raise ConfigError(f"seeds: expected different numbers, got {config.seeds}.")
    if config.distil and not config.view_set:
        raise ConfigError(
            "distil: teachers' embeddings belong to stored views; name the view set (view_set)."
        )
    return arms


def pretraining(config: Config, arm: CaptionArm, distils: bool, seed: int) -> StudentConfig:
    """Return the pretraining of an arm; arms differ in captions and in `lam` alone."""
    base = StudentConfig(
        model=config.model,
        tokenizer=config.tokenizer,
        vocab_size=config.vocab_size,
        view_set=config.view_set,
        lam=config.lam if distils else 0.0,
        scales=config.scales if distils else (),
        rows=config.rows,
        train=config.train,
        seed=seed,
    )
    return arm.student(base)


def start(config: Config, seed: int) -> StudentConfig:
    """Return the start of every arm: one tokenizer, trained on all arms' kinds of captions."""
    arms = arms_of(config)
    text = next((arm.text for arm in arms if arm.text), "")
    captioner = next((arm.captioner for arm in arms if arm.captioner), "")
    kind: Any = "both" if text and captioner else ("real" if text else "syn")
    union = CaptionArm(name="all", captions=kind, text=text, captioner=captioner)
    return replace(pretraining(config, union, False, seed), scales=())


def transfer_of(config: Config, labelled: Store, seed: int) -> TransferConfig:
    """Return the fine-tuning, equal for all arms of a seed."""
    from understudy.data.dense import DepthSpec, MaskSpec
    from understudy.data.dense_augment import DenseAugment
    from understudy.models.dense.config import HEADS, HeadConfig
    from understudy.train.dense_config import FineTuneConfig

    masks, depth, classes = None, None, ()
    if config.task == "seg":
        meta = labelled.meta
        background = ("background",) if config.objects else ()
        classes = tuple(meta.get("mask_classes", (*background, *meta.get("classes", ()))))
        masks = MaskSpec(column=config.masks, objects=config.objects, classes=classes)
    else:
        depth = DepthSpec(column=config.depth, scale=config.depth_scale)
    head = HeadConfig(
        task=config.task,
        kind=config.head or HEADS[config.task][0],
        classes=classes,
        width=config.width,
        hidden=config.hidden,
        statistics=config.statistics,
    )
    tune = FineTuneConfig(
        head=head,
        masks=masks,
        depth=depth,
        size=config.size,
        augment=DenseAugment(flip=config.flip),
        layer_decay=config.layer_decay,
        train=config.tune,
        seed=seed,
    )
    return TransferConfig(
        tune=tune, labels=config.labels, lrs=config.lrs, validation=config.validation
    )
