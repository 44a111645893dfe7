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

1. reinforce once (columns that are there are not asked for again);
2. plain: (view, real caption), L_CLIP;
3. reinforced: L(B_real) + L(B_syn), L = (1 - lam) L_CLIP + lam L_Distill, where L_Distill compares
   the row softmaxes of image-text affinities with each teacher's, at its own scale;
4. score both on the split `test`, fold both exactly, write `result.json`.

The scale of a teacher is not the one it was trained with: arXiv 2508.20691 finds 50 to 70 best for
teachers trained to 100, with a flat top; tune it for yours.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from understudy.core.config import check_choice, to_dict
from understudy.data.view_config import ViewConfig
from understudy.recipes.mobileclip_claim import CLAIM
from understudy.recipes.mobileclip_plan import plan as PLAN
from understudy.train.config import TrainConfig
from understudy.train.student_config import StudentConfig

__all__ = ["CLAIM", "PLAN", "Config", "plain", "reinforced", "reinforcement", "run", "views"]

VIEWS: dict[str, dict[str, dict]] = {
    "strong": {
        "random_resized_crop": {"scale": [0.08, 1.0], "interpolation": "bicubic"},
        "rand_augment": {},
    },
    "weak": {"random_resized_crop": {"scale": [0.9, 1.0], "interpolation": "bicubic"}},
}
"""The published view (no flip, no erasing: both were tried and did not help), and the weak crop of
plain CLIP training."""


def views(kind: str, size: int) -> ViewConfig:
    """Return the configuration of a kind of view: `"strong"` or `"weak"`."""
    check_choice(kind, VIEWS, "views")
    return ViewConfig(size=size, transforms=VIEWS[kind])


def _budget() -> TrainConfig:
    return TrainConfig(
        steps=1500,
        batch_size=64,
        lr=2e-3,
        warmup_steps=100,
        weight_decay=0.1,
        clip_norm=1.0,
        ema_decay=0.995,
        ema_warmup=True,
        best="retrieval.mean_r1",
        eval_every=500,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Say what is reinforced and who is trained on it.

    Attributes:
        store: image-text pairs with captions of a captioner and a split `test`.
        out: folder of the runs and of `result.json`.
        teachers: weights files or runs of CLIPs; not needed where the store holds embeddings of the
            view set already.
        scales: logit scale of each teacher in distillation; empty takes the teachers' own.
        model: student, a key of `understudy.models.MODELS`, a weights file or a run.
        tokenizer: see `StudentConfig`.
        vocab_size: ids of an own tokenizer.
        view_set: name of the set of stored views.
        views: kind of stored view: strong (published) or weak.
        size: side of the stored views in pixels; 0 takes the student's.
        num_views: J, stored views an image: 5 are enough for about 30 passes, 2 for 10.
        captioner: whose captions are used; empty for the only one.
        lam: weight of distillation: 1.0 for small students, 0.75 for B.
        range_augment: learn brightness, contrast and noise for the student.
        dtype: storage of embeddings: float16, bfloat16 or float32.
        rows: SQL filter of the rows to reinforce and train on; empty takes the split `train` if
            there is one, else everything that is not `test`.
        train: budget of both students: steps, batch in pairs, learning rate.
        seed: of views, weights and order.
    """

    store: Path
    out: Path = Path("runs/mobileclip")
    teachers: tuple[str, ...] = ()
    scales: tuple[float, ...] = ()
    model: str = "mobileclip-nano"
    tokenizer: str = "auto"
    vocab_size: int = 1024
    view_set: str = "main"
    views: Literal["strong", "weak"] = "strong"
    size: int = 0
    num_views: int = 10
    captioner: str = ""
    lam: float = 1.0
    range_augment: bool = False
    dtype: Literal["float16", "bfloat16", "float32"] = "float16"
    rows: str = ""
    train: TrainConfig = field(default_factory=_budget)
    seed: int = 0


def reinforcement(config: Config, size: int) -> Any:
    """Return what the teachers are asked for: views, real captions, synthetic captions."""
    from understudy.models.runs import weights_path
    from understudy.reinforce.config import ReinforceConfig, TeacherSpec

    return ReinforceConfig(
        view_set=config.view_set,
        num_views=config.num_views,
        views=views(config.views, config.size or size),
        teachers=tuple(
            TeacherSpec(name=f"t{i}", path=str(weights_path(path)), outputs=("image", "text"))
            for i, path in enumerate(config.teachers)
        ),
        logit_scales=config.scales,
        caption_columns=config.captioner or ".*",
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
        captioner=config.captioner,
        captions="both",
        lam=config.lam,
        scales=config.scales,
        range_augment=config.range_augment,
        rescale=bool(config.size),
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
        captions="real",
        view_set="",
        augment=VIEWS["weak"],
        range_augment=False,
        rescale=False,
    )


def run(config: Config) -> Path:
    """Reinforce the store if need be, train both students, score and fold them.

    Returns:
        the folder, with `plain/`, `reinforced/` and `result.json`.

    Raises:
        CardError: no embeddings of the view set, and no teachers to ask.
        DataError: no rows to train or to score on.
    """
    from understudy.data.store import Store
    from understudy.evaluate.held_out import needed_scorer
    from understudy.reinforce.generate import reinforce
    from understudy.train.comparison import write_comparison
    from understudy.train.student import make_student, train_clip
    from understudy.train.student_lookup import find_teachers

    store = Store.open(config.store)
    evaluate = needed_scorer(store)
    if not config.rows:
        config = replace(config, rows=_rows(store))
    report: dict[str, Any] = {}
    if config.teachers:
        size = make_student(store, reinforced(config)).preprocess.size
        report = reinforce(store, reinforcement(config, size)).to_dict()
        store = Store.open(config.store)
    find_teachers(store, reinforced(config))  # says what to do when there are none
    students = {
        "plain": train_clip(store, None, plain(config), config.out / "plain", evaluate),
        "reinforced": train_clip(
            store, None, reinforced(config), config.out / "reinforced", evaluate
        ),
    }
    facts = {"recipe": "mobileclip", "config": to_dict(config), "reinforce": report}
    return write_comparison(config.out, students, baseline="plain", facts=facts).parent


def _rows(store: Any) -> str:
    """Return a filter of the rows to learn from: the split `train`, or whatever is not `test`."""
    return "split = 'train'" if len(store.where("split = 'train'")) else "split != 'test'"
