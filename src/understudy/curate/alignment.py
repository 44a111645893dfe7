"""Alignment sets: deduplicated, free of test samples, balanced, mixed, reported and stored.

    relevance = class_relevance(caption_features, prompt_features, prompt_class, len(classes))
    usable = ~repeats(captions) & ~leaks(pool_hashes, test_hashes)
    chosen = select_top(relevance, 200, usable=usable)
    report = report_on(chosen.rows, captions, image_hashes, chosen.coverage, classes)

What was decided is written beside the samples, as columns with cards: `score.<name>`,
`class.<name>` and `select.<name>`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from understudy.core.errors import ConfigError, DataError
from understudy.core.provenance import versions
from understudy.core.seeds import rng
from understudy.curate.alignment_report import AlignmentReport, report_on
from understudy.curate.keys import caption_key, image_key, leaks, repeats
from understudy.curate.relevance import Selection, check_classes
from understudy.data.card import Card

if TYPE_CHECKING:
    from understudy.data.store import Store

__all__ = [
    "AlignmentReport",
    "caption_key",
    "image_key",
    "label_captions",
    "leaks",
    "mix_sources",
    "near",
    "near_repeats",
    "repeats",
    "report_on",
    "write_selection",
]


def near_repeats(features: np.ndarray, threshold: float = 0.98, *, chunk: int = 2048) -> np.ndarray:
    """Return bool [N], true for items whose cosine to an earlier kept item reaches `threshold`.

    Args:
        features: [N, D]; any encoder's features.
        threshold: in (0, 1].
        chunk: rows at a time.
    """
    unit = _unit_rows(features, threshold)
    out = np.zeros(len(unit), bool)
    for at in range(0, len(unit), chunk):
        block = unit[at : at + chunk]
        earlier = unit[:at][~out[:at]]
        if len(earlier):
            out[at : at + chunk] = (block @ earlier.T >= threshold).any(1)
        inside = block @ block.T >= threshold
        for i in range(len(block)):
            if not out[at + i]:
                out[at + i] = bool((inside[i, :i] & ~out[at : at + i]).any())
    return out


def near(
    features: np.ndarray, others: np.ndarray, threshold: float = 0.98, *, chunk: int = 2048
) -> np.ndarray:
    """Return bool [N], true for items whose cosine to any of `others` reaches `threshold`.

    Args:
        features: [N, D].
        others: [M, D], such as those of the test set.
        threshold: in (0, 1].
        chunk: rows at a time.
    """
    targets = _unit_rows(others, threshold)
    unit = _unit_rows(features, threshold)
    parts = [
        (unit[at : at + chunk] @ targets.T >= threshold).any(1) for at in range(0, len(unit), chunk)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, bool)


def _unit_rows(features: np.ndarray, threshold: float) -> np.ndarray:
    if not 0 < threshold <= 1:
        raise ConfigError(f"near_repeats: threshold must lie in (0, 1], got {threshold}.")
    unit = np.asarray(features, np.float32)
    return unit / np.linalg.norm(unit, axis=1, keepdims=True).clip(min=1e-12)


def label_captions(
    labels: Sequence[int], classes: Sequence[str], templates: Sequence[str], seed: int = 0
) -> list[str]:
    """Return a template caption for each labelled image.

    Names used so are *seen*: a zero-shot score on them is not zero-shot any more, so declare them
    in the report.

    Args:
        labels: class of each image.
        classes: their names.
        templates: with one `{}` each.
        seed: chooses a template for each image.

    Raises:
        ConfigError: a repeated class name, or a template without `{}`.
        DataError: a label without a name.
    """
    names = check_classes(classes)
    for template in templates:
        if template.count("{}") != 1:
            raise ConfigError(f"template {template!r}: expected exactly one {{}}.")
    if not templates:
        raise ConfigError("label captions: give at least one template.")
    out = []
    for i, label in enumerate(labels):
        if not 0 <= int(label) < len(names):
            raise DataError(f"label of item {i} is {label}; there are {len(names)} class names.")
        pick = int(rng("label-caption", seed, i).integers(len(templates)))
        out.append(templates[pick].replace("{}", names[int(label)]))
    return out


def mix_sources(
    rows: Mapping[str, Sequence[int] | np.ndarray],
    total: int,
    *,
    weights: Mapping[str, float] | None = None,
    temperature: float = 1.0,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Draw a mixed set: source s gets a share proportional to weight_s^(1 / temperature).

    Args:
        rows: usable rows of each source.
        total: rows of the mix.
        weights: of each source; None takes its number of rows.
        temperature: 1 keeps the weights, large ones make shares equal, below 1 sharpens them.
        seed: of the draw, without replacement.

    Returns:
        the rows drawn from each source, increasing.

    Raises:
        ConfigError: weights of other sources, not positive, or a bad temperature.
        DataError: a source is smaller than its share.
    """
    weights = {s: float(len(r)) for s, r in rows.items()} if weights is None else weights
    if set(weights) != set(rows) or not all(w > 0 for w in weights.values()):
        raise ConfigError(
            f"mix: expected a positive weight for each of {', '.join(rows)}, got {dict(weights)}."
        )
    if not temperature > 0:
        raise ConfigError(f"mix: temperature must be above 0, got {temperature}.")
    shares = np.array([weights[s] for s in rows]) ** (1 / temperature)
    exact = total * shares / shares.sum()
    counts = np.floor(exact).astype(int)
    for i in np.argsort(-(exact - counts), kind="stable")[: total - counts.sum()]:
        counts[i] += 1
    out = {}
    for (source, own), count in zip(rows.items(), counts, strict=True):
        if count > len(own):
            raise DataError(
                f"mix: source '{source}' is to give {count} rows and has {len(own)}; lower its "
                "weight, raise the temperature or mix fewer rows."
            )
        draw = rng("mix", seed, source).choice(np.asarray(own), count, replace=False)
        out[source] = np.sort(draw)
    return out


