"""The sequential pass of Bloom deduplication, many paragraphs at a time and still exact.

A paragraph is compared with the paragraphs that stayed before it, so the pass is sequential. Within
a chunk, however, a bit that is not yet set can only be set by an earlier paragraph of the chunk
that stays; which ones stay follows from iteration. Assume that none is removed, find those that
would be removed, assume that these are removed, and so on: the decision on a paragraph depends on
earlier ones only, so round after round at least one more decision is final, and a repeated answer
is the sequential one. Two or three rounds are usual.
"""

from __future__ import annotations

import numpy as np

from understudy.curate.dedup.bloom import BloomFilter

CHUNK_GRAMS = 1 << 14
"""N-grams of a chunk; decides the speed, not the result."""


def removed_paragraphs(
    filter: BloomFilter,
    grams: np.ndarray,
    sizes: np.ndarray,
    threshold: float = 0.8,
    chunk: int = CHUNK_GRAMS,
) -> tuple[np.ndarray, np.ndarray]:
    """Decide on paragraphs in order and insert those that stay.

    Args:
        filter: what was seen; changed.
        grams: n-grams of the paragraphs one after the other, well mixed uint64 [G].
        sizes: n-grams of each paragraph, all above 0, int64 [P].
        threshold: a paragraph is removed if a larger share of its n-grams was seen.
        chunk: n-grams handled at a time.

    Returns:
        Whether each paragraph is removed, bool [P], and how many of its n-grams had been seen when
        it came, int64 [P].
    """
    ends = np.cumsum(sizes)
    removed, contained = np.zeros(len(sizes), bool), np.zeros(len(sizes), np.int64)
    first = 0
    while first < len(sizes):
        base = int(ends[first] - sizes[first])
        last = max(first + 1, int(np.searchsorted(ends, base + chunk, "right")))
        here = slice(first, last)
        part = grams[base : ends[last - 1]]
        removed[here], contained[here] = _chunk(filter, part, sizes[here], threshold)
        first = last
    return removed, contained


def _chunk(
    filter: BloomFilter, grams: np.ndarray, sizes: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    owner = np.repeat(np.arange(len(sizes)), sizes)
    positions = filter.positions(grams)
    unset = ~filter.test_bits(positions)
    missing = unset.any(1)
    places = positions[unset]
    gram = np.nonzero(unset)[0]
    shared = _shared(places)
    # a gram with an unset bit that no other gram of the chunk touches is new whatever is removed
    alone = np.zeros(len(grams), bool)
    alone[gram[~shared]] = True
    open_gram = missing & ~alone
    bits = _OpenBits(places[shared], gram[shared], owner)
    removed = np.zeros(len(sizes), bool)
    while True:
        seen = np.logical_not(missing)
        seen[open_gram] = bits.earlier(removed)[open_gram]
        contained = np.add.reduceat(seen, np.cumsum(sizes) - sizes, dtype=np.int64)
        found = contained / sizes > threshold
        if np.array_equal(found, removed) or not bits.count:
            break
        removed = found
    inserts = ~found[owner]
    filter.set_bits(places[inserts[gram]])
    return found, contained


def _shared(places: np.ndarray) -> np.ndarray:
    """Say which values occur more than once; some others may be named too.

    Values that fall into a slot of a table together are taken for equal, which costs the exact
    comparison that follows a little work and no exactness.
    """
    slots = 1 << max(10, (8 * len(places)).bit_length())
    slot = places & (slots - 1)
    count = np.bincount(slot, minlength=1)
    return count[slot] > 1


class _OpenBits:
    """Unset bits that several grams of a chunk touch, and who touches them first."""

    def __init__(self, places: np.ndarray, gram: np.ndarray, owner: np.ndarray) -> None:
        self.count = len(places)
        self.gram, self.paragraph = gram, owner[gram]
        self.owner = owner
        distinct, self.bit = np.unique(places, return_inverse=True)
        self.distinct = len(distinct)

    def earlier(self, removed: np.ndarray) -> np.ndarray:
        """Say of each gram whether all of these bits are set by earlier paragraphs that stay."""
        first = np.full(self.distinct, len(removed), np.int64)
        stays = ~removed[self.paragraph]
        # touches are in order of paragraphs: written backwards, the first one is what remains
        first[self.bit[stays][::-1]] = self.paragraph[stays][::-1]
        late = first[self.bit] >= self.paragraph
        found = np.ones(len(self.owner), bool)
        found[self.gram[late]] = False
        return found
