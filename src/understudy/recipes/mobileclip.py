"""MobileCLIP: a small CLIP learns from stored knowledge of two large ones and from a captioner.

"MobileCLIP: Fast Image-Text Models through Multi-Modal Reinforced Training" (CVPR 2024,
arXiv 2311.17049). Pairs are reinforced once: J views an image with each teacher's embedding, S
synthetic captions, each teacher's embeddings of the real and the synthetic captions. A student step
sees one view, the real caption and one synthetic caption, runs its image tower once and its text
tower once on both captions, and asks nobody.

    understudy run mobileclip STORE --teachers runs/ta runs/tb --scales 50 50 --out runs/mobileclip
    understudy verify mobileclip --jobs 2
    understudy plan mobileclip --model mobileclip-s0 --scale paper

The store needs images, texts, captions of a captioner (`caption.<name>`; `understudy reinforce` can
write them) and rows of split `test`. Expect the reinforced student far ahead of the plain one at
equal steps, at 1.1 to 1.3 times the price of a plain step (the paper: 61.7 against 44.5 on
ImageNet, 72.0 against 41.8 on Flickr30k, ViT-B/16 on 12.8 M pairs). On 4,000 built-in scenes a
student takes about three minutes on one core; the claim (8 arms, 5 seeds) under an hour on two.

The algorithm, as `run` goes through it:

1. reinforce once (columns that are there are not asked for again; stored views decide what is not
   named, and what is named must be what is stored);
2. plain: (view, real caption), L_CLIP;
3. reinforced: L(B_real) + L(B_syn), L = (1 - lam) L_CLIP + lam L_Distill, where L_Distill compares
   the row softmaxes of image-text affinities with each teacher's, at its own scale;
4. score both on the split `test`, fold both exactly, write `result.json`.

The scale of a teacher is not the one it was trained with: arXiv 2508.20691 finds 50 to 70 best for
teachers trained to 100, with a flat top; tune it for yours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from understudy.core.config import to_dict
from understudy.core.errors import ConfigError
from understudy.data.view_config import ViewConfig
from understudy.data.view_presets import PAIR_VIEWS, pair_views
from understudy.recipes.mobileclip_claim import CLAIM
from understudy.recipes.mobileclip_plan import plan as PLAN
from understudy.recipes.mobileclip_plan import preview
from understudy.train.budgets import small_budget
from understudy.train.config import TrainConfig
from understudy.train.student_config import StudentConfig

if TYPE_CHECKING:
    from understudy.data.store import Store

__all__ = ["CLAIM", "PLAN", "Config", "preview", "run", "settle"]

USUAL = ("strong", 10)
"""Kind and number of stored views where neither the configuration nor the store says anything."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Say what is reinforced and who is trained on it.

    Attributes:
        store: image-text pairs with captions of a captioner and a split `test`; a split `val`, if
            there is one, chooses the best weights.
        out: folder of the runs and of `result.json`.
        teachers: weights files or runs of CLIPs; not needed where the store holds embeddings of the
            view set already.
        imitate: names of the stored teachers to imitate, where there are no `teachers`; empty for
            all that know the view set.
        scales: logit scale of each teacher in distillation; empty takes the teachers' own.
        model: student, a key of `understudy.models.MODELS`, a weights file or a run.
        tokenizer: see `StudentConfig`.
        vocab_size: ids of an own tokenizer.
        view_set: name of the set of stored views.
        views: kind of stored view: strong (published) or weak; empty takes what is stored, else
            strong.
        size: side of the stored views in pixels; 0 takes what is stored, else the student's.
        num_views: J, stored views an image: 5 are enough for about 30 passes, 2 for 10; 0 takes
            what is stored, else 10. Of more that are stored the first ones are used.
        num_captions: S, stored captions an image that are used, the first ones; 0 uses all.
        rescale: allow stored views of another size than the student's input; naming `size` does.
        captioner: whose captions are used; empty for the only one.
        lam: weight of distillation: 1.0 for small students, 0.75 for B.
        range_augment: learn brightness, contrast and noise for the student.
        dtype: storage of embeddings: float16, bfloat16 or float32.
        rows: SQL filter of the rows to reinforce and train on; empty takes the split `train` if
            there is one, else everything that is neither `val` nor `test`.
        train: budget of both students: steps, batch in pairs, learning rate.
        seed: of views, weights and order.
    """

    store: Path
    out: Path = Path("runs/mobileclip")
    teachers: tuple[str, ...] = ()
    imitate: tuple[str, ...] = ()
    scales: tuple[float, ...] = ()
    model: str = "mobileclip-nano"
    tokenizer: str = "auto"
    vocab_size: int = 1024
    view_set: str = "main"
    views: Literal["", "strong", "weak"] = ""
    size: int = 0
    num_views: int = 0
    num_captions: int = 0
    rescale: bool = False
    captioner: str = ""
    lam: float = 1.0
    range_augment: bool = False
    dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    rows: str = ""
    train: TrainConfig = field(default_factory=small_budget)
    seed: int = 0


def settle(config: Config, store: Store) -> tuple[Config, ViewConfig]:
    """Return the configuration with everything decided, and the views.

    What the store holds of the view set decides what the configuration leaves open; what it names
    must be there, since a student replays exactly what is stored.

    Raises:
        CardError: the stored views are of another kind or size than is asked for, or nobody knows
            the view set and no teachers are given.
        ConfigError: more views than are stored, or teachers given twice.
    """
    from understudy.data.splits import training_filter
    from understudy.reinforce.settle import settle_views
    from understudy.train.student import make_student
    from understudy.train.student_lookup import find_teachers

    if config.teachers and config.imitate:
        raise ConfigError(
            "imitate: it names stored teachers, and teachers are given that will be asked; leave "
            "one of both out."
        )
    own = tuple(f"t{i}" for i in range(len(config.teachers)))
    config = replace(
        config,
        imitate=own or config.imitate,
        rows=config.rows or training_filter(store),
        rescale=config.rescale or bool(config.size),
    )
    if not own:
        find_teachers(store, reinforced(config))  # says what to do when there are none
    views, num_views = settle_views(
        store,
        config.view_set,
        pair_views,
        kind=config.views,
        size=config.size,
        num_views=config.num_views,
        usual=USUAL,
        student_size=lambda: make_student(store, reinforced(config)).preprocess.size,
        grows=bool(own),
    )
    return replace(config, num_views=num_views), views


def reinforcement(config: Config, views: ViewConfig) -> Any:
    """Return what the teachers are asked for: views, real captions, synthetic captions."""
    from understudy.models.runs import weights_path
    from understudy.reinforce.config import ReinforceConfig, TeacherSpec

    return ReinforceConfig(
        view_set=config.view_set,
        num_views=config.num_views,
        views=views,
        teachers=tuple(
            TeacherSpec(name=f"t{i}", path=str(weights_path(path)), outputs=("image", "text"))
            for i, path in enumerate(config.teachers)
        ),
        logit_scales=config.scales,
        caption_columns=re.escape(config.captioner) or ".*",
        dtype=config.dtype,
        rows=config.rows,
        seed=config.seed,
    )


def reinforced(config: Config) -> StudentConfig:
    """Return the student that learns from the teachers' columns and both captions."""
    return StudentConfig(
        model=config.model,
        tokenizer=config.tokenizer,
        vocab_size=config.vocab_size,
        view_set=config.view_set,
        num_views=config.num_views,
        num_captions=config.num_captions,
        teachers=config.imitate,
        captioner=config.captioner,
        captions="both",
        lam=config.lam,
        scales=config.scales,
        range_augment=config.range_augment,
        rescale=config.rescale,
        rows=config.rows,
        train=config.train,
        seed=config.seed,
    )


def plain(config: Config) -> StudentConfig:
    """Return the student of equal budget that learns from images and real captions alone."""
    return replace(
        reinforced(config),
        lam=0.0,
        scales=(),
        teachers=(),
        captions="real",
        view_set="",
        num_views=0,
        num_captions=0,
        augment=PAIR_VIEWS["weak"],
        range_augment=False,
        rescale=False,
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
    from understudy.train.comparison import write_comparison
    from understudy.train.student import train_clip

    store = Store.open(config.store)
    evaluate, watch = needed_scorer(store), watcher(store)
    config, views = settle(config, store)
    report: dict[str, Any] = {}
    if config.teachers:
        report = reinforce(store, reinforcement(config, views)).to_dict()
        store = Store.open(config.store)
    students = {
        name: train_clip(store, None, arm, config.out / name, evaluate, watch=watch)
        for name, arm in {"plain": plain(config), "reinforced": reinforced(config)}.items()
    }
    known = stored(store, config.view_set)
    facts = {
        "recipe": "mobileclip",
        "config": to_dict(config),
        "reinforce": report,
        "stored": None if known is None else known.to_dict(),
    }
    return write_comparison(config.out, students, baseline="plain", facts=facts).parent