def write_selection(
    store: Store,
    name: str,
    pool: np.ndarray,
    relevance: np.ndarray,
    chosen: Selection,
    report: AlignmentReport,
    config: Mapping[str, Any],
    *,
    fingerprint: str = "",
    overwrite: bool = False,
) -> None:
    """Write what was decided: `score.<name>`, `class.<name>` and `select.<name>`.

    Args:
        store: whose rows.
        name: of the set.
        pool: int64 [N] row numbers of the pool, increasing.
        relevance: [N, C] similarity to the classes.
        chosen: the selection, in places of the pool.
        report: kept in the cards' facts.
        config: plain data that decided it (classes, total, encoder, ...).
        fingerprint: hash of the encoder that gave the similarities.
        overwrite: replace another selection of that name.

    Raises:
        CardError: the name holds another selection and `overwrite` is off.
    """
    selected = np.zeros(len(pool), bool)
    selected[chosen.rows] = True
    best = relevance.argmax(1).astype(np.int32)
    best[chosen.rows] = chosen.classes
    values = {
        f"score.{name}": (pa.float32(), relevance.max(1).astype(np.float32)),
        f"class.{name}": (pa.int32(), best),
        f"select.{name}": (pa.bool_(), selected),
    }
    cards = [
        Card(
            column=column,
            writer="align-curate",
            fingerprint=fingerprint,
            config=dict(config),
            versions=versions(),
            created_by="curate.alignment.write_selection",
            facts={"report": report.to_dict()},
        )
        for column in values
    ]
    types = {column: kind for column, (kind, _) in values.items()}
    with store.job(cards, types, rows=pool, overwrite=overwrite) as job:
        for unit in job.todo():
            places = np.searchsorted(pool, job.rows(unit))
            arrays = {c: pa.array(v[places], type=k) for c, (k, v) in values.items()}
            job.write(unit, arrays)
