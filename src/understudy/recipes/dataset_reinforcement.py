"""Dataset reinforcement: improve a labelled image set once, train any classifier on it.

"Reinforce Data, Multiply Impact: Improved Model Accuracy and Robustness with Dataset Reinforcement"
(ICCV 2023, arXiv 2303.08983). For every image, strong frozen classifiers look at NS random views;
stored are the views' parameters and the K largest of the averaged probabilities. A student replays
a stored view and minimises KL to its stored target, at the price of an ordinary step.

    understudy run dataset-reinforcement STORE --teachers runs/t0 runs/t1 --out runs/dr
    understudy verify dataset-reinforcement --jobs 2
    understudy plan dataset-reinforcement --model mci0 --scale paper

The store needs images, integer labels, class names (`meta["classes"]`) and rows of split `test`.
Expect gains that grow with the student's capacity and the length of training; very small students
gain nothing or lose (the paper's MobileNetV2-0.25 goes from 54.7 to 54.2), and the result says so.
On the 300 built-in digits reinforcing takes seconds and each student a few more on one core; the
claim (7 arms, 5 seeds) takes about a quarter of an hour on two.

The algorithm, as `run` goes through it:

1. reinforce once: NS views an image, P = mean_m softmax(f_m(view)), keep (parameters, top-K of P);
2. train: with probability p a stored view and KL(q || softmax(z)), q = densify(top-K); otherwise
   the plain image, augmented, with its one-hot label;
3. beside it, the plain run of equal budget: fresh views of the same kind, labels smoothed by 0.1;
4. score both on the split `test`, fold both, write `result.json`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from understudy.core.config import check_choice, to_dict
from understudy.core.errors import ConfigError
from understudy.data.view_config import ViewConfig
from understudy.recipes.dataset_reinforcement_claim import CLAIM
from understudy.recipes.dataset_reinforcement_plan import plan as PLAN
from understudy.train.classifier_config import ClassifierStudentConfig
from understudy.train.config import TrainConfig

__all__ = ["CLAIM", "PLAN", "Config", "plain", "reinforced", "reinforcement", "run", "views"]

_CROP: dict[str, dict] = {"random_resized_crop": {}, "random_horizontal_flip": {}}
_RA_RE: dict[str, dict] = {"rand_augment": {}, "random_erase": {"p": 0.25}}
_MIX: dict[str, dict] = {"mixup": {"p": 0.5}, "cutmix": {"p": 0.5}}
VARIANTS: dict[str, dict[str, dict]] = {
    "rrc": _CROP,
    "mix": {**_CROP, **_MIX},
    "ra-re": {**_CROP, **_RA_RE},
    "mix-ra-re": {**_CROP, **_RA_RE, **_MIX},
}
"""The published kinds of view: crop; with mixing; with RandAugment and erasing (the recommended
middle); with both."""


def views(variant: str, size: int, **changes: dict[str, Any] | None) -> ViewConfig:
    """Return a published kind of view with some transforms changed.

    Args:
        variant: a key of `VARIANTS`.
        size: side in pixels.
        **changes: options by transform; None leaves a transform out.
    """
    check_choice(variant, VARIANTS, "variant")
    transforms = {**VARIANTS[variant], **{k: v for k, v in changes.items() if v is not None}}
    kept = {k: v for k, v in transforms.items() if changes.get(k, v) is not None}
    return ViewConfig(size=size, transforms=kept)


def _budget() -> TrainConfig:
    return TrainConfig(
        steps=1000,
        batch_size=32,
        optimizer="sgd",
        lr=0.1,
        momentum=0.9,
        weight_decay=5e-4,
        warmup_steps=50,
        ema_decay=0.99,
        ema_warmup=True,
        best="classify.top1",
        eval_every=250,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Say what is reinforced and who is trained on it.

    Attributes:
        store: labelled images with a split `test`.
        out: folder of the runs and of `result.json`.
        teachers: weights files or runs of classifiers; their probabilities are averaged. Not needed
            where the store holds the view set's probabilities already.
        model: student, a key of `understudy.models.MODELS`, a weights file or a run.
        variant: kind of stored view: rrc, mix, ra-re or mix-ra-re.
        flip: whether views may be mirrored (not for digits).
        view_set: name of the set of stored views.
        num_views: NS, stored views an image.
        kept: K, probabilities kept of each view.
        p: probability that a step uses the stored view and target of a row.
        smoothing: label smoothing of the plain run.
        mixup_alpha: batch MixUp of the plain run; 0 for none.
        cutmix_alpha: batch CutMix of the plain run; 0 for none.
        rows: SQL filter of the rows that are reinforced and trained on; empty takes the split
            `train` if there is one, else everything that is not `test`.
        train: budget of both students: steps, batch in images, learning rate.
        seed: of views, weights and order.
    """

    store: Path
    out: Path = Path("runs/dataset-reinforcement")
    teachers: tuple[str, ...] = ()
    model: str = "cnn-small"
    variant: Literal["rrc", "mix", "ra-re", "mix-ra-re"] = "ra-re"
    flip: bool = True
    view_set: str = "main"
    num_views: int = 50
    kept: int = 5
    p: float = 0.99
    smoothing: float = 0.1
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    rows: str = ""
    train: TrainConfig = field(default_factory=_budget)
    seed: int = 0


