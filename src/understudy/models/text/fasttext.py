"""A fastText-form text classifier: mean of the vectors of words and n-grams, one linear layer.

It reads published models (`.bin`, `.ftz`) and its own safetensors files and needs only NumPy and
Arrow to score. Training is `fasttext_fit.fit`.

References:
    Joulin et al. 2016, "Bag of tricks for efficient text classification", arXiv 1607.01759.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from understudy.core.errors import DataError, ModelError
from understudy.core.files import atomic_path
from understudy.core.hashing import hash_bytes, hash_data, hash_file
from understudy.models.text.fasttext_bin import MAGIC, BinParts, read_bin, write_bin
from understudy.models.text.fasttext_dictionary import Dictionary
from understudy.models.text.fasttext_lines import as_array
from understudy.models.text.fasttext_matrix import (
    DenseMatrix,
    Matrix,
    SparseRows,
    project,
    segment_sums,
)
from understudy.models.text.fasttext_output import (
    hierarchical,
    huffman_paths,
    softmax,
    table_sigmoid,
)
from understudy.models.text.fasttext_sums import WordSums

FORMAT = "understudy-fasttext"
FORMAT_VERSION = 1
_CHUNK_CHARS = 1 << 24


@dataclass(slots=True)
class FastText:
    """A classifier of texts.

    Attributes:
        parts: dictionary, vectors, output layer and loss.
        path: the file that it came from, if any.

    With fewer outputs than columns the vectors are projected once to one number per label, which is
    all that scoring needs: a model of 2 GB then costs a few bytes per row.
    """

    parts: BinParts
    path: Path | None = None
    _fingerprint: str = field(init=False, repr=False, default="")
    _table: Matrix = field(init=False, repr=False)
    _weights: np.ndarray | None = field(init=False, repr=False)
    _paths: tuple[np.ndarray, np.ndarray] | None = field(init=False, repr=False, default=None)
    _sums: WordSums = field(init=False, repr=False)

    def __post_init__(self) -> None:
        used = self.parts.output.shape[0] - (self.parts.loss == "hs")
        weights = self.parts.output.rows(np.arange(used))
        self._table, self._weights = self.parts.input, weights.T.astype(np.float64)
        if 0 < used < self.parts.input.shape[1]:
            self._table, self._weights = DenseMatrix(project(self.parts.input, weights)), None
        if self.parts.loss == "hs":
            self._paths = huffman_paths(self.parts.dictionary.label_counts)
        self._sums = WordSums(self.parts.dictionary, self._table)

    @property
    def labels(self) -> list[str]:
        """Labels without their prefix, in the order of the probabilities."""
        return self.parts.dictionary.short_labels()

    def probabilities(self, texts: Sequence[str] | pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Return float32 [N, L], as fastText reports them: p + 1e-5.

        A text without any known word or n-gram has no prediction: its row is NaN.
        """
        array = as_array(texts)
        if len(array) == 0:
            return np.zeros((0, len(self.parts.dictionary.labels)), np.float32)
        return np.concatenate([self._chunk(piece) for piece in _chunks(array)])

    def score(
        self, texts: Sequence[str] | pa.Array | pa.ChunkedArray, label: str = "hq"
    ) -> np.ndarray:
        """Return float32 [N]: the probability of one label.

        Raises:
            ConfigError: there is no such label; the message lists those that there are.
        """
        return self.probabilities(texts)[:, self.parts.dictionary.label_id(label)]

    def predict(
        self, texts: Sequence[str] | pa.Array | pa.ChunkedArray
    ) -> tuple[list[str | None], np.ndarray]:
        """Return the most likely label of each text and its probability, float32 [N].

        A text without a prediction gets None and 0.
        """
        p = self.probabilities(texts)
        missing = np.isnan(p[:, 0])
        best = np.where(missing, 0, np.nan_to_num(p).argmax(axis=1))
        labels = self.labels
        names = [None if gone else labels[i] for i, gone in zip(best, missing, strict=True)]
        return names, np.where(missing, 0, p[np.arange(len(p)), best]).astype(np.float32)

    def _chunk(self, texts: pa.Array) -> np.ndarray:
        bags = self.parts.dictionary.bags(texts)
        vectors, word_sizes = self._sums.of(bags.vocabulary)
        total = segment_sums(vectors[bags.words], bags.line_words)
        total += segment_sums(self._table.rows(bags.gram_rows), bags.gram_counts)
        sizes = bags.sizes(word_sizes)
        mean = total / np.maximum(sizes, 1)[:, None]
        outputs = mean if self._weights is None else mean @ self._weights
        if self.parts.loss == "hs":
            assert self._paths is not None
            p = hierarchical(outputs, *self._paths)
        elif self.parts.loss == "softmax":
            p = softmax(outputs)
        else:
            p = table_sigmoid(outputs)
        p[sizes == 0] = np.nan
        return p

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file; rows of zeros aren't stored.

        Raises:
            ModelError: a quantised or pruned model; its own file is the smaller one.
        """
        from safetensors.numpy import save_file

        parts, dictionary = self.parts, self.parts.dictionary
        if dictionary.pruned is not None or not isinstance(parts.input, SparseRows | DenseMatrix):
            raise ModelError(f"{path}: a quantised fastText model is kept as its .ftz file.")
        index, values = _stored(parts.input)
        words = np.frombuffer(b"\0".join(dictionary.words), np.uint8)
        tensors = {
            "index": index,
            "values": np.ascontiguousarray(values, np.float32),
            "output": parts.output.rows(np.arange(parts.output.shape[0])),
            "words": words,
            "word_counts": dictionary.word_counts,
            "label_counts": dictionary.label_counts,
        }
        header = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "labels": list(dictionary.labels),
            "num_rows": parts.input.shape[0],
            "loss": parts.loss,
            "epochs": parts.epochs,
            "min_count": parts.min_count,
            **{name: getattr(dictionary, name) for name in _SIZES},
        }
        with atomic_path(path) as temporary:
            metadata = {"understudy": json.dumps(header, sort_keys=True)}
            save_file(tensors, temporary, metadata=metadata)
        return Path(path)

    def save_bin(self, path: str | Path) -> Path:
        """Write fastText's own format, which its tools read; see `fasttext_bin.write_bin`."""
        return write_bin(self.parts, path)

    def fingerprint(self) -> str:
        """Return a hash of the file, or of the weights of a classifier that came from none."""
        if not self._fingerprint and self.path is not None:
            self._fingerprint = hash_file(self.path)[:32]
        elif not self._fingerprint:
            parts, d = self.parts, self.parts.dictionary
            index, values = _stored(parts.input)
            output = parts.output.rows(np.arange(parts.output.shape[0]))
            arrays = [a.tobytes() for a in (index, values, output, d.label_counts)]
            weights = hash_bytes(b"\0".join(d.words), *arrays)
            described = [list(d.labels), parts.loss, *(getattr(d, name) for name in _SIZES)]
            self._fingerprint = hash_data([described, weights])
        return self._fingerprint

    @classmethod
    def load(cls, path: str | Path) -> FastText:
        """Load a classifier: fastText's `.bin` or `.ftz`, or a file that `save` wrote.

        Raises:
            DataError: missing, cut off, or neither.
            ModelError: a file of another kind or version.
        """
        path = Path(path)
        if not path.is_file():
            raise DataError(f"{path}: no such classifier file.")
        with open(path, "rb") as file:
            start = file.read(16)
        if start[8:9] == b"{":
            parts = _read_safetensors(path)
        elif int.from_bytes(start[:4], "little") == MAGIC:
            parts = read_bin(path)
        else:
            raise DataError(
                f"{path}: neither a fastText model nor a classifier of this package (it starts "
                f"with {start[:8]!r})."
            )
        return cls(parts, path)


