"""What every model of this package can do, whatever it computes."""

from __future__ import annotations

from typing import Any, Self

from jaxtyping import Float
from torch import Tensor, nn

from understudy.core.config import check_choice
from understudy.core.errors import ModelError
from understudy.models.fold import FOLD_MODES, FoldMode, fold_module
from understudy.models.image.pyramid import HasPyramid, Pyramid
from understudy.models.preprocess import Preprocess, to_tensor

UNFOLDED = "no"
FOLD_STATES = (UNFOLDED, *FOLD_MODES)


class Model(nn.Module):
    """A network with its configuration and input description.

    Attributes:
        config: the dataclass that it was built from; `config.preprocess` says what its images go
            through.
        fold_state: `"no"`, `"branches"` or `"all"`.
    """

    config: Any

    def __init__(self) -> None:
        super().__init__()
        self.fold_state = UNFOLDED

    @property
    def preprocess(self) -> Preprocess:
        """What images go through before the model."""
        return self.config.preprocess

    @property
    def is_folded(self) -> bool:
        """Whether this is the inference form."""
        return self.fold_state != UNFOLDED

    def preprocess_images(self, images: Any) -> Float[Tensor, "batch 3 size size"]:
        """Turn uint8 [B, H, W, 3], or a list of uint8 [H, W, 3], into the model's input."""
        return to_tensor(images, self.preprocess)

    def _backbone(self) -> HasPyramid:
        tower = getattr(self, "image", None)
        if not isinstance(tower, HasPyramid):
            raise ModelError(
                f"pyramid: {type(self).__name__} has no image tower with maps at several strides."
            )
        return tower

    @property
    def pyramid_strides(self) -> tuple[int, ...]:
        """Pixels per position of each map of `pyramid`; known without running anything."""
        return self._backbone().pyramid_strides

    @property
    def pyramid_channels(self) -> tuple[int, ...]:
        """Channels of each map of `pyramid`; known without running anything."""
        return self._backbone().pyramid_channels

    def pyramid(self, images: Float[Tensor, "batch 3 height width"]) -> Pyramid:
        """Return the image tower's (stride, map) pairs, in training or inference form.

        Args:
            images: normalised; any height and width that are multiples of the largest stride (pad
                first, crop the result).

        Returns:
            maps [batch, channels, height / stride, width / stride] in the tower's order: finest
            first; a ViT's maps all have one stride.

        Raises:
            ModelError: sides that are not multiples, or no such tower.
        """
        return self._backbone().pyramid(images)

    def fold(self, mode: FoldMode = "all") -> Self:
        """Return the inference form: a new model with equal outputs in eval mode.

        Args:
            mode: `"all"` leaves no batch normalisation; `"branches"` is the published
                re-parameterisation with the published parameter counts.

        Raises:
            ModelError: the model is in training mode, or is folded already.
        """
        check_choice(mode, FOLD_MODES, "fold")
        if self.is_folded:
            raise ModelError(
                f"fold: this model is folded already ('{self.fold_state}'); fold the unfolded one."
            )
        folded = fold_module(self, mode)
        folded.fold_state = mode
        return folded.eval()

    def train(self, mode: bool = True) -> Self:
        """Switch to training mode.

        Raises:
            ModelError: the model is folded; its branches are gone.
        """
        if mode and self.is_folded:
            raise ModelError(
                "train: this model is folded and cannot be trained as it was; load or keep the "
                "unfolded one."
            )
        return super().train(mode)
