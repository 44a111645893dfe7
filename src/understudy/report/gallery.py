"""Pictures of what was reinforced: stored views, and what each teacher finds near them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from understudy.data.decode import decode
from understudy.data.knowledge import (
    captions_column,
    decode_embeddings,
    decode_topk,
    image_column,
    text_column,
    topk_column,
    view_column,
)
from understudy.data.view_verify import partner_images, view_columns
from understudy.data.views import ViewPipeline

if TYPE_CHECKING:
    from understudy.data.store import Store
    from understudy.report.page import Page

MAX_TEXTS = 2_000
"""Rows whose texts are searched for neighbours: enough to be telling, little enough to be quick."""


def replayed(store: Store, view_set: str, k: int, rows: np.ndarray, image: str) -> np.ndarray:
    """Return stored views `[B, S, S, 3]` of some rows, replayed from their records."""
    column = view_column(view_set, k)
    pipeline = ViewPipeline.from_card(store.card(column))
    params = pipeline.unpack(store.array(column, rows))
    images = store.take(rows, [image]).column(0).to_pylist()
    names = [f"row {int(r)}" for r in rows]
    partners = partner_images(store, image, params, names)
    return pipeline.apply(images, params, partners=partners, names=names)


def neighbours(
    store: Store, teacher: str, view_set: str, k: int, rows: np.ndarray, text: str, top: int = 3
) -> list[list[str]]:
    """Return, for some rows' views, the texts that a teacher puts nearest, best first.

    Only the first `MAX_TEXTS` rows with a stored text embedding are searched.
    """
    column = text_column(teacher)
    pool = np.flatnonzero(store.filled(column))[:MAX_TEXTS]
    texts = decode_embeddings(store.array(column, pool), store.card(column).config)
    views = image_column(teacher, view_set, k)
    found = decode_embeddings(store.array(views, rows), store.card(views).config)
    order = np.argsort(-(found @ texts.T), axis=1)[:, :top]
    words = store.take(pool, [text]).column(0).to_pylist()
    return [[words[i] for i in line] for line in order]


def likeliest(
    store: Store, teacher: str, view_set: str, k: int, rows: np.ndarray, top: int = 3
) -> list[list[str]]:
    """Return, for some rows' views, the classes that a teacher finds likeliest, best first."""
    values, ids = decode_topk(store.array(topk_column(teacher, view_set, k), rows))
    names = store.meta.get("classes") or ()
    return [
        [
            f"{names[c] if c < len(names) else f'class {c}'} {p:.2f}"
            for p, c in zip(chances[:top].tolist(), classes[:top].tolist(), strict=True)
        ]
        for chances, classes in zip(values, ids, strict=True)
    ]


def add_gallery(
    page: Page,
    store: Store,
    view_set: str,
    teachers: Sequence[str],
    *,
    classifiers: Sequence[str] = (),
    captioner: str | None = None,
    rows: Sequence[int] | None = None,
    image: str = "image",
    text: str = "text",
    num_views: int = 4,
) -> None:
    """Add, for a few samples, the picture, its texts, some views and what teachers see in them.

    Args:
        page: where to.
        store: the reinforced data set.
        view_set: whose views.
        teachers: with embeddings: the text that each puts nearest to a view is shown.
        classifiers: with probabilities: the classes that each finds likeliest in a view are shown.
        captioner: whose captions are shown.
        rows: which samples; a few that are spread evenly by default.
        image: column of encoded images.
        text: column of texts.
        num_views: views of a sample at most.
    """
    columns = view_columns(store, view_set)
    shown = min(num_views, len(columns))
    if rows is None:
        done = np.flatnonzero(store.filled(columns[0]))
        rows = done[np.linspace(0, len(done) - 1, min(6, len(done))).astype(int)].tolist()
    chosen = np.asarray(rows, np.int64)
    images = store.take(chosen, [image]).column(0).to_pylist()
    has_text = text in store.columns
    texts = store.take(chosen, [text]).column(0).to_pylist() if has_text else [""] * len(chosen)
    captions: list[list[str]] = [[] for _ in chosen]
    if captioner is not None and store.has(captions_column(captioner)):
        written = store.take(chosen, [captions_column(captioner)]).column(0).to_pylist()
        captions = [list(c or ()) for c in written]
    strips: list[list[tuple[np.ndarray, str]]] = []
    for i, row in enumerate(chosen.tolist()):
        told = f"row {row}: “{texts[i]}”" if has_text else f"row {row}"
        if captions[i]:
            told += f" · synthetic: “{captions[i][0]}”"
        strips.append([(decode(images[i], name=f"row {row}"), told)])
    for k in range(shown):
        views = replayed(store, view_set, k, chosen, image)
        near: list[list[str]] = [[] for _ in chosen]
        for teacher in teachers:
            if not (has_text and store.has(text_column(teacher))):
                continue
            for i, words in enumerate(neighbours(store, teacher, view_set, k, chosen, text, 1)):
                near[i] += [f"{teacher}: “{w}”" for w in words]
        for teacher in classifiers:
            for i, found in enumerate(likeliest(store, teacher, view_set, k, chosen)):
                near[i].append(f"{teacher}: {', '.join(found)}")
        for i in range(len(chosen)):
            strips[i].append((views[i], f"view {k}. " + " · ".join(near[i])))
    page.pictures(strips)
