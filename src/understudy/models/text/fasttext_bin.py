"""Read and write fastText's own model files, `.bin` and `.ftz`, without the fasttext package.

Reading covers what versions 11 and 12 hold: supervised models with softmax, one-vs-all, negative
sampling or hierarchical softmax, dense or product-quantised, whole or pruned. Nothing in the file
is run, and every length is checked against what is left of the file. Writing covers dense models.

References:
    fastText 0.9.2, src/fasttext.cc (loadModel), args.cc, dictionary.cc, densematrix.cc,
    quantmatrix.cc, productquantizer.cc.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from understudy.core.errors import DataError, ModelError
from understudy.core.files import atomic_path
from understudy.models.text.fasttext_bytes import Bytes
from understudy.models.text.fasttext_dictionary import Dictionary
from understudy.models.text.fasttext_matrix import DenseMatrix, Matrix, QuantMatrix
from understudy.models.text.fasttext_output import LOSSES

MAGIC = 793712314
VERSION = 12
_SUPERVISED = 3
_LARGEST = 2**31 - 1
_CENTROIDS = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class BinParts:
    """What a model file holds.

    Attributes:
        dictionary: words, labels and how n-grams find their rows.
        input: [words + buckets, D], the vectors.
        output: [L, D], or [L - 1, D] used of a hierarchical softmax.
        loss: "softmax", "ova", "ns" or "hs".
        epochs: of its training.
        min_count: of its training.
    """

    dictionary: Dictionary
    input: Matrix
    output: Matrix
    loss: str
    epochs: int = 5
    min_count: int = 1


def read_bin(path: str | Path) -> BinParts:
    """Read a supervised model of fastText.

    Dense vectors stay in the file and are read when they are used.

    Raises:
        DataError: missing, cut off, or not such a file.
        ModelError: a fastText file of another kind (word vectors, another version).
    """
    file = Bytes(path, "a fastText model")
    magic, version = file.take("ii", "the header")
    if magic != MAGIC:
        file.at = 0
        raise file.fail(f"it starts with {magic}, not with {MAGIC}")
    if version not in (11, VERSION):
        raise ModelError(f"{path}: fastText format version {version}; versions 11 and 12 are read.")
    args = _read_args(file)
    if args["model"] != _SUPERVISED:
        raise ModelError(
            f"{path}: a fastText model of word vectors, not a classifier; expected one that was "
            "trained with 'supervised'."
        )
    if version == 11:  # supervised models of that version knew no character n-grams
        args["max_chars"] = 0
    dictionary = _read_dictionary(file, args)
    quantised = file.flag("the flag of quantised vectors")
    if dictionary.pruned is not None and not quantised:
        raise file.fail("a pruned dictionary with dense vectors")
    inputs = _read_matrix(file, quantised, "vectors", args["dim"])
    quantised_output = file.flag("the flag of quantised output")
    outputs = _read_matrix(file, quantised and quantised_output, "output vectors", args["dim"])
    if file.at != file.size:
        raise file.fail(f"{file.size - file.at:,} bytes are left over")
    _check_rows(file, dictionary, inputs, outputs)
    return BinParts(
        dictionary=dictionary,
        input=inputs,
        output=outputs,
        loss=LOSSES[args["loss"]],
        epochs=args["epochs"],
        min_count=args["min_count"],
    )


def _read_args(file: Bytes) -> dict[str, int]:
    out = {"dim": file.integer("i", "dim", 1, 1 << 20)}
    file.take("i", "ws")
    out["epochs"] = file.integer("i", "epoch", 0, _LARGEST)
    out["min_count"] = file.integer("i", "minCount", 0, _LARGEST)
    file.take("i", "neg")
    out["word_ngrams"] = file.integer("i", "wordNgrams", 0, 1024)
    out["loss"] = file.integer("i", "loss", 1, 4)
    out["model"] = file.integer("i", "model", 1, 3)
    out["buckets"] = file.integer("i", "bucket", 0, _LARGEST)
    out["min_chars"] = file.integer("i", "minn", 0, 1024)
    out["max_chars"] = file.integer("i", "maxn", 0, 1024)
    file.take("id", "lrUpdateRate and t")
    return out


def _read_dictionary(file: Bytes, args: dict[str, int]) -> Dictionary:
    size = file.integer("i", "the number of entries", 0, _LARGEST)
    num_words = file.integer("i", "the number of words", 0, size)
    num_labels = file.integer("i", "the number of labels", 0, size)
    if num_words + num_labels != size:
        raise file.fail(f"{size} entries are not {num_words} words and {num_labels} labels")
    if num_labels == 0:
        raise file.fail("it has no labels")
    tokens = file.integer("q", "the number of tokens", 0, 2**62)
    num_pruned = file.integer("q", "the number of kept buckets", -1, _LARGEST)
    file.need(size * 10, "the dictionary")  # an entry has at least ten bytes
    names: list[bytes] = []
    counts = np.zeros(size, np.int64)
    for i in range(size):
        names.append(file.word(f"entry {i}"))
        counts[i], kind = file.take("qb", f"entry {i}")
        if kind != (i >= num_words):
            raise file.fail(f"entry {i} is of kind {kind}, expected {int(i >= num_words)}")
    pruned = None
    if num_pruned >= 0:
        pruned = _read_pruned(file, num_pruned, args["buckets"])
    return Dictionary(
        words=names[:num_words],
        word_counts=counts[:num_words],
        labels=tuple(name.decode("utf-8", "replace") for name in names[num_words:]),
        label_counts=counts[num_words:],
        word_ngrams=args["word_ngrams"],
        buckets=args["buckets"],
        min_chars=args["min_chars"],
        max_chars=args["max_chars"],
        num_tokens=tokens,
        pruned=pruned,
    )


def _read_pruned(file: Bytes, count: int, buckets: int) -> np.ndarray:
    pairs = file.array("<i4", 2 * count, "the kept buckets").reshape(-1, 2).astype(np.int64)
    if count == 0:
        return np.zeros(0, np.int64)
    if pairs[:, 0].min() < 0 or pairs[:, 0].max() >= buckets:
        raise file.fail(f"a kept bucket is not one of {buckets}")
    if pairs[:, 1].min() < 0 or pairs[:, 1].max() >= count:
        raise file.fail(f"a kept bucket was renumbered beyond {count}")
    table = np.full(buckets, -1, np.int64)
    table[pairs[:, 0]] = pairs[:, 1]
    return table


def _read_matrix(file: Bytes, quantised: bool, name: str, dim: int) -> Matrix:
    normed = file.flag(f"the flag of norms of the {name}") if quantised else False
    rows = file.integer("q", f"the number of {name}", 0, _LARGEST)
    columns = file.integer("q", f"the width of the {name}", 1, 1 << 20)
    if columns != dim:
        raise file.fail(f"{name} have {columns} columns, expected {dim}")
    if not quantised:
        values = file.array("<f4", rows * columns, name)
        return DenseMatrix(values.reshape(rows, columns))
    size = file.integer("i", f"the number of codes of the {name}", 0, _LARGEST)
    codes = file.array("u1", size, f"the codes of the {name}")
    centroids = _read_quantiser(file, name, columns)
    if size != rows * len(centroids):
        raise file.fail(f"{size} codes are not {rows} x {len(centroids)}")
    norms = None
    if normed:
        norm_codes = file.array("u1", rows, f"the norms of the {name}")
        norms = _read_quantiser(file, f"norms of the {name}", 1)[0][norm_codes, 0]
    return QuantMatrix(codes.reshape(rows, len(centroids)), centroids, norms)


def _read_quantiser(file: Bytes, name: str, columns: int) -> tuple[np.ndarray, ...]:
    dim = file.integer("i", f"the width of the quantiser of the {name}", columns, columns)
    parts = file.integer("i", f"the parts of the quantiser of the {name}", 1, columns)
    width = file.integer("i", f"the width of a part of the {name}", 1, columns)
    last = file.integer("i", f"the width of the last part of the {name}", 1, width)
    if (parts - 1) * width + last != dim:
        raise file.fail(f"{parts} parts of {width} (the last {last}) are not {dim} columns")
    values = np.array(file.array("<f4", dim * _CENTROIDS, f"the centroids of the {name}"))
    out = []
    for part in range(parts):
        own = width if part < parts - 1 else last
        start = part * _CENTROIDS * width
        out.append(values[start : start + _CENTROIDS * own].reshape(_CENTROIDS, own))
    return tuple(out)


def _check_rows(file: Bytes, dictionary: Dictionary, inputs: Matrix, outputs: Matrix) -> None:
    kept = dictionary.buckets
    if dictionary.pruned is not None:
        kept = int(np.count_nonzero(dictionary.pruned >= 0))
    if inputs.shape[0] < len(dictionary.words) + kept:
        raise file.fail(
            f"{inputs.shape[0]} vectors for {len(dictionary.words)} words and {kept} buckets"
        )
    if outputs.shape[0] != len(dictionary.labels):
        raise file.fail(f"{outputs.shape[0]} output vectors for {len(dictionary.labels)} labels")


def write_bin(parts: BinParts, path: str | Path) -> Path:
    """Write a model as fastText would, version 12, dense; its own tools read it.

    Args:
        parts: the model; a quantised one is written as the dense table that it stands for.
        path: where to.

    Raises:
        ModelError: a pruned model (it has no dense form).
        DataError: a word that the format can't hold.
    """
    dictionary = parts.dictionary
    if dictionary.pruned is not None:
        raise ModelError(f"{path}: a pruned fastText model has no dense form; copy its file.")
    numbers = {name: number for number, name in LOSSES.items()}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(struct.pack("<ii", MAGIC, VERSION))
        head = (parts.output.shape[1], 5, parts.epochs, parts.min_count, 5)
        file.write(struct.pack("<5i", *head))
        file.write(struct.pack("<3i", dictionary.word_ngrams, numbers[parts.loss], _SUPERVISED))
        chars = (dictionary.min_chars, dictionary.max_chars)
        file.write(struct.pack("<4id", dictionary.buckets, *chars, 100, 1e-4))
        _write_dictionary(file, dictionary)
        for matrix in (parts.input, parts.output):
            file.write(struct.pack("<Bqq", 0, *matrix.shape))
            for start in range(0, matrix.shape[0], 65_536):
                ids = np.arange(start, min(start + 65_536, matrix.shape[0]))
                file.write(matrix.rows(ids).astype("<f4").tobytes())
    return Path(path)


def _write_dictionary(file: BinaryIO, dictionary: Dictionary) -> None:
    num_words, num_labels = len(dictionary.words), len(dictionary.labels)
    size = num_words + num_labels
    file.write(struct.pack("<3iqq", size, num_words, num_labels, dictionary.num_tokens, -1))
    names = [*dictionary.words, *(label.encode() for label in dictionary.labels)]
    counts = [*dictionary.word_counts.tolist(), *dictionary.label_counts.tolist()]
    for i, (name, count) in enumerate(zip(names, counts, strict=True)):
        if b"\0" in name:
            raise DataError(f"word {name!r} holds a zero byte, which ends words in the format.")
        file.write(name + b"\0" + struct.pack("<qb", count, i >= num_words))
