"""Frozen features at rest and in flight: reading cached columns, batches of several modalities.

An encoder's features of a modality are up to three columns that one job fills in lockstep:
`feature.<encoder>.<modality>` (pooled, [D]), and for encoders with tokens
`feature.<encoder>.<modality>.tokens` (padded, [T, D]) and `.mask` (uint8 [T]). Their cards hold the
encoder's hash and the hash of what its input went through; a reader that asks for others is
refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from understudy.core.errors import CardError, ConfigError, DataError
from understudy.core.hashing import hash_bytes
from understudy.data.card import Card
from understudy.data.knowledge import decode_embeddings, feature_column
from understudy.data.samplers import Batch

if TYPE_CHECKING:
    from understudy.data.store import Store


class _Sampler(Protocol):
    def batch(self, step: int) -> Batch: ...

    def describe(self) -> dict[str, Any]: ...


def token_column(encoder: str, modality: str) -> str:
    """Return the column of an encoder's token features."""
    return feature_column(encoder, modality) + ".tokens"


def mask_column(encoder: str, modality: str) -> str:
    """Return the column that says which tokens are valid."""
    return feature_column(encoder, modality) + ".mask"


@dataclass(frozen=True, kw_only=True)
class Side:
    """One modality of some rows, in memory or mapped.

    Attributes:
        rows: int64 [N] row numbers, increasing.
        values: [N, D] pooled, [N, T, D] tokens, or whatever a tower takes (pixels, ids).
        mask: bool [N, T] valid tokens; None if all are, or there are no tokens.
        encoder: id of the encoder; empty for inputs of a tower.
        encoder_hash: hash of its weights.
        preprocess_hash: hash of what its input went through.
    """

    rows: np.ndarray
    values: np.ndarray
    mask: np.ndarray | None = None
    encoder: str = ""
    encoder_hash: str = ""
    preprocess_hash: str = ""

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.values) or np.any(np.diff(self.rows) <= 0):
            raise DataError(
                f"side: {len(self.rows)} rows for {len(self.values)} values; rows must increase."
            )

    @property
    def dim(self) -> int:
        """Width of the features."""
        return int(self.values.shape[-1])

    def places(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (places, present): where each row's values are, and whether it has any."""
        places = np.searchsorted(self.rows, rows).clip(max=len(self.rows) - 1)
        return places, self.rows[places] == rows

    def take(self, rows: np.ndarray) -> Side:
        """Return the same side for fewer rows.

        Raises:
            DataError: a row has no values.
        """
        rows = np.asarray(rows, dtype=np.int64)
        places, present = self.places(rows)
        if not present.all():
            missing = int(rows[~present][0])
            raise DataError(
                f"row {missing} has no features of encoder '{self.encoder}'; cache them first "
                "(mode 'cache'), or leave the row out."
            )
        mask = None if self.mask is None else self.mask[places]
        return Side(
            rows=rows,
            values=self.values[places],
            mask=mask,
            encoder=self.encoder,
            encoder_hash=self.encoder_hash,
            preprocess_hash=self.preprocess_hash,
        )


def check_feature_card(card: Card, encoder_hash: str, preprocess_hash: str) -> None:
    """Refuse a cache that another checkpoint or preprocessing made; empty hashes pass.

    Raises:
        CardError: the message gives both hashes.
    """
    pairs = (
        ("checkpoint hash", card.fingerprint, encoder_hash),
        ("preprocess hash", card.config.get("preprocess_hash", ""), preprocess_hash),
    )
    for what, found, wanted in pairs:
        if wanted and found != wanted:
            raise CardError(
                f"column '{card.column}': the cache has {what} '{found}', the encoder "
                f"'{card.writer}' has '{wanted}'; cache the features again (overwrite) or use the "
                "encoder that made them."
            )


def read_features(
    store: Store,
    encoder: str,
    modality: str,
    rows: np.ndarray | None = None,
    *,
    tokens: bool = False,
    encoder_hash: str = "",
    preprocess_hash: str = "",
) -> Side:
    """Read cached features.

    Args:
        store: where they are.
        encoder: id of the encoder.
        modality: such as `"image"`.
        rows: increasing row numbers; None takes all that are filled.
        tokens: read tokens and mask instead of pooled vectors.
        encoder_hash: refuse a cache of other weights; empty takes any.
        preprocess_hash: refuse a cache of other preprocessing; empty takes any.

    Returns:
        values in the stored type (bfloat16 becomes float32).

    Raises:
        CardError: another checkpoint or preprocessing made the cache.
        DataError: no such column, or a row is not filled.
    """
    pooled = feature_column(encoder, modality)
    column = token_column(encoder, modality) if tokens else pooled
    if not store.has(column):
        what = "no token features" if tokens and store.has(pooled) else "no features"
        raise DataError(
            f"{store.path} has {what} of encoder '{encoder}' for modality '{modality}': write them "
            "with reinforce.features.cache_features, or 'understudy run ape STORE --mode cache'."
        )
    card = store.card(column)
    check_feature_card(card, encoder_hash, preprocess_hash)
    filled = np.flatnonzero(store.filled(column)) if rows is None else np.asarray(rows, np.int64)
    stored = store.array(column, filled)
    if card.config["dtype"] == "bfloat16":
        values = decode_embeddings(stored, card.config)
    else:
        values = stored.reshape(len(stored), *card.config["shape"])
    mask = None
    if tokens:
        mask = store.array(mask_column(encoder, modality), filled).astype(bool)
    return Side(
        rows=filled,
        values=values,
        mask=mask,
        encoder=encoder,
        encoder_hash=card.fingerprint,
        preprocess_hash=card.config["preprocess_hash"],
    )


class FeatureBatches:
    """Batches of several modalities' features: a loader factory for the loop.

    Batches hold `rows`, `features` by modality (float32), `masks` by modality that has one,
    `present` by modality where rows lack one, and `groups` if given. They depend on the step only;
    the order in which a cache is read does not matter.

    Args:
        sides: features by modality.
        sampler: draws row numbers.
        groups: group of every row that the sampler draws, by row number; see `DistinctSampler`.
    """

    def __init__(
        self,
        sides: Mapping[str, Side],
        sampler: _Sampler,
        groups: Mapping[int, int] | np.ndarray | None = None,
    ) -> None:
        if len(sides) < 2:
            raise ConfigError(f"feature batches: expected two or more sides, got {list(sides)}.")
        self.sides, self.sampler, self.groups = dict(sides), sampler, groups

    def gather(self, rows: np.ndarray) -> dict[str, Any]:
        """Return the batch of given rows."""
        import torch

        batch: dict[str, Any] = {"rows": torch.from_numpy(np.array(rows, np.int64))}
        features, masks, present = {}, {}, {}
        for name, side in self.sides.items():
            places, there = side.places(rows)
            values = side.values[places]
            if np.issubdtype(values.dtype, np.floating):
                values = values.astype(np.float32)
            features[name] = torch.from_numpy(np.ascontiguousarray(values))
            if side.mask is not None:
                masks[name] = torch.from_numpy(side.mask[places])
            if not there.all():
                present[name] = torch.from_numpy(there)
        batch["features"] = features
        if masks:
            batch["masks"] = masks
        if present:
            batch["present"] = present
        if self.groups is not None:
            batch["groups"] = torch.tensor([int(self.groups[int(r)]) for r in rows])
        return batch

    def __call__(self, start: int, count: int) -> Iterator[dict[str, Any]]:
        """Yield `count` batches from number `start` on."""
        for step in range(start, start + count):
            yield self.gather(self.sampler.batch(step).rows)

    def describe(self) -> dict[str, Any]:
        """Return what identifies the stream."""
        return {
            "sampler": self.sampler.describe(),
            "sides": {
                name: [side.encoder, side.encoder_hash, side.preprocess_hash]
                if side.encoder
                else hash_bytes(np.ascontiguousarray(side.values).tobytes())
                for name, side in self.sides.items()
            },
        }
