"""Read CLIP's BPE vocabulary from the files that other packages carry."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from understudy.core.errors import DataError
from understudy.models.text.clean import SUFFIX

NUM_MERGES = 49152 - 256 - 2
"""The released list is longer than what CLIP uses: 48,894 merges make 49,408 tokens."""

Vocabulary = tuple[dict[str, int], list[tuple[str, str]]]
MARKS = 2  # start and end of text, always the last two


def byte_symbols() -> list[str]:
    """Return the 256 printable symbols of the bytes, in the order of CLIP's vocabulary.

    Printable Latin-1 bytes stand for themselves and come first; the others take the code points
    from 256 on.
    """
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    other = 256 - len(plain)
    return [chr(b) for b in plain] + [chr(256 + i) for i in range(other)]


def read_vocabulary(path: Path) -> Vocabulary:
    """Return (token to id, merges), without the start and end tokens.

    Args:
        path: a merges list (`.txt`, `.txt.gz`), a `tokenizer.json`, or a folder that has
            `tokenizer.json`, or `vocab.json` and `merges.txt`.

    Raises:
        DataError: missing or of another form; the message names the file.
    """
    if path.is_dir():
        for name in ("tokenizer.json", "merges.txt"):
            if (path / name).is_file():
                return read_vocabulary(path / name)
        raise DataError(f"{path}: a folder without tokenizer.json or merges.txt.")
    if not path.is_file():
        raise DataError(
            f"{path}: no such vocabulary file; CLIP's is bpe_simple_vocab_16e6.txt.gz of OpenCLIP "
            "or tokenizer.json of a Transformers CLIP."
        )
    if path.name.endswith(".json"):
        return _from_transformers(path)
    return _from_merges(path)


def _from_transformers(path: Path) -> Vocabulary:
    try:
        model = json.loads(path.read_text(encoding="utf-8"))["model"]
        if model["type"] != "BPE":
            raise DataError(f"{path}: expected a BPE tokenizer, got {model['type']}.")
        vocab = dict(model["vocab"])
        merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model["merges"]]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a Transformers tokenizer.json ({error!r}).") from None
    size = len(vocab) - MARKS
    return {t: i for t, i in vocab.items() if i < size}, merges  # type: ignore[return-value]


def _from_merges(path: Path) -> Vocabulary:
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
        lines = data.decode("utf-8").split("\n")
    except (OSError, EOFError, UnicodeDecodeError, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: not a BPE merges list ({error}).") from None
    if not lines[0].startswith(('"bpe', "#version")):
        raise DataError(f"{path}: not a BPE merges list; its first line names no version.")
    merges = []
    for number, line in enumerate(lines[1 : NUM_MERGES + 1], start=2):
        if not line.strip():
            break
        parts = line.split()
        if len(parts) != 2:
            raise DataError(f"{path}, line {number}: expected two symbols, got {line!r}.")
        merges.append((parts[0], parts[1]))
    symbols = byte_symbols()
    tokens = [*symbols, *(s + SUFFIX for s in symbols), *(a + b for a, b in merges)]
    return {token: i for i, token in enumerate(tokens)}, merges
