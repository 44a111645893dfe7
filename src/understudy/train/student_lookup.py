"""What a store offers a CLIP student: captioners, teachers, scales, words for a tokenizer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.core.errors import CardError, ConfigError
from understudy.core.seeds import rng
from understudy.data.knowledge import captions_column, image_column, text_column
from understudy.objectives.checks import teacher_scales
from understudy.train.captioner_config import CaptionerConfig
from understudy.train.student_config import StudentConfig

if TYPE_CHECKING:
    from understudy.data.store import Store
    from understudy.models.multimodal.clip import CLIP
    from understudy.models.text.tokenizer import Tokenizer

TOKENIZER_TEXTS = 100_000
"""A tokenizer is trained on at most this many rows' captions, drawn by the seed."""


def find_captioners(store: Store, config: StudentConfig | CaptionerConfig) -> tuple[str, ...]:
    """Return the captioners whose captions are used, in the order of the store's columns.

    `config.captioner` is a name, or a regular expression that is matched against whole names.

    Raises:
        ConfigError: there is none, the expression matches none or is none, or there are several and
            none is named.
    """
    known = [c.removeprefix("caption.") for c in store.columns if c.startswith("caption.")]
    if not config.captioner:
        if len(known) != 1:
            raise ConfigError(
                f"captioner: {store.path} has captions of {', '.join(known) or 'nobody'}; name one "
                "(captioner), or learn from real captions only (captions real)."
            )
        return (known[0],)
    if config.captioner in known:
        return (config.captioner,)
    try:
        chosen = tuple(name for name in known if re.fullmatch(config.captioner, name))
    except re.error as error:
        raise ConfigError(
            f"captioner: '{config.captioner}' is neither a captioner nor a regular expression "
            f"({error})."
        ) from None
    if not chosen:
        raise ConfigError(
            f"captioner: {store.path} has no column 'caption.{config.captioner}' "
            f"(captioners: {', '.join(known) or 'none'}), and as an expression it matches none; it "
            "is matched against the whole name after 'caption.'."
        )
    return chosen


def find_teachers(store: Store, config: StudentConfig) -> tuple[str, ...]:
    """Return the teachers to imitate: those named, or all that know the view set.

    Raises:
        CardError: nobody knows it, or a named one does not; the message lists who does.
    """
    tail = f".image.{config.view_set}.0"
    known = tuple(c.removesuffix(tail) for c in store.columns if c.endswith(tail))
    for name in config.teachers or ("",):
        if name not in known and (name or not known):
            raise CardError(
                f"{store.path}: there are no embeddings of view set '{config.view_set}'"
                + (f" by teacher '{name}'" if name else "")
                + f" (teachers: {', '.join(known) or 'none'}): reinforce the store with it first."
            )
    return config.teachers or known


def find_scales(
    store: Store, teachers: tuple[str, ...], config: StudentConfig
) -> tuple[float, ...]:
    """Return one logit scale a teacher: those given, or those on the cards.

    Raises:
        ConfigError: another number of scales than of teachers, or a card without a scale.
    """
    if config.scales:
        return teacher_scales(config.scales, len(teachers))
    found = []
    for teacher in teachers:
        scale = store.card(image_column(teacher, config.view_set, 0)).facts.get("logit_scale")
        if scale is None:
            raise ConfigError(
                f"scales: the card of teacher '{teacher}' names no logit scale; give one a teacher "
                f"({', '.join(teachers)}), such as 50."
            )
        found.append(float(scale))
    return teacher_scales(tuple(found), len(teachers))


def check_widths(store: Store, teachers: tuple[str, ...], config: StudentConfig) -> None:
    """Refuse a teacher whose image and text embeddings have different widths."""
    for teacher in teachers:
        shapes = {}
        columns = [image_column(teacher, config.view_set, 0)]
        columns += [text_column(teacher)] if config.real else []
        for column in columns:
            if not store.has(column):
                raise CardError(
                    f"{store.path}: no column '{column}': reinforce the store with teacher "
                    f"'{teacher}' and its texts, or learn from synthetic captions only."
                )
            shapes[column] = store.card(column).config.get("shape", [0])[-1]
        if len(set(shapes.values())) > 1:
            first, second = shapes.items()
            raise CardError(
                f"teacher '{teacher}': '{first[0]}' holds {first[1]} numbers a row and "
                f"'{second[0]}' {second[1]}; images and texts must share one space."
            )


