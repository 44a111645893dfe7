"""One map after another: v1 -> v2 -> v3, for items that only have the oldest embedding."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from understudy.core.config import check_choice, from_dict, to_dict
from understudy.core.errors import ConfigError
from understudy.models.embedding.compatible import CompatibleTransform, Parts, TransformConfig
from understudy.models.embedding.linear import LinearConfig, LinearTransform

Step = CompatibleTransform | LinearTransform
StepConfig = TransformConfig | LinearConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class ChainConfig:
    """Describe a chain.

    Attributes:
        steps: two or more maps' configurations, the oldest first.
    """

    steps: tuple[StepConfig, ...]

    def __post_init__(self) -> None:
        if len(self.steps) < 2:
            raise ConfigError(f"chain: expected two maps or more, got {len(self.steps)}.")
        for first, then in itertools.pairwise(self.steps):
            if first.new_dim != then.old_dim:
                raise ConfigError(
                    f"chain: a map gives {first.new_dim} numbers, the next one takes "
                    f"{then.old_dim}; they are not of one chain."
                )
            if then.side_dim:
                raise ConfigError(
                    "chain: a later map needs side information, which items that have only the "
                    "oldest embedding lack; fit that map without side information."
                )

    @property
    def old_dim(self) -> int:
        """Width of the oldest embedding."""
        return self.steps[0].old_dim

    @property
    def new_dim(self) -> int:
        """Width of the newest embedding."""
        return self.steps[-1].new_dim

    @property
    def side_dim(self) -> int:
        """Width of the first map's side information."""
        return self.steps[0].side_dim

    @property
    def uncertainty(self) -> bool:
        """Whether any of them predicts uncertainties."""
        return any(step.uncertainty for step in self.steps)

    @property
    def macs(self) -> int:
        """Multiplications of one item."""
        return sum(step.macs for step in self.steps)


class ChainTransform(nn.Module):
    """Maps, one after the other.

    Uncertainties are logarithms of expected losses. Those of several steps are combined as if the
    losses added up, log(exp(u1) + exp(u2)), which is exact for independent errors of one scale.

    Args:
        steps: the maps, the oldest first.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        super().__init__()
        self.config = ChainConfig(steps=tuple(step.config for step in steps))
        self.steps = nn.ModuleList(steps)

    def parts(self, old: Float[Tensor, "batch dim"], side: Tensor | None = None) -> Parts:
        """Return vectors of the newest space and uncertainties; see `CompatibleTransform.parts`.

        Args:
            old: oldest embeddings.
            side: the first map's side information.
        """
        z, total = old, None
        for number, step in enumerate(self.steps):
            z, u = step.parts(z, side if number == 0 else None)  # type: ignore[operator]
            if u is not None:
                total = u if total is None else torch.logaddexp(total, u)
        return z, total

    def forward(self, old: Tensor, side: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Return z, or (z, u)."""
        z, u = self.parts(old, side)
        return z if u is None else (z, u)

    def fold(self) -> ChainTransform:
        """Return the inference form."""
        folded = [step.fold() for step in self.steps]  # type: ignore[operator]
        return ChainTransform(folded).eval()


MapModule = CompatibleTransform | LinearTransform | ChainTransform
MapConfig = TransformConfig | LinearConfig | ChainConfig
_KINDS: dict[str, type] = {"transform": TransformConfig, "linear": LinearConfig}


def map_config_to_dict(config: MapConfig) -> dict[str, Any]:
    """Return plain data for a map's configuration, with its kind under `map`."""
    if isinstance(config, ChainConfig):
        return {"map": "chain", "steps": [map_config_to_dict(step) for step in config.steps]}
    kind = "linear" if isinstance(config, LinearConfig) else "transform"
    return {"map": kind, **to_dict(config)}


def map_config_from_dict(data: Mapping[str, Any], where: str = "map") -> MapConfig:
    """Build a map's configuration from plain data.

    Raises:
        ConfigError: an unknown kind or key, or values of the wrong type.
    """
    rest = dict(data)
    kind = rest.pop("map", "transform")
    check_choice(kind, (*_KINDS, "chain"), f"{where}: map")
    if kind == "chain":
        steps = [map_config_from_dict(step, where) for step in rest["steps"]]
        return ChainConfig(steps=tuple(steps))  # type: ignore[arg-type]
    return from_dict(_KINDS[kind], rest, where)


def build_map(config: MapConfig) -> MapModule:
    """Make a map's network, with weights that are to be replaced."""
    if isinstance(config, ChainConfig):
        return ChainTransform([build_map(step) for step in config.steps])  # type: ignore[misc]
    if isinstance(config, LinearConfig):
        return LinearTransform(config)
    return CompatibleTransform(config, seed=0)
