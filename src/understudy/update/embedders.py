"""Models that write index columns, by what people type.

    embedder = open_embedder("runs/clip", "image")                      # a model of this package
    embedder = open_embedder("efficientnet-lite0", "image")             # fetched by `data fetch`
    embedder = open_embedder("sentence@/models/all-mpnet-base-v2", "text")
    embedder = open_embedder("mine:embed", "text", version="3")         # a function of one's own

An embedder knows the space of its vectors; queries, backfilling and encoding all use the same.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError, DataError
from understudy.data.spaces import Space
from understudy.reinforce.config import TeacherSpec
from understudy.reinforce.encoder_base import (
    Encoder,
    check_frozen_encoder,
    encode_checked,
    preprocess_hash,
)
from understudy.reinforce.encoder_specs import FITTED, make_encoder, parse_encoder

if TYPE_CHECKING:
    from understudy.data.store_reader import Reader

Modality = Literal["image", "text"]
SAMPLE_ROWS = 20_000
"""Rows that an encoder that is fitted to a store's own rows sees at most, the first ones."""


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """An encoder and the space that it writes to.

    Attributes:
        encoder: gives features before normalisation.
        modality: image or text.
        space: of its vectors.
        spec: what was typed, from which it can be made again.
    """

    encoder: Encoder
    modality: str
    space: Space
    spec: str = ""

    @property
    def dim(self) -> int:
        """Width of its vectors."""
        return self.space.dim

    def __call__(self, items: Sequence[Any] | np.ndarray, names: Sequence[str] = ()) -> np.ndarray:
        """Return vectors float32 [B, dim].

        Args:
            items: uint8 images [H, W, 3], or texts.
            names: what to call each item in messages.

        Raises:
            DataError: a vector is NaN, infinite or zero; the item is named.
        """
        names = list(names) or [f"item {i}" for i in range(len(items))]
        pooled, _, _ = encode_checked(self.encoder, items, names, "float32")
        vectors = np.asarray(pooled, np.float32)
        if not self.space.normalised:
            return vectors
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
        return (vectors / lengths).astype(np.float32)


def embedder_of(
    encoder: Encoder, modality: str, *, normalise: bool = False, spec: str = ""
) -> Embedder:
    """Return the embedder of a ready encoder.

    Args:
        encoder: see `understudy.reinforce.encoder_base`.
        modality: image or text.
        normalise: make its vectors of length 1.
        spec: how it was named.

    Raises:
        ModelError: the encoder is in training mode or takes gradients.
    """
    check_choice(modality, ("image", "text"), "modality")
    check_frozen_encoder(encoder)
    space = Space(
        model=encoder.name,
        fingerprint=encoder.hash,
        preprocess=preprocess_hash(encoder),
        dtype=getattr(getattr(encoder, "teacher", None), "compute", "float32"),
        normalised=normalise,
        dim=int(encoder.dim),
    )
    return Embedder(encoder=encoder, modality=modality, space=space, spec=spec)


def open_embedder(
    model: str,
    modality: Modality,
    *,
    normalise: bool = False,
    version: str = "",
    inputs: Callable[[], Sequence[Any]] | None = None,
) -> Embedder:
    """Make the embedder that a line stands for.

    Args:
        model: a run's folder or weights file of this package; the name of something that
            `understudy data fetch` brings; `module:function`; or `KIND[:MODEL][@PATH][?OPTIONS]` of
            a teacher (see `understudy.reinforce.encoder_specs`).
        modality: image or text.
        normalise: make vectors of length 1.
        version: of a function: part of its fingerprint, beside its source.
        inputs: returns what an encoder is fitted to, for those that are fitted to rows.

    Raises:
        ConfigError: nothing of that name.
        DataError: it is not there yet; the message says how to bring it.
    """
    encoder = _own(model, modality) or _function(model, modality, version)
    if encoder is None:
        encoder = make_encoder(_line(model), modality, inputs or _no_inputs(model))
    return embedder_of(encoder, modality, normalise=normalise, spec=model)


def _no_inputs(model: str) -> Callable[[], Sequence[Any]]:
    def refuse() -> Sequence[Any]:
        raise ConfigError(f"model '{model}' is fitted to a store's rows; open it with a store.")

    return refuse


def _own(model: str, modality: Modality) -> Encoder | None:
    """Return a model of this package, if that is what the path holds."""
    from understudy.reinforce.encoders import TeacherEncoder
    from understudy.reinforce.teachers import create

    path = Path(model)
    if not path.exists():
        return None
    from understudy.models.runs import weights_path

    name = path.stem if path.is_file() else path.resolve().name
    name = "".join(c if c.isalnum() or c in "-_+" else "-" for c in name).strip("-_+") or "model"
    weights = str(weights_path(path))
    return TeacherEncoder(create(TeacherSpec(name=name, path=weights)), modality)


def _function(model: str, modality: Modality, version: str) -> Encoder | None:
    """Return a function of the user's, if `module:function` names one."""
    from understudy.reinforce.encoders import TeacherEncoder
    from understudy.reinforce.teachers import TEACHERS, create

    module, colon, function = model.partition(":")
    known = {*TEACHERS, *FITTED, "asset"}
    if not colon or "=" in module or module in known or any(c in model for c in "@?/ "):
        return None
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"model '{model}': there is no kind '{module}' of model ({', '.join(sorted(known))}), "
            f"and module '{module}' cannot be imported ({error})."
        ) from None
    name = "".join(c if c.isalnum() or c in "-_+" else "-" for c in f"{module}-{function}")
    options = {f"embed_{modality}s": model, "version": version}
    spec = TeacherSpec(name=name, kind="callable", options=options)
    return TeacherEncoder(create(spec), modality)


def _line(model: str) -> str:
    """Return the line of a name that stands for something to fetch; other lines as they are."""
    from understudy.data.fetch_table import ASSETS
    from understudy.reinforce.teachers import TEACHERS

    spec = model.partition("?")[0]
    if spec in ASSETS:
        return f"asset:{model}"
    kind = parse_encoder(model)[0].kind
    if kind not in TEACHERS and kind not in FITTED:
        raise ConfigError(
            f"model '{model}': no such file, fetched model or kind ({', '.join(sorted(TEACHERS))}, "
            f"{', '.join(sorted(FITTED))})."
        )
    return model


def sample_inputs(
    store: Reader, column: str, modality: str, rows: np.ndarray
) -> Callable[[], Sequence[Any]]:
    """Return a function that reads what a fitted encoder is fitted to: the first rows of `rows`."""
    from understudy.reinforce.features import read_inputs

    def read() -> Sequence[Any]:
        if not len(rows):
            raise DataError(f"{store.path}: no rows to fit an encoder to.")
        return read_inputs(store, column, modality, rows[:SAMPLE_ROWS])  # type: ignore[arg-type]

    return read
