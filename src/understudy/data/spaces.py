"""Embedding spaces: which vectors may be compared with which.

Two models can share a width and not a space; ranking across them is wrong without a sign of it. So
an index column's card names its space, and a search says which space its queries are in.

A column is *encoded* (a model wrote it), *mapped* (a map brought another space's vectors to its
target) or *mixed* (each row one or the other, with one target; a flag column tells which).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from understudy.core.config import check_choice, check_keys
from understudy.core.errors import CardError, ConfigError, DataError
from understudy.core.hashing import hash_data

if TYPE_CHECKING:
    from understudy.data.store_reader import Reader

KINDS = ("encoded", "mapped", "mixed")


class SpaceError(DataError):
    """Vectors of two spaces were about to be compared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Space:
    """Where vectors live.

    Attributes:
        model: name of the model whose vectors these are, or would be (the target's), for people.
        fingerprint: hash of its weights; of the map's weights in a mapped space.
        preprocess: hash or name of what the model's input goes through.
        dtype: what the model computed in, such as `float32`.
        normalised: whether vectors have unit length.
        dim: width of the vectors.
        kind: encoded, mapped or mixed.
        target: id of the encoded space that a mapped or mixed column is to be searched from.
        lineage: ids of the spaces that the vectors went through, oldest first; without this one.

    Raises:
        ConfigError: an unknown kind, a width below 1, or a target where there must be none, or
            none where there must be one.
    """

    model: str
    fingerprint: str
    preprocess: str = ""
    dtype: str = "float32"
    normalised: bool = False
    dim: int
    kind: str = "encoded"
    target: str = ""
    lineage: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        where = f"space of '{self.model}'"
        check_choice(self.kind, KINDS, f"{where}: kind")
        if self.dim < 1:
            raise ConfigError(f"{where}: dim must be at least 1, got {self.dim}.")
        if not self.fingerprint:
            raise ConfigError(f"{where}: 'fingerprint' is empty; nothing else identifies it.")
        if bool(self.target) == (self.kind == "encoded"):
            raise ConfigError(
                f"{where}: an encoded space has no target, a mapped or mixed one has; got kind "
                f"'{self.kind}' and target '{self.target}'."
            )
        object.__setattr__(self, "lineage", tuple(self.lineage))

    @property
    def id(self) -> str:
        """Twelve hex digits of the hash of all but the name."""
        data = dataclasses.asdict(self)
        del data["model"]
        data["lineage"] = list(self.lineage)
        return hash_data(data)[:12]

    @property
    def searched_from(self) -> str:
        """Id of the encoded space whose queries may be compared with these vectors."""
        return self.target or self.id

    def serves(self, query: Space) -> bool:
        """Say whether vectors of an encoded space may be queries here."""
        return query.kind == "encoded" and query.id == self.searched_from

    def mapped(self, map_fingerprint: str, target: Space) -> Space:
        """Return the space that a map of this fingerprint brings this space's vectors to."""
        return Space(
            model=target.model,
            fingerprint=map_fingerprint,
            preprocess=target.preprocess,
            dtype=self.dtype,
            normalised=False,
            dim=target.dim,
            kind="mapped",
            target=target.searched_from,
            lineage=(*self.lineage, self.id),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the space as plain data, for a card's or a manifest's `space`."""
        return {**dataclasses.asdict(self), "lineage": list(self.lineage)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Space:
        """Read a space back.

        Raises:
            ConfigError: a key that is unknown (a newer version wrote it) or missing.
        """
        check_keys(data, [f.name for f in dataclasses.fields(cls)], "space")
        try:
            return cls(**data)
        except TypeError as error:
            raise ConfigError(f"space: {error}.") from None

    def __str__(self) -> str:
        to = f", mapped to {self.target}" if self.target else ""
        return f"{self.id} ({self.model}, {self.dim} numbers{to})"


def space_of(store: Reader, column: str) -> Space:
    """Return the space of an index column.

    Raises:
        DataError: no such column.
        CardError: its card names no space, so nothing says what it may be compared with.
    """
    found = store.card(column).config.get("space")
    if found is None:
        raise CardError(
            f"column '{column}' of {store.path} names no space: write it with 'understudy update "
            "encode', or name the model that made it (Space) in its card."
        )
    return Space.from_dict(found)


def check_comparable(query: Space, gallery: Space, where: str) -> None:
    """Refuse to compare vectors of two spaces.

    Args:
        query: space of the queries.
        gallery: space of what is searched.
        where: what is searched, for the message.

    Raises:
        SpaceError: the message names both spaces and what to do.
    """
    if gallery.serves(query):
        return
    same = " Equal widths do not make them comparable." if query.dim == gallery.dim else ""
    raise SpaceError(
        f"{where}: queries are in space {query}, but the gallery is in space {gallery}.{same} "
        "Encode queries with the gallery's model, or train a map between the two ('understudy "
        "update fit') and apply it ('understudy update apply')."
    )


def check_one_target(spaces: Iterable[Space], where: str) -> str:
    """Return the one space from which all of these are searched.

    Raises:
        SpaceError: there are two of them.
    """
    found = {space.searched_from: space for space in spaces}
    if len(found) == 1:
        return next(iter(found))
    names = " and ".join(str(space) for space in found.values())
    raise SpaceError(
        f"{where}: vectors of {names} would be mixed; one gallery may hold a model's own vectors "
        "and vectors mapped to that model, nothing else."
    )
