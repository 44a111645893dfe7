"""Image tower configurations by kind, and how each is built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from understudy.core.config import check_choice, from_dict
from understudy.core.errors import ConfigError
from understudy.models.image.conv import ConvConfig, ConvTower
from understudy.models.image.mci import MciConfig, MciTower
from understudy.models.image.mlp import MlpConfig, MlpTower
from understudy.models.image.resnet import ResNetConfig, ResNetTower
from understudy.models.image.vit import VitTower
from understudy.models.image.vit_config import VitConfig

ImageConfig = MciConfig | VitConfig | ConvConfig | ResNetConfig | MlpConfig
CONFIGS = {
    "mci": MciConfig,
    "vit": VitConfig,
    "conv": ConvConfig,
    "resnet": ResNetConfig,
    "mlp": MlpConfig,
}
TOWERS = {
    MciConfig: MciTower,
    VitConfig: VitTower,
    ConvConfig: ConvTower,
    ResNetConfig: ResNetTower,
    MlpConfig: MlpTower,
}


def image_config(data: Mapping[str, Any], where: str) -> ImageConfig:
    """Build an image tower's configuration from plain data; `kind` chooses the class."""
    if "kind" not in data:
        raise ConfigError(f"{where}: missing key 'kind' (one of {', '.join(CONFIGS)}).")
    check_choice(data["kind"], CONFIGS, f"{where}.kind")
    return from_dict(CONFIGS[data["kind"]], data, where)


def image_tower(config: ImageConfig, out_dim: int) -> nn.Module:
    """Build an image tower whose output has `out_dim` channels (0: its pooled features)."""
    return TOWERS[type(config)](config, out_dim)  # type: ignore[arg-type]
