"""Some texts of any input, for a tokenizer to learn from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from understudy.core.seeds import seed_for
from understudy.curate.engine.inputs import find_inputs
from understudy.curate.text.sources import read_input
from understudy.curate.text.sources_bad import Skipped


def sample_texts(inputs: str | Path, number: int, seed: int = 0) -> list[str]:
    """Return texts of documents that are chosen by their ids' hashes, in the order of reading.

    Args:
        inputs: a folder, a file or a store, as `understudy curate tokenise` reads it.
        number: how many at most.
        seed: of the choice.
    """
    kept: list[tuple[int, int, str]] = []
    for place, (key, text) in enumerate(_keyed(inputs, seed)):
        kept.append((key, place, text))
        if len(kept) > 4 * number:
            kept = sorted(kept)[:number]
    return [text for _, text in sorted((place, text) for _, place, text in sorted(kept)[:number])]


def _keyed(inputs: str | Path, seed: int) -> Iterator[tuple[int, str]]:
    for unit in find_inputs([inputs]).units:
        for page in read_input(unit, Skipped(strict=False)):
            if page.text:
                yield seed_for("sample", seed, page.id), page.text
