"""The curation step of `ape` on a user's store."""

from __future__ import annotations

from typing import Any

import numpy as np

from understudy.core.errors import ConfigError
from understudy.core.files import write_text
from understudy.curate.alignment import (
    caption_key,
    image_key,
    leaks,
    mix_sources,
    repeats,
    report_on,
    write_selection,
)
from understudy.curate.relevance import Selection, balanced_quota, class_relevance, select_top
from understudy.recipes.ape_steps import Steps


def _relevance(steps: Steps, pool: np.ndarray) -> np.ndarray:
    config = steps.config
    if config.relevance == "image":
        if not config.target_rows:
            raise ConfigError("ape: relevance 'image' needs target_rows, the images to be near.")
        rows = steps.store.where(config.target_rows)
        side, targets = "image", steps.features(steps.encoder("image"), "image", rows)
        owner = np.zeros(len(rows), np.int64)
    else:
        side, (texts, owner) = "text", steps.prompts()
        targets = steps.encoder("text").encode(texts)[0]
    features = steps.features(steps.encoder(side), side, pool)
    return class_relevance(features, targets, owner, int(owner.max()) + 1)


def curate(steps: Steps) -> dict[str, Any]:
    """Choose pairs, write the decision beside the rows, return the report.

    Raises:
        ConfigError: nothing says how many, or near which images.
        DataError: the pool is smaller than what is asked of it.
    """
    config, pool = steps.config, steps.rows["pool"]
    if not config.total:
        raise ConfigError("ape: say how many pairs curation is to choose (total).")
    table = steps.store.take(pool, [config.image_column, config.text_column])
    images = table[config.image_column].to_pylist()
    captions = table[config.text_column].to_pylist()
    keys = [image_key(data) for data in images]
    test = steps.store.take(steps.rows["test"], [config.image_column])[config.image_column]
    leaked = leaks(keys, [image_key(data) for data in test.to_pylist()])
    twice = repeats([f"{k} {caption_key(c)}" for k, c in zip(keys, captions, strict=True)])
    relevance = _relevance(steps, pool)
    chosen, sources = _select(steps, pool, relevance, ~leaked & ~twice)
    by_class = config.relevance == "text"
    encoder = steps.encoder(config.relevance)
    report = report_on(
        chosen.rows,
        captions,
        keys,
        chosen.coverage if by_class else None,
        steps.classes if by_class else (),
        leakage=int(leaked.sum()),
        removed_repeats=int((twice & ~leaked).sum()),
        empty_captions=steps.empty,
        truncated_captions=int(getattr(encoder, "truncated", lambda _: 0)(captions)),
        seen_names=tuple(config.seen_names),
        sources=sources,
    )
    decided = {
        "classes": list(steps.classes),
        "total": config.total,
        "relevance": config.relevance,
        "target_rows": config.target_rows,
        "min_score": config.min_score,
        "sources": config.sources,
        "temperature": config.temperature,
        "pool": config.train_rows,
        "encoder": encoder.name,
        "seed": config.seed,
    }
    write_selection(
        steps.store,
        config.selection,
        pool,
        relevance,
        chosen,
        report,
        decided,
        fingerprint=encoder.hash,
        overwrite=config.overwrite,
    )
    write_text(config.out / "curation.txt", report.text() + "\n")
    steps.curation = report.to_dict()
    return steps.curation


def _select(
    steps: Steps, pool: np.ndarray, relevance: np.ndarray, usable: np.ndarray
) -> tuple[Selection, dict[str, int]]:
    config = steps.config
    common: dict[str, Any] = {"min_score": config.min_score}
    if not config.sources:
        return select_top(relevance, config.total, usable=usable, **common), {}
    names = np.array(steps.store.take(pool, ["source"])["source"].to_pylist())
    places = {s: np.flatnonzero((names == s) & usable) for s in config.sources}
    shares = mix_sources(
        places,
        config.total,
        weights=config.sources,
        temperature=config.temperature,
        seed=config.seed,
    )
    parts = []
    for source, drawn in shares.items():
        mine = (names == source) & usable
        parts.append(select_top(relevance, len(drawn), usable=mine, **common))
    order = np.argsort(np.concatenate([p.rows for p in parts]))
    rows, classes, scores = (
        np.concatenate([getattr(p, f) for p in parts])[order] for f in ("rows", "classes", "scores")
    )
    quota = balanced_quota(config.total, relevance.shape[1])
    return Selection(rows, classes, scores, quota), {s: len(d) for s, d in shares.items()}
