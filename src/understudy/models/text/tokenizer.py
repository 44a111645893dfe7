"""Tokenizers: CLIP's byte-pair encoding, and small ones trained on a few thousand captions.

All give rows of `context_length` ids: start, words, end, then zeros. The end id is the largest of
all, so a tower finds it by argmax. A text that is too long loses words, never its end, and is
counted. The CLIP vocabulary (49,408 tokens) is not part of this package: it is read from the file
that OpenCLIP, Transformers or the CLIP repository carries.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError, DataError
from understudy.core.hashing import hash_data
from understudy.models.text.clean import CLEANERS, PATTERN, SPECIAL, SUFFIX, clean_text
from understudy.models.text.vocabulary import read_vocabulary

if TYPE_CHECKING:
    import torch

FORMAT = "understudy-tokenizer"


class Tokenizer:
    """Texts to rows of token ids.

    Args:
        kind: `"bpe"` or `"words"`.
        vocab: token to id, without start and end; ids 0..n-1.
        merges: BPE merges in order; empty for words.
        context_length: ids a row.
        clean: `"clip"` (mend encodings and HTML, collapse whitespace, lower case), `"lower"`
            (collapse whitespace, lower case) or `"whitespace"`.
        unknown: id of words that are not in the vocabulary (`"words"` only).

    Attributes:
        num_truncated: how many texts were too long so far.
    """

    def __init__(
        self,
        kind: str,
        vocab: dict[str, int],
        merges: Sequence[tuple[str, str]] = (),
        *,
        context_length: int = 77,
        clean: str = "clip",
        unknown: int | None = None,
    ) -> None:
        check_choice(kind, ("bpe", "words"), "Tokenizer.kind")
        check_choice(clean, CLEANERS, "Tokenizer.clean")
        if context_length < 3:
            raise ConfigError(
                f"Tokenizer.context_length: {context_length} leaves no room for a word between "
                "start and end; give at least 3."
            )
        if sorted(vocab.values()) != list(range(len(vocab))):
            raise DataError("tokenizer: the vocabulary's ids are not 0..n-1, each once.")
        self.kind, self.vocab = kind, vocab
        self.merges = [(first, second) for first, second in merges]
        self.context_length, self.clean, self.unknown = context_length, clean, unknown
        self.start_id, self.end_id = len(vocab), len(vocab) + 1
        self.num_truncated = 0
        self._names = {i: t for t, i in vocab.items()}
        self._model = self._build()

    @property
    def vocab_size(self) -> int:
        """Number of ids, start and end included."""
        return self.end_id + 1

    def _build(self) -> Any:
        from tokenizers import Regex, models, pre_tokenizers
        from tokenizers import Tokenizer as Backend

        split = pre_tokenizers.Split(Regex(PATTERN), behavior="removed", invert=True)
        if self.kind == "words":
            unknown = self._names[self.unknown or 0]
            backend = Backend(models.WordLevel(self.vocab, unk_token=unknown))
            backend.pre_tokenizer = split
            return backend
        backend = Backend(models.BPE(self.vocab, self.merges, end_of_word_suffix=SUFFIX))
        bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([split, bytewise])
        return backend

    def encode(self, text: str) -> list[int]:
        """Return the ids of one text, without start and end, not cut."""
        return self._encode([text])[0]

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        cleaned = [clean_text(text, self.clean) for text in texts]
        rows = [e.ids for e in self._model.encode_batch(cleaned, add_special_tokens=False)]
        for i, text in enumerate(cleaned):
            if self.kind == "bpe" and any(mark in text for mark in SPECIAL):
                rows[i] = self._encode_marks(text)
        return rows

    def _encode_marks(self, text: str) -> list[int]:
        # CLIP reads its own start and end marks inside a text as those tokens.
        from tokenizers import Regex, pre_tokenizers

        marks = dict(zip(SPECIAL, (self.start_id, self.end_id), strict=True))
        pattern = Regex("|".join((*SPECIAL, PATTERN)))
        split = pre_tokenizers.Split(pattern, behavior="removed", invert=True)
        ids: list[int] = []
        for piece, _ in split.pre_tokenize_str(text):
            if piece in marks:
                ids.append(marks[piece])
            else:
                ids += self._model.encode(piece, add_special_tokens=False).ids
        return ids

    def __call__(self, texts: str | Sequence[str]) -> torch.Tensor:
        """Return int64 [B, context_length]; cut texts are added to `num_truncated`."""
        import torch

        texts = [texts] if isinstance(texts, str) else list(texts)
        out = torch.zeros(len(texts), self.context_length, dtype=torch.int64)
        room = self.context_length - 2
        for i, ids in enumerate(self._encode(texts) if texts else []):
            if len(ids) > room:
                self.num_truncated += 1
                ids = ids[:room]
            row = [self.start_id, *ids, self.end_id]
            out[i, : len(row)] = torch.tensor(row)
        return out

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids; start, end and what follows the end are left out."""
        tokens = []
        for i in map(int, ids):
            if i == self.end_id:
                break
            if i != self.start_id:
                tokens.append(self._names[i])
        if self.kind == "words":
            return " ".join(tokens)
        from tokenizers.decoders import ByteLevel

        return ByteLevel().decode(tokens).replace(SUFFIX, " ").strip()

    def to_json(self) -> str:
        """Return everything needed to build the same tokenizer, as JSON."""
        tokens = sorted(self.vocab, key=self.vocab.__getitem__)
        return json.dumps(
            {
                "format": FORMAT,
                "version": 1,
                "kind": self.kind,
                "context_length": self.context_length,
                "clean": self.clean,
                "unknown": self.unknown,
                "tokens": tokens,
                "merges": [" ".join(m) for m in self.merges],
            },
            ensure_ascii=False,
            separators=(",", ":"),
        )

    @classmethod
    def from_json(cls, text: str) -> Tokenizer:
        """Build the tokenizer that `to_json` described.

        Raises:
            DataError: not such JSON.
        """
        try:
            data = json.loads(text)
            if data["format"] != FORMAT or data["version"] != 1:
                raise DataError(
                    f"tokenizer: format {data['format']!r} version {data['version']!r}; this "
                    f"version reads {FORMAT!r} version 1."
                )
            return cls(
                data["kind"],
                {t: i for i, t in enumerate(data["tokens"])},
                [tuple(m.split(" ")) for m in data["merges"]],
                context_length=data["context_length"],
                clean=data["clean"],
                unknown=data["unknown"],
            )
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise DataError(f"tokenizer: not a tokenizer's JSON ({error!r}).") from None

    def fingerprint(self) -> str:
        """Return a hash of everything that decides the ids."""
        return hash_data(self.to_json())

    def with_context(self, context_length: int) -> Tokenizer:
        """Return the same tokenizer with rows of another length."""
        return Tokenizer(
            self.kind,
            self.vocab,
            self.merges,
            context_length=context_length,
            clean=self.clean,
            unknown=self.unknown,
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> Tokenizer:
        # Copies of a model share it: it is large and has no state but a counter.
        return self

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Tokenizer.from_json, (self.to_json(),)


class ClipTokenizer(Tokenizer):
    """CLIP's byte-pair encoding (arXiv 2103.00020), from a vocabulary file.

    Args:
        path: `bpe_simple_vocab_16e6.txt.gz` (CLIP, OpenCLIP), or a Transformers `tokenizer.json`,
            or a folder with `vocab.json` and `merges.txt`.
        context_length: ids a row.

    Raises:
        DataError: the file is missing or is not such a vocabulary.
    """

    def __init__(self, path: str | Path, context_length: int = 77) -> None:
        vocab, merges = read_vocabulary(Path(path))
        super().__init__("bpe", vocab, merges, context_length=context_length, clean="clip")
