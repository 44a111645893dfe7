"""Some texts of any input, chosen by their hashes: what classifiers and tokenizers learn from."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable
from pathlib import Path

from understudy.core.errors import DataError
from understudy.curate.engine.inputs import find_inputs
from understudy.curate.text.sources import read_input
from understudy.curate.text.sources_bad import Skipped


def sample_texts(
    inputs: Iterable[str | Path], limit: int, seed: int, *, strict: bool = True
) -> list[str]:
    """Return at most `limit` texts, those with the smallest hashes, in the order of the hashes.

    Texts without a word are passed over, and copies count once.

    Args:
        inputs: files, folders and stores, as `understudy curate` reads them.
        limit: texts at most; no more are held in memory.
        seed: of the hashes.
        strict: stop at the first record that cannot be read; otherwise pass it over.

    Raises:
        DataError: there is none.
    """
    given = list(inputs)
    # The heap's top is the largest of the smallest hashes so far; negated, as heapq wants it.
    heap: list[tuple[int, str]] = []
    inside: set[int] = set()
    key = seed.to_bytes(8, "little", signed=True)
    for unit in find_inputs(given).units:
        for page in read_input(unit, Skipped(strict=strict)):
            if not page.text.strip():
                continue
            data = page.text.encode("utf-8", "replace")
            number = int.from_bytes(hashlib.blake2b(data, digest_size=16, key=key).digest())
            if number in inside or (len(heap) == limit and number > -heap[0][0]):
                continue
            inside.add(number)
            if len(heap) < limit:
                heapq.heappush(heap, (-number, page.text))
            else:
                inside.discard(-heapq.heapreplace(heap, (-number, page.text))[0])
    if not heap:
        raise DataError(f"{', '.join(map(str, given))}: no texts to learn from.")
    return [text for _, text in sorted(heap, key=lambda pair: -pair[0])]
