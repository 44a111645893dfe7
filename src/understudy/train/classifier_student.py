"""Train a classifier on a store: on labels, on stored probabilities, or on teachers asked online.

arXiv 2303.08983: the reinforced run differs from the plain one in its targets and its views only;
budget, optimiser and step are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from understudy.core.config import to_dict
from understudy.core.errors import CardError, ConfigError
from understudy.data.loader import Labels, Loader, TopK
from understudy.models.image.classifier import Classifier
from understudy.models.io import weights_hash
from understudy.models.preprocess import Preprocess
from understudy.models.runs import load_run, names_weights
from understudy.train.classifier_config import ClassifierStudentConfig
from understudy.train.classifier_steps import ClassifierStep, OnlineKdStep, TopKStep
from understudy.train.student_batches import make_loader
from understudy.train.student_run import Evaluate, StudentResult, run_student, settle

if TYPE_CHECKING:
    from understudy.data.store import Store


def find_topk_teacher(store: Store, config: ClassifierStudentConfig) -> str:
    """Return whose stored probabilities to imitate.

    Raises:
        CardError: nobody's, several and none is named, or not the named one's.
    """
    tail = f".topk.{config.view_set}.0"
    known = [c.removesuffix(tail) for c in store.columns if c.endswith(tail)]
    if config.teacher in known:
        return config.teacher
    if config.teacher or len(known) != 1:
        raise CardError(
            f"{store.path}: no probabilities of teacher '{config.teacher}' for view set "
            f"'{config.view_set}' (teachers: {', '.join(known) or 'none'}): name one of these, or "
            "reinforce the store with topk."
        )
    return known[0]


def class_count(store: Store, config: ClassifierStudentConfig) -> int:
    """Return the number of classes: as configured, or the store's class names.

    Raises:
        ConfigError: neither says.
    """
    found = config.num_classes or len(store.meta.get("classes", ()))
    if not found:
        raise ConfigError(
            f"num_classes: {store.path} names no classes; give their number, or set them with "
            "store.set_meta(classes=[...])."
        )
    return found


def make_classifier(store: Store, config: ClassifierStudentConfig) -> Classifier:
    """Make the student that a configuration describes, or load the one it names.

    Raises:
        ConfigError: no such model, not a classifier, of other classes, or weights with `changes`.
    """
    from understudy import models

    if names_weights(config.model):
        if config.changes:
            raise ConfigError(
                f"changes: {config.model} holds weights, whose configuration cannot change."
            )
        model: Any = load_run(config.model, folded=False)
    else:
        changes = dict(config.changes)
        if hasattr(models.config(config.model), "num_classes"):
            changes.setdefault("num_classes", class_count(store, config))
        model = models.create(config.model, seed=config.seed, **changes)
    return _check_classifier(model, class_count(store, config))


def _check_classifier(model: Any, num_classes: int) -> Classifier:
    if not isinstance(model, Classifier):
        raise ConfigError(
            f"train_classifier: {model.config.name} is no classifier; use train_clip."
        )
    if model.config.num_classes != num_classes:
        raise ConfigError(
            f"num_classes: {model.config.name} tells {model.config.num_classes} classes apart, the "
            f"data set has {num_classes}; change the model (changes: num_classes)."
        )
    return model


def classifier_loader(store: Store, model: Classifier, config: ClassifierStudentConfig) -> Loader:
    """Return the batches of a run: images, labels, and stored targets where they are learned."""
    topk = config.learn == "topk"
    fields: list[Any] = []
    if store.has(config.label_column) or not topk:
        fields.append(Labels(column=config.label_column))
    if topk:
        fields.append(
            TopK(
                teacher=find_topk_teacher(store, config),
                num_classes=model.config.num_classes,
                keep=config.k,
                label=config.label_column,
                mark_plain=config.p < 1,
                shuffle_targets=config.shuffle_targets,
            )
        )
    return make_loader(store, model, config, fields, p=config.p if topk else 1.0)


def classifier_step(
    config: ClassifierStudentConfig,
    num_classes: int,
    teachers: Sequence[nn.Module] = (),
    preprocess: Preprocess | None = None,
) -> ClassifierStep | TopKStep | OnlineKdStep:
    """Return the objective of a run.

    Args:
        config: what is learned.
        num_classes: of the student.
        teachers: for `learn="online"`.
        preprocess: the student's, which decides what teachers are shown; see `OnlineKdStep`.

    Raises:
        ConfigError: online imitation without teachers, teachers without it, or of other classes.
    """
    if bool(teachers) != (config.learn == "online"):
        raise ConfigError(
            f"train_classifier: learn is '{config.learn}' and {len(teachers)} teachers are given; "
            "'online' needs some, the others none."
        )
    for teacher in teachers:
        classes = getattr(getattr(teacher, "config", None), "num_classes", num_classes)
        if classes != num_classes:
            raise ConfigError(
                f"train_classifier: a teacher tells {classes} classes apart, the student "
                f"{num_classes}; use teachers of the same classes."
            )
    if config.learn == "labels":
        return ClassifierStep(smoothing=config.smoothing, mix=config.mix, num_classes=num_classes)
    if config.learn == "online":
        return OnlineKdStep(
            teachers=teachers,
            lambda_kd=config.lambda_kd,
            lambda_cls=config.lambda_cls,
            temperature=config.temperature,
            smoothing=config.smoothing,
            mix=config.mix,
            num_classes=num_classes,
            hard=config.hard,
            preprocess=preprocess,
        )
    return TopKStep(
        num_classes=num_classes,
        method=config.densify,
        compat=config.compat,
        mix=config.mix if config.force_mix else None,
    )


def train_classifier(
    store: Store,
    model: Classifier | str | None,
    config: ClassifierStudentConfig,
    out: str | Path,
    evaluate: Evaluate | None = None,
    *,
    teachers: Sequence[nn.Module] = (),
    watch: Evaluate | None = None,
    resume: bool = True,
    context: Mapping[str, Any] | None = None,
) -> StudentResult:
    """Train a classifier.

    Args:
        store: with images, labels and, for `learn="topk"`, reinforced columns.
        model: a classifier, trained in place; a name or path instead of `config.model`; None takes
            `config.model`.
        config: what it learns from, how long and how fast.
        out: the run's folder; see `understudy.train.loop.fit`. `student.json` is added.
        evaluate: `evaluate(model) -> metrics`, called at the end, and at `train.eval_every` if
            nothing else watches.
        watch: the same on other rows, such as a validation split: called at `train.eval_every`, it
            chooses the best weights. Without it these are chosen on what they are scored on.
        teachers: for `learn="online"`: modules that return `{"logits": ...}`.
        resume: go on from the newest checkpoint in `out`.
        context: facts for the run's record.

    Returns:
        metrics of the final, the averaged and the best weights.

    Raises:
        CardError: a column is missing or does not fit.
        ConfigError: options that do not fit each other, the model or the store.
    """
    config = settle(config, model)
    if isinstance(model, Classifier):
        student = _check_classifier(model, class_count(store, config))
    else:
        student = make_classifier(store, config)
    step = classifier_step(config, student.config.num_classes, teachers, student.preprocess)
    loader = classifier_loader(store, student, config)
    learned = {k: v for k, v in to_dict(config).items() if k not in ("model", "train", "workers")}
    if teachers:
        learned["teachers"] = [weights_hash(teacher) for teacher in teachers]
    return run_student(
        store,
        student,
        step,
        loader,
        config,
        out,
        evaluate,
        learned=learned,
        watch=watch,
        resume=resume,
        context=context,
    )
