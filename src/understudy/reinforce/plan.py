"""What a reinforcement would cost: rows, teacher calls and bytes, without asking anybody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from understudy.data.knowledge import view_column
from understudy.data.views import ViewPipeline
from understudy.reinforce.cast import gather
from understudy.reinforce.config import ReinforceConfig
from understudy.reinforce.phases import Phases
from understudy.reinforce.teachers.base import Teacher
from understudy.reinforce.views_phase import ViewsPhase

if TYPE_CHECKING:
    from understudy.data.store import Store

CAPTION_BYTES = 64
"""Assumed length of a caption that has not been written yet, with its offset."""
_WIDTH = {"float16": 2, "bfloat16": 2, "float32": 4}


def sample_bytes(
    dims: Mapping[str, tuple[int, int]],
    *,
    views: int,
    real: int,
    synthetic: int,
    dtype: str = "float16",
    stride: int = 0,
    topk: int = 0,
    classifiers: int = 0,
) -> int:
    """Return the bytes that a sample's knowledge takes, captions themselves left out.

    `views * (sum of image widths) + (real + synthetic) * (sum of text widths)` numbers of the
    storage type, a record a view, and K probabilities and class ids a view and classifier
    (arXiv 2508.20691; with equal widths it is `(J + n_real + n_syn) * sum(d) * bytes`).

    Args:
        dims: (width of image embeddings, of text embeddings) by teacher; 0 for none.
        views: J, stored views a sample.
        real: own texts a sample, 0 or 1.
        synthetic: captions a sample, over all captioners.
        dtype: storage type of embeddings.
        stride: bytes of a view's record.
        topk: K.
        classifiers: stored classifiers (an ensemble is one).
    """
    image = sum(d[0] for d in dims.values())
    text = sum(d[1] for d in dims.values())
    numbers = views * image + (real + synthetic) * text
    return numbers * _WIDTH[dtype] + views * (stride + 4 * topk * classifiers)


def plan(
    store: Store,
    config: ReinforceConfig,
    *,
    teachers: Mapping[str, Teacher] | None = None,
) -> dict[str, Any]:
    """Count what `reinforce` would do; nothing is written and no row is read.

    The teachers are made, to learn their widths, and everything that can be checked beforehand is.

    Returns:
        `rows`, `views`, `captions`; `teacher_calls` by teacher (images or texts it would be
        shown); `bytes_per_row` by the sheet formula and `bytes` for all rows; `columns`, each with
        its rows still open; `todo_rows`, the largest of these.

    Raises:
        UnderstudyError: whatever `reinforce` would refuse.
    """
    cast = gather(config, teachers)
    phases = Phases(store, config, cast)
    rows = len(phases.rows)
    views = config.num_views if cast.looks else 0
    synthetic = sum(phases.caption_counts().values())
    dims = {t.name: (t.image_dim, 0) for t in cast.image}
    for teacher in cast.text:
        dims[teacher.name] = (dims.get(teacher.name, (0, 0))[0], teacher.text_dim)
    real = int(phases.own_texts)
    per_row = sample_bytes(
        dims,
        views=views,
        real=real,
        synthetic=synthetic,
        dtype=config.dtype,
        stride=ViewPipeline(config.views).stride if views else 0,
        topk=config.topk,
        classifiers=len(cast.classifiers),
    )
    written = config.captions * len(cast.captioners)
    columns = _open_columns(phases)
    return {
        "rows": rows,
        "todo_rows": max(columns.values(), default=0),
        "views": views,
        "captions": synthetic,
        "teacher_calls": _calls(config, phases, rows, real + synthetic),
        "bytes_per_row": per_row,
        "caption_bytes_per_row": written * CAPTION_BYTES,
        "bytes": rows * (per_row + written * CAPTION_BYTES),
        "columns": columns,
    }


def _calls(
    config: ReinforceConfig, phases: Phases, rows: int, texts: int
) -> dict[str, dict[str, int]]:
    """Return images, texts and captions a teacher would be asked for, by teacher."""
    cast = phases.cast
    calls: dict[str, dict[str, int]] = {}
    lookers = list(cast.image)
    for classifier in cast.classifiers:
        lookers += getattr(classifier, "members", [classifier])
    for teacher in lookers:
        found = calls.setdefault(teacher.name, {})
        found["images"] = found.get("images", 0) + rows * config.num_views
    for teacher in cast.text:
        calls.setdefault(teacher.name, {})["texts"] = rows * texts
    for captioner in cast.captioners:
        calls.setdefault(captioner.name, {})["captions"] = rows * config.captions
    return calls


def _open_columns(phases: Phases) -> dict[str, int]:
    """Return the columns and how many of the chosen rows each still lacks."""
    found = dict.fromkeys(phases.columns(), len(phases.rows))
    for make in phases.makers():
        phase = make()
        cards = phase.cards if phase is not None else {}
        for column, card in cards.items():
            found[column] = int(phases._open(column, card).sum())
        if isinstance(phase, ViewsPhase):
            kept = (view_column(phases.config.view_set, k) for k in phase.ks)
            found.update((column, 0) for column in kept if column not in cards)
    return found
