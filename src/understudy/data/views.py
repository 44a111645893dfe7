"""Views: random augmentations that are drawn once, stored as parameters and replayed bit for bit.

A teacher's answer is stored for one exact view. The student must see that view, so sampling and
replay are one code path: `sample` draws a record, `apply` makes the view from the record, whoever
calls it (arXiv 2303.08983, sec. 3).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.core.errors import CardError, ConfigError, DataError
from understudy.data.decode import decoder_versions
from understudy.data.view_config import ORDER, VIEW_VERSION, ViewConfig
from understudy.data.view_mix import mix_views
from understudy.data.view_params import pack, params_dtype, rescale_params, unpack
from understudy.data.view_random import as_seeds
from understudy.data.view_render import Image, render
from understudy.data.view_sample import draw_partners, sample_params

if TYPE_CHECKING:
    from understudy.data.card import Card
    from understudy.data.store import Store

__all__ = ["ViewConfig", "ViewPipeline", "verify_views"]

CARD_KEYS = ("set", "k")
"""What a view column's card holds in its `config` beside the view configuration."""


class ViewPipeline:
    """Sample, apply and pack the views of one configuration. Stateless and thread-safe.

    Args:
        config: the view set.

    Example:
        >>> import numpy as np
        >>> pipeline = ViewPipeline(ViewConfig(size=8))
        >>> image = np.zeros((12, 10, 3), np.uint8)
        >>> params = pipeline.sample([(12, 10)], seeds=[1])
        >>> stored = pipeline.pack(params)
        >>> pipeline.apply([image], pipeline.unpack(stored)).shape
        (1, 8, 8, 3)
    """

    def __init__(self, config: ViewConfig) -> None:
        self.config = config
        self.dtype = params_dtype(config)
        self.stride = self.dtype.itemsize

    @classmethod
    def from_card(cls, card: Card | Mapping[str, Any], backend: Mapping | None = None):
        """Build the pipeline that a view column's card describes.

        Args:
            card: the column's card, or its `config` mapping.
            backend: the card's back end when a mapping is given; its order is checked.

        Raises:
            CardError: the card is not a view column's, or other code than this wrote it.
        """
        config = card if isinstance(card, Mapping) else card.config
        backend = backend if isinstance(card, Mapping) else card.backend
        if "transforms" not in config:
            raise CardError("the card has no 'transforms': it does not belong to a view column.")
        try:
            views = ViewConfig.from_dict({k: v for k, v in config.items() if k not in CARD_KEYS})
        except ConfigError as error:
            raise CardError(f"the card's view configuration is not valid: {error}") from None
        order = (backend or {}).get("order")
        if order is not None and tuple(order) != ORDER:
            raise CardError(
                f"view records were written with the order {list(order)}, this code replays "
                f"{list(ORDER)}: reinforce again, or install the version that wrote them."
            )
        return cls(views)

    @property
    def backend(self) -> dict[str, Any]:
        """What decides the pixels beside the configuration: goes into the column's card."""
        crop = self.config.transforms.get("random_resized_crop", {})
        return {
            **decoder_versions(),
            "numpy": np.__version__,
            "views_version": VIEW_VERSION,
            "order": list(ORDER),
            "resize": f"pillow-{crop.get('interpolation', 'bilinear')}",
        }

    def sample(
        self,
        sizes: Any,
        seeds: Sequence[int] | np.ndarray,
        partners: tuple[Any, Any] | None = None,
        *,
        names: Sequence[str] | None = None,
    ) -> np.ndarray:
        """Draw one record an image, each from its own seed.

        Args:
            sizes: `int [B, 2]`, (height, width) of the images in pixels.
            seeds: B integers; equal seeds and sizes give equal records in any batch.
            partners: (rows `int [B]`, sizes `int [B, 2]`) to mix in, from `draw_partners`; needed
                when the configuration mixes.
            names: what to call each image in errors ("row 17").

        Returns:
            Structured array `[B]` of `dtype`, already rounded to stored precision.
        """
        return sample_params(self.config, sizes, as_seeds(seeds), partners, names)

    def draw_partners(
        self, seeds: Sequence[int] | np.ndarray, num_rows: int, own: Any = None
    ) -> np.ndarray:
        """Draw each item's possible partner: row numbers `int64 [B]`."""
        return draw_partners(as_seeds(seeds), num_rows, own)

    def pack(self, params: np.ndarray) -> np.ndarray:
        """Return records as `uint8 [B, stride]`."""
        self._check_dtype(params)
        return pack(params)

    def unpack(self, data: np.ndarray) -> np.ndarray:
        """Return the records in `uint8 [B, stride]`; `CardError` when the stride differs."""
        return unpack(data, self.config)

    def apply(
        self,
        images: Sequence[Image],
        params: np.ndarray,
        *,
        size: int | None = None,
        rescale: bool = False,
        partners: Sequence[Image | None] | None = None,
        names: Sequence[str] | None = None,
    ) -> np.ndarray:
        """Make the views of `params`; the same bytes for the same input on every machine.

        Args:
            images: `uint8 [h, w, 3]` arrays, or encoded files (decoded here, at a reduced scale
                when the configuration says so).
            params: the records, as `sample` or `unpack` gave them.
            size: side of the result in pixels; the stored size when left out.
            rescale: allow another size than the stored one. Translations, erased boxes and CutMix
                boxes, which are in pixels of the view, are scaled.
            partners: for each record its partner image; `None` where it is not mixed.
            names: what to call each image in errors ("row 17").

        Returns:
            `uint8 [B, S, S, 3]`, or `float32 [B, S, S, 3]` in levels 0 to 255 when the
            configuration mixes (unless `round_mixed`). The memory is planar:
            `.transpose(0, 3, 1, 2)` is contiguous and free.

        Raises:
            CardError: the records belong to another configuration.
            ConfigError: another size without `rescale`.
            DataError: an image that is missing, does not decode, or is smaller than its crop box.
        """
        self._check_dtype(params)
        names = names or [f"image {i}" for i in range(len(params))]
        if len(images) != len(params):
            raise DataError(f"{len(images)} images for {len(params)} view records.")
        size = size or self.config.size
        if size != self.config.size and not rescale:
            raise ConfigError(
                f"views were stored at {self.config.size} pixels and asked for at {size}: "
                "set rescale=True to scale their translations and boxes, or use the stored size."
            )
        ratio = size / self.config.size
        if ratio != 1.0:
            params = rescale_params(params, ratio)
        planar = render(self.config, images, params, "", size, ratio, names)
        if self.config.mixes:
            chosen = np.flatnonzero(params["mix"])
            second = self._partner_images(params, chosen, partners, names)
            part = params[chosen]
            labels = _PartnerNames(names, params, chosen)
            planar2 = render(self.config, second, part, "2", size, ratio, labels)
            planar = mix_views(planar, planar2, params, self.config.round_mixed)
        return planar.transpose(0, 2, 3, 1)

    def checksum(self, views: np.ndarray) -> np.ndarray:
        """Return the CRC32 `uint32 [B]` of each view's pixels in row-major order."""
        crcs = [zlib.crc32(np.ascontiguousarray(view)) for view in views]
        return np.array(crcs, np.uint32)

    def fingerprints(self, rows: Sequence[int], views: np.ndarray) -> dict[str, dict[str, Any]]:
        """Return `{"crc": {row: crc}, "thumb": {row: hex}}` for a card's `facts`.

        The thumb is the mean level of each of 4 x 4 cells and 3 channels (48 bytes):
        `verify_views` with a tolerance above 0 compares it when the checksum differs.
        """
        crc = {str(int(r)): int(c) for r, c in zip(rows, self.checksum(views), strict=True)}
        thumb = {str(int(r)): _thumb(v).tobytes().hex() for r, v in zip(rows, views, strict=True)}
        return {"crc": crc, "thumb": thumb}

    def check_card(self, card: Card) -> None:
        """Raise `CardError` unless `card` has this configuration, order and version."""
        stored = type(self).from_card(card).config
        if stored.hash == self.config.hash:
            return
        mine, theirs = self.config.to_dict(), stored.to_dict()
        differing = [k for k in mine if mine[k] != theirs[k]]
        if "transforms" in differing:
            a, b = mine["transforms"], theirs["transforms"]
            differing = [f"transforms.{t}" for t in ORDER if a.get(t) != b.get(t)]
        key = differing[0]
        raise CardError(
            f"column '{card.column}': its views differ from the ones asked for in {key} "
            f"(stored {_dig(theirs, key)}, asked {_dig(mine, key)}): use the stored configuration "
            "or reinforce again under another set name."
        )

    def _check_dtype(self, params: np.ndarray) -> None:
        if params.dtype != self.dtype:
            raise CardError(
                f"view records have the fields {list(params.dtype.names or ())}, expected "
                f"{list(self.dtype.names or ())}: other transforms, order or version wrote them."
            )

    def _partner_images(
        self,
        params: np.ndarray,
        chosen: np.ndarray,
        partners: Sequence[Image | None] | None,
        names: Sequence[str],
    ) -> list[Image]:
        images: list[Image] = []
        for i in chosen:
            image = partners[i] if partners is not None and i < len(partners) else None
            if image is None:
                raise DataError(
                    f"{names[i]}: its mixed view needs the image of row {params['id2'][i]} (id2), "
                    "which is missing: pass partners=, or restore that row's image."
                )
            images.append(image)
        return images


