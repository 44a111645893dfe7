"""An image tower with a classification head."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from understudy.core.errors import ConfigError
from understudy.models.base import Model
from understudy.models.families import check_family
from understudy.models.preprocess import Preprocess
from understudy.models.towers import ImageConfig, image_tower


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierConfig:
    """Describe a classifier.

    Attributes:
        name: a name for people and reports.
        num_classes: width of the output; 0 for a tower without a head.
        image: the image tower.
        preprocess: what images go through.
        classes: names of the classes, if they are known; one each.
        weights: name of the released checkpoint that the weights came from; empty for own
            training. Released weights pin `preprocess`.
    """

    name: str
    num_classes: int
    image: ImageConfig
    preprocess: Preprocess
    classes: tuple[str, ...] = ()
    weights: str = ""

    def __post_init__(self) -> None:
        if self.num_classes < 0:
            raise ConfigError(
                f"ClassifierConfig.num_classes: expected at least 0, got {self.num_classes}."
            )
        if self.classes and len(self.classes) != self.num_classes:
            raise ConfigError(
                f"ClassifierConfig.classes: {len(self.classes)} names for {self.num_classes} "
                "classes."
            )
        if self.weights:
            check_family(self.weights, self.preprocess)


class Classifier(Model):
    """Images to class logits.

    Args:
        config: tower and sizes.
    """

    config: ClassifierConfig

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.image = image_tower(config.image, config.num_classes)

    def features(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch features"]:
        """Return the pooled features before the head."""
        return self.image.features(images)  # type: ignore[operator]

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> dict[str, Tensor]:
        """Return `logits`, or `features` if the tower has no head."""
        key = "logits" if self.config.num_classes else "features"
        return {key: self.image(images)}
