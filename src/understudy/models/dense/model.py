"""A dense model: tower, neck, head; input of any size, output of the input's size.

    >>> from understudy.models.dense.model import dense_model
    >>> model = dense_model(clip, HeadConfig(classes=("sky", "ground")), seed=0)   # doctest: +SKIP
    >>> model(images)["logits"]                                # [B, 2, H, W]      # doctest: +SKIP

The text tower, the last convolution of an MCi tower and the projection belong to CLIP and are left
behind. Fine-tune the unfolded tower and fold afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from understudy.core.errors import ConfigError, ModelError
from understudy.core.seeds import seed_for
from understudy.models.base import UNFOLDED, Model
from understudy.models.dense.config import DenseConfig, HeadConfig
from understudy.models.dense.depth import DepthDecoder
from understudy.models.dense.fpn import LinearProbe, SemanticFpn
from understudy.models.dense.mask_rcnn import MaskRcnn
from understudy.models.dense.taps import Neck
from understudy.models.dense.uper import UperNet
from understudy.models.fold import FoldMode, fold_module
from understudy.models.image.mci import MciConfig
from understudy.models.image.vit import VitTower
from understudy.models.image.vit_config import VitConfig
from understudy.models.preprocess import Preprocess
from understudy.models.towers import ImageConfig, image_tower

_CLIP_PARTS = ("expand", "head")
_PARAMETER_STEM = ("stem", "class_token", "positions", "pre_norm")


def pad_to(x: Tensor, multiple: int) -> Tensor:
    """Return images [B, C, H, W] with zeros below and right, so that both sides are multiples."""
    high, wide = (-n % multiple for n in x.shape[-2:])
    return F.pad(x, (0, wide, 0, high)) if high or wide else x


def make_head(config: HeadConfig, neck: Neck) -> nn.Module:
    """Return a head for maps of the neck's strides and channels."""
    channels, classes = neck.channels, len(config.classes)
    if config.kind == "semantic-fpn":
        return SemanticFpn(channels, classes, config.width, config.hidden, config.dropout)
    if config.kind == "uper":
        return UperNet(channels, classes, config.width, config.hidden, config.dropout)
    if config.kind == "linear":
        return LinearProbe(channels, classes)
    if config.kind == "decoder":
        return DepthDecoder(channels, config.width, config.hidden, config.low, config.high)
    return MaskRcnn(channels, neck.strides, classes, config.width, config.anchor_scale)


def bare_tower(config: DenseConfig) -> nn.Module:
    """Return a tower with fresh weights and without what only CLIP needs."""
    tower = image_tower(config.image, 0)
    for name in _CLIP_PARTS:
        if hasattr(tower, name):
            setattr(tower, name, nn.Identity())
    if isinstance(tower, VitTower):
        tower.norm = nn.Identity()  # type: ignore[assignment]  # taps have a norm each
    return tower


