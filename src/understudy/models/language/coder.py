"""Tokenizers of language models: any `tokenizer.json` of the tokenizers library.

`models.text.tokenizer.Tokenizer`, which small models train for themselves, answers to the same
names: `encode`, `decode`, `start_id`, `end_id`, `vocab_size`, `to_json`, `fingerprint`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from understudy.core.errors import ConfigError, DataError
from understudy.core.hashing import hash_data

FORMAT = "understudy-coder"


class Coder(Protocol):
    """What a language model needs of a tokenizer."""

    end_id: int

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        ...

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, nothing added."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids."""
        ...

    def to_json(self) -> str:
        """Return everything that is needed to build it again."""
        ...

    def fingerprint(self) -> str:
        """Return a hash of what decides the ids."""
        ...


class JsonCoder:
    """A tokenizer of the tokenizers library.

    Args:
        text: content of its `tokenizer.json`.
        end: the token that ends a text.
        start: the token that a text begins with; empty for none.

    Raises:
        DataError: not such a file.
        ConfigError: a token that it does not have.
    """

    def __init__(self, text: str, end: str, start: str = "") -> None:
        from tokenizers import Tokenizer as Backend

        try:
            self._backend = Backend.from_str(text)
        except Exception as error:  # the library raises plain Exception
            raise DataError(f"tokenizer: not a tokenizer.json ({error}).") from None
        self._text, self._end, self._start = text, end, start
        self.end_id = self._id(end)
        self.start_id = self._id(start) if start else None

    def _id(self, token: str) -> int:
        found = self._backend.token_to_id(token)
        if found is None:
            raise ConfigError(f"tokenizer: there is no token '{token}'; name its own end token.")
        return found

    @classmethod
    def from_folder(cls, folder: str | Path, end: str = "", start: str = "") -> JsonCoder:
        """Read a model folder's `tokenizer.json`; `tokenizer_config.json` names the end token.

        Raises:
            DataError: a file is missing, or no end token is known.
        """
        from understudy.core.files import read_json

        folder = Path(folder)
        file = folder / "tokenizer.json"
        if not file.is_file():
            raise DataError(f"{folder}: no tokenizer.json; save the tokenizer in the fast format.")
        if not end:
            settings = folder / "tokenizer_config.json"
            named = read_json(settings).get("eos_token") if settings.is_file() else None
            end = named.get("content", "") if isinstance(named, dict) else str(named or "")
        if not end:
            raise DataError(f"{folder}: tokenizer_config.json names no eos_token; give end=.")
        return cls(file.read_text(encoding="utf-8"), end, start)

    @property
    def end_token(self) -> str:
        """The token that ends a text."""
        return self._end

    @property
    def start_token(self) -> str:
        """The token that a text begins with; empty for none."""
        return self._start

    @property
    def library_json(self) -> str:
        """Content of its `tokenizer.json`."""
        return self._text

    @property
    def vocab_size(self) -> int:
        """Number of ids, added tokens included."""
        return self._backend.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text; special tokens in it are read as such, none is added."""
        return self._backend.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids up to the end token, without special tokens."""
        kept: list[int] = []
        for token in map(int, ids):
            if token == self.end_id:
                break
            kept.append(token)
        return self._backend.decode(kept, skip_special_tokens=True)

    def to_json(self) -> str:
        """Return everything that is needed to build the same one, as JSON."""
        data: dict[str, Any] = {
            "format": FORMAT,
            "version": 1,
            "end": self._end,
            "start": self._start,
            "tokenizer": json.loads(self._text),
        }
        return json.dumps(data, ensure_ascii=False, separators=(",", ":"))

    def fingerprint(self) -> str:
        """Return a hash of everything that decides the ids."""
        return hash_data(self.to_json())

    def __deepcopy__(self, memo: dict[int, Any]) -> JsonCoder:
        return self  # large, and without state

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return read_coder, (self.to_json(),)


def read_coder(text: str) -> Any:
    """Build the tokenizer that a `to_json` described: this kind's, or a small model's own.

    Raises:
        DataError: neither.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise DataError(f"tokenizer: not a tokenizer's JSON ({error}).") from None
    if isinstance(data, dict) and data.get("format") == FORMAT:
        if data.get("version") != 1:
            raise DataError(f"tokenizer: {FORMAT} version {data.get('version')!r}; expected 1.")
        return JsonCoder(json.dumps(data["tokenizer"]), data["end"], data["start"])
    from understudy.models.text.tokenizer import Tokenizer

    return Tokenizer.from_json(text)