class _PartnerNames(Sequence[Any]):
    """What errors call partners; a name is made when it is asked for, since names may be costly."""

    def __init__(self, names: Sequence[str], params: np.ndarray, chosen: np.ndarray) -> None:
        self.names, self.params, self.chosen = names, params, chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return _PartnerNames(self.names, self.params, self.chosen[i])
        return _PartnerName(self.names[self.chosen[i]], int(self.params["id2"][self.chosen[i]]))


class _PartnerName:
    def __init__(self, name: str, row: int) -> None:
        self.name, self.row = name, row

    def __format__(self, spec: str) -> str:
        return f"{self.name}'s partner row {self.row}"


def _dig(data: Any, dotted: str) -> Any:
    for key in dotted.split("."):
        data = data.get(key) if isinstance(data, Mapping) else None
    return data


def _thumb(view: np.ndarray) -> np.ndarray:
    """Return the mean levels `uint8 [4, 4, 3]` of a view's cells."""
    size = view.shape[0]
    edges = [round(i * size / 4) for i in range(5)]
    out = np.zeros((4, 4, 3), np.uint8)
    for y in range(4):
        for x in range(4):
            cell = view[edges[y] : edges[y + 1], edges[x] : edges[x + 1]]
            if cell.size:
                out[y, x] = np.rint(cell.reshape(-1, 3).mean(0, dtype=np.float64))
    return out


def verify_views(
    store: Store,
    view_set: str,
    tolerance: float = 0,
    *,
    image: str = "image",
    rows: Sequence[int] | None = None,
) -> list[str]:
    """Replay the checked sample of every view column of a set; return one sentence a problem.

    See `understudy.data.view_verify`, which does it.
    """
    from understudy.data import view_verify

    return view_verify.verify_views(store, view_set, tolerance, image=image, rows=rows)
