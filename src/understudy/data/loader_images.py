"""The field of images: stored views replayed, other crops drawn, or a plain preprocessing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from understudy.core.config import check_choice
from understudy.core.errors import CardError, ConfigError, DataError
from understudy.data.decode import image_size
from understudy.data.knowledge import view_column
from understudy.data.loader_plan import Binding, Plan, RowNames, Want
from understudy.data.loader_read import Cells
from understudy.data.view_config import ViewConfig
from understudy.data.view_verify import partner_images, view_columns
from understudy.data.views import ViewPipeline

logger = logging.getLogger(__name__)
_PIXEL_KEYS = ("decoder", "simplejpeg", "pillow", "resize", "views_version")


@dataclass(frozen=True, kw_only=True)
class Images:
    """Normalised images, float32 `[B, 3, size, size]`.

    Attributes:
        column: payload column of encoded images.
        size: side in pixels.
        view_set: set of stored views to replay; None makes every image with `plain`.
        mean: subtracted per channel after scaling to [0, 1].
        std: divided by per channel after that.
        plain: augmentation of images that replay nothing, drawn from (seed, epoch, row). Left out,
            it is a random resized crop and a flip beside a view set, and without one the
            deterministic resize and centre crop of an evaluation.
        views: the configuration that the stored views must have; None takes any.
        rescale: allow another size than the stored one (translations and boxes are scaled).
        replay: `"stored"`, or `"fresh"` to draw other crops and operations of the same
            configuration while targets stay those of the stored views: a control that shows what
            exact replay is worth.
        key: name in the batch.
    """

    column: str = "image"
    size: int
    view_set: str | None = None
    mean: Sequence[float] = (0.0, 0.0, 0.0)
    std: Sequence[float] = (1.0, 1.0, 1.0)
    plain: ViewConfig | None = None
    views: ViewConfig | None = None
    rescale: bool = False
    replay: Literal["stored", "fresh"] = "stored"
    key: str = "images"

    def __post_init__(self) -> None:
        check_choice(self.replay, ("stored", "fresh"), "Images.replay")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise ConfigError(
                f"Images: expected three means and three positive stds, got {tuple(self.mean)} and "
                f"{tuple(self.std)}."
            )
        if self.size < 1:
            raise ConfigError(f"Images.size: expected at least 1 pixel, got {self.size}.")
        if self.view_set is None and (self.replay == "fresh" or self.views is not None):
            raise ConfigError("Images: 'replay' and 'views' are about stored views; set view_set.")
        if self.plain is not None and self.plain.mixes:
            raise ConfigError(
                "Images.plain: mixup and cutmix would need mixed targets; mix batches in training "
                "(understudy.train.mixing) or inside the reinforcement."
            )

    def bind(self, binding: Binding) -> ImageReader:
        """Check the cards of the stored views and return the reader."""
        return ImageReader(self, binding)

    def plain_config(self) -> ViewConfig:
        """Return the configuration of images that replay nothing."""
        if self.plain is not None:
            return self.plain
        fixed: dict[str, dict] = {"resize": {}, "center_crop": {}}
        drawn: dict[str, dict] = {"random_resized_crop": {}, "random_horizontal_flip": {}}
        return ViewConfig(size=self.size, transforms=fixed if self.view_set is None else drawn)


def stored_pipeline(field: Images, binding: Binding) -> ViewPipeline:
    """Check every view that the sampler asks for and return the pipeline that replays them.

    Raises:
        CardError: there is no such set or view, the views of the set differ, or they are not what
            `Images.views` asks for.
        ConfigError: another size without `rescale`.
    """
    assert field.view_set is not None
    known = view_columns(binding.store, field.view_set)
    pipeline: ViewPipeline | None = None
    for k in binding.views:
        column = view_column(field.view_set, k)
        if column not in known:
            raise CardError(
                f"view set '{field.view_set}' has {len(known)} stored views and the sampler asks "
                f"for view {k}: set the sampler's num_views to {len(known)}, or reinforce with "
                "more."
            )
        card = binding.card(column, set=field.view_set, k=k)
        found = ViewPipeline.from_card(card)
        if field.views is not None:
            ViewPipeline(field.views).check_card(card)
        if pipeline is None:
            pipeline = found
            _warn_of_other_libraries(card.backend, found.backend, column)
        pipeline.check_card(card)
        binding.view_cards[k] = card
    assert pipeline is not None
    if pipeline.config.size != field.size and not field.rescale:
        raise ConfigError(
            f"view set '{field.view_set}' was stored at {pipeline.config.size} pixels and Images "
            f"asks for {field.size}: set rescale=True to scale translations and boxes, or use the "
            "stored size."
        )
    return pipeline


def _warn_of_other_libraries(stored: dict, here: dict, column: str) -> None:
    changed = [
        f"{k} {stored[k]} -> {here[k]}" for k in _PIXEL_KEYS if stored.get(k, here[k]) != here[k]
    ]
    if changed:
        logger.warning(
            "%s was written with other libraries (%s); `understudy reinforce --verify` says "
            "whether views still replay bit for bit",
            column,
            ", ".join(changed),
        )


def normalise(pixels: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Return (x / 255 - mean) / std of levels float32 `[B, 3, S, S]`, in place."""
    pixels /= np.float32(255)
    if any(mean):
        pixels -= np.asarray(mean, np.float32).reshape(3, 1, 1)
    if any(s != 1.0 for s in std):
        pixels /= np.asarray(std, np.float32).reshape(3, 1, 1)
    return pixels


