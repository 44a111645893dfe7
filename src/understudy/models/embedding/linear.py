"""A linear map between embedding spaces, fitted in closed form (`understudy.update.linear`)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError, DataError

KINDS = ("least-squares", "orthogonal")


@dataclass(frozen=True, kw_only=True, slots=True)
class LinearConfig:
    """Describe a linear map.

    Attributes:
        old_dim: width of the old embedding.
        new_dim: width of the new embedding.
        side_dim: width of side information, appended to the old embedding; 0 for none.
        kind: `least-squares`, or `orthogonal` (a rotation; one with orthonormal rows or columns
            where the widths differ), which takes no side information.
    """

    old_dim: int
    new_dim: int
    side_dim: int = 0
    kind: str = "least-squares"

    def __post_init__(self) -> None:
        check_choice(self.kind, KINDS, "LinearConfig.kind")
        for name, least in (("old_dim", 1), ("new_dim", 1), ("side_dim", 0)):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"LinearConfig.{name}: expected at least {least}, got {getattr(self, name)}."
                )
        if self.kind == "orthogonal" and self.side_dim:
            raise ConfigError(
                "LinearConfig: an orthogonal map turns one space into another and takes no side "
                "information; leave it out, or fit 'least-squares'."
            )

    @property
    def uncertainty(self) -> bool:
        """Whether it predicts uncertainties: a linear map does not."""
        return False

    @property
    def macs(self) -> int:
        """Multiplications of one item."""
        return (self.old_dim + self.side_dim) * self.new_dim


class LinearTransform(nn.Module):
    """z = W [old, side] + b.

    Args:
        config: widths.
    """

    def __init__(self, config: LinearConfig) -> None:
        super().__init__()
        self.config = config
        self.linear = nn.Linear(config.old_dim + config.side_dim, config.new_dim)

    def parts(
        self,
        old: Float[Tensor, "batch old_dim"],
        side: Float[Tensor, "batch side_dim"] | None = None,
    ) -> tuple[Tensor, None]:
        """Return mapped vectors [batch, new_dim], and no uncertainties.

        Raises:
            DataError: widths that are not the map's, or no side information where it needs some.
        """
        config = self.config
        if old.shape[-1] != config.old_dim:
            raise DataError(
                f"map: old vectors of {old.shape[-1]} numbers, the map takes {config.old_dim}; "
                "give the column that it was fitted to."
            )
        if not config.side_dim:
            return self.linear(old), None
        if side is None or side.shape[-1] != config.side_dim:
            got = "none" if side is None else f"{side.shape[-1]} numbers"
            raise DataError(
                f"map: side information of {config.side_dim} numbers is needed, got {got}."
            )
        weight = self.linear.weight
        first = F.linear(old, weight[:, : config.old_dim], self.linear.bias)
        return torch.addmm(first, side, weight[:, config.old_dim :].T), None

    def forward(self, old: Tensor, side: Tensor | None = None) -> Tensor:
        """Return mapped vectors."""
        return self.parts(old, side)[0]

    def fold(self) -> LinearTransform:
        """Return itself: there is nothing to fold."""
        return self
