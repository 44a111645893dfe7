"""Check imported views against their images, and note what a sample of them looks like here.

Released records come without checksums. The views of one row in a hundred are replayed at import
and their checksums kept in the cards, so that `data verify` tells when a later library changes
pixels; what the teacher saw in another program is known to that program only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from understudy.core.errors import UnderstudyError
from understudy.data.importers.common import Unusable
from understudy.data.importers.ids import hash64
from understudy.data.knowledge import view_column
from understudy.data.views import ViewConfig, ViewPipeline

EVERY = 100
MAX_ROWS = 128


def check_boxes(params: np.ndarray, size: tuple[int, int] | None, where: str) -> None:
    """Raise `Unusable` when a crop box does not fit its image `(height, width)`.

    The image was then resized, or replaced, after it had been reinforced.
    """
    if size is None or "rrc" not in (params.dtype.names or ()):
        return
    box = params["rrc"].astype(np.int64)
    bad = (box[:, 0] + box[:, 2] > size[0]) | (box[:, 1] + box[:, 3] > size[1])
    if bad.any():
        i = int(np.argmax(bad))
        raise Unusable(
            "image smaller than its crop box",
            f"{where}: the image is {size[0]} x {size[1]} pixels, but the crop box of view {i} is "
            f"{box[i].tolist()} (top, left, height, width): it was resized or replaced after it "
            "had been reinforced; join the images that were reinforced.",
        )


class Checksums:
    """Collects checksums of replayed views for the cards of one view set.

    Args:
        config: the view set's transforms.
        view_set: its name.
    """

    def __init__(self, config: ViewConfig, view_set: str) -> None:
        self._pipeline = None if config.mixes else ViewPipeline(config)
        self._set = view_set
        self._rows = 0
        self.facts: dict[str, dict[str, Any]] = {}

    def add(self, row: int, uid: str, image: bytes, params: np.ndarray) -> None:
        """Replay one row's views if it belongs to the sample; a damaged image is passed over."""
        chosen = row == 0 or hash64(uid) % EVERY == 0
        if self._pipeline is None or not chosen or self._rows >= MAX_ROWS:
            return
        self._rows += 1
        for k, record in enumerate(params):
            try:
                views = self._pipeline.apply([image], record[None], names=[f"row {row}"])
            except UnderstudyError:
                return
            column = self.facts.setdefault(view_column(self._set, k), {"crc": {}, "thumb": {}})
            for kind, values in self._pipeline.fingerprints([row], views).items():
                column[kind].update(values)
