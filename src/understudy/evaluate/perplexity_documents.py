"""Documents to be scored: token ids with the bytes of text that they stand for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from understudy.data.store import Store
    from understudy.models.language.coder import Coder

Lead = Literal["none", "end"]


@dataclass(frozen=True)
class Document:
    """One text to be scored.

    Attributes:
        id: its name.
        ids: int64 [n] tokens; all but the first are scored.
        num_bytes: bytes of UTF-8 text that the scored tokens stand for.
        groups: facts by which scores are reported, such as its source or time.
    """

    id: str
    ids: np.ndarray
    num_bytes: int
    groups: Mapping[str, str] = field(default_factory=dict)


def encode_text(
    text: str,
    tokenizer: Coder,
    *,
    name: str = "text",
    lead: Lead = "none",
    close: bool = False,
    groups: Mapping[str, str] | None = None,
) -> Document:
    """Tokenise a text.

    Args:
        text: anything but empty.
        tokenizer: the model's.
        name: the document's id.
        lead: `none` starts with the text's first token, which has nothing before it and is not
            scored; `end` puts the end-of-text token before it, as a stream of documents does, so
            that all of the text is scored.
        close: whether the end-of-text token follows and is scored.
        groups: facts to report by.

    Raises:
        DataError: an empty text.
    """
    check_choice(lead, ("none", "end"), "lead")
    if not text:
        raise DataError(f"{name}: an empty text cannot be scored.")
    ids = tokenizer.encode(text)
    size = len(text.encode())
    if lead == "end":
        ids = [tokenizer.end_id, *ids]
    elif ids:
        size -= _first_bytes(text, ids[0], tokenizer)
    if close:
        ids = [*ids, tokenizer.end_id]
    return Document(name, np.asarray(ids, np.int64), size, dict(groups or {}))


def _first_bytes(text: str, token: int, tokenizer: Coder) -> int:
    """Return the bytes of the token that is not scored, to whole characters."""
    start = tokenizer.decode([token])
    return len((start if start and text.startswith(start) else text[0]).encode())


def read_jsonl(
    path: str | Path,
    tokenizer: Coder,
    *,
    by: Sequence[str] = (),
    lead: Lead = "none",
    close: bool = False,
    limit: int = 0,
) -> list[Document]:
    """Read documents from JSON lines with a `text` field, plain or compressed.

    Args:
        path: a file.
        tokenizer: the model's.
        by: fields to report by.
        lead: see `encode_text`.
        close: see `encode_text`.
        limit: documents at most; 0 for all.

    Raises:
        DataError: a line without a text, or without a field to report by; the line is named.
    """
    from understudy.data.importers.jsonl import read_lines

    found: list[Document] = []
    for number, row in read_lines(Path(path)):
        where = f"{path}, line {number}"
        text = row.get("text")
        if not isinstance(text, str) or not text:
            kind = "no text" if text in (None, "") else f"a text of type {type(text).__name__}"
            raise DataError(f"{where}: {kind}; expected a string in the field 'text'.")
        name = str(row.get("id") or f"line-{number}")
        groups = _groups(row, by, where)
        found.append(encode_text(text, tokenizer, name=name, lead=lead, close=close, groups=groups))
        if len(found) == limit:
            break
    if not found:
        raise DataError(f"{path}: no documents in this file.")
    return found


def _groups(row: Mapping[str, Any], by: Sequence[str], where: str) -> dict[str, str]:
    missing = [name for name in by if name not in row]
    if missing:
        raise DataError(f"{where}: no field '{missing[0]}' to report by; it has {', '.join(row)}.")
    return {name: "" if row[name] is None else str(row[name]) for name in by}


def read_store(
    path: str | Path,
    tokenizer: Coder,
    *,
    by: Sequence[str] = (),
    split: str = "",
    lead: Lead = "none",
    close: bool = False,
    limit: int = 0,
) -> list[Document]:
    """Read documents from a store: texts, or the documents inside the rows of a token store.

    Stored tokens are scored as they are: `lead` and `close` do not touch them, and the
    end-of-text token that closes a document is scored with it.

    Args:
        path: the store.
        tokenizer: the model's.
        by: columns to report by.
        split: only rows of this split.
        lead: see `encode_text`.
        close: see `encode_text`.
        limit: documents at most; 0 for all.

    Raises:
        DataError: neither texts nor tokens, tokens of another tokenizer, an empty text, or no such
            column or split.
    """
    from understudy.data.store import Store
    from understudy.data.tokens_info import META
    from understudy.evaluate.rows import select_rows

    store = Store.open(path)
    for name in by:
        if not store.has(name):
            raise DataError(f"{path}: no column '{name}' to report by.")
    rows = select_rows(store, split or None)
    if META in store.meta:
        if lead != "none" or close:
            raise ConfigError(
                f"{path}: stored tokens are scored as they are; leave out lead/close."
            )
        found: Iterable[Document] = _token_rows(store, rows, tokenizer, by)
    elif store.has("text"):
        found = _text_rows(store, rows, tokenizer, by, lead, close)
    else:
        raise DataError(f"{path}: neither a column 'text' nor a token store.")
    out: list[Document] = []
    for document in found:
        out.append(document)
        if len(out) == limit:
            break
    return out


def _text_rows(
    store: Store, rows: np.ndarray, tokenizer: Coder, by: Sequence[str], lead: Lead, close: bool
) -> Iterator[Document]:
    columns = list(dict.fromkeys(["id", "text", *by]))
    for batch in store.scan(columns, rows=rows, batch_size=256):
        for row in batch.to_pylist():
            groups = {name: "" if row[name] is None else str(row[name]) for name in by}
            where = f"{store.path}, row '{row['id']}'"
            if not isinstance(row["text"], str):
                raise DataError(f"{where}: no text.")
            document = encode_text(row["text"], tokenizer, name=where, lead=lead, close=close)
            yield Document(row["id"], document.ids, document.num_bytes, groups)


def _token_rows(
    store: Store, rows: np.ndarray, tokenizer: Coder, by: Sequence[str]
) -> Iterator[Document]:
    from understudy.data.tokens import TokenStore

    tokens = TokenStore(store)
    tokens.check_tokenizer("the model", tokenizer.fingerprint())
    for start in range(0, len(rows), 256):
        part = rows[start : start + 256]
        facts = store.take(part, list(dict.fromkeys(["id", *by]))).to_pylist()
        triples = zip(facts, tokens.take(part), tokens.segments(part), strict=True)
        for row, ids, segments in triples:
            groups = {name: "" if row[name] is None else str(row[name]) for name in by}
            pieces = np.split(ids.astype(np.int64), np.cumsum(segments)[:-1])
            for number, piece in enumerate(pieces):
                name = row["id"] if len(pieces) == 1 else f"{row['id']}/{number}"
                size = len(tokenizer.decode(piece[1:]).encode())
                yield Document(name, piece, size, groups)
