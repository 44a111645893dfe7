"""The curation step of `ape` on a user's store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from understudy.core.errors import ConfigError, DataError
from understudy.core.files import write_text
from understudy.curate.alignment import mix_sources, near, near_repeats, write_selection
from understudy.curate.alignment_report import report_on
from understudy.curate.keys import caption_key, image_key, leaks, repeats
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


@dataclass(frozen=True)
class Clean:
    """Which pairs of the pool may be chosen, and why the others may not.

    Attributes:
        images: bool [N], the image is one of the test set's.
        captions: bool [N], the caption is.
        leaked: bool [N], what of both counts.
        twice: bool [N], an earlier pair has the same image and caption.
        close: bool [N], the image is nearly an earlier one, or nearly a test image.
    """

    images: np.ndarray
    captions: np.ndarray
    leaked: np.ndarray
    twice: np.ndarray
    close: np.ndarray

    @property
    def usable(self) -> np.ndarray:
        """Pairs that may be chosen."""
        return ~(self.leaked | self.twice | self.close)

    def why(self) -> str:
        """Return in words how many are left out."""
        return (
            f"of {len(self.leaked):,} pairs {int(self.leaked.sum()):,} share image or caption with "
            f"the test set ({int(self.images.sum()):,} images, {int(self.captions.sum()):,} "
            f"captions; leaks_by says which count), {int(self.twice.sum()):,} are repeats, "
            f"{int(self.close.sum()):,} near repeats"
        )


def _clean(steps: Steps, pool: np.ndarray, keys: list[str], captions: list[str]) -> Clean:
    config, test = steps.config, steps.rows["test"]
    column = config.image_column
    held = steps.store.take(test, [column])[column].to_pylist() if len(test) else []
    images = leaks(keys, [image_key(data) for data in held])
    # Captions that are made of labels repeat by nature; they give no test pair away.
    own = [
        caption_key(text)
        for text, made in zip(steps.texts.of(test), steps.texts.from_labels(test), strict=True)
        if not made
    ]
    said = leaks([caption_key(c) for c in captions], own) & ~steps.texts.from_labels(pool)
    leaked = {"image": images, "caption": said, "both": images | said}[config.leaks_by]
    twice = repeats([f"{k} {caption_key(c)}" for k, c in zip(keys, captions, strict=True)])
    close = np.zeros(len(pool), bool)
    if config.near_repeats:
        encoder = steps.encoder("image")
        features = steps.features(encoder, "image", pool)
        close = near_repeats(features, config.near_repeats)
        if len(test):
            targets = steps.features(encoder, "image", test)
            close |= near(features, targets, config.near_repeats)
    return Clean(images, said, leaked, twice & ~leaked, close & ~leaked & ~twice)


def curate(steps: Steps) -> dict[str, Any]:
    """Choose pairs, write the decision beside the rows, return the report.

    Raises:
        ConfigError: nothing says how many, or near which images.
        DataError: the pool is smaller than what is asked of it.
    """
    config, pool = steps.config, steps.rows["pool"]
    if not config.total:
        raise ConfigError("ape: say how many pairs curation is to choose (total).")
    images = steps.store.take(pool, [config.image_column])[config.image_column].to_pylist()
    captions = [text or "" for text in steps.texts.of(pool)]
    keys = [image_key(data) for data in images]
    clean = _clean(steps, pool, keys, captions)
    relevance = _relevance(steps, pool)
    if clean.usable.sum() < config.total:
        raise DataError(
            f"curation: {config.total} pairs were asked of a pool with "
            f"{int(clean.usable.sum())} usable rows ({clean.why()}); lower the number or give a "
            "larger pool."
        )
    chosen, sources = _select(steps, pool, relevance, clean.usable)
    by_class = config.relevance == "text"
    encoder = steps.encoder(config.relevance)
    report = report_on(
        chosen.rows,
        captions,
        keys,
        chosen.coverage if by_class else None,
        steps.classes if by_class else (),
        leakage=int(clean.leaked.sum()),
        leaked_images=int(clean.images.sum()),
        leaked_captions=int(clean.captions.sum()),
        removed_repeats=int(clean.twice.sum()),
        removed_near_repeats=int(clean.close.sum()),
        empty_captions=steps.empty["pool"],
        truncated_captions=int(getattr(encoder, "truncated", lambda _: 0)(captions)),
        seen_names=steps.seen_names(pool[chosen.rows]),
        sources=sources,
    )
    decided = {
        "classes": list(steps.classes),
        "total": config.total,
        "relevance": config.relevance,
        "target_rows": config.target_rows,
        "min_score": config.min_score,
        "assign": config.assign,
        "balance": config.balance,
        "leaks_by": config.leaks_by,
        "near_repeats": config.near_repeats,
        "text": steps.texts.column,
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
    common: dict[str, Any] = {
        "min_score": config.min_score,
        "assign": config.assign,
        "balance": config.balance,
    }
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
