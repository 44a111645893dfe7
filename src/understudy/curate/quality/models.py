"""Where classifiers are looked for, and what to say when they are not there."""

from __future__ import annotations

from pathlib import Path

from understudy.core.errors import DataError
from understudy.data.fetch import cache_folder, cached
from understudy.data.fetch_table import ASSETS

LANGUAGE_ASSET = "lid-176"
"""Asset with fastText's language identification model (`data fetch`)."""
_LANGUAGE_FILES = ("lid.176.bin", "lid.176.ftz")


def find_language_model(model: str) -> Path:
    """Return the file of a language model: a path, or the one that was fetched.

    Args:
        model: a path; empty for the asset `lid-176` or a file `models/lid.176.bin` (or `.ftz`) in
            the cache folder.

    Raises:
        DataError: none is there; the message says where one is expected and what works without.
    """
    if model:
        if Path(model).is_file():
            return Path(model)
        place = model
    else:
        fetched = cached(LANGUAGE_ASSET) if LANGUAGE_ASSET in ASSETS else None
        if fetched is not None:
            return fetched
        folder = cache_folder() / "models"
        for name in _LANGUAGE_FILES:
            if (folder / name).is_file():
                return folder / name
        place = str(folder / _LANGUAGE_FILES[1])
    fetch = (
        f"'understudy data fetch {LANGUAGE_ASSET}' brings it" if LANGUAGE_ASSET in ASSETS else ""
    )
    raise DataError(
        "language: the model is not there, expected fastText's published lid.176.ftz or "
        f"lid.176.bin at {place}. {fetch or 'Put it there'}, or give its path (model: PATH); "
        "without any model, 'method: words' tells languages apart by their frequent words."
    )


def quality_place() -> Path:
    """Return where a quality classifier is looked for by default."""
    return cache_folder() / "models" / "quality.safetensors"


def find_quality_model(model: str) -> Path:
    """Return the file of a quality classifier: a path, or the usual place.

    Raises:
        DataError: none is there; the message says where one is expected and what works without.
    """
    place = Path(model) if model else quality_place()
    if place.is_file():
        return place
    raise DataError(
        f"quality-score: the classifier is not there, expected a fastText model (.bin, .ftz) or a "
        f"classifier of this package (.safetensors) at {place}. Train one on texts of yours "
        "(understudy curate classifier), or give its path (model: PATH); without any "
        "model, 'scorer: prose' scores by features of prose."
    )
