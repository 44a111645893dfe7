"""What every student's configuration says: where it starts, which images, how long and how fast."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from understudy.core.config import LATER
from understudy.train.config import TrainConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class StudentBase:
    """Describe what students of all kinds share.

    Attributes:
        model: a key of `understudy.models.MODELS`, or a weights file or run to start from.
        changes: values of the model's configuration to replace, by dotted key.
        view_set: set of stored views to replay; empty draws `augment` anew.
        view_order: `epoch` uses one view an epoch, each once a cycle, and reads one view's columns
            only; `random` draws a view for each row, as published, and reads many.
        num_views: how many of the stored views to use, the first ones; 0 uses all.
        augment: transforms by name for images that replay no stored view, as in `ViewConfig`.
        rescale: allow stored views of another size than the student's input.
        replay: `stored`; `fresh` is a control that breaks replay.
        shuffle_targets: a control that gives every row another row's targets.
        rows: SQL filter; empty takes the split `train` if there is one, else all rows that are
            neither `val` nor `test`.
        min_image_size: leave rows out whose image is smaller than this on a side, in pixels; read
            from the columns `width` and `height` where the store has them, else from the images.
        image_column: payload column of encoded images.
        mean: normalisation that is expected; refused unless it is the model's own.
        std: the same.
        train: how long and how fast.
        seed: of weights, order, choices and everything random inside a step.
        workers: threads that make batches ahead; 0 makes them in between.
        block: shuffle runs of this many neighbouring rows instead of single rows, so that less is
            read beside what is used; 0 shuffles single rows. None is 64 for stores at a URL, where
            a read is a request, and 0 for others.
    """

    model: str
    changes: dict[str, Any] = field(default_factory=dict)
    view_set: str = ""
    view_order: Literal["epoch", "random"] = "epoch"
    num_views: int = field(default=0, metadata=LATER)
    augment: dict[str, Any] = field(default_factory=dict)
    rescale: bool = False
    replay: Literal["stored", "fresh"] = "stored"
    shuffle_targets: bool = False
    rows: str = ""
    min_image_size: int = field(default=0, metadata=LATER)
    image_column: str = "image"
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    train: TrainConfig
    seed: int = 0
    workers: int = 1
    block: int | None = field(default=None, metadata=LATER)
