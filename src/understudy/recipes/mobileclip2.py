"""MobileCLIP2: the teachers' own scales, a captioner that was fine-tuned, larger towers.

"MobileCLIP2: Improving Multi-Modal Reinforced Training" (TMLR 08/2025, arXiv 2508.20691). The
method is that of arXiv 2311.17049 with every part tuned again: synthetic captions come from a
captioner that learned the web first and then a few thousand good captions with the same loss; each
teacher is distilled at the logit scale that suits distillation, found by training the student; the
towers of five stages (MCi3, MCi4) stay fast at high resolution.

    understudy train captioner STORE --out runs/web
    understudy train captioner CURATED --model runs/web --out runs/captioner
    understudy run mobileclip2 STORE --teachers runs/ta runs/tb --captioners runs/captioner \
        --search 20 35 50 70 100
    understudy verify mobileclip2 --jobs 2
    understudy plan mobileclip2 --model mobileclip2-s4 --scale paper

Published: teachers and base data bring 61.6 to 65.4 on ImageNet (ViT-B/16, 12.8 M pairs), the
fine-tuned captioner 75.4 against 68.7 on Flickr30k; best scales lie at 50 to 90, with a flat top.
The claim (13 arms, 5 seeds) takes about an hour on two cores.

The algorithm, as `run` goes through it:

1. captioners write S captions an image (nucleus sampling, cut at the first full stop);
2. the teachers embed J views, real and synthetic captions, once;
3. if candidates are given, the student is trained once for every candidate and teacher, one teacher
   at a time, and each teacher keeps its best scale (`understudy train scales` is the same alone);
4. reinforced: L(B_real) + L(B_syn) of arXiv 2311.17049 at these scales, averaged after the softmax,
   or the sigmoid form; plain: a student of equal budget on real captions;
5. score both on the split `test`, fold both exactly, write `result.json`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from understudy.core.config import to_dict
from understudy.core.errors import ConfigError
from understudy.data.view_config import ViewConfig
from understudy.data.view_presets import PAIR_VIEWS, pair_views
from understudy.recipes.mobileclip2_claim import CLAIM
from understudy.recipes.mobileclip2_plan import plan as PLAN
from understudy.recipes.mobileclip2_plan import preview
from understudy.train.budgets import small_budget
from understudy.train.config import TrainConfig
from understudy.train.scale_search import SearchConfig
from understudy.train.student_config import StudentConfig

if TYPE_CHECKING:
    from understudy.data.store import Store
    from understudy.reinforce.config import ReinforceConfig

__all__ = ["CLAIM", "PLAN", "Config", "preview", "run", "settle"]

USUAL = ("strong", 5)
"""Kind and number of stored views where nobody says anything: 5 are enough for about 30 passes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Say who writes, who teaches at which scale, and who is trained on it.

    Attributes:
        store: image-text pairs with a split `test`; a split `val`, if there is one, chooses the
            scales and the best weights.
        out: folder of the runs, of the search and of `result.json`.
        captioners: runs or weights files of captioners of this package that write captions first;
            named `c0`, `c1`, ... Others: `understudy reinforce`.
        num_captions: S, captions that each writes; 5 are published.
        captioner: whose captions are used: a name, or a regular expression matched against whole
            names, whose captions are one pool; empty for `c0`, `c1`, ... or the only one there is.
        teachers: runs or weights files of CLIPs, named `t0`, `t1`, ...; not needed where the store
            holds embeddings already.
        imitate: names of stored teachers to imitate, where there are no `teachers`; empty for all.
        scales: logit scale of each teacher; empty takes the best of `search`, or the teachers' own.
        search: candidates of the search; empty searches nothing.
        search_steps: steps of each of the search's students; 0 takes the budget's.
        loss: `softmax` (CLIP) or `sigmoid` (SigLIP students).
        biases: for `sigmoid`: logit bias of each teacher; empty takes what the cards say.
        compat: for `sigmoid`: the published form of the loss.
        captions: `both` (two losses), or `mix`: one of both a pair, for one loss.
        mix: share of synthetic captions for `mix`.
        model: student, a key of `understudy.models.MODELS`, a weights file or a run.
        tokenizer: see `StudentConfig`.
        vocab_size: ids of an own tokenizer.
        view_set: name of the set of stored views.
        views: kind of stored view: strong (published) or weak; empty takes what is stored.
        size: side of the stored views in pixels; 0 takes what is stored, else the student's.
        num_views: J, stored views an image; 0 takes what is stored, else 5 (published: 2 or 30).
        lam: weight of distillation.
        min_image_size: leave smaller images out, in pixels of the shorter side.
        range_augment: learn brightness, contrast and noise for the student.
        dtype: storage of embeddings: bfloat16, float16 or float32.
        rows: SQL filter of the rows to reinforce and train on; empty takes the split `train` if
            there is one, else everything that is neither `val` nor `test`.
        baseline: also train the plain student of equal budget.
        train: budget of the students: steps, batch in pairs, learning rate.
        seed: of views, captions, weights and order.
    """

    store: Path
    out: Path = Path("runs/mobileclip2")
    captioners: tuple[str, ...] = ()
    num_captions: int = 5
    captioner: str = ""
    teachers: tuple[str, ...] = ()
    imitate: tuple[str, ...] = ()
    scales: tuple[float, ...] = ()
    search: tuple[float, ...] = ()
    search_steps: int = 0
    loss: Literal["softmax", "sigmoid"] = "softmax"
    biases: tuple[float, ...] = ()
    compat: bool = False
    captions: Literal["both", "mix"] = "both"
    mix: float = 0.5
    model: str = "mobileclip-nano"
    tokenizer: str = "auto"
    vocab_size: int = 1024
    view_set: str = "main"
    views: Literal["", "strong", "weak"] = ""
    size: int = 0
    num_views: int = 0
    lam: float = 1.0
    min_image_size: int = 0
    range_augment: bool = False
    dtype: Literal["float16", "bfloat16", "float32"] = "bfloat16"
    rows: str = ""
    baseline: bool = True
    train: TrainConfig = field(default_factory=small_budget)
    seed: int = 0


def settle(config: Config, store: Store) -> tuple[Config, ViewConfig]:
    """Return the configuration with everything decided, and the views.

    Raises:
        CardError: stored views of another kind or size, or nobody knows the view set and no
            teachers are given.
        ConfigError: options that exclude each other, or more views than are stored.
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
    if config.scales and config.search:
        raise ConfigError("search: the scales are given already; leave one of both out.")
    own = tuple(f"t{i}" for i in range(len(config.teachers)))
    writers = [f"c{i}" for i in range(len(config.captioners))]
    config = replace(
        config,
        imitate=own or config.imitate,
        captioner=config.captioner or "|".join(writers),
        rows=config.rows or training_filter(store),
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
        student_size=lambda: make_student(store, plain(config)).preprocess.size,
        grows=bool(own),
    )
    return replace(config, num_views=num_views), views


