"""The transformation h of compatible updates: (old embedding, side information) -> new embedding.

    from understudy.models.embedding.compatible import CompatibleTransform, TransformConfig
    h = CompatibleTransform(TransformConfig(old_dim=128, new_dim=128, uncertainty=True), seed=0)
    z, u = h.parts(old)                   # u is the logarithm of the expected loss of an item

A block(i -> o) is Linear(i, o) without bias, batch normalisation and ReLU:

| branch | layers |
| --- | --- |
| p1, of the old embedding | block(o -> 2 o), block(2 o -> 2 n) |
| p2, of the side information | block(s -> 2 s), block(2 s -> 2 n) |
| mixer, of both [4 n] | block(4 n -> inner), block(inner -> inner), Linear(inner -> n) with bias |

Without side information the old embedding is given twice, as published. The uncertainty head is one
Linear(n -> 1) of the result.

References:
    FCT, arXiv 2112.02805 (the network, as in the published code's `models/transformations.py`).
    FastFill, arXiv 2303.04766 (the uncertainty head).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from understudy.core.errors import ConfigError, DataError, ModelError
from understudy.core.seeds import seed_for
from understudy.models.fold import FoldMode, batchnorm_affine, fold_module

Parts = tuple[Tensor, Tensor | None]
"""Mapped vectors [N, new_dim], and uncertainties [N] where there is a head for them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformConfig:
    """Describe the transformation.

    Attributes:
        old_dim: width of the old embedding.
        new_dim: width of the new embedding.
        side_dim: width of the side information; 0 gives the old embedding twice.
        inner: width of the mixer's hidden layers.
        uncertainty: also predict the logarithm of each item's expected loss.
    """

    old_dim: int
    new_dim: int
    side_dim: int = 0
    inner: int = 2048
    uncertainty: bool = False

    def __post_init__(self) -> None:
        for name, least in (("old_dim", 1), ("new_dim", 1), ("side_dim", 0), ("inner", 1)):
            value = getattr(self, name)
            if value < least:
                raise ConfigError(
                    f"TransformConfig.{name}: expected at least {least}, got {value}."
                )

    @property
    def second_dim(self) -> int:
        """Width of what the second branch is given."""
        return self.side_dim or self.old_dim

    @property
    def macs(self) -> int:
        """Multiplications of one item: the size of all matrices."""
        o, s, n, m = self.old_dim, self.second_dim, self.new_dim, self.inner
        branches = 2 * o * o + 4 * o * n + 2 * s * s + 4 * s * n
        return branches + 4 * n * m + m * m + m * n + (n if self.uncertainty else 0)


def count_parameters(config: TransformConfig) -> int:
    """Return the number of trainable parameters, by formula.

    With o, s, n and m for old, side, new and inner width:
    [2o^2 + 4o + 4on + 4n] + [2s^2 + 4s + 4sn + 4n] + [4nm + 2m] + [m^2 + 2m] + [mn + n], and n + 1
    for the uncertainty head.
    """
    o, s, n, m = config.old_dim, config.second_dim, config.new_dim, config.inner
    branches = sum(2 * d * d + 4 * d + 4 * d * n + 4 * n for d in (o, s))
    mixer = 4 * n * m + 2 * m + m * m + 2 * m + m * n + n
    return branches + mixer + (n + 1 if config.uncertainty else 0)


class Block(nn.Module):
    """Linear without bias, batch normalisation, ReLU.

    Args:
        width: of the input.
        out: of the output.
    """

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, out, bias=False)
        self.norm = nn.BatchNorm1d(out)

    def forward(self, x: Float[Tensor, "batch width"]) -> Float[Tensor, "batch out"]:
        """Return the block's output."""
        return F.relu(self.norm(self.linear(x)))

    def folded(self, mode: FoldMode) -> nn.Module:
        """Return one affine map and ReLU with the running statistics inside; either mode."""
        scale, shift = batchnorm_affine(self.norm)  # type: ignore[arg-type]
        weight = self.linear.weight
        new = FoldedBlock(weight.shape[1], weight.shape[0]).to(weight)
        new.linear.weight = nn.Parameter((weight.double() * scale[:, None]).to(weight.dtype))
        new.linear.bias = nn.Parameter(shift.to(weight.dtype))
        return new.eval()


class FoldedBlock(nn.Module):
    """Linear with bias, ReLU in place: the inference form of `Block`.

    Args:
        width: of the input.
        out: of the output.
    """

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, out)

    def forward(self, x: Float[Tensor, "batch width"]) -> Float[Tensor, "batch out"]:
        """Return the block's output."""
        return self.linear(x).relu_()


class CompatibleTransform(nn.Module):
    """The transformation h.

    Args:
        config: widths.
        seed: of the weights; None draws from torch's global generator.

    Attributes:
        is_folded: whether this is the inference form.
    """

    def __init__(self, config: TransformConfig, seed: int | None = None) -> None:
        super().__init__()
        self.config, self.is_folded = config, False
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed_for("transform", seed))
            n, m = config.new_dim, config.inner
            self.p1 = self._branch(config.old_dim, n)
            self.p2 = self._branch(config.second_dim, n)
            self.mixer = nn.Sequential(Block(4 * n, m), Block(m, m), nn.Linear(m, n))
            self.uncertainty = nn.Linear(n, 1) if config.uncertainty else None

    @staticmethod
    def _branch(width: int, new_dim: int) -> nn.Sequential:
        return nn.Sequential(Block(width, 2 * width), Block(2 * width, 2 * new_dim))

    def _check(self, old: Tensor, side: Tensor | None) -> Tensor:
        config = self.config
        if old.shape[-1] != config.old_dim:
            raise DataError(
                f"map: old vectors of {old.shape[-1]} numbers, the map takes {config.old_dim}; "
                "give the column that it was trained on."
            )
        if config.side_dim and side is None:
            raise DataError(
                f"map: it needs side information of {config.side_dim} numbers; give it, or train "
                "a map without."
            )
        if side is None or not config.side_dim:
            return old
        if side.shape[-1] != config.side_dim:
            raise DataError(
                f"map: side information of {side.shape[-1]} numbers, the map takes "
                f"{config.side_dim}."
            )
        return side

    def parts(
        self,
        old: Float[Tensor, "batch old_dim"],
        side: Float[Tensor, "batch side_dim"] | None = None,
    ) -> Parts:
        """Return mapped vectors [batch, new_dim] and uncertainties [batch], or None for these.

        Args:
            old: old embeddings.
            side: side information; not looked at by a map without.

        Raises:
            DataError: widths that are not the map's, or no side information where it needs some.
        """
        second = self._check(old, side)
        z = self.mixer(torch.cat([self.p1(old), self.p2(second)], dim=-1))
        return z, None if self.uncertainty is None else self.uncertainty(z).squeeze(-1)

    def forward(self, old: Tensor, side: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Return z, or (z, u) with an uncertainty head; see `parts`."""
        z, u = self.parts(old, side)
        return z if u is None else (z, u)

    def fold(self) -> CompatibleTransform:
        """Return the inference form: batch normalisation inside the matrices, equal in eval mode.

        Raises:
            ModelError: in training mode, or folded already.
        """
        if self.is_folded:
            raise ModelError("fold: this map is folded already; fold the one it was folded from.")
        folded = fold_module(self)
        folded.is_folded = True
        return folded

    def train(self, mode: bool = True) -> Self:
        """Switch to training mode.

        Raises:
            ModelError: the map is folded.
        """
        if mode and self.is_folded:
            raise ModelError("train: this map is folded and cannot be trained; keep the unfolded.")
        return super().train(mode)