def _views(config: Config, size: int) -> ViewConfig:
    changes: dict[str, dict[str, Any] | None] = {}
    if not config.flip:
        changes["random_horizontal_flip"] = None
    return views(config.variant, size, **changes)


def reinforcement(config: Config, size: int) -> Any:
    """Return what the teachers are asked for: NS views, top-K of their averaged probabilities."""
    from understudy.models.runs import weights_path
    from understudy.reinforce.config import ReinforceConfig, TeacherSpec

    return ReinforceConfig(
        view_set=config.view_set,
        num_views=config.num_views,
        views=_views(config, size),
        teachers=tuple(
            TeacherSpec(name=f"t{i}", path=str(weights_path(path)), outputs=("topk",))
            for i, path in enumerate(config.teachers)
        ),
        topk=config.kept,
        ensemble="ensemble",
        rows=config.rows,
        seed=config.seed,
    )


def reinforced(config: Config) -> ClassifierStudentConfig:
    """Return the student that learns from stored views and probabilities."""
    return ClassifierStudentConfig(
        model=config.model,
        learn="topk",
        view_set=config.view_set,
        p=config.p,
        augment={k: {} for k in _CROP if config.flip or k != "random_horizontal_flip"},
        rows=config.rows,
        train=config.train,
        seed=config.seed,
    )


def plain(config: Config, size: int) -> ClassifierStudentConfig:
    """Return the student of equal budget that learns from labels and fresh views."""
    unmixed = {k: v for k, v in _views(config, size).transforms.items() if k not in _MIX}
    return replace(
        reinforced(config),
        learn="labels",
        view_set="",
        augment=unmixed,
        smoothing=config.smoothing,
        mixup_alpha=config.mixup_alpha,
        cutmix_alpha=config.cutmix_alpha,
    )


def run(config: Config) -> Path:
    """Reinforce the store if need be, train both students, score and fold them.

    Returns:
        the folder, with `plain/`, `reinforced/` and `result.json`.

    Raises:
        ConfigError: neither stored probabilities nor teachers.
        DataError: no rows to train or to score on.
    """
    from understudy.data.store import Store
    from understudy.evaluate.held_out import needed_scorer
    from understudy.reinforce.generate import reinforce
    from understudy.train.classifier_student import make_classifier, train_classifier
    from understudy.train.comparison import write_comparison

    store = Store.open(config.store)
    evaluate = needed_scorer(store)
    if not config.rows:
        config = replace(config, rows=_rows(store))
    size = make_classifier(store, reinforced(config)).preprocess.size
    report: dict[str, Any] = {}
    if config.teachers:
        report = reinforce(store, reinforcement(config, size)).to_dict()
        store = Store.open(config.store)
    elif not any(f".topk.{config.view_set}." in column for column in store.columns):
        raise ConfigError(
            f"{config.store}: no stored probabilities of view set '{config.view_set}' and no "
            "teachers; name trained classifiers (--teachers runs/a runs/b)."
        )
    students = {
        "plain": train_classifier(store, None, plain(config, size), config.out / "plain", evaluate),
        "reinforced": train_classifier(
            store, None, reinforced(config), config.out / "reinforced", evaluate
        ),
    }
    facts = {"recipe": "dataset-reinforcement", "config": to_dict(config), "reinforce": report}
    return write_comparison(config.out, students, baseline="plain", facts=facts).parent


def _rows(store: Any) -> str:
    """Return a filter of the rows to learn from: the split `train`, or whatever is not `test`."""
    return "split = 'train'" if len(store.where("split = 'train'")) else "split != 'test'"
