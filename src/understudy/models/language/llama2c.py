"""Read models of llama2.c's plain file format: numbers after a header, nothing that could run.

The small TinyStories models (stories15M: 15,191,712 parameters) are published so. Their tokenizer
is a table of pieces with scores; it becomes a byte-pair encoding of the tokenizers library.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from understudy.core.errors import DataError
from understudy.models.language.coder import JsonCoder
from understudy.models.language.decoder import Decoder, DecoderConfig

_HEADER = struct.Struct("<7i")
_LARGEST = 1 << 20
_SPACE = "\u2581"
_NAMES = ("<unk>", "<s>", "</s>")


def load_llama2c(path: str | Path, offset: int = 0) -> Decoder:
    """Load a model, in eval mode.

    Args:
        path: a `.bin` file of version 0, or a file that holds one.
        offset: bytes before it.

    Raises:
        DataError: the header makes no sense or the file is too short.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            return _read(file, str(path))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file.") from None


def model_bytes(config: DecoderConfig) -> int:
    """Return the bytes of a model in this format, header included."""
    head, layer = config.head_width, _layer_numbers(config)
    numbers = config.vocab_size * config.width + config.depth * layer + config.width
    numbers += config.context * head  # tables of cosines and sines
    if not config.tied:
        numbers += config.vocab_size * config.width
    return _HEADER.size + 4 * numbers


def _layer_numbers(config: DecoderConfig) -> int:
    width, keys = config.width, config.kv_heads * config.head_width
    return 2 * width + 2 * width * width + 2 * width * keys + 3 * width * config.ffn_width


def _read(file: IO[bytes], where: str) -> Decoder:
    head = file.read(_HEADER.size)
    if len(head) < _HEADER.size:
        raise DataError(f"{where}: too short for a llama2.c model.")
    width, hidden, depth, heads, kv_heads, vocab, context = _HEADER.unpack(head)
    numbers = (width, hidden, depth, heads, kv_heads, abs(vocab), context)
    if min(numbers) < 1 or max(numbers) > _LARGEST or width % heads or heads % kv_heads:
        raise DataError(
            f"{where}: not a llama2.c model of version 0 (header {', '.join(map(str, numbers))})."
        )
    config = DecoderConfig(
        vocab_size=abs(vocab),
        context=context,
        width=width,
        depth=depth,
        num_heads=heads,
        num_kv_heads=kv_heads,
        hidden=hidden,
        tied=vocab > 0,
    )
    take = _Taker(file, where)
    keys = config.kv_heads * config.head_width
    state: dict[str, Tensor] = {"tokens.weight": take(config.vocab_size, width)}
    for name, *shape in (
        ("attention_norm", width),
        ("query", width, width),
        ("key", keys, width),
        ("value", keys, width),
        ("out", width, width),
        ("ffn_norm", width),
        ("gate", config.ffn_width, width),
        ("down", width, config.ffn_width),
        ("up", config.ffn_width, width),
    ):
        for i in range(depth):
            found = take(*shape)
            if name in ("query", "key"):
                found = _halves(found, config.head_width)
            state[f"layers.{i}.{name}.weight"] = found
    state["norm.weight"] = take(width)
    take(context, config.head_width)
    if not config.tied:
        state["head.weight"] = take(config.vocab_size, width)
    with torch.device("meta"):
        model = Decoder(config)
    model.load_state_dict(state, assign=True)
    return model.requires_grad_(True).eval()


def _halves(weight: Tensor, head: int) -> Tensor:
    """Reorder channels: the format turns neighbours together, `Decoder` turns the two halves."""
    return weight.reshape(-1, head // 2, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


class _Taker:
    """Reads float32 arrays one after the other."""

    def __init__(self, file: IO[bytes], where: str) -> None:
        self.file, self.where = file, where

    def __call__(self, *shape: int) -> Tensor:
        count = int(np.prod(shape))
        data = self.file.read(4 * count)
        if len(data) < 4 * count:
            raise DataError(f"{self.where}: cut off inside the weights.")
        return torch.from_numpy(np.frombuffer(data, "<f4").reshape(shape).copy())


def load_llama2c_tokenizer(path: str | Path, vocab_size: int, offset: int = 0) -> JsonCoder:
    """Load the tokenizer of a model.

    Args:
        path: a `tokenizer.bin`, or a file that holds one.
        vocab_size: pieces.
        offset: bytes before it.

    Raises:
        DataError: the file is too short or a piece makes no sense.
    """
    pieces: list[tuple[str, float]] = []
    with open(path, "rb") as file:
        file.seek(offset)
        file.read(4)  # length of the longest piece
        for i in range(vocab_size):
            head = file.read(8)
            if len(head) < 8:
                raise DataError(f"{path}: cut off at piece {i} of {vocab_size}.")
            score, length = struct.unpack("<fi", head)
            if not 0 <= length <= 4096:
                raise DataError(f"{path}: piece {i} has {length} bytes; not a tokenizer.bin.")
            text = file.read(length).decode("utf-8", "replace")
            pieces.append((_name(i, text), score))
    return JsonCoder(json.dumps(_backend(pieces)), "</s>", "<s>")


def load_llama2c_pair(path: str | Path) -> tuple[Decoder, JsonCoder]:
    """Load a model and its tokenizer from one file that holds one after the other.

    The browser builds of llama2.c ship such files (`understudy data fetch stories15m`).

    Raises:
        DataError: not such a file.
    """
    model = load_llama2c(path)
    coder = load_llama2c_tokenizer(path, model.vocab_size, model_bytes(model.config))
    return model, coder


def _name(number: int, text: str) -> str:
    """Return a piece as the tokenizers library writes it; the first ones are marks and bytes."""
    if number < len(_NAMES):
        return _NAMES[number]
    if number < len(_NAMES) + 256:
        # some files hold the byte itself here, which would hide the piece of that letter
        return f"<0x{number - len(_NAMES):02X}>"
    return text.replace(" ", _SPACE)


def _backend(pieces: list[tuple[str, float]]) -> dict[str, Any]:
    """Return a tokenizer.json of pieces with scores: the best pair is merged first."""
    vocab: dict[str, int] = {}
    for i, (piece, _) in enumerate(pieces):
        vocab.setdefault(piece, i)
    merges = []
    for piece, score in pieces[3:]:
        splits = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        known = [(a, b) for a, b in splits if a in vocab and b in vocab]
        merges += [(-score, vocab[a], vocab[b], a, b) for a, b in known]
    merges.sort()
    special = [
        {"id": i, "content": name, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for i, name in enumerate(_NAMES)
    ]  # fmt: skip
    return {
        "version": "1.0",
        "added_tokens": special,
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": _SPACE},
                {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE},
            ],
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": vocab,
            "merges": [[a, b] for *_, a, b in merges],
        },
    }
