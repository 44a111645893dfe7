"""What a token store says about itself: tokenizer, packing, counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from understudy.core.config import check_choice, from_dict, to_dict
from understudy.core.errors import ConfigError, DataError

Kind = Literal["documents", "concat", "packed", "buckets"]
KINDS: tuple[str, ...] = get_args(Kind)
META = "tokens"
"""Key of these facts in the store's `meta`."""
LIMITS = {"uint16": 65_536, "uint32": 4_294_967_296}
"""How many ids a stored type can hold."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenInfo:
    """Facts about a token store.

    Attributes:
        kind: `documents` (a row is a document), `concat` (documents glued together and cut),
            `packed` (pieces of documents fitted together) or `buckets` (a row is one piece of one
            document, of a power of two).
        tokenizer: name of the tokenizer.
        tokenizer_hash: fingerprint of everything that decides the ids.
        vocab_size: number of ids.
        eot_id: id of the token that ends a document.
        dtype: stored type, `uint16` or `uint32`.
        context: largest number of input tokens of a row; 0 where rows are documents.
        min_log2: exponent of the shortest bucket; only of buckets.
        max_log2: exponent of the longest bucket; only of buckets.
        num_tokens: stored tokens, the last one of each row included.
        num_rows: rows when the store was written.
        documents: documents that the rows come from.
        content: hash of all lengths and tokens in row order.
        source: where the documents came from, in words.
    """

    kind: Kind
    tokenizer: str
    tokenizer_hash: str
    vocab_size: int
    eot_id: int
    dtype: str = ""
    context: int = 0
    min_log2: int | None = None
    max_log2: int | None = None
    num_tokens: int = 0
    num_rows: int = 0
    documents: int = 0
    content: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        check_choice(self.kind, KINDS, "TokenInfo.kind")
        dtype = token_dtype(self.vocab_size, self.dtype, self.tokenizer)
        object.__setattr__(self, "dtype", dtype.name)
        check_eot(self.eot_id, self.vocab_size, self.tokenizer)
        if self.context < 0:
            raise ConfigError(f"TokenInfo.context: expected 0 or more, got {self.context}.")
        if (self.kind == "buckets") != (self.min_log2 is not None and self.max_log2 is not None):
            raise ConfigError(
                f"TokenInfo: min_log2 and max_log2 belong to kind 'buckets', got "
                f"{self.min_log2} and {self.max_log2} with kind '{self.kind}'."
            )
        if self.min_log2 is not None and self.max_log2 is not None:
            check_log2(self.min_log2, self.max_log2)

    def to_plain(self) -> dict[str, Any]:
        """Return plain data for the store's `meta`."""
        return {k: v for k, v in to_dict(self).items() if v is not None}

    @classmethod
    def from_plain(cls, data: Any, where: str) -> TokenInfo:
        """Read what `to_plain` gave.

        Raises:
            DataError: it is missing or damaged.
        """
        if not isinstance(data, Mapping):
            raise DataError(
                f"{where}: not a token store (its meta has no '{META}'); tokenise its texts first."
            )
        try:
            return from_dict(cls, data, f"{where}, meta '{META}'")
        except ConfigError as error:
            raise DataError(str(error)) from None


def token_dtype(vocab_size: int, dtype: str = "", tokenizer: str = "tokenizer") -> np.dtype:
    """Return the type that ids are stored in: uint16 up to 65,536 ids, uint32 above.

    Args:
        vocab_size: number of ids.
        dtype: a type to insist on; empty chooses.
        tokenizer: its name, for messages.

    Raises:
        ConfigError: no such type, or it is too small for the vocabulary.
    """
    if vocab_size < 1:
        raise ConfigError(f"{tokenizer}: a vocabulary of {vocab_size} ids; expected at least 1.")
    if not dtype:
        dtype = "uint16" if vocab_size <= LIMITS["uint16"] else "uint32"
    check_choice(dtype, tuple(LIMITS), "tokens dtype")
    if vocab_size > LIMITS[dtype]:
        larger = "use uint32" if dtype == "uint16" and vocab_size <= LIMITS["uint32"] else ""
        raise ConfigError(
            f"tokenizer {tokenizer} has {vocab_size:,} ids, and {dtype} holds {LIMITS[dtype]:,}: "
            f"{larger or 'no stored type is large enough'}."
        )
    return np.dtype(dtype)


def check_eot(eot_id: int | None, vocab_size: int, tokenizer: str) -> int:
    """Return the id that ends documents.

    Raises:
        ConfigError: there is none, or it is outside of the vocabulary.
    """
    if eot_id is None or isinstance(eot_id, bool) or not 0 <= eot_id < vocab_size:
        raise ConfigError(
            f"tokenizer {tokenizer} ({vocab_size:,} ids) has no end-of-text id (got {eot_id}); "
            "name its end token, such as '<|endoftext|>'."
        )
    return int(eot_id)


def check_log2(min_log2: int, max_log2: int, limit: int | None = None) -> None:
    """Refuse bucket exponents that make no sense.

    Args:
        min_log2: of the shortest bucket.
        max_log2: of the longest bucket.
        limit: longest context of the model, in tokens.

    Raises:
        ConfigError: out of order, negative, too large, or longer than the model's limit.
    """
    if not 0 <= min_log2 <= max_log2 <= 30:
        raise ConfigError(
            f"buckets: expected 0 <= min_log2 <= max_log2 <= 30, got min_log2 {min_log2} and "
            f"max_log2 {max_log2}."
        )
    if limit is not None and 1 << max_log2 > limit:
        raise ConfigError(
            f"buckets: 2^{max_log2} = {1 << max_log2:,} tokens (buckets 2^{min_log2} to "
            f"2^{max_log2}), and the model reads {limit:,}: lower max_log2 to "
            f"{limit.bit_length() - 1}, or raise the model's context (and its RoPE base)."
        )