def find_biases(
    store: Store, teachers: tuple[str, ...], config: StudentConfig
) -> tuple[float, ...]:
    """Return one logit bias a teacher for the sigmoid loss: those given, or those on the cards.

    Raises:
        ConfigError: another number of biases than of teachers, or a card without one.
    """
    found = list(config.biases)
    for teacher in teachers if not found else ():
        bias = store.card(image_column(teacher, config.view_set, 0)).facts.get("logit_bias")
        if bias is None:
            raise ConfigError(
                f"biases: the card of teacher '{teacher}' names no logit bias (it was trained with "
                f"a softmax); give one a teacher ({', '.join(teachers)}), such as -10."
            )
        found.append(float(bias))
    if len(found) != len(teachers):
        raise ConfigError(
            f"biases: {len(found)} logit biases for {len(teachers)} teachers; give one each."
        )
    return tuple(found)


def online_teachers(config: StudentConfig) -> list[CLIP]:
    """Return the CLIPs that are asked at every step.

    Raises:
        ConfigError: something else than a CLIP.
    """
    from understudy.models.multimodal.clip import CLIP
    from understudy.models.runs import load_run

    found = []
    for path in config.online:
        model: Any = load_run(path)
        if not isinstance(model, CLIP):
            raise ConfigError(f"online: {path} holds a {type(model).__name__}, not a CLIP.")
        found.append(model)
    return found


def online_scales(
    teachers: Sequence[CLIP], config: StudentConfig
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the scales and, for the sigmoid loss, the biases of teachers that are asked online.

    Raises:
        ConfigError: not one a teacher, or a teacher without a bias of its own.
    """
    count = len(teachers)
    scales = config.scales or tuple(float(t.scale().detach()) for t in teachers)
    if config.loss == "softmax":
        return teacher_scales(scales, count), ()
    biases = config.biases or tuple(
        float(t.logit_bias.detach()) for t in teachers if t.config.sigmoid
    )
    if len(biases) != count:
        raise ConfigError(
            f"biases: {len(biases)} logit biases for {count} teachers; give one each, such as -10."
        )
    return teacher_scales(scales, count), biases


def make_tokenizer(
    store: Store, config: StudentConfig | CaptionerConfig, rows: np.ndarray
) -> Tokenizer | None:
    """Return the tokenizer of a fresh student: trained on the rows' captions, or CLIP's.

    Raises:
        ConfigError: the model wants CLIP's vocabulary and no path is given.
    """
    from understudy import models
    from understudy.models.text.tokenizer import ClipTokenizer
    from understudy.models.text.train_tokenizer import train_bpe

    found: Any = models.config(config.model, **config.changes)
    if not hasattr(found, "text"):
        raise ConfigError(f"model: '{config.model}' is a classifier; a CLIP model reads texts.")
    kind = found.tokenizer if config.tokenizer == "auto" else config.tokenizer
    if kind == "clip":
        raise ConfigError(
            f"tokenizer: {config.model} reads CLIP's vocabulary; give the path of "
            "bpe_simple_vocab_16e6.txt.gz (or a tokenizer.json), or 'own' to train one."
        )
    if kind != "own":
        return ClipTokenizer(kind, found.text.context_length)
    if len(rows) > TOKENIZER_TEXTS:
        rows = np.sort(rng("tokenizer", config.seed).choice(rows, TOKENIZER_TEXTS, replace=False))
    texts: list[str] = []
    if config.real:
        texts += store.take(rows, [config.text_column]).column(0).to_pylist()
    if config.synthetic:
        columns = [captions_column(name) for name in find_captioners(store, config)]
        for column in columns:
            for row in store.take(rows, [column]).column(0).to_pylist():
                texts += row or ()
    known = (text for text in texts if text)
    return train_bpe(known, config.vocab_size, context_length=found.text.context_length)
