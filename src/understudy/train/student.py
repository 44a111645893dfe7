"""Train a CLIP student on a store: plain, or on what its teachers left there (arXiv 2311.17049).

    >>> from understudy.train.student import StudentConfig, train_clip
    >>> config = StudentConfig(view_set="main", lam=1.0)
    >>> result = train_clip(store, "mobileclip-nano", config, "runs/x")     # doctest: +SKIP

A seen sample is one stored view, the real caption and one synthetic caption. Nothing here asks a
teacher: everything comes from columns, and their cards are checked before the first step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.core.config import to_dict
from understudy.core.errors import ConfigError
from understudy.data.loader import Captions, Loader, TeacherEmbeddings, Texts
from understudy.models.multimodal.clip import CLIP
from understudy.train.steps import ClipStep
from understudy.train.student_config import StudentConfig
from understudy.train.student_lookup import (
    check_widths,
    find_captioner,
    find_scales,
    find_teachers,
    make_tokenizer,
)
from understudy.train.student_parts import (
    Evaluate,
    StudentResult,
    check_normalisation,
    during,
    finish,
    image_field,
    sampler_of,
    train_rows,
    view_count,
)

if TYPE_CHECKING:
    from understudy.data.store import Store

__all__ = [
    "StudentConfig",
    "StudentResult",
    "clip_loader",
    "clip_step",
    "make_student",
    "train_clip",
]


def make_student(store: Store, config: StudentConfig) -> CLIP:
    """Make the student that a configuration describes, or load the one it names.

    Raises:
        ConfigError: no such model, or not a CLIP.
    """
    from understudy import models
    from understudy.models.runs import load_run

    if config.model not in models.MODELS and Path(config.model).exists():
        if config.changes:
            raise ConfigError(
                f"changes: {config.model} holds weights, whose configuration cannot change."
            )
        model: Any = load_run(config.model, folded=False)
    else:
        tokenizer = make_tokenizer(store, config, train_rows(store, config.rows))
        model = models.create(config.model, seed=config.seed, tokenizer=tokenizer, **config.changes)
    return _check_clip(model)


def _check_clip(model: Any) -> CLIP:
    if not isinstance(model, CLIP):
        raise ConfigError(f"train_clip: {model.config.name} is a classifier; use train_classifier.")
    if model.tokenizer is None:
        raise ConfigError(
            f"train_clip: {model.config.name} has no tokenizer; call model.set_tokenizer first."
        )
    return model


def clip_loader(store: Store, model: CLIP, config: StudentConfig) -> Loader:
    """Return the batches of a run: images, captions and what teachers said of both.

    Raises:
        CardError: a column is missing or was written by something else.
        ConfigError: options that do not fit the store or the model.
    """
    rows = train_rows(store, config.rows)
    check_normalisation(model.preprocess, config.mean, config.std, model.config.name)
    context = model.config.text.context_length
    fields: list[Any] = [
        image_field(
            model.preprocess,
            column=config.image_column,
            view_set=config.view_set,
            augment=config.augment,
            rescale=config.rescale,
            replay=config.replay,
        )
    ]
    captioner = find_captioner(store, config) if config.synthetic else None
    assert model.tokenizer is not None
    if config.real:
        fields.append(Texts(column=config.text_column, tokenize=model.tokenizer, context=context))
    if captioner is not None:
        fields.append(
            Captions(
                captioner=captioner, tokenize=model.tokenizer, pick=config.pick, context=context
            )
        )
    if config.lam > 0:
        teachers = find_teachers(store, config)
        check_widths(store, teachers, config)
        fields.append(
            TeacherEmbeddings(
                teachers=teachers,
                texts=config.real,
                captions=captioner,
                shuffle_targets=config.shuffle_targets,
            )
        )
    sampler = sampler_of(
        rows,
        config.train,
        seed=config.seed,
        num_views=view_count(store, config.view_set),
        view_order=config.view_order,
    )
    return Loader(store, sampler, fields, seed=config.seed, workers=config.workers)


def clip_step(store: Store, config: StudentConfig, augment: Any = None) -> ClipStep:
    """Return the objective of a run, with the teachers' scales."""
    scales: tuple[float, ...] = ()
    if config.lam > 0:
        scales = find_scales(store, find_teachers(store, config), config)
    return ClipStep(
        lam=config.lam,
        scales=scales,
        captions=config.captions,
        mix=config.mix,
        weights=config.weights,
        combine=config.combine,
        augment=augment,
        seed=config.seed,
    )


def train_clip(
    store: Store,
    model: CLIP | str | None,
    config: StudentConfig,
    out: str | Path,
    evaluate: Evaluate | None = None,
    *,
    resume: bool = True,
    context: Mapping[str, Any] | None = None,
) -> StudentResult:
    """Train a CLIP student.

    Args:
        store: with images, texts and, for `lam > 0`, reinforced columns.
        model: a CLIP with its tokenizer, trained in place; a name or path instead of
            `config.model`; None takes `config.model`.
        config: what it learns from, how long and how fast.
        out: the run's folder; see `understudy.train.loop.fit`. `student.json` is added.
        evaluate: `evaluate(model) -> metrics`, called at `train.eval_every` and at the end.
        resume: go on from the newest checkpoint in `out`.
        context: facts for the run's record.

    Returns:
        metrics of the final, the averaged and the best weights.

    Raises:
        CardError: a column is missing or does not fit.
        ConfigError: options that do not fit each other, the model or the store.
    """
    from understudy.train.loop import fit
    from understudy.train.range_augment import RangeAugment, RangeAugmentConfig, Trainee

    if isinstance(model, str):
        config = replace(config, model=model)
    student = _check_clip(model) if isinstance(model, CLIP) else make_student(store, config)
    settings = replace(config.train, seed=config.seed)
    config = replace(config, train=settings)
    loader = clip_loader(store, student, config)
    trained: Any = student
    if config.range_augment:
        target = RangeAugmentConfig(steps=settings.steps, psnr=config.psnr)
        trained = Trainee(student, RangeAugment(target, student.preprocess))
    step = clip_step(store, config, getattr(trained, "augment", None))
    run = fit(
        trained,
        step,
        loader,
        settings,
        out,
        evaluate=during(evaluate),
        resume=resume,
        context={"student": to_dict(config), "store": store.path, **(context or {})},
        data={"loader": loader.describe(), "objective": _plain(step)},
    )
    return finish(run, student, loader, train_rows(store, config.rows), settings, evaluate)


def _plain(step: ClipStep) -> dict[str, Any]:
    names = ("lam", "scales", "captions", "mix", "weights", "combine", "seed")
    found = {name: getattr(step, name) for name in names}
    found["augment"] = to_dict(step.augment.config) if step.augment is not None else None  # type: ignore[attr-defined]
    return to_dict(found)
