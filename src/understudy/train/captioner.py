"""Train a captioner on a store, or fine-tune one: the CoCa losses in the one loop.

>>> from understudy.train.captioner import CaptionerConfig, train_captioner
>>> first = train_captioner(store, None, CaptionerConfig(), "runs/web")   # doctest: +SKIP
>>> few = CaptionerConfig(model="runs/web", rows="split = 'curated'")     # doctest: +SKIP
>>> train_captioner(store, None, few, "runs/captioner")                   # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.core.errors import ConfigError
from understudy.data.loader import Captions, Loader, Texts
from understudy.models.multimodal.coca import CoCa
from understudy.models.runs import load_run, names_weights
from understudy.train.captioner_config import CaptionerConfig
from understudy.train.steps import CaptionStep
from understudy.train.student_batches import make_loader, train_rows
from understudy.train.student_lookup import find_captioners, make_tokenizer
from understudy.train.student_run import Evaluate, StudentResult, run_student, settle

if TYPE_CHECKING:
    from understudy.data.store import Store

__all__ = ["CaptionerConfig", "captioner_loader", "make_captioner", "train_captioner"]


def make_captioner(store: Store, config: CaptionerConfig) -> CoCa:
    """Make the captioner that a configuration describes, or load the one it names.

    Raises:
        ConfigError: no such model, or not a captioner.
    """
    from understudy import models

    if names_weights(config.model):
        if config.changes:
            raise ConfigError(
                f"changes: {config.model} holds weights, whose configuration cannot change."
            )
        return _check(load_run(config.model, folded=False))
    tokenizer = make_tokenizer(store, config, train_rows(store, config.rows))
    return _check(
        models.create(config.model, seed=config.seed, tokenizer=tokenizer, **config.changes)
    )


def _check(model: Any) -> CoCa:
    if not isinstance(model, CoCa):
        raise ConfigError(
            f"train_captioner: {model.config.name} is a {type(model).__name__}, not a captioner; "
            "use coca-nano, say."
        )
    if model.tokenizer is None:
        raise ConfigError(
            f"train_captioner: {model.config.name} has no tokenizer; call model.set_tokenizer "
            "first."
        )
    return model


def captioner_loader(store: Store, model: CoCa, config: CaptionerConfig) -> Loader:
    """Return the batches of a run: images, and their texts under `texts`.

    Raises:
        CardError: a column is missing or was written by something else.
        ConfigError: options that do not fit the store or the model.
    """
    context = model.config.text.context_length
    assert model.tokenizer is not None
    field: Texts | Captions
    if config.synthetic:
        field = Captions(
            captioner=find_captioners(store, config),
            tokenize=model.tokenizer,
            pick=config.pick,
            context=context,
            key="texts",
        )
    else:
        field = Texts(column=config.text_column, tokenize=model.tokenizer, context=context)
    return make_loader(store, model, config, [field])


def train_captioner(
    store: Store,
    model: CoCa | str | None,
    config: CaptionerConfig,
    out: str | Path,
    evaluate: Evaluate | None = None,
    *,
    watch: Evaluate | None = None,
    resume: bool = True,
    context: Mapping[str, Any] | None = None,
) -> StudentResult:
    """Train a captioner.

    Args:
        store: images with texts or stored captions.
        model: a captioner with its tokenizer, trained in place; a name or path instead of
            `config.model`; None takes `config.model`.
        config: what it learns from, how long and how fast.
        out: the run's folder; see `understudy.train.loop.fit`.
        evaluate: `evaluate(model) -> metrics`, called at the end, and at `train.eval_every` if
            nothing else watches.
        watch: the same on other rows; called at `train.eval_every`, it chooses the best weights.
        resume: go on from the newest checkpoint in `out`.
        context: facts for the run's record.

    Raises:
        CardError: a column is missing or does not fit.
        ConfigError: options that do not fit each other, the model or the store.
    """
    config = settle(config, model)
    captioner = _check(model) if isinstance(model, CoCa) else make_captioner(store, config)
    step = CaptionStep(contrastive=config.contrastive, captioning=config.captioning)
    return run_student(
        store,
        captioner,
        step,
        captioner_loader(store, captioner, config),
        config,
        out,
        evaluate,
        learned={"contrastive": step.contrastive, "captioning": step.captioning},
        watch=watch,
        resume=resume,
        context=context,
    )
