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
   what is stored already decides views, NS and K, unless they are named: then it must be equal;
2. train: with probability p a stored view and KL(q || softmax(z)), q = densify(top-K); otherwise
   the plain image, augmented, with its one-hot label;
3. beside it, the plain run of equal budget: fresh views of the same kind, labels smoothed by 0.1;
4. score both on the split `test`, fold both, write `result.json`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from understudy.core.config import to_dict
from understudy.core.errors import ConfigError
from understudy.data.view_config import ViewConfig
from understudy.recipes.dataset_reinforcement_claim import CLAIM
from understudy.recipes.dataset_reinforcement_plan import plan as PLAN
from understudy.recipes.dataset_reinforcement_plan import preview
from understudy.recipes.dataset_reinforcement_views import MIX, ORDINARY, views
from understudy.train.classifier_config import ClassifierStudentConfig
from understudy.train.config import TrainConfig

if TYPE_CHECKING:
    from understudy.data.store import Store

__all__ = ["CLAIM", "PLAN", "Config", "preview", "run", "settle", "views"]

DEFAULTS: dict[str, Any] = {"variant": "ra-re", "num_views": 50, "kept": 5}
"""What is taken where neither the configuration nor the store says anything."""


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
        store: labelled images with a split `test`; a split `val`, if there is one, chooses the best
            weights.
        out: folder of the runs and of `result.json`.
        teachers: weights files or runs of classifiers; their probabilities are averaged. Not needed
            where the store holds the view set's probabilities already.
        teacher: whose stored probabilities are imitated, where there are no `teachers`; empty for
            the only one there is.
        model: student, a key of `understudy.models.MODELS`, a weights file or a run.
        variant: kind of stored view: rrc, mix, ra-re or mix-ra-re; empty takes what is stored, else
            ra-re.
        flip: whether views may be mirrored (not for digits).
        view_set: name of the set of stored views.
        num_views: NS, stored views an image; 0 takes what is stored, else 50. Of more that are
            stored the first ones are used.
        kept: K, probabilities kept of each view; 0 takes what is stored, else 5.
        rescale: allow stored views of another size than the student's input.
        p: probability that a step uses the stored view and target of a row.
        smoothing: label smoothing of the plain run.
        mixup_alpha: batch MixUp of the plain run; 0 for none.
        cutmix_alpha: batch CutMix of the plain run; 0 for none.
        rows: SQL filter of the rows that are reinforced and trained on; empty takes the split
            `train` if there is one, else everything that is neither `val` nor `test`.
        train: budget of both students: steps, batch in images, learning rate.
        seed: of views, weights and order.
    """

    store: Path
    out: Path = Path("runs/dataset-reinforcement")
    teachers: tuple[str, ...] = ()
    teacher: str = ""
    model: str = "cnn-small"
    variant: Literal["", "rrc", "mix", "ra-re", "mix-ra-re"] = ""
    flip: bool = True
    view_set: str = "main"
    num_views: int = 0
    kept: int = 0
    rescale: bool = False
    p: float = 0.99
    smoothing: float = 0.1
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    rows: str = ""
    train: TrainConfig = field(default_factory=_budget)
    seed: int = 0


def _named_views(config: Config, size: int) -> ViewConfig:
    changes: dict[str, dict[str, Any] | None] = {}
    if not config.flip:
        changes["random_horizontal_flip"] = None
    return views(config.variant or DEFAULTS["variant"], size, **changes)


def settle(config: Config, store: Store) -> tuple[Config, ViewConfig]:
    """Return the configuration with everything decided, and the views.

    What the store holds of the view set decides what the configuration leaves open; what it names
    must be there, since a student replays exactly what is stored.

    Raises:
        CardError: the stored views are of another kind than is asked for.
        ConfigError: more views or probabilities than are stored; views that are mirrored where they
            may not be; neither stored probabilities nor teachers.
    """
    from understudy.data.splits import training_filter
    from understudy.reinforce.stored import stored
    from understudy.train.classifier_student import find_topk_teacher, make_classifier

    if config.teachers and config.teacher:
        raise ConfigError(
            "teacher: it names stored probabilities, and teachers are given that will be asked; "
            "leave one of both out."
        )
    known = stored(store, config.view_set)
    if not config.teachers and (known is None or not known.kept):
        raise ConfigError(
            f"{config.store}: no stored probabilities of view set '{config.view_set}' and no "
            "teachers; name trained classifiers (--teachers runs/a runs/b)."
        )
    names = {"rows": config.rows or training_filter(store)}
    if config.teachers:
        names["teacher"] = "ensemble" if len(config.teachers) > 1 else "t0"
    else:
        names["teacher"] = find_topk_teacher(store, reinforced(config))
    config = replace(config, **names)
    if known is None:
        bare = ClassifierStudentConfig(model=config.model, learn="labels")
        size = make_classifier(store, bare).preprocess.size
        open_ = {name: value for name, value in DEFAULTS.items() if not getattr(config, name)}
        return replace(config, **open_), _named_views(config, size)
    asked = _named_views(config, known.views.size) if config.variant else None
    known.require(
        views=asked, num_views=config.num_views, kept=config.kept, teacher=config.teacher,
        grows=bool(config.teachers),
    )  # fmt: skip
    if not config.flip and "random_horizontal_flip" in known.views.transforms:
        raise ConfigError(
            f"flip: views of set '{config.view_set}' are mirrored at random; reinforce under "
            "another view_set, or leave --no-flip out."
        )
    found = {
        "num_views": config.num_views or known.num_views,
        "kept": config.kept or known.kept.get(config.teacher, DEFAULTS["kept"]),
    }
    return replace(config, **found), known.views


def reinforcement(config: Config, views: ViewConfig) -> Any:
    """Return what the teachers are asked for: NS views, top-K of their averaged probabilities."""
    from understudy.models.runs import weights_path
    from understudy.reinforce.config import ReinforceConfig, TeacherSpec

    return ReinforceConfig(
        view_set=config.view_set,
        num_views=config.num_views,
        views=views,
        teachers=tuple(
            TeacherSpec(name=f"t{i}", path=str(weights_path(path)), outputs=("topk",))
            for i, path in enumerate(config.teachers)
        ),
        topk=config.kept,
        ensemble="ensemble",
        rows=config.rows,
        seed=config.seed,
    )


def reinforced(config: Config, views: ViewConfig | None = None) -> ClassifierStudentConfig:
    """Return the student that learns from stored views and probabilities.

    Args:
        config: settled, see `settle`.
        views: the stored ones; their crop and flip also make the plain images of probability 1 - p.
    """
    kept = {} if views is None else views.transforms
    return ClassifierStudentConfig(
        model=config.model,
        learn="topk",
        view_set=config.view_set,
        teacher=config.teacher,
        num_views=config.num_views,
        k=config.kept,
        p=config.p,
        augment={k: dict(v) for k, v in kept.items() if k in ORDINARY},
        rescale=config.rescale,
        rows=config.rows,
        train=config.train,
        seed=config.seed,
    )


def plain(config: Config, views: ViewConfig) -> ClassifierStudentConfig:
    """Return the student of equal budget that learns from labels and fresh views of that kind."""
    unmixed = {k: dict(v) for k, v in views.transforms.items() if k not in MIX}
    return replace(
        reinforced(config, views),
        learn="labels",
        view_set="",
        num_views=0,
        teacher="",
        k=0,
        rescale=False,
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
        CardError, ConfigError: see `settle`.
        DataError: no rows to train or to score on.
    """
    from understudy.data.store import Store
    from understudy.evaluate.held_out import needed_scorer, watcher
    from understudy.reinforce.generate import reinforce
    from understudy.reinforce.stored import stored
    from understudy.train.classifier_student import train_classifier
    from understudy.train.comparison import write_comparison

    store = Store.open(config.store)
    evaluate, watch = needed_scorer(store), watcher(store)
    config, views = settle(config, store)
    report: dict[str, Any] = {}
    if config.teachers:
        report = reinforce(store, reinforcement(config, views)).to_dict()
        store = Store.open(config.store)
    arms = {"plain": plain(config, views), "reinforced": reinforced(config, views)}
    students = {
        name: train_classifier(store, None, arm, config.out / name, evaluate, watch=watch)
        for name, arm in arms.items()
    }
    known = stored(store, config.view_set)
    facts = {
        "recipe": "dataset-reinforcement",
        "config": to_dict(config),
        "reinforce": report,
        "stored": None if known is None else known.to_dict(),
    }
    return write_comparison(config.out, students, baseline="plain", facts=facts).parent
