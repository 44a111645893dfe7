"""Heads on frozen features: identity, linear and small MLPs, for pooled vectors and for tokens.

A head maps a vector of width `in_dim` to one of width `out_dim`. For token features the same head
is applied to every valid token and the results are averaged; padding tokens never enter a head, so
they cannot move a batch normalisation either.

References:
    APE (4 to 6 layer MLPs on frozen encoders): NeurIPS 2022 workshop "Has it Trained Yet?".
    Token-level projectors followed by mean pooling: arXiv 2409.19425 ("freeze-align").
    Linear-BatchNorm-ReLU-Dropout blocks: arXiv 2410.07173 ("ShareLock").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError, DataError, ModelError
from understudy.models.layers import LayerNormFP32

KINDS = ("identity", "linear", "mlp", "sharelock", "freeze-align")
PLACEMENTS = ("pooled", "tokens")


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadConfig:
    """Describe a head.

    Attributes:
        kind: `"identity"` (widths must be equal), `"linear"`, `"mlp"`, `"sharelock"` or
            `"freeze-align"`.
        depth: linear layers of `"mlp"` and `"sharelock"`; the papers use 4 to 6.
        hidden: width between the layers of `"mlp"` and `"sharelock"`.
        activation: of `"mlp"`: `"gelu"` or `"relu"`.
        norm: of `"mlp"`, after the activation: `"layer"`, `"batch"` or `"none"`.
        dropout: rate after each block, in [0, 1); `"sharelock"` used 0.2, `"freeze-align"` 0.1.
        residual: of `"mlp"`: add a block's input to its output where the widths are equal.
        bias: whether the last linear layer (or the only one) has a bias.
    """

    kind: Literal["identity", "linear", "mlp", "sharelock", "freeze-align"] = "mlp"
    depth: int = 4
    hidden: int = 1024
    activation: Literal["gelu", "relu"] = "gelu"
    norm: Literal["layer", "batch", "none"] = "layer"
    dropout: float = 0.0
    residual: bool = False
    bias: bool = True

    def __post_init__(self) -> None:
        check_choice(self.kind, KINDS, "HeadConfig.kind")
        check_choice(self.activation, ("gelu", "relu"), "HeadConfig.activation")
        check_choice(self.norm, ("layer", "batch", "none"), "HeadConfig.norm")
        if self.depth < 1 or self.hidden < 1:
            raise ConfigError(
                f"HeadConfig: depth and hidden must be at least 1, got {self.depth} and "
                f"{self.hidden}."
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"HeadConfig.dropout: expected a rate in [0, 1), got {self.dropout}.")


IDENTITY = HeadConfig(kind="identity")
LINEAR = HeadConfig(kind="linear", bias=False)
SHARELOCK = HeadConfig(kind="sharelock", depth=4, hidden=4096, dropout=0.2)
FREEZE_ALIGN = HeadConfig(kind="freeze-align", dropout=0.1)


class Block(nn.Module):
    """Linear, activation, normalisation, dropout; with the input added where the widths agree.

    Args:
        in_dim: width of the input.
        out_dim: width of the output.
        config: activation, norm, dropout, residual.
    """

    def __init__(self, in_dim: int, out_dim: int, config: HeadConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(in_dim, out_dim)
        self.act = nn.GELU() if config.activation == "gelu" else nn.ReLU()
        norms = {"layer": LayerNormFP32, "batch": nn.BatchNorm1d}
        self.norm = norms[config.norm](out_dim) if config.norm in norms else nn.Identity()
        self.drop = nn.Dropout(config.dropout)
        self.residual = config.residual and in_dim == out_dim

    def forward(self, x: Float[Tensor, "rows in"]) -> Float[Tensor, "rows out"]:
        """Return the block's output."""
        out = self.drop(self.norm(self.act(self.linear(x))))
        return x + out if self.residual else out


class LockBlock(nn.Module):
    """Linear, batch normalisation, ReLU, dropout (ShareLock)."""

    def __init__(self, in_dim: int, out_dim: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(in_dim, out_dim)
        self.norm = nn.BatchNorm1d(out_dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "rows in"]) -> Float[Tensor, "rows out"]:
        """Return the block's output."""
        return self.drop(self.norm(self.linear(x)).relu())


class TokenProjector(nn.Module):
    """Layer norm, dropout, then a linear and a non-linear path added (freeze-align, per token)."""

    def __init__(self, in_dim: int, out_dim: int, config: HeadConfig) -> None:
        super().__init__()
        self.norm = LayerNormFP32(in_dim)
        self.drop = nn.Dropout(config.dropout)
        self.straight = nn.Linear(in_dim, out_dim, bias=config.bias)
        self.bent = nn.Sequential(
            nn.Linear(in_dim, out_dim), nn.GELU(), nn.Linear(out_dim, out_dim, bias=config.bias)
        )

    def forward(self, x: Float[Tensor, "rows in"]) -> Float[Tensor, "rows out"]:
        """Return the projected rows."""
        x = self.drop(self.norm(x))
        return self.straight(x) + self.bent(x)


