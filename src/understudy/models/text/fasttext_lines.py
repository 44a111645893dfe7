"""Texts to words the way fastText reads a line: split at ASCII white space, closed by `</s>`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

EOS = "</s>"
"""The word that ends every line."""

_CHUNK_BYTES = 1 << 28


@dataclass(frozen=True, slots=True)
class Lines:
    """Words of several lines.

    Attributes:
        words: the different words, in the order of their first appearance.
        codes: int32 [total], place in `words` of each word of the lines.
        counts: int64 [N], words of each line, `</s>` included.
    """

    words: list[bytes]
    codes: np.ndarray
    counts: np.ndarray


def as_array(texts: Sequence[str] | pa.Array | pa.ChunkedArray) -> pa.Array:
    """Return texts as one Arrow array of (large) strings; nulls become empty texts."""
    if isinstance(texts, pa.ChunkedArray):
        return pa.concat_arrays([pa.array([], pa.large_string()), *_large(texts)]).fill_null("")
    if isinstance(texts, pa.Array):
        array: pa.Array = texts
        return pc.call_function("coalesce", [array, pa.scalar("", array.type)])
    # A lone surrogate has no UTF-8 form; it becomes a question mark.
    clean = [text.encode("utf-8", "replace") for text in texts]
    if sum(map(len, clean)) < _CHUNK_BYTES:
        return pa.array(clean, pa.binary()).cast(pa.string())
    return pa.array(clean, pa.large_binary()).cast(pa.large_string())


def _large(texts: pa.ChunkedArray) -> list[pa.Array]:
    return [piece.cast(pa.large_string()) for piece in texts.chunks]


def split_lines(texts: Sequence[str] | pa.Array | pa.ChunkedArray) -> Lines:
    """Split texts into words and close each with `</s>`.

    A line break inside a text is a space. The byte zero separates words too; a text that holds the
    word `</s>` ends there, as it does for fastText.
    """
    array = as_array(texts)
    if len(array) == 0:
        return Lines([], np.zeros(0, np.int32), np.zeros(0, np.int64))
    call = pc.call_function
    if call("any", [call("match_substring", [array], pc.MatchSubstringOptions("\0"))]).as_py():
        array = call("replace_substring", [array], pc.ReplaceSubstringOptions("\0", " "))
    ends, space = pa.scalar(EOS, array.type), pa.scalar(" ", array.type)
    split = call("ascii_split_whitespace", [call("binary_join_element_wise", [array, ends, space])])
    encoded = split.flatten().dictionary_encode()
    large = pa.types.is_large_string(array.type)
    words = encoded.dictionary.cast(pa.large_binary() if large else pa.binary()).to_pylist()
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    counts = call("list_value_length", [split]).to_numpy(zero_copy_only=False)
    return _cut(words, codes, counts.astype(np.int64))


def _cut(words: list[bytes], codes: np.ndarray, counts: np.ndarray) -> Lines:
    """Drop empty words (of leading spaces) and whatever follows the first `</s>` of a line."""
    eos = words.index(EOS.encode())
    keep = codes != words.index(b"") if b"" in words else np.ones(len(codes), bool)
    if np.count_nonzero(codes == eos) > len(counts):
        before = np.cumsum(codes == eos) - (codes == eos)
        starts = np.cumsum(counts) - counts
        keep &= before == np.repeat(before[starts], counts)
    if keep.all():
        return Lines(words, codes, counts)
    rows = np.repeat(np.arange(len(counts)), counts)[keep]
    return Lines(words, codes[keep], np.bincount(rows, minlength=len(counts)))
