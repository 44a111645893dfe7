"""Train a CLIP student on a store: plain, or on what its teachers left there (arXiv 2311.17049).

    >>> from understudy.train.student import StudentConfig, train_clip
    >>> config = StudentConfig(view_set="main", lam=1.0)
    >>> result = train_clip(store, "mobileclip-nano", config, "runs/x")     # doctest: +SKIP

A seen sample is one stored view, the real caption and one synthetic caption. Nothing here asks a
teacher: everything comes from columns, and their cards are checked before the first step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.core.config import to_dict
from understudy.core.errors import ConfigError
from understudy.data.loader import Captions, Loader, TeacherEmbeddings, Texts
from understudy.models.multimodal.clip import CLIP
from understudy.models.multimodal.coca import CoCa
from understudy.models.runs import load_run, names_weights
from understudy.train.online import OnlineTeachers
from understudy.train.steps import ClipStep
from understudy.train.student_batches import make_loader, train_rows
from understudy.train.student_config import StudentConfig
from understudy.train.student_lookup import (
    check_widths,
    find_biases,
    find_captioners,
    find_scales,
    find_teachers,
    make_tokenizer,
    online_scales,
    online_teachers,
)
from understudy.train.student_run import Evaluate, StudentResult, run_student, settle

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

    if names_weights(config.model):
        if config.changes:
            raise ConfigError(
                f"changes: {config.model} holds weights, whose configuration cannot change."
            )
        model: Any = load_run(config.model, folded=False)
    else:
        tokenizer = make_tokenizer(store, config, train_rows(store, config.rows))
        changes = dict(config.changes)
        if config.loss == "sigmoid":
            changes["sigmoid"] = True
        model = models.create(config.model, seed=config.seed, tokenizer=tokenizer, **changes)
    return _check_clip(model)


def _check_clip(model: Any) -> CLIP:
    if not isinstance(model, CLIP):
        kind, use = "a classifier", "train_classifier (understudy train)"
        if isinstance(model, CoCa):
            kind, use = "a captioner", "train_captioner (understudy train captioner)"
        raise ConfigError(f"train_clip: {model.config.name} is {kind}; use {use}.")
    if model.tokenizer is None:
        raise ConfigError(
            f"train_clip: {model.config.name} has no tokenizer; call model.set_tokenizer first."
        )
    return model


def clip_loader(
    store: Store, model: CLIP, config: StudentConfig, online: Sequence[CLIP] = ()
) -> Loader | OnlineTeachers:
    """Return the batches of a run: images, captions and what teachers said, or say, of both.

    Args:
        store: holds everything.
        model: the student.
        config: what it learns from.
        online: the teachers of `config.online`, if they are loaded already.

    Raises:
        CardError: a column is missing or was written by something else.
        ConfigError: options that do not fit the store or the model.
    """
    context = model.config.text.context_length
    fields: list[Any] = []
    captioner = find_captioners(store, config) if config.synthetic else None
    assert model.tokenizer is not None
    if config.real:
        fields.append(Texts(column=config.text_column, tokenize=model.tokenizer, context=context))
    if captioner is not None:
        fields.append(
            Captions(
                captioner=captioner,
                tokenize=model.tokenizer,
                pick=config.pick,
                num=config.num_captions,
                context=context,
            )
        )
    if config.lam > 0 and not config.online:
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
    loader = make_loader(store, model, config, fields)
    if not (config.lam > 0 and config.online):
        return loader
    return OnlineTeachers(
        store,
        loader,
        online or online_teachers(config),
        model.preprocess,
        captioner=captioner,
        text_column=config.text_column if config.real else None,
    )


def clip_step(
    store: Store, config: StudentConfig, augment: Any = None, online: Sequence[CLIP] = ()
) -> ClipStep:
    """Return the objective of a run, with the teachers' scales (and biases, for sigmoid losses)."""
    scales: tuple[float, ...] = ()
    biases: tuple[float, ...] = ()
    if config.lam > 0 and config.online:
        scales, biases = online_scales(online or online_teachers(config), config)
    elif config.lam > 0:
        teachers = find_teachers(store, config)
        scales = find_scales(store, teachers, config)
        if config.loss == "sigmoid":
            biases = find_biases(store, teachers, config)
    return ClipStep(
        lam=config.lam,
        scales=scales,
        sigmoid=config.loss == "sigmoid",
        biases=biases,
        compat=config.compat,
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
    watch: Evaluate | None = None,
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
        evaluate: `evaluate(model) -> metrics`, called at the end, and at `train.eval_every` if
            nothing else watches.
        watch: the same on other rows, such as a validation split: called at `train.eval_every`, it
            chooses the best weights. Without it these are chosen on what they are scored on.
        resume: go on from the newest checkpoint in `out`.
        context: facts for the run's record.

    Returns:
        metrics of the final, the averaged and the best weights.

    Raises:
        CardError: a column is missing or does not fit.
        ConfigError: options that do not fit each other, the model or the store.
    """
    from understudy.train.range_augment import RangeAugment, RangeAugmentConfig, Trainee

    config = settle(config, model)
    student = _check_clip(model) if isinstance(model, CLIP) else make_student(store, config)
    if config.loss == "sigmoid" and not student.config.sigmoid:
        raise ConfigError(
            f"loss: {student.config.name} has no logit bias, which sigmoid losses train; make it "
            "with changes: {sigmoid: true}."
        )
    online = online_teachers(config) if config.lam > 0 else []
    loader = clip_loader(store, student, config, online)
    trained: Any = None
    if config.range_augment:
        target = RangeAugmentConfig(steps=config.train.steps, psnr=config.psnr)
        trained = Trainee(student, RangeAugment(target, student.preprocess))
    step = clip_step(store, config, getattr(trained, "augment", None), online)
    return run_student(
        store,
        student,
        step,
        loader,
        config,
        out,
        evaluate,
        learned=_plain(step),
        trained=trained,
        watch=watch,
        resume=resume,
        context=context,
    )


def _plain(step: ClipStep) -> dict[str, Any]:
    names = ("lam", "scales", "captions", "mix", "weights", "combine", "seed")
    names += ("sigmoid", "biases", "compat") if step.sigmoid else ()
    found = {name: getattr(step, name) for name in names}
    found["augment"] = to_dict(step.augment.config) if step.augment is not None else None  # type: ignore[attr-defined]
    return to_dict(found)