class PooledProjector(nn.Module):
    """Linear, GELU, linear, dropout, skip, layer norm (freeze-align, for pooled vectors)."""

    def __init__(self, in_dim: int, out_dim: int, config: HeadConfig) -> None:
        super().__init__()
        self.first = nn.Linear(in_dim, out_dim, bias=config.bias)
        self.second = nn.Linear(out_dim, out_dim, bias=config.bias)
        self.act = nn.GELU()
        self.drop = nn.Dropout(config.dropout)
        self.norm = LayerNormFP32(out_dim)

    def forward(self, x: Float[Tensor, "rows in"]) -> Float[Tensor, "rows out"]:
        """Return the projected rows."""
        x = self.first(x)
        return self.norm(x + self.drop(self.second(self.act(x))))


def make_head(
    config: HeadConfig, in_dim: int, out_dim: int, placement: str = "pooled"
) -> nn.Module:
    """Make a head with fresh weights.

    Args:
        config: what to make.
        in_dim: width of the features.
        out_dim: width of the shared space.
        placement: `"pooled"` or `"tokens"`; decides which block `"freeze-align"` is.

    Raises:
        ModelError: an identity between different widths.
    """
    check_choice(placement, PLACEMENTS, "head placement")
    if config.kind == "identity":
        if in_dim != out_dim:
            raise ModelError(
                f"identity head: the features have {in_dim} numbers and the shared space "
                f"{out_dim}; make them equal or use a linear head."
            )
        return nn.Identity()
    if config.kind == "linear":
        return nn.Linear(in_dim, out_dim, bias=config.bias)
    if config.kind == "freeze-align":
        cls = TokenProjector if placement == "tokens" else PooledProjector
        return cls(in_dim, out_dim, config)
    layers: list[nn.Module] = []
    width = in_dim
    for _ in range(config.depth - 1):
        if config.kind == "sharelock":
            layers.append(LockBlock(width, config.hidden, config.dropout))
        else:
            layers.append(Block(width, config.hidden, config))
        width = config.hidden
    layers.append(nn.Linear(width, out_dim, bias=config.bias))
    return nn.Sequential(*layers)


def head_parameters(
    config: HeadConfig, in_dim: int, out_dim: int, placement: str = "pooled"
) -> int:
    """Return the number of a head's parameters, by formula.

    With L layers of hidden width h an MLP has `in h + (L - 2) h^2 + h out` weights, `(L - 1) h`
    biases, `out` more for a last bias, and `2 (L - 1) h` for the norms.
    """
    check_choice(placement, PLACEMENTS, "head placement")
    last = out_dim if config.bias else 0
    if config.kind == "identity":
        return 0
    if config.kind == "linear" or (config.kind in ("mlp", "sharelock") and config.depth == 1):
        return in_dim * out_dim + last
    if config.kind == "freeze-align":
        square = out_dim * out_dim
        if placement == "tokens":
            return 2 * in_dim + 2 * in_dim * out_dim + square + out_dim + 2 * last
        return in_dim * out_dim + square + 2 * last + 2 * out_dim
    hidden, inner = config.hidden, config.depth - 2
    weights = in_dim * hidden + inner * hidden * hidden + hidden * out_dim
    normed = config.kind == "sharelock" or config.norm != "none"
    return weights + (config.depth - 1) * hidden * (3 if normed else 1) + last


def mean_tokens(
    tokens: Float[Tensor, "batch length dim"], mask: Bool[Tensor, "batch length"] | None
) -> Float[Tensor, "batch dim"]:
    """Return the mean over valid tokens; what padding holds does not matter, NaN included.

    Raises:
        DataError: a row has no valid token.
    """
    if mask is None:
        return tokens.mean(1)
    counts = valid_counts(mask)
    return tokens.masked_fill(~mask[..., None], 0.0).sum(1) / counts[:, None].to(tokens.dtype)


def valid_counts(mask: Bool[Tensor, "batch length"]) -> Tensor:
    """Return the number of valid tokens of each row.

    Raises:
        DataError: a row has none.
    """
    counts = mask.sum(1)
    if bool((counts == 0).any()):
        row = int((counts == 0).int().argmax())
        raise DataError(
            f"token mask: batch position {row} is all padding; drop the sample or check the "
            "encoder's mask."
        )
    return counts


def apply_to_tokens(
    head: nn.Module,
    tokens: Float[Tensor, "batch length in"],
    mask: Bool[Tensor, "batch length"] | None,
) -> Float[Tensor, "batch out"]:
    """Apply `head` to every valid token and average.

    Args:
        head: maps [rows, in] to [rows, out].
        tokens: last-layer vectors, padded.
        mask: true where a token is valid; None if all are.

    Raises:
        DataError: a row has no valid token.
    """
    batch, length = tokens.shape[:2]
    if mask is None:
        return head(tokens.flatten(0, 1)).unflatten(0, (batch, length)).mean(1)
    counts = valid_counts(mask)
    projected = head(tokens[mask])
    full = projected.new_zeros(batch, length, projected.shape[-1])
    full = torch.masked_scatter(full, mask[..., None].expand_as(full), projected)
    return full.sum(1) / counts[:, None].to(full.dtype)
