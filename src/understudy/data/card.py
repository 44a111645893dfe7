"""The provenance card of a knowledge column: who wrote it, how, and at what price."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from understudy.core.config import check_keys
from understudy.core.errors import CardError, ConfigError
from understudy.core.hashing import hash_data

IDENTITY = ("fingerprint", "config_hash", "seed")
"""The fields that decide a column's content: two cards that agree here describe the same column."""


def _plain(data: Any, where: str) -> Any:
    """Return `data` as it will be after a round trip through JSON."""
    try:
        return json.loads(json.dumps(data, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise CardError(f"{where}: a card holds plain JSON data only ({error}).") from None


def differences(expected: Any, found: Any, where: str) -> Iterator[str]:
    """Yield one sentence for each leaf in which two plain structures differ."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        for key in sorted({*expected, *found}, key=str):
            inner = f"{where}.{key}"
            if key not in found:
                yield f"{inner}: expected {expected[key]!r}, found nothing"
            elif key not in expected:
                yield f"{inner}: expected nothing, found {found[key]!r}"
            else:
                yield from differences(expected[key], found[key], inner)
    elif expected != found:
        yield f"{where}: expected {expected!r}, found {found!r}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """Who wrote a knowledge column, with what, over how many rows and in how many seconds.

    Attributes:
        column: logical name of the column.
        writer: model id (or the name of the rule) that produced the values.
        fingerprint: hash of the writer's weights; empty when there are none.
        config: plain data that decides the values (a view configuration, a prompt, ...).
        config_hash: hash of `config`; computed when left empty.
        backend: libraries and settings the values depend on bit for bit (decoder, filter, ...).
        versions: library versions at the time of writing.
        seed: seed of the draws behind the values.
        rows_done: rows written so far; kept by the store.
        seconds: wall seconds spent on them, summed over units; kept by the store.
        created_by: what created the card, for people.
        facts: what was learned while writing (checksums of sampled rows, ...); not part of the
            card's identity. Facts of single units are merged into it when they are committed.

    Raises:
        CardError: a value is not plain JSON data, or `config_hash` does not belong to `config`.
    """

    column: str
    writer: str
    fingerprint: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    config_hash: str = ""
    backend: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    rows_done: int = 0
    seconds: float = 0.0
    created_by: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        where = f"card of column '{self.column}'"
        if not self.column or not self.writer:
            raise CardError(f"{where}: 'column' and 'writer' must not be empty.")
        if not math.isfinite(self.seconds) or self.seconds < 0 or self.rows_done < 0:
            raise CardError(f"{where}: 'seconds' and 'rows_done' must be finite and >= 0.")
        for name in ("config", "backend", "versions", "facts"):
            object.__setattr__(self, name, _plain(getattr(self, name), f"{where}, {name}"))
        computed = hash_data(self.config)
        if self.config_hash and self.config_hash != computed:
            raise CardError(
                f"{where}: config_hash '{self.config_hash}' does not belong to its config "
                f"('{computed}'); leave it empty to have it computed."
            )
        object.__setattr__(self, "config_hash", computed)

    def identity(self) -> dict[str, Any]:
        """Return the fields that decide the column's content."""
        return {name: getattr(self, name) for name in IDENTITY}

    def to_dict(self) -> dict[str, Any]:
        """Return the card as plain data."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """Return the card as one line of JSON with sorted keys."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Card:
        """Read a card back.

        Raises:
            CardError: not JSON, an unknown key (a newer version wrote it) or a missing one.
        """
        try:
            data = json.loads(text)
            if not isinstance(data, dict):
                raise CardError(f"a card must be a JSON object, got {type(data).__name__}.")
            check_keys(data, [f.name for f in dataclasses.fields(cls)], "card")
            return cls(**data)
        except (json.JSONDecodeError, ConfigError, TypeError) as error:
            raise CardError(
                f"unreadable card ({error}); was it written by a newer version?"
            ) from None

    def require(self, **expected: Any) -> Card:
        """Check fields against what is asked for and return the card.

        Args:
            **expected: field names with the value each must have; a mapping is compared leaf by
                leaf, so the message names the one key that differs.

        Raises:
            CardError: a field differs; the message gives column, field, expected and found value.
        """
        names = [f.name for f in dataclasses.fields(self)]
        try:
            check_keys(expected, names, f"column '{self.column}', required card fields")
        except ConfigError as error:
            raise CardError(str(error)) from None
        for name, value in expected.items():
            wanted = _plain(value, f"column '{self.column}', required {name}")
            for sentence in differences(wanted, getattr(self, name), name):
                raise CardError(
                    f"column '{self.column}' was written by something else than what is asked "
                    f"for: {sentence}. Reinforce the store again with the wanted settings, or ask "
                    "for the column that is there."
                )
        return self

    def check_same_writer(self, other: Card) -> None:
        """Refuse to mix two writers in one column.

        Args:
            other: the card of a job that wants to write to this card's column.

        Raises:
            CardError: the identities differ; the message says in which field.
        """
        if self.identity() == other.identity():
            return
        if self.fingerprint != other.fingerprint:
            detail = f"fingerprint: stored '{self.fingerprint}', new '{other.fingerprint}'"
        elif self.seed != other.seed:
            detail = f"seed: stored {self.seed}, new {other.seed}"
        else:
            detail = next(differences(self.config, other.config, "config"))
            detail = detail.replace("expected", "stored").replace("found", "new")
        raise CardError(
            f"column '{self.column}' already holds the work of '{self.writer}' and the new writer "
            f"'{other.writer}' differs in {detail}. Give the new column another name, or pass "
            "overwrite=True to replace it."
        )
