"""Token sequences at rest: a store whose rows are sequences of token ids.

A row has `tokens` (list of uint16 or uint32), `length` (number of *input* tokens: the last token of
a row is only a target), and facts: `doc` and `piece` where a row is a piece of one document,
`bucket` (log2 of the length) and `segments` (lengths of the documents inside a row) where they
apply. What wrote it stands in the store's `meta` (`TokenInfo`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from understudy.core.errors import DataError
from understudy.core.hashing import hash_data
from understudy.data.store import Store
from understudy.data.store_read import Rows, row_numbers
from understudy.data.tokens_info import META, TokenInfo, check_eot, check_log2, token_dtype
from understudy.data.tokens_write import (
    FACTS,
    ROWS_PER_FRAGMENT,
    flat_tokens,
    list_array,
    token_schema,
    write_tokens,
)

__all__ = [
    "FACTS",
    "TokenInfo",
    "TokenStore",
    "check_eot",
    "check_log2",
    "flat_tokens",
    "list_array",
    "segment_ids",
    "token_dtype",
    "token_schema",
]


class TokenStore:
    """A store of token sequences; make one with `TokenStore.create` or `TokenStore.open`.

    Attributes:
        store: the store behind it, for facts, filters and knowledge columns.
        info: what wrote it.
        path: local path or object-store URL.
    """

    def __init__(self, store: Store) -> None:
        self.store, self.path = store, store.path
        self.info = TokenInfo.from_plain(store.meta.get(META), store.path)
        if self.info.num_rows != store.num_rows:
            raise DataError(
                f"{store.path}: {store.num_rows:,} rows, and {self.info.num_rows:,} were written; "
                "rows were added to a token store, which its counts and hash do not cover. Write "
                "a new one."
            )

    @classmethod
    def create(
        cls,
        path: str | Path,
        batches: Iterable[Any],
        info: TokenInfo,
        *,
        facts: Mapping[str, pa.DataType] | None = None,
        meta: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        rows_per_fragment: int = ROWS_PER_FRAGMENT,
        storage_options: dict[str, str] | None = None,
    ) -> TokenStore:
        """Write a token store, streaming. Killed before it ends, it leaves nothing that opens.

        Args:
            path: local path or object-store URL.
            batches: record batches of `token_schema(info.dtype, facts)`, or dicts with `id` (list
                of strings), `tokens` (list of integer arrays, or an array [B, L]) and the facts.
            info: facts about the store; counts and hash are filled in.
            facts: further columns with their types.
            meta: further plain data about the store.
            overwrite: replace a store that is there.
            rows_per_fragment: rows that are stored in one file.
            storage_options: passed to Lance (credentials, end points).

        Raises:
            DataError: a row is empty, a token is outside of the vocabulary, segments do not add up,
                an id occurs twice, or there is a store already; the message names it.
        """
        write_tokens(
            path,
            batches,
            info,
            facts=facts,
            meta=meta,
            overwrite=overwrite,
            rows_per_fragment=rows_per_fragment,
            storage_options=storage_options,
        )
        return cls.open(path, storage_options=storage_options)

    @classmethod
    def open(
        cls,
        path: str | Path,
        version: int | str | None = None,
        *,
        storage_options: dict[str, str] | None = None,
    ) -> TokenStore:
        """Open a token store.

        Raises:
            DataError: there is none, or it is not a token store.
        """
        return cls(Store.open(path, version, storage_options=storage_options))

    def __len__(self) -> int:
        return self.num_rows

    def __repr__(self) -> str:
        return f"TokenStore({self.path!r}, {self.info.kind}, rows={self.num_rows})"

    @property
    def num_rows(self) -> int:
        """Number of sequences."""
        return self.store.num_rows

    @cached_property
    def lengths(self) -> np.ndarray:
        """Number of input tokens of each row, int32 [num_rows]; read once."""
        return self.store.array("length").astype(np.int32, copy=False)

    @cached_property
    def buckets(self) -> dict[int, np.ndarray]:
        """Row numbers int64 of each bucket (log2 of the length), ascending; buckets only.

        Raises:
            DataError: the rows are no buckets.
        """
        if self.info.kind != "buckets":
            raise DataError(
                f"{self.path}: its rows are '{self.info.kind}', not buckets; cut the documents "
                "into buckets first."
            )
        found = self.store.array("bucket")
        return {int(k): np.flatnonzero(found == k) for k in np.unique(found)}

    def take(self, rows: Rows) -> list[np.ndarray]:
        """Return the tokens of rows, in the order asked for; a row may be asked for twice.

        One read in row order, which Lance does up to ten times faster than one in random order.

        Raises:
            DataError: no such row.
        """
        tokens, lengths, back = self._read(rows, "tokens")
        ends = np.cumsum(lengths)
        return [tokens[end - n : end] for end, n in zip(ends[back], lengths[back], strict=True)]

    def block(self, rows: Rows) -> np.ndarray:
        """Return the tokens of equally long rows as one array [B, length + 1].

        Raises:
            DataError: the rows are not equally long.
        """
        tokens, lengths, back = self._read(rows, "tokens")
        if len(lengths) and (lengths != lengths[0]).any():
            raise DataError(
                f"{self.path}: rows of {lengths.min():,} to {lengths.max():,} tokens do not make "
                "one array; take them one by one, or draw from one bucket."
            )
        width = int(lengths[0]) if len(lengths) else 0
        return tokens.reshape(-1, width)[back]

    def segments(self, rows: Rows) -> list[np.ndarray]:
        """Return the lengths of the documents inside of each row, int32; they add up to its tokens.

        A row that is one piece of one document has one segment.
        """
        if not self.store.has("segments"):
            numbers = row_numbers(rows, self.num_rows, self.path)
            return [self.lengths[row : row + 1] + 1 for row in numbers]
        pieces, counts, back = self._read(rows, "segments")
        ends = np.cumsum(counts)
        return [pieces[end - n : end] for end, n in zip(ends[back], counts[back], strict=True)]

    def _read(self, rows: Rows, column: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return (values laid end to end, length of each distinct row, place of each asked one)."""
        numbers = row_numbers(rows, self.num_rows, self.path)
        distinct, back = np.unique(numbers, return_inverse=True)
        values, lengths = flat_tokens(self.store.take(distinct, [column]).column(0))
        return values, lengths, back

    def check_tokenizer(self, name: str, fingerprint: str) -> None:
        """Refuse a model or a store whose tokenizer gives other ids.

        Args:
            name: of the other's tokenizer.
            fingerprint: of the other's tokenizer.

        Raises:
            DataError: the fingerprints differ.
        """
        if fingerprint != self.info.tokenizer_hash:
            raise DataError(
                f"{self.path}: its tokens are of tokenizer {self.info.tokenizer} "
                f"({self.info.tokenizer_hash[:12]}, {self.info.vocab_size:,} ids), not of {name} "
                f"({fingerprint[:12]}); tokenise the texts again, or take the other model."
            )

    @property
    def fingerprint(self) -> str:
        """Hash of the tokens, their order and what wrote them; the same for equal content."""
        return hash_data(self.info.to_plain())


def segment_ids(segments: np.ndarray) -> np.ndarray:
    """Return the number of the document of each token, int32 [sum of segments].

    Args:
        segments: lengths of the documents inside of one row.
    """
    return np.repeat(np.arange(len(segments), dtype=np.int32), segments)
