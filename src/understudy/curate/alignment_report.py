"""What an alignment set holds, and what was left out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from understudy.curate.keys import caption_key


@dataclass(frozen=True, kw_only=True)
class AlignmentReport:
    """What an alignment set holds.

    Attributes:
        size: pairs.
        distinct_images: different images among them.
        distinct_captions: different captions.
        coverage: pairs by target class.
        zero_coverage: names of target classes without a pair.
        leakage: pairs of the pool that share image or caption with the test set; they are never
            chosen.
        leaked_images: how many of them share the image.
        leaked_captions: how many share the caption (both may be).
        removed_repeats: pairs of the pool left out as repeats.
        removed_near_repeats: pairs left out because their image is nearly another one's, or nearly
            a test image.
        empty_captions: pairs of the pool left out because their caption is empty.
        truncated_captions: captions longer than the text encoder reads.
        seen_names: target names that labels-as-captions put into the set; what is measured on
            them is not zero-shot.
        sources: pairs by source.
    """

    size: int
    distinct_images: int
    distinct_captions: int
    coverage: dict[str, int]
    zero_coverage: tuple[str, ...] = ()
    leakage: int = 0
    leaked_images: int = 0
    leaked_captions: int = 0
    removed_repeats: int = 0
    removed_near_repeats: int = 0
    empty_captions: int = 0
    truncated_captions: int = 0
    seen_names: tuple[str, ...] = ()
    sources: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    def text(self) -> str:
        """Return the report in lines."""
        lines = [
            f"{self.size:,} pairs: {self.distinct_images:,} different images, "
            f"{self.distinct_captions:,} different captions",
            f"left out of the pool: {self.leakage:,} in the test set "
            f"({self.leaked_images:,} images, {self.leaked_captions:,} captions), "
            f"{self.removed_repeats:,} repeats, {self.removed_near_repeats:,} near repeats, "
            f"{self.empty_captions:,} empty captions",
        ]
        if self.truncated_captions:
            lines.append(f"{self.truncated_captions:,} captions are longer than the encoder reads")
        if self.coverage:
            counts = list(self.coverage.values())
            lines.append(
                f"pairs per class: {min(counts):,} to {max(counts):,} over {len(counts):,} classes"
            )
        if self.zero_coverage:
            lines.append(f"classes without a pair: {', '.join(self.zero_coverage)}")
        if self.seen_names:
            lines.append(f"seen names (no longer zero-shot): {', '.join(self.seen_names)}")
        lines += [f"source {name}: {count:,} pairs" for name, count in self.sources.items()]
        return "\n".join(lines)


def report_on(
    rows: np.ndarray,
    captions: Sequence[str],
    image_keys: Sequence[str],
    coverage: np.ndarray | None = None,
    classes: Sequence[str] = (),
    **counts: Any,
) -> AlignmentReport:
    """Count what a set holds.

    Args:
        rows: places of its pairs.
        captions: of the whole pool.
        image_keys: hashes of the pool's images.
        coverage: [C] pairs by target class.
        classes: names of the target classes.
        **counts: further fields of `AlignmentReport`.
    """
    covered = {} if coverage is None else dict(zip(classes, map(int, coverage), strict=True))
    return AlignmentReport(
        size=len(rows),
        distinct_images=len({image_keys[int(r)] for r in rows}),
        distinct_captions=len({caption_key(captions[int(r)]) for r in rows}),
        coverage=covered,
        zero_coverage=tuple(name for name, count in covered.items() if count == 0),
        **counts,
    )
