"""Encoders by a line of text, for configurations and the command line.

    NAME=KIND[:MODEL][@PATH][?OPTION=VALUE&...]

`KIND` is a kind of teacher (`efficientnet-lite`, `sentence`, `timm`, `openclip`, `transformers`,
`onnx`, `understudy`), `asset` for what `understudy data fetch` has brought, or one that is fitted
to the store's own rows and needs no download: `tfidf-svd`, `char-ngrams`, `random-conv`.

    minilm=sentence@/models/all-MiniLM-L6-v2
    lite0=asset:efficientnet-lite0?size=128
    words=tfidf-svd?dim=256
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal
from urllib.parse import parse_qsl

import numpy as np

from understudy.core.config import check_keys
from understudy.core.errors import ConfigError, DataError
from understudy.reinforce.config import TeacherSpec

_SPEC = re.compile(
    r"(?:(?P<name>[\w.+-]+)=)?(?P<kind>[\w-]+)(?::(?P<model>[^@?]+))?"
    r"(?:@(?P<path>[^?]+))?(?:\?(?P<options>.*))?"
)
FITTED = {
    "tfidf-svd": {"dim": 256, "seed": 0, "whiten": 0.5},
    "char-ngrams": {"dim": 256, "seed": 0, "buckets": 4096},
    "random-conv": {"dim": 64, "filters": 64, "grid": 3, "seed": 0, "size": 32},
}
"""Kinds that are fitted to the store's rows, with their options' defaults."""

_ASSETS = {"minilm": "sentence", "mpnet": "sentence"}


def parse_encoder(text: str) -> tuple[TeacherSpec, int]:
    """Return a teacher's specification and the token length (option `tokens`).

    Raises:
        ConfigError: not such a line.
    """
    match = _SPEC.fullmatch(text.strip())
    if match is None:
        raise ConfigError(
            f"encoder '{text}': expected NAME=KIND[:MODEL][@PATH][?OPTION=VALUE], for example "
            "minilm=sentence@/models/all-MiniLM-L6-v2."
        )
    kind, model, path = match["kind"], match["model"] or "", match["path"] or ""
    options = {k: _value(v) for k, v in parse_qsl(match["options"] or "")}
    tokens = int(options.pop("tokens", 0))
    name = match["name"] or (model or kind).rsplit("/", 1)[-1]
    if kind == "asset":
        kind, model, path = _asset(model, text)
    name = re.sub(r"[^\w+-]", "-", name)
    spec = TeacherSpec(name=name, kind=kind, model=model, path=path, options=options)
    return spec, tokens


def _value(word: str) -> Any:
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(word.lower(), word)


def _asset(name: str, text: str) -> tuple[str, str, str]:
    """Return kind, model and path of a fetched asset."""
    from understudy.data.fetch import cached

    path = cached(name)
    if path is None:
        raise DataError(
            f"encoder '{text}': '{name}' is not in the cache; bring it with "
            f"'understudy data fetch {name}'."
        )
    if name.startswith("efficientnet-"):
        return "efficientnet-lite", name.removeprefix("efficientnet-"), str(path)
    if name in _ASSETS:
        return _ASSETS[name], "", str(path)
    raise ConfigError(f"encoder '{text}': asset '{name}' is not an encoder.")


def make_encoder(
    text: str,
    modality: Literal["image", "text"],
    inputs: Callable[[], Sequence[Any]],
) -> Any:
    """Make the encoder that a line describes.

    Args:
        text: see the module.
        modality: `"image"` or `"text"`.
        inputs: returns what a fitted kind is fitted to: uint8 images or captions.

    Raises:
        ConfigError: not such a line, or a kind of the other modality.
        DataError: an asset that was not fetched.
    """
    from understudy.reinforce.encoders import TeacherEncoder
    from understudy.reinforce.teachers import create

    spec, tokens = parse_encoder(text)
    if spec.kind in FITTED:
        return _fitted(spec, modality, inputs)
    return TeacherEncoder(create(spec), modality, tokens)


def _fitted(spec: TeacherSpec, modality: str, inputs: Callable[[], Sequence[Any]]) -> Any:
    from understudy.models.text.ngrams import (
        UNKNOWN,
        NgramConfig,
        NgramTower,
        fit_lsa,
        word_vocabulary,
    )
    from understudy.reinforce.encoders import NgramEncoder, RandomConvEncoder

    options = {**FITTED[spec.kind], **spec.options}
    check_keys(spec.options, FITTED[spec.kind], f"encoder '{spec.name}'")
    if (spec.kind == "random-conv") != (modality == "image"):
        raise ConfigError(f"encoder '{spec.name}': kind {spec.kind} is not for {modality}s.")
    if spec.kind == "random-conv":
        from understudy.models.preprocess import Preprocess, fit

        pixels = Preprocess(size=options.pop("size"))
        images = np.stack([fit(np.asarray(image), pixels) for image in inputs()])
        dim = options.pop("dim")
        return RandomConvEncoder(spec.name, images, dim, preprocess=pixels, **options)
    if spec.kind == "char-ngrams":
        config = NgramConfig(kind="chars", buckets=options["buckets"])
        return NgramEncoder(spec.name, NgramTower(config, options["dim"], options["seed"]))
    corpus = [text for text in inputs() if text and text.strip()]
    # Words of a single text stand for all that the corpus never saw.
    vocabulary = (UNKNOWN, *word_vocabulary(corpus, orders=(1, 2), min_count=2))
    config = NgramConfig(kind="words", orders=(1, 2), vocabulary=vocabulary, grams=2)
    tower = fit_lsa(
        corpus, config, options["dim"], seed=options["seed"], whiten=float(options["whiten"])
    )
    return NgramEncoder(spec.name, tower)
