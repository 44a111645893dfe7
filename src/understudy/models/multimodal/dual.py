"""Towers under an aligner: frozen, tuned or fresh, for training without a cache.

The comparison arms of APE differ only in which towers learn: none (APE, linear), the text tower
(LiT, arXiv 2111.07991), both (CLIP from scratch, arXiv 2103.00020).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Self

import torch
from torch import Tensor, nn

from understudy.core.errors import ConfigError, ModelError
from understudy.models.multimodal.aligner import Aligner


def freeze(module: nn.Module) -> nn.Module:
    """Put a module into eval mode without gradients, and return it."""
    return module.requires_grad_(False).eval()


def check_frozen(module: nn.Module, name: str) -> None:
    """Refuse an encoder that could change while it is called frozen.

    Raises:
        ModelError: a part is in training mode (batch normalisation and dropout would be active) or
            a parameter takes gradients.
    """
    for part, child in module.named_modules():
        if child.training:
            raise ModelError(
                f"encoder '{name}': {part or 'the module'} is in training mode; a frozen encoder "
                "is in eval mode, call models.multimodal.dual.freeze(encoder)."
            )
    for part, parameter in module.named_parameters():
        if parameter.requires_grad:
            raise ModelError(
                f"encoder '{name}': {part} takes gradients; a frozen encoder has none, call "
                "models.multimodal.dual.freeze(encoder)."
            )


class AlignedTowers(nn.Module):
    """An aligner with some of its encoders attached.

    Args:
        aligner: heads and temperature.
        towers: modules by modality; each maps its input to features [B, D], or to (tokens
            [B, T, D], mask [B, T]). A modality without a tower gets features as they are.
        frozen: names of the towers that stay as they are; they must be in eval mode without
            gradients, and stay so whatever `train` is called with.

    Raises:
        ConfigError: a tower or frozen name that is not a modality with a tower.
        ModelError: a frozen tower is in training mode or takes gradients.
    """

    def __init__(
        self, aligner: Aligner, towers: Mapping[str, nn.Module], frozen: Collection[str] = ()
    ) -> None:
        super().__init__()
        self.aligner = aligner
        self.frozen = tuple(frozen)
        for name in (*towers, *frozen):
            if name not in aligner.config.names or name not in towers:
                raise ConfigError(
                    f"towers: '{name}' is not a modality with a tower; the aligner has "
                    f"{', '.join(aligner.config.names)}, towers were given for "
                    f"{', '.join(towers) or 'none'}."
                )
        for name in self.frozen:
            check_frozen(towers[name], aligner.config.modality(name).encoder)
        self.towers = nn.ModuleDict(dict(towers))

    def train(self, mode: bool = True) -> Self:
        """Switch to training mode, except for frozen towers."""
        super().train(mode)
        for name in self.frozen:
            self.towers[name].eval()
        return self

    def features(self, name: str, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return a tower's features and mask."""
        if name not in self.towers:
            return inputs, None
        with torch.set_grad_enabled(torch.is_grad_enabled() and name not in self.frozen):
            found = self.towers[name](inputs)
        return found if isinstance(found, tuple) else (found, None)

    def forward(
        self,
        features: Mapping[str, Tensor],
        masks: Mapping[str, Tensor] | None = None,
        present: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Run towers, then heads; see `Aligner.forward`.

        Args:
            features: a tower's input where there is one (pixels, ids), else features.
            masks: valid tokens of features without a tower.
            present: rows that have a modality.
        """
        masks = dict(masks or {})
        made: dict[str, Tensor] = {}
        for name, inputs in features.items():
            made[name], mask = self.features(name, inputs)
            if mask is not None:
                masks[name] = mask
        return self.aligner(made, masks, present)
