"""Random shifts and noise of a batch of pictures, on whatever device it is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from understudy.core.errors import ConfigError
from understudy.models.preprocess import Preprocess


class ViewNoise:
    """Shift each picture by whole pixels and add Gaussian noise.

    Draws come from torch's global generator, which the loop seeds by step.

    Args:
        preprocess: how the pictures were normalised; what comes in from outside is black.
        shift: largest shift in pixels, in both directions.
        noise: standard deviation, pixels being 0 to 1.
    """

    def __init__(self, preprocess: Preprocess, *, shift: int = 0, noise: float = 0.0) -> None:
        if shift < 0 or noise < 0:
            raise ConfigError(
                f"views: shift {shift} and noise {noise} must be at least 0 pixels and 0."
            )
        self.shift, self.noise = shift, noise
        self._std = torch.tensor(preprocess.std).reshape(1, 3, 1, 1)
        self._black = -torch.tensor(preprocess.mean).reshape(1, 3, 1, 1) / self._std

    def __call__(self, images: Float[Tensor, "batch 3 h w"]) -> Float[Tensor, "batch 3 h w"]:
        """Return another view of the pictures."""
        if self.shift:
            images = self._shifted(images)
        if self.noise:
            images = images + torch.randn_like(images) * (self.noise * self._std.to(images.device))
        return images

    def _shifted(self, images: Tensor) -> Tensor:
        count, _, height, width = images.shape
        device, black = images.device, self._black.to(images.device)
        padded = F.pad(images - black, [self.shift] * 4)
        starts = torch.randint(2 * self.shift + 1, (2, count, 1), device=device)
        rows = (starts[0] + torch.arange(height, device=device))[:, :, None]
        columns = (starts[1] + torch.arange(width, device=device))[:, None, :]
        each = torch.arange(count, device=device)[:, None, None]
        return padded.permute(0, 2, 3, 1)[each, rows, columns].permute(0, 3, 1, 2) + black
