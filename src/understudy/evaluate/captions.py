"""Score the captions of a store's arms by a scorer that teaches nobody.

    >>> from understudy.evaluate.captions import score_captions
    >>> score_captions(clip, store, {"alt": "text", "syn": "caption.coca"})     # doctest: +SKIP

An arm is a column: texts, or lists of captions of which one is drawn for each row; or several
columns with odds, of which one is drawn for each row first.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from understudy.core.errors import ConfigError, DataError
from understudy.data.loader_plan import row_seeds
from understudy.data.view_random import below, uniforms
from understudy.evaluate import caption_scores as scores
from understudy.evaluate.images import StoreImages, embed_images, embed_texts
from understudy.evaluate.rows import select_rows
from understudy.models.io import weights_hash

if TYPE_CHECKING:
    from understudy.data.store import Store

PER_SAMPLE = ("align", "rank", "grounded", "length")
Source = str | Mapping[str, float]
"""A column, or columns with odds."""


@dataclass(frozen=True, kw_only=True)
class Nouns:
    """What captions can name, and what images show.

    Attributes:
        lexicon: word or phrase -> noun.
        facts: column of lists with the nouns (or their words) that an image shows; empty asks the
            scorer: a noun is confirmed where its prompt is nearer to the image than `nothing` is.
        prompt: how the scorer is asked, `{}` for the noun.
        nothing: what a noun's prompt must beat.
    """

    lexicon: Mapping[str, str]
    facts: str = ""
    prompt: str = "a photo of a {}"
    nothing: str = "a photo"


def arm_texts(store: Store, source: Source, rows: np.ndarray, seed: int = 0) -> list[str]:
    """Return one caption of each row of an arm, drawn by (seed, row) where there are several.

    Raises:
        ConfigError: an empty name, or odds that are not positive.
        DataError: see `column_texts`.
    """
    if isinstance(source, str):
        return column_texts(store, source, rows, seed)
    odds = np.array([float(v) for v in source.values()])
    if not len(odds) or not (odds > 0).all():
        raise ConfigError(f"captions: expected columns with odds above 0, got {dict(source)}.")
    draw = uniforms(row_seeds("caption-mix", seed, 0, np.asarray(rows, np.int64)), 0, 1)[:, 0]
    which = np.searchsorted(np.cumsum(odds / odds.sum())[:-1], draw, side="right")
    out = [""] * len(rows)
    for k, column in enumerate(source):
        places = np.flatnonzero(which == k)
        for place, text in zip(
            places.tolist(), column_texts(store, column, rows[places], seed), strict=True
        ):
            out[place] = text
    return out


def column_texts(store: Store, column: str, rows: np.ndarray, seed: int = 0) -> list[str]:
    """Return one caption of each row: the text, or one of a list drawn by (seed, row).

    Raises:
        ConfigError: an empty name.
        DataError: no such column, a column of something else, or a row without a caption.
    """
    if not column.strip():
        raise ConfigError("captions: an arm's expression is empty; name a column of texts.")
    values = store.take(rows, [column]).column(0)
    kind, texts = values.type, values.to_pylist()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        counts = np.array([len(texts_of or ()) for texts_of in texts])
        _refuse(store, column, rows, counts == 0)
        draw = uniforms(row_seeds("caption-arm", seed, 0, np.asarray(rows, np.int64)), 0, 1)[:, 0]
        texts = [row[k] for row, k in zip(texts, below(draw, counts), strict=True)]
    elif not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise DataError(f"{store.path}: column '{column}' holds {kind}, expected texts.")
    _refuse(store, column, rows, np.array([not (text or "").strip() for text in texts]))
    return texts


def _refuse(store: Store, column: str, rows: np.ndarray, empty: np.ndarray) -> None:
    if empty.any():
        raise DataError(
            f"{store.path}, row {int(rows[int(np.argmax(empty))])}: '{column}' has no caption; "
            "caption that row again, or choose rows that have one."
        )


def score_captions(
    scorer: Any,
    store: Store,
    arms: Mapping[str, Source],
    *,
    rows: np.ndarray | Sequence[int] | None = None,
    split: str | None = None,
    nouns: Nouns | None = None,
    image: str = "image",
    block: int = scores.BLOCK,
    seed: int = 0,
    batch_size: int = 64,
) -> dict[str, Any]:
    """Score every arm's captions on the same rows.

    Args:
        scorer: a CLIP that is no teacher of the arms.
        store: pictures and captions.
        arms: name -> column, or columns with odds.
        rows: only these; not together with `split`.
        split: only rows of this split.
        nouns: for `grounded`; None leaves it out.
        image: column of pictures.
        block: rows among which a caption is ranked.
        seed: of the blocks and of the caption drawn from a list.
        batch_size: pictures at once.

    Returns:
        `scorer` (name, hash), `rows`, `block`, and `arms`: name -> `align`, `rank`, `grounded` and
        `length` with mean and 10/50/90 percentiles each; `type_token_ratio`, `near_duplicates`
        (a share), `without_nouns` (a share).

    Raises:
        ConfigError: no arm, or an empty expression.
        DataError: missing columns or captions.
        ModelError: the scorer embeds no texts.
    """
    if not arms:
        raise ConfigError("captions: no arm to score; name at least one column.")
    chosen = select_rows(store, split, rows)
    texts = {name: arm_texts(store, column, chosen, seed) for name, column in arms.items()}
    pictures = embed_images(scorer, StoreImages(store, chosen, image), batch_size=batch_size)
    shown = _confirmed(scorer, store, chosen, pictures, nouns) if nouns is not None else None
    found = {}
    for name, captions in texts.items():
        embedded = embed_texts(scorer, captions)
        one: dict[str, Any] = {
            "align": scores.summary(scores.align(pictures, embedded)),
            "rank": scores.summary(scores.ranks(pictures, embedded, block=block, seed=seed)),
            "length": scores.summary(np.array([len(scores.words_of(c)) for c in captions])),
            "type_token_ratio": scores.type_token_ratio(captions),
            "near_duplicates": float(
                scores.near_duplicates(captions, block=block, seed=seed).mean()
            ),
        }
        if nouns is not None and shown is not None:
            share = scores.grounded(captions, nouns.lexicon, shown)
            one["grounded"] = scores.summary(share)
            one["without_nouns"] = float(np.isnan(share).mean())
        found[name] = {"source": arms[name], **one}
    return {
        "scorer": {"name": scorer.config.name, "hash": weights_hash(scorer)},
        "rows": len(chosen),
        "block": min(block, len(chosen)),
        "arms": found,
    }


def _confirmed(
    scorer: Any, store: Store, rows: np.ndarray, pictures: torch.Tensor, nouns: Nouns
) -> list[set[str]]:
    names = sorted(set(nouns.lexicon.values()))
    if nouns.facts:
        return _facts(store, rows, nouns)
    prompts = [nouns.prompt.replace("{}", name) for name in names]
    embedded = embed_texts(scorer, [*prompts, nouns.nothing])
    near = pictures @ embedded.T
    shows = (near[:, :-1] > near[:, -1:]).numpy()
    return [{names[j] for j in np.flatnonzero(row)} for row in shows]


def _facts(store: Store, rows: np.ndarray, nouns: Nouns) -> list[set[str]]:
    values = store.take(rows, [nouns.facts]).column(0).to_pylist()
    return [
        {nouns.lexicon.get(str(fact), str(fact)) for fact in _listed(value)} for value in values
    ]


def _listed(value: Any) -> Collection[Any]:
    if value is None:
        return ()
    return value if isinstance(value, list | tuple) else (value,)


def check_held_out(fingerprints: Collection[str], store: Store) -> None:
    """Refuse a scorer that taught: its column's card would carry its fingerprint.

    Args:
        fingerprints: of the scorer, in whatever forms it can have taught.
        store: its cards are read.

    Raises:
        ConfigError: the message names a column that the scorer wrote.
    """
    for column, card in store.cards.items():
        if card.fingerprint and card.fingerprint in fingerprints:
            raise ConfigError(
                f"captions: the scorer wrote '{column}', so it is a teacher and its score would "
                "favour what it taught. Score with a CLIP that no arm learns from."
            )