class ImageReader:
    """`Images`, bound to a store."""

    def __init__(self, field: Images, binding: Binding) -> None:
        self.field, self.store = field, binding.store
        self.keys = (field.key,)
        self.stored: ViewPipeline | None = None
        columns = [field.column]
        if field.view_set is not None:
            self.stored = stored_pipeline(field, binding)
            if field.replay == "stored":
                columns += [view_column(field.view_set, k) for k in binding.views]
        self.columns = tuple(columns)
        config = field.plain_config()
        if config.size != field.size and not field.rescale:
            raise ConfigError(
                f"Images.plain makes views of {config.size} pixels and Images asks for "
                f"{field.size}: give both the same size, or set rescale=True."
            )
        self.plain = ViewPipeline(config)

    def wants(self, plan: Plan) -> list[Want]:
        """Ask for the images, and for the records of the views in use."""
        wanted = [Want(self.field.column)]
        if self.stored is not None and self.field.replay == "stored":
            assert self.field.view_set is not None
            for k, places in plan.by_view():
                wanted.append(Want(view_column(self.field.view_set, k), places))
        return wanted

    def make(self, plan: Plan, got: list[Cells]) -> dict[str, Any]:
        """Decode, replay or draw, and normalise."""
        files = got[0].to_pylist()
        size = plan.size or self.field.size
        plain = np.ones(len(files), bool) if self.stored is None else plan.plain
        parts: list[tuple[np.ndarray, np.ndarray]] = []
        if plain.any():
            where = np.flatnonzero(plain)
            seeds = plan.draws("augment")[where]
            parts.append((where, self._drawn(self.plain, files, where, seeds, plan.rows, size)))
        if not plain.all():
            where = np.flatnonzero(~plain)
            parts.append((where, self._views(plan, files, where, got[1:], size)))
        if len(parts) == 1:
            pixels = parts[0][1].astype(np.float32)
        else:
            pixels = np.empty((len(files), 3, size, size), np.float32)
            for where, views in parts:
                pixels[where] = views
        return {self.field.key: normalise(pixels, self.field.mean, self.field.std)}

    def _views(
        self,
        plan: Plan,
        files: list[bytes],
        where: np.ndarray,
        records: list[Cells],
        size: int,
    ) -> np.ndarray:
        pipeline = self.stored
        assert pipeline is not None
        if self.field.replay == "fresh":
            return self._drawn(pipeline, files, where, plan.draws("fresh")[where], plan.rows, size)
        params = np.empty(len(files), pipeline.dtype)
        for (k, places), column in zip(plan.by_view(), records, strict=True):
            try:
                found = pipeline.unpack(column.numpy())
            except DataError as error:
                raise DataError(f"{view_column(self.field.view_set or '', k)}: {error}") from None
            params[slice(None) if places is None else places] = found
        return self._apply(pipeline, files, params[where], where, plan.rows, size)

    def _drawn(
        self,
        pipeline: ViewPipeline,
        files: list[bytes],
        where: np.ndarray,
        seeds: np.ndarray,
        rows: np.ndarray,
        size: int,
    ) -> np.ndarray:
        """Draw records from seeds instead of reading them."""
        names = RowNames(self.store, rows[where])
        sizes = [image_size(files[i], names[j]) for j, i in enumerate(where)]
        partners = None
        if pipeline.config.mixes:
            chosen = pipeline.draw_partners(seeds, self.store.num_rows, rows[where])
            data = self.store.take(chosen, [self.field.column]).column(0).to_pylist()
            labels = RowNames(self.store, chosen)
            partners = (chosen, [image_size(d, labels[i]) for i, d in enumerate(data)])
        params = pipeline.sample(sizes, seeds, partners, names=names)
        return self._apply(pipeline, files, params, where, rows, size)

    def _apply(
        self,
        pipeline: ViewPipeline,
        files: list[bytes],
        params: np.ndarray,
        where: np.ndarray,
        rows: np.ndarray,
        size: int,
    ) -> np.ndarray:
        names = RowNames(self.store, rows[where])
        views = pipeline.apply(
            [files[i] for i in where],
            params,
            size=size,
            rescale=self.field.rescale,
            partners=partner_images(self.store, self.field.column, params, names),
            names=names,
        )
        return views.transpose(0, 3, 1, 2)

    def describe(self) -> dict[str, Any]:
        """Return the field's settings and its configurations."""
        field = self.field
        return {
            "images": field.column,
            "size": field.size,
            "mean": list(field.mean),
            "std": list(field.std),
            "view_set": field.view_set,
            "replay": field.replay,
            "rescale": field.rescale,
            "plain": self.plain.config.to_dict(),
        }