class DenseModel(nn.Module):
    """Images of any size to class logits, depth or objects.

    Args:
        config: tower and head.

    Attributes:
        frozen: whether the tower learns nothing (`freeze_tower`).
        fold_state: `"no"`, `"branches"` or `"all"`.
    """

    def __init__(self, config: DenseConfig) -> None:
        super().__init__()
        self.config, self.frozen, self.fold_state = config, False, UNFOLDED
        self.tower = bare_tower(config)
        self.neck = Neck(self.tower, config.head.map_norm)
        self.head = make_head(config.head, self.neck)

    @property
    def preprocess(self) -> Preprocess:
        """What images are normalised with; their size is free."""
        return self.config.preprocess

    @property
    def is_folded(self) -> bool:
        """Whether this is the inference form."""
        return self.fold_state != UNFOLDED

    def maps(self, images: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        """Return the neck's maps of images whose sides are multiples of `neck.multiple`."""
        with torch.no_grad() if self.frozen else nullcontext():
            found = self.tower.pyramid(images)  # type: ignore[operator]
        return self.neck([m for _, m in found])

    def forward(
        self,
        images: Float[Tensor, "batch 3 height width"],
        targets: Mapping[str, Sequence[Tensor]] | None = None,
    ) -> dict[str, Any]:
        """Return what the head says, at the images' own size.

        Args:
            images: normalised, of one size; padded to a multiple of the coarsest stride inside.
            targets: for detection in training; see `understudy.models.dense.mask_rcnn`.

        Returns:
            seg: `logits` [B, classes, H, W] (and `aux` in training); depth: `depth` [B, H, W] in
            metres; det: `losses`, or `detections` by image.
        """
        size: tuple[int, int] = (images.shape[-2], images.shape[-1])
        padded = pad_to(images, self.neck.multiple)
        maps = self.maps(padded)
        if self.config.head.task == "det":
            return self.head(maps, padded, size, targets)
        return {key: _to_size(value, padded, size) for key, value in self.head(maps).items()}

    def train(self, mode: bool = True) -> Self:
        """Switch to training mode; frozen statistics of the tower stay as they are.

        Raises:
            ModelError: the model is folded.
        """
        if mode and self.is_folded:
            raise ModelError("train: this dense model is folded and cannot be trained any more.")
        super().train(mode)
        if self.frozen:
            self.tower.eval()
        elif mode and self.config.head.statistics == "frozen":
            for module in self.tower.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def freeze_tower(self) -> Self:
        """Let the head alone learn; the tower stays bit-identical."""
        self.tower.requires_grad_(False).eval()
        self.frozen = True
        return self

    def layer_scales(self, decay: float) -> dict[str, float]:
        """Return a factor of the learning rate for each parameter: decay^(layers above it).

        Layers of a ViT are its stem with the positions, and each block; of other towers the stem
        and each stage. Neck and head have factor 1.

        Args:
            decay: in (0, 1]; 0.65 to 0.9 for a ViT, 1 for none.
        """
        top, stage = _layers(self.tower)
        factors = {}
        for name, _ in self.named_parameters():
            part, _, rest = name.partition(".")
            layer = stage(rest) if part == "tower" else top
            factors[name] = decay ** (top - layer)
        return factors

    def fold(self, mode: FoldMode = "all") -> DenseModel:
        """Return the inference form: a new model with equal outputs in eval mode.

        Raises:
            ModelError: it is in training mode, or folded already.
        """
        if self.is_folded:
            raise ModelError(f"fold: this dense model is folded already ('{self.fold_state}').")
        folded = fold_module(self, mode)
        folded.fold_state = mode
        return folded.eval()


def _to_size(value: Tensor, padded: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge [B, (C,) h, w] to the padded input and cut to the input."""
    flat = value.ndim == 3
    x = value[:, None] if flat else value
    if x.shape[-2:] != padded.shape[-2:]:
        x = F.interpolate(x, size=padded.shape[-2:], mode="bilinear", align_corners=False)
    x = x[..., : size[0], : size[1]]
    return x[:, 0] if flat else x


def _layers(tower: nn.Module) -> tuple[int, Any]:
    """Return (number of layers, function from a tower parameter's name to its layer from 0)."""
    group = "blocks" if isinstance(tower, VitTower) else "stages"
    members = getattr(tower, group, None)
    count = len(members) if members is not None else 0

    def stage(name: str) -> int:
        first, _, rest = name.partition(".")
        if first in _PARAMETER_STEM:
            return 0
        return int(rest.partition(".")[0]) + 1 if first == group else count

    return count + 1, stage


def _dense_image(image: ImageConfig, head: HeadConfig, drop_path: float | None) -> ImageConfig:
    """Return a tower's configuration for inputs of any size, tapped where the head wants it."""
    if drop_path is not None:
        if not isinstance(image, MciConfig | VitConfig):
            raise ConfigError(f"drop_path: a {image.kind} tower has no residual branches to drop.")
        image = replace(image, drop_path=drop_path)
    if not isinstance(image, VitConfig):
        return image
    return replace(image, position_interpolation="bicubic", taps=head.taps or image.taps)


def dense_model(
    source: Model, head: HeadConfig, seed: int = 0, *, drop_path: float | None = None
) -> DenseModel:
    """Return a dense model with the image tower of a CLIP or a classifier and a fresh head.

    Args:
        source: gives tower weights (copied) and normalisation.
        head: what is put on top.
        seed: of the neck's and the head's weights; equal seeds give equal heads on equal towers.
        drop_path: rate of the tower's last block while it is tuned; None keeps its own.

    Raises:
        ConfigError: taps that the tower does not have, or drop path for one without blocks.
        ModelError: the source is folded, or its tower gives no maps.
    """
    if source.is_folded:
        raise ModelError(
            f"{source.config.name} is folded ('{source.fold_state}'): fine-tune the unfolded model "
            "and fold it afterwards."
        )
    config = DenseConfig(
        name=source.config.name,
        image=_dense_image(source.config.image, head, drop_path),
        preprocess=source.preprocess,
        head=head,
        weights=source.config.weights,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for("dense head", seed))
        model = DenseModel(config)
        # drawn after the tower, so that the head's draws would depend on the tower's size
        torch.manual_seed(seed_for("dense head", seed))
        model.neck = Neck(model.tower, head.map_norm)
        model.head = make_head(head, model.neck)
    own = model.tower.state_dict()
    given = {k: v for k, v in source.image.state_dict().items() if k in own}  # type: ignore[union-attr]
    model.tower.load_state_dict({k: v.detach().clone() for k, v in given.items()})
    return synchronised(model).to(next(source.parameters()).device)


def synchronised(model: DenseModel) -> DenseModel:
    """Return a model whose batch norms look at all ranks, if its head's `statistics` say so."""
    if model.config.head.statistics != "sync" or model.is_folded:
        return model
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[return-value]
