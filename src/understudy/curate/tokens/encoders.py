"""Tokenizers for whole corpora: texts in batches to arrays of ids, nothing added, nothing special.

A special token written out in a document is read as ordinary text, so that no page can end a
document or open a chat turn.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from understudy.core.errors import ConfigError, DataError
from understudy.core.hashing import hash_data
from understudy.core.lazy import require
from understudy.data.tokens import check_eot, token_dtype
from understudy.models.language.coder import Coder, JsonCoder, read_coder

END_TOKENS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]")
"""Looked for, in this order, where a `tokenizer.json` comes without a configuration."""
TIKTOKEN = "tiktoken:"


class Encoder:
    """What tokenising needs of a tokenizer.

    Attributes:
        name: for messages and cards.
        vocab_size: number of ids.
        eot_id: id of the token that ends a document.
        fingerprint: hash of what decides the ids; that of the tokenizer a model carries.
        dtype: the type that its ids are stored in.
    """

    def __init__(
        self, name: str, vocab_size: int, eot_id: int | None, fingerprint: str, dtype: str = ""
    ) -> None:
        self.name, self.vocab_size, self.fingerprint = name, int(vocab_size), fingerprint
        self.dtype = token_dtype(self.vocab_size, dtype, name)
        self.eot_id = check_eot(eot_id, self.vocab_size, name)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the ids of each text, without the end of text."""
        raise ConfigError(f"tokenizer {self.name}: cannot encode.")


class JsonEncoder(Encoder):
    """A tokenizer of the tokenizers library, or one that this project trained.

    Attributes:
        coder: the tokenizer, as a model carries it.

    Args:
        coder: the tokenizer.
        name: for messages.
        dtype: stored type; empty chooses.
    """

    def __init__(self, coder: Coder, name: str, dtype: str = "") -> None:
        super().__init__(name, coder.vocab_size, coder.end_id, coder.fingerprint(), dtype)
        self.coder = coder
        self._backend = None
        if isinstance(coder, JsonCoder):
            from tokenizers import Tokenizer as Backend

            self._backend = Backend.from_str(json.dumps(json.loads(coder.to_json())["tokenizer"]))
            self._backend.encode_special_tokens = True
            self._backend.no_truncation()
            self._backend.no_padding()

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the ids of each text, without the end of text."""
        if self._backend is None:
            return [np.array(self.coder.encode(text), self.dtype) for text in texts]
        found = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(one.ids, self.dtype) for one in found]


class TiktokenEncoder(Encoder):
    """An encoding of tiktoken.

    Args:
        encoding: a `tiktoken.Encoding`.
        eot: the end token; empty for the encoding's own.
        dtype: stored type; empty chooses.
    """

    def __init__(self, encoding: Any, eot: str = "", dtype: str = "") -> None:
        special = dict(encoding._special_tokens)
        end = special.get(eot or "<|endoftext|>")
        ranks = [[token.hex(), rank] for token, rank in encoding._mergeable_ranks.items()]
        described = {
            "tiktoken": encoding.name,
            "pattern": encoding._pat_str,
            "ranks": sorted(ranks),
            "special": special,
            "end": end,
        }
        name = f"{TIKTOKEN}{encoding.name}"
        super().__init__(name, encoding.n_vocab, end, hash_data(described), dtype)
        self._encoding = encoding

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the ids of each text, without the end of text."""
        return [np.array(self._encoding.encode_ordinary(text), self.dtype) for text in texts]


def load_encoder(tokenizer: str | Path, eot: str = "", dtype: str = "") -> Encoder:
    """Return the tokenizer of a name.

    Args:
        tokenizer: a `tokenizer.json`, a folder of Transformers with one, a tokenizer that this
            project saved (`to_json`), or `tiktoken:<encoding>`.
        eot: the token that ends documents; empty for the one that the files name.
        dtype: stored type to insist on; empty chooses by the number of ids.

    Raises:
        ConfigError: no end token is known, or the ids do not fit the type.
        DataError: no such file, or it is no tokenizer.
        MissingExtraError: tiktoken is not installed.
    """
    text = str(tokenizer)
    if text.startswith(TIKTOKEN):
        return TiktokenEncoder(_tiktoken(text.removeprefix(TIKTOKEN)), eot, dtype)
    path = Path(tokenizer)
    if path.is_dir():
        return JsonEncoder(JsonCoder.from_folder(path, eot), path.name, dtype)
    try:
        content = path.read_text(encoding="utf-8")
        data = json.loads(content)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); expected a tokenizer.json, a folder with "
            f"one, or {TIKTOKEN}<encoding>."
        ) from None
    except ValueError as error:
        raise DataError(f"{path}: not a tokenizer.json ({error}).") from None
    name = path.parent.name if path.name == "tokenizer.json" else path.stem
    if isinstance(data, dict) and "format" in data:
        return JsonEncoder(read_coder(content), name, dtype)
    return JsonEncoder(JsonCoder(content, eot or _end_token(data, name)), name, dtype)


def load_coder(tokenizer: str | Path, eot: str = "") -> Coder:
    """Return a tokenizer in the form that a model carries.

    Args:
        tokenizer: as for `load_encoder`, but a file or a folder.
        eot: the token that ends documents.

    Raises:
        ConfigError: an encoding of tiktoken, which has no file to travel with weights.
    """
    found = load_encoder(tokenizer, eot)
    if not isinstance(found, JsonEncoder):
        raise ConfigError(
            f"tokenizer {tokenizer}: a model carries a tokenizer.json; give such a file."
        )
    return found.coder


def _end_token(data: Any, name: str) -> str:
    added = data.get("added_tokens") if isinstance(data, dict) else None
    known = [token.get("content") for token in added or () if isinstance(token, dict)]
    for token in END_TOKENS:
        if token in known:
            return token
    model = data.get("model", {}) if isinstance(data, dict) else {}
    size = len(model.get("vocab", ())) if isinstance(model, dict) else 0
    raise ConfigError(
        f"tokenizer {name} ({size:,} ids): none of its special tokens "
        f"({', '.join(map(str, known)) or 'it has none'}) is a known end of text; name it with eot."
    )


def _tiktoken(name: str) -> Any:
    tiktoken = require("tiktoken", "curate", f"the tokenizer {TIKTOKEN}{name}")
    try:
        return tiktoken.get_encoding(name)
    except ValueError:
        known = ", ".join(sorted(tiktoken.list_encoding_names()))
        raise ConfigError(f"tiktoken has no encoding '{name}'; it has: {known}.") from None
    except OSError as error:
        raise DataError(
            f"tokenizer {TIKTOKEN}{name}: its vocabulary could not be fetched "
            f"({type(error).__name__}); put it into the folder that TIKTOKEN_CACHE_DIR names."
        ) from None
