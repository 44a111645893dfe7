"""The released reinforced sets: how many views and probabilities, of which kind, of which images.

>>> from understudy.recipes.dataset_reinforcement_sets import RELEASED, generation
>>> RELEASED["paper-small"].num_views, RELEASED["paper-small"].kept
(100, 5)
>>> generation("cifar100").views.transforms["random_crop"]["padding"]
16

Numbers: arXiv 2303.08983 and the files that were released with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from understudy.core.config import check_choice

if TYPE_CHECKING:
    from understudy.data.view_config import ViewConfig
    from understudy.reinforce.config import ReinforceConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Released:
    """One released set.

    Attributes:
        data: the labelled set.
        images: of its training split.
        classes: of it.
        num_views: NS, stored views an image.
        kept: K, probabilities kept of each view.
        part: views of one released part; the parts together have NS.
        variant: kind of view, see `dataset_reinforcement_views.VARIANTS`.
        padded: views are crops of the enlarged, padded image (CIFAR), not of a random part.
        batch_size: images that were reinforced at once; `generation` shows teachers that many views
            at a time.
        epochs: that students were trained for; one of those studied.
        train_batch: images of a step of theirs.
        published_gb: size of the released files, 10^9 B of gzipped pickles.
    """

    data: str = "ImageNet-1k"
    images: int = 1_281_167
    classes: int = 1_000
    num_views: int = 400
    kept: int = 10
    part: int = 50
    variant: str = "ra-re"
    padded: bool = False
    batch_size: int = 32
    epochs: int = 300
    train_batch: int = 1_024
    published_gb: float

    def views(self, size: int = 224) -> ViewConfig:
        """Return what a view is made of.

        Args:
            size: side in pixels.
        """
        from understudy.recipes.dataset_reinforcement import views

        changes: dict[str, Any] = {}
        if self.padded:
            changes = {"random_resized_crop": None, "random_crop": {"padding": 16}}
        return views(self.variant, size, **changes)


def _imagenet() -> dict[str, Released]:
    """Return the twelve ImageNet+ sets: four kinds of view, three sizes."""
    sizes = {
        "": {"num_views": 400, "kept": 10, "epochs": 300},
        "-small": {"num_views": 100, "kept": 5, "epochs": 150},
        "-mini": {"num_views": 50, "kept": 10, "epochs": 150},
    }
    published = {
        "rrc": (33.4, 4.7, 4.4),
        "mix": (46.3, 7.8, 6.1),
        "ra-re": (37.5, 5.6, 4.9),
        "mix-ra-re": (53.3, 9.4, 7.0),
    }
    return {
        ("paper" if kind == "ra-re" else f"paper-{kind}") + tail: Released(
            variant=kind, published_gb=gb, **numbers
        )
        for kind, sizes_gb in published.items()
        for (tail, numbers), gb in zip(sizes.items(), sizes_gb, strict=True)
    }


_SMALL: dict[str, Any] = {"train_batch": 256, "epochs": 1_000, "num_views": 800, "part": 100}
RELEASED: Mapping[str, Released] = MappingProxyType(
    {
        **_imagenet(),
        "cifar100": Released(
            data="CIFAR-100", images=50_000, classes=100, padded=True, published_gb=2.5, **_SMALL
        ),
        "food101": Released(
            data="Food-101", images=75_750, classes=101, published_gb=4.2, **_SMALL
        ),
        "flowers102": Released(
            data="Flowers-102",
            images=1_020,
            classes=102,
            published_gb=0.5,
            batch_size=16,
            **{**_SMALL, "epochs": 10_000, "num_views": 8_000, "part": 1_000},
        ),
    }
)
"""Released sets by name; `paper`, `paper-small` and `paper-mini` are ImageNet+ RA/RE."""


def generation(name: str, size: int = 224, **changes: Any) -> ReinforceConfig:
    """Return the generation settings of a released set, to be given teachers.

    Args:
        name: a key of `RELEASED`.
        size: side of the views in pixels.
        **changes: other fields of the configuration, such as `teachers` or `rows`.

    Raises:
        ConfigError: no such set; the message lists them.
    """
    from understudy.reinforce.config import ReinforceConfig

    check_choice(name, RELEASED, "released set")
    found = RELEASED[name]
    values: dict[str, Any] = {
        "num_views": found.num_views,
        "views": found.views(size),
        "topk": found.kept,
        "num_classes": found.classes,
        "batch_size": found.batch_size,
    }
    return ReinforceConfig(**{**values, **changes})