_SIZES = ("word_ngrams", "buckets", "min_chars", "max_chars", "num_tokens")


def _chunks(texts: pa.Array) -> list[pa.Array]:
    """Cut texts into pieces of about 16 M bytes, so that memory stays bounded."""
    lengths = pc.call_function("binary_length", [texts])
    sizes = lengths.to_numpy(zero_copy_only=False).astype(np.int64)
    piece = np.cumsum(sizes) // _CHUNK_CHARS
    edges = [0, *(np.flatnonzero(np.diff(piece)) + 1).tolist(), len(texts)]
    return [texts.slice(a, b - a) for a, b in itertools.pairwise(edges)]


def _stored(matrix: Matrix) -> tuple[np.ndarray, np.ndarray]:
    """Return (numbers, values) of the rows that aren't zero."""
    if isinstance(matrix, SparseRows):
        return matrix.index, matrix.values
    kept = [np.zeros(0, np.int64)]
    rows = [np.zeros((0, matrix.shape[1]), np.float32)]
    for start in range(0, matrix.shape[0], 65_536):
        ids = np.arange(start, min(start + 65_536, matrix.shape[0]))
        values = matrix.rows(ids)
        full = values.any(axis=1)
        kept.append(ids[full])
        rows.append(values[full])
    return np.concatenate(kept), np.concatenate(rows)


def _read_safetensors(path: Path) -> BinParts:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            header: dict[str, Any] = json.loads((file.metadata() or {}).get("understudy", "{}"))
            if header.get("format") != FORMAT or header.get("version") != FORMAT_VERSION:
                raise ModelError(
                    f"{path}: {header.get('format', 'no classifier')!r} version "
                    f"{header.get('version')}; expected {FORMAT!r} version {FORMAT_VERSION}."
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{path}: not a safetensors file ({error}).") from None
    words = tensors["words"].tobytes().split(b"\0") if len(tensors["words"]) else []
    dictionary = Dictionary(
        words=words,
        word_counts=tensors["word_counts"],
        labels=tuple(header["labels"]),
        label_counts=tensors["label_counts"],
        **{name: header[name] for name in _SIZES},
    )
    return BinParts(
        dictionary=dictionary,
        input=SparseRows(header["num_rows"], tensors["index"], tensors["values"]),
        output=DenseMatrix(tensors["output"]),
        loss=header["loss"],
        epochs=header["epochs"],
        min_count=header["min_count"],
    )