def reinforcement(config: Config, views: ViewConfig) -> ReinforceConfig:
    """Return what is asked for: captions, then views, real and synthetic captions."""
    from understudy.models.runs import weights_path
    from understudy.reinforce.config import ReinforceConfig, TeacherSpec

    def specs(letter: str, paths: tuple[str, ...], **more: Any) -> tuple[TeacherSpec, ...]:
        return tuple(
            TeacherSpec(name=f"{letter}{i}", path=str(weights_path(path)), **more)
            for i, path in enumerate(paths)
        )

    return ReinforceConfig(
        view_set=config.view_set,
        num_views=config.num_views,
        views=views,
        captioners=specs("c", config.captioners),
        captions=config.num_captions,
        teachers=specs("t", config.teachers, outputs=("image", "text")),
        logit_scales=config.scales if config.teachers else (),
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
        num_views=config.num_views,
        teachers=config.imitate,
        captioner=config.captioner,
        captions=config.captions,
        mix=config.mix,
        lam=config.lam,
        scales=config.scales,
        loss=config.loss,
        biases=config.biases,
        compat=config.compat,
        range_augment=config.range_augment,
        rescale=bool(config.size),
        rows=config.rows,
        min_image_size=config.min_image_size,
        train=config.train,
        seed=config.seed,
    )


def plain(config: Config) -> StudentConfig:
    """Return the student of equal budget that learns from images and real captions alone."""
    return replace(
        reinforced(config),
        lam=0.0,
        scales=(),
        biases=(),
        teachers=(),
        captions="real",
        view_set="",
        num_views=0,
        augment=PAIR_VIEWS["weak"],
        range_augment=False,
        rescale=False,
    )


def searching(config: Config) -> SearchConfig:
    """Return the search: the reinforced student, once for every candidate."""
    steps = config.search_steps or config.train.steps
    short = replace(
        config.train, steps=steps, warmup_steps=min(config.train.warmup_steps, steps - 1)
    )
    student = replace(reinforced(config), scales=(), biases=(), teachers=(), train=short)
    return SearchConfig(
        scales=config.search, teachers=config.imitate, student=student, seeds=(config.seed,)
    )


def run(config: Config) -> Path:
    """Caption and reinforce the store if need be, search scales, train, score and fold.

    Returns:
        the folder, with `reinforced/`, `plain/` and `result.json`, and `search/` after a search.

    Raises:
        CardError, ConfigError: see `settle`.
        DataError: no rows to train or to score on.
    """
    from understudy.data.store import Store
    from understudy.evaluate.held_out import needed_scorer, watcher
    from understudy.reinforce.generate import reinforce
    from understudy.reinforce.stored import stored
    from understudy.train.comparison import write_comparison
    from understudy.train.scale_search import search_scales
    from understudy.train.student import train_clip

    store = Store.open(config.store)
    evaluate, watch = needed_scorer(store), watcher(store)
    config, views = settle(config, store)
    facts: dict[str, Any] = {"recipe": "mobileclip2"}
    if config.teachers or config.captioners:
        facts["reinforce"] = reinforce(store, reinforcement(config, views)).to_dict()
        store = Store.open(config.store)
    if config.search:
        curves = search_scales(store, searching(config), config.out / "search", watch or evaluate)
        config = replace(
            config,
            imitate=tuple(curve.teacher for curve in curves),
            scales=tuple(curve.best for curve in curves),
        )
        facts["search"] = [curve.to_dict() for curve in curves]
    arms = {"plain": plain(config)} if config.baseline else {}
    arms |= {"reinforced": reinforced(config)}
    students = {
        name: train_clip(store, None, arm, config.out / name, evaluate, watch=watch)
        for name, arm in arms.items()
    }
    known = stored(store, config.view_set)
    facts |= {"config": to_dict(config), "stored": None if known is None else known.to_dict()}
    return write_comparison(config.out, students, baseline=next(iter(arms)), facts=facts).parent
