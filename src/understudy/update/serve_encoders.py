"""The model behind text and image queries: it must write to the space that the gallery serves.

A model with an image and a text tower that were trained together has one space for both; its two
sides are told apart by what their input goes through, and nothing else of their spaces differs.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np

from understudy.core.errors import ConfigError, DataError
from understudy.data.decode import decode
from understudy.data.spaces import Space
from understudy.data.store_reader import Reader
from understudy.update.embedders import Embedder, embedder_of, open_embedder, sample_inputs
from understudy.update.gallery import Gallery
from understudy.update.queries import Query, QueryError
from understudy.update.search import check_query_space

Modality = Literal["image", "text"]


def is_joint(one: Space, other: Space) -> bool:
    """Say whether two encoded spaces are the two sides of one model, or one and the same."""
    return dataclasses.replace(other, preprocess=one.preprocess).id == one.id


class Encoders:
    """The new model's encoders for queries: one space, one modality or two.

    Args:
        embedders: at most one of each modality; the first is the one that wrote the gallery.

    Raises:
        ConfigError: there is none, two of one modality, or two of different models.

    Attributes:
        space: the encoded space that queries are in.
    """

    def __init__(self, embedders: Iterable[Embedder]) -> None:
        given = list(embedders)
        self._embedders = {embedder.modality: embedder for embedder in given}
        if not given or len(self._embedders) < len(given):
            raise ConfigError("queries: give one encoder of images, one of texts, or both.")
        self.space = given[0].space
        for other in given[1:]:
            if not is_joint(self.space, other.space):
                raise ConfigError(
                    f"queries: {other.modality}s are encoded into {other.space}, "
                    f"{given[0].modality}s into {self.space}; give two sides of one model."
                )
        self._lock = threading.Lock()  # one at a time: encoders are many times as dear as searches

    def kinds(self) -> list[str]:
        """Return which of image and text can be asked."""
        return sorted(self._embedders)

    def encode(self, query: Query) -> np.ndarray:
        """Return the vector float32 [D] of a text or an image.

        Raises:
            QueryError: the model has no such encoder, the image is damaged, or its vector is zero
                or not finite.
        """
        embedder = self._embedders.get(query.kind)
        if embedder is None:
            raise QueryError(
                400,
                f"the serving model encodes no {query.kind}s; ask by {' or '.join(self.kinds())}.",
            )
        try:
            item: Any = query.text if query.kind == "text" else decode(query.image, name="'image'")
            with self._lock:
                return embedder([item], [f"the {query.kind}"])[0]
        except DataError as error:
            raise QueryError(400, str(error)) from None


def open_encoders(model: str, gallery: Gallery, *, column: str = "", version: str = "") -> Encoders:
    """Open a model for queries to a gallery.

    Args:
        model: as for `open_embedder`.
        gallery: what will be searched; it decides which side of the model wrote it, and whether
            vectors have unit length.
        column: payload column that an encoder is fitted to, for models that are; empty takes the
            one named after the modality.
        version: of a function; see `open_embedder`.

    Raises:
        ConfigError: nothing of that name, or it encodes neither images nor texts.
        SpaceError: none of its sides writes to the space that the gallery is searched from.
    """
    store, target = gallery.pinned, gallery.space.searched_from
    sides: list[Embedder] = []
    errors: list[Exception] = []
    for modality in _modalities(gallery):
        try:
            opened = _open(model, modality, store, column, version)
        except Exception as error:  # a function that takes texts may fail in any way on images
            errors.append(error)
            continue
        for normalise in (False, True):
            side = embedder_of(opened.encoder, modality, normalise=normalise, spec=model)
            if side.space.id == target:
                return Encoders([side, *_other_side(side)])
            sides.append(side)
    if not sides:
        raise errors[0]
    check_query_space(sides[0].space, gallery.space, f"gallery of {store.path}")
    raise AssertionError("the check has refused")  # none of the sides' ids was the target's


def _modalities(gallery: Gallery) -> list[Modality]:
    """Return what may have been encoded, most likely first: one, if a card says so."""
    store = gallery.pinned
    columns = [c for c in (gallery.new, gallery.mapped, gallery.mixed) if c is not None]
    named = {store.card(column).config.get("modality") for column in columns}
    found: list[Modality] = [m for m in ("image", "text") if m in named]
    both: list[Modality] = ["image", "text"]
    return found or sorted(both, key=lambda m: not store.has(m))


def _open(model: str, modality: Modality, store: Reader, column: str, version: str) -> Embedder:
    name, inputs = column or modality, None
    if store.has(name):
        inputs = sample_inputs(store, name, modality, np.arange(store.num_rows))
    return open_embedder(model, modality, version=version, inputs=inputs)


def _other_side(side: Embedder) -> list[Embedder]:
    """Return the other tower of a model that has two in one space, if this one has."""
    from understudy.reinforce.encoders import TeacherEncoder

    if not isinstance(side.encoder, TeacherEncoder):
        return []
    teacher = side.encoder.teacher
    if not {"embed_images", "embed_texts"} <= teacher.capabilities:
        return []
    modality: Modality = "text" if side.modality == "image" else "image"
    encoder = TeacherEncoder(teacher, modality)
    if encoder.dim != side.dim:
        return []
    normalise = side.space.normalised
    return [embedder_of(encoder, modality, normalise=normalise, spec=side.spec)]
