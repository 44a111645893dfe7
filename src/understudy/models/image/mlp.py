"""Fully connected towers for pictures of some 8 pixels, such as scans of digits."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from understudy.core.errors import ConfigError, ModelError


@dataclass(frozen=True, kw_only=True, slots=True)
class MlpConfig:
    """Describe a tower of linear layers and ReLUs.

    Attributes:
        kind: always `"mlp"`.
        image_size: side of the square input in pixels; no other works.
        hidden: widths of the hidden layers.
        embed_dim: width of the embedding.
        gray: average the colours first, so that a picture is image_size^2 numbers.
        last_nonlin: whether a ReLU ends the tower, so that embeddings are not negative.
        head_bias: whether the final linear layer has a bias.
    """

    kind: Literal["mlp"] = "mlp"
    image_size: int = 8
    hidden: tuple[int, ...] = (32,)
    embed_dim: int = 8
    gray: bool = True
    last_nonlin: bool = False
    head_bias: bool = False

    def __post_init__(self) -> None:
        sizes = {"image_size": self.image_size, "embed_dim": self.embed_dim}
        sizes |= {f"hidden[{i}]": width for i, width in enumerate(self.hidden)}
        for name, size in sizes.items():
            if size < 1:
                raise ConfigError(f"MlpConfig.{name}: expected at least 1, got {size}.")

    @property
    def width(self) -> int:
        """Number of features before the head."""
        return self.embed_dim

    @property
    def inputs(self) -> int:
        """Numbers of one picture."""
        return self.image_size**2 * (1 if self.gray else 3)


class MlpTower(nn.Module):
    """Images to embeddings by linear layers.

    Args:
        config: the sizes.
        out_dim: number of classes; 0 returns the embedding itself.
    """

    def __init__(self, config: MlpConfig, out_dim: int) -> None:
        super().__init__()
        self.config = config
        parts: list[nn.Module] = []
        for a, b in pairwise((config.inputs, *config.hidden, config.embed_dim)):
            parts += [nn.Linear(a, b), nn.ReLU()]
        self.layers = nn.Sequential(*(parts if config.last_nonlin else parts[:-1]))
        head = nn.Linear(config.width, out_dim, bias=config.head_bias) if out_dim else None
        self.head = nn.Identity() if head is None else head

    def features(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch features"]:
        """Return the embedding, not normalised.

        Raises:
            ModelError: pictures of another size.
        """
        side = self.config.image_size
        if x.shape[-2:] != (side, side):
            raise ModelError(
                f"mlp: pictures of {list(x.shape[-2:])} pixels for a tower of {side} x {side}; its "
                "first layer fixes the size."
            )
        return self.layers((x.mean(1) if self.config.gray else x).flatten(1))

    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch out"]:
        """Return the logits, or the embedding where there is no head."""
        return self.head(self.features(x))
