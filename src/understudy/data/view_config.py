"""What a view set is made of: the transforms, their parameters and their one fixed order.

The transforms, their order and their distributions are those of dataset reinforcement
(arXiv 2303.08983, sec. 3 and appendix); RandAugment's operations are those of arXiv 1909.13719 with
torchvision's magnitudes, random erasing is arXiv 1708.04896, MixUp arXiv 1710.09412, CutMix
arXiv 1905.04899.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from understudy.core.config import check_choice, check_keys, from_dict, to_dict
from understudy.core.errors import CardError, ConfigError
from understudy.core.hashing import hash_data

VIEW_VERSION = 1
"""Version of the pixel semantics and of the record layout; a change of either raises it."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")

DEFAULTS: dict[str, dict[str, Any]] = {
    "uint8": {},
    "resize": {"size": None, "mode": "shorter-side", "interpolation": "bilinear"},
    "center_crop": {"size": None},
    "random_crop": {"padding": 16, "fill": 0, "resize": True, "interpolation": "bilinear"},
    "random_resized_crop": {
        "scale": [0.08, 1.0],
        "ratio": [3 / 4, 4 / 3],
        "interpolation": "bilinear",
    },
    "random_horizontal_flip": {"p": 0.5},
    "rand_augment": {
        "num_ops": 2,
        "magnitude": 9,
        "num_magnitude_bins": 31,
        "p": 1.0,
        "interpolation": "nearest",
        "fill": 0,
    },
    "to_tensor": {},
    "random_erase": {"p": 0.25, "scale": [0.02, 0.33], "ratio": [0.3, 3.3], "value": 0.0},
    "normalize": {"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)},
    "mixup": {"p": 0.5, "alpha": 1.0, "div_by": 2.0},
    "cutmix": {"p": 0.5, "alpha": 1.0},
}
"""Every transform with its options and their defaults, in the order of application."""

ORDER = tuple(DEFAULTS)


def _check_range(value: Any, where: str, low: float, high: float) -> None:
    bad = isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value)
    if bad or not low <= value <= high:
        raise ConfigError(f"{where}: expected a number from {low:g} to {high:g}, got {value!r}.")


def _check_int(value: Any, where: str, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"{where}: expected an integer from {low} to {high}, got {value!r}.")


def _check_pair(value: Any, where: str, low: float, high: float) -> list[float]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ConfigError(f"{where}: expected [low, high], got {value!r}.")
    for end in value:
        _check_range(end, where, low, high)
    if value[0] > value[1]:
        raise ConfigError(f"{where}: low {value[0]} is above high {value[1]}.")
    return [float(v) for v in value]


def _check_channels(value: Any, where: str) -> list[float]:
    if not isinstance(value, list | tuple) or len(value) != 3:
        raise ConfigError(f"{where}: expected three numbers (red, green, blue), got {value!r}.")
    return [float(v) for v in value]


def _check_options(name: str, options: dict[str, Any]) -> None:
    """Validate one transform's options in place (sequences become lists of floats)."""
    where = f"views.transforms.{name}"
    for key, value in options.items():
        here = f"{where}.{key}"
        if key == "p":
            _check_range(value, here, 0.0, 1.0)
        elif key == "interpolation":
            valid = ("nearest", "bilinear") if name == "rand_augment" else INTERPOLATIONS
            check_choice(value, valid, here)
        elif key == "mode":
            check_choice(value, ("shorter-side", "squash"), here)
        elif key == "scale":
            options[key] = _check_pair(value, here, 1e-6, 1.0)
        elif key == "ratio":
            options[key] = _check_pair(value, here, 1e-3, 1e3)
        elif key in ("mean", "std"):
            options[key] = _check_channels(value, here)
        elif key == "padding":
            _check_int(value, here, 0, 8192)
        elif key == "fill":
            _check_int(value, here, 0, 255)
        elif key == "num_ops":
            _check_int(value, here, 1, 16)
        elif key == "num_magnitude_bins":
            _check_int(value, here, 2, 1001)
        elif key == "magnitude":
            _check_int(value, here, 0, options["num_magnitude_bins"] - 1)
        elif key == "value":
            _check_range(value, here, 0.0, 1.0)
        elif key == "alpha":
            _check_range(value, here, 1e-3, 1e3)
        elif key == "div_by":
            _check_range(value, here, 1.0, 1e3)
    if any(s <= 0 for s in options.get("std", ())):
        raise ConfigError(f"{where}.std: every value must be above 0, got {options['std']}.")
    if name in ("resize", "center_crop"):
        _check_int(options["size"], f"{where}.size", 1, 32767)


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewConfig:
    """A view set's transforms; defaults are filled in, so equal sets have equal hashes.

    Attributes:
        size: side of the square view in pixels.
        transforms: options by transform name; the names and their defaults are `DEFAULTS`. They run
            in the order of `DEFAULTS`, whatever the order here. `to_tensor`, `uint8` and
            `normalize` change no stored pixel: views stay 8-bit until the consumer normalises them.
        reduced_decode: decode JPEG files at a reduced scale where the crop allows. Faster for large
            photographs; an option because it changes pixels.
        round_mixed: round MixUp's and CutMix' result to 8 bits instead of returning float32.
        version: `VIEW_VERSION` of the code that wrote the records.
    """

    size: int = 224
    transforms: dict[str, dict] = field(
        default_factory=lambda: {"random_resized_crop": {}, "rand_augment": {}}
    )
    reduced_decode: bool = False
    round_mixed: bool = False
    version: int = VIEW_VERSION

    def __post_init__(self) -> None:
        _check_int(self.size, "views.size", 1, 8192)
        if self.version != VIEW_VERSION:
            raise CardError(
                f"views.version: records of version {self.version}, this code replays version "
                f"{VIEW_VERSION}: reinforce again, or install the version that wrote them."
            )
        if not isinstance(self.transforms, Mapping):
            raise ConfigError("views.transforms: expected a mapping of transform to options.")
        check_keys(self.transforms, ORDER, "views.transforms")
        filled: dict[str, dict] = {}
        for name in ORDER:
            if name not in self.transforms:
                continue
            given = self.transforms[name] or {}
            if not isinstance(given, Mapping):
                raise ConfigError(f"views.transforms.{name}: expected a mapping, got {given!r}.")
            check_keys(given, DEFAULTS[name], f"views.transforms.{name}")
            options = {**copy.deepcopy(DEFAULTS[name]), **given}
            if name in ("resize", "center_crop") and options["size"] is None:
                options["size"] = self.size
            _check_options(name, options)
            filled[name] = options
        if self.reduced_decode and "random_resized_crop" not in filled:
            raise ConfigError("views.reduced_decode: it needs random_resized_crop.")
        object.__setattr__(self, "transforms", filled)

    @property
    def mixes(self) -> bool:
        """Whether a view may contain a second image."""
        return "mixup" in self.transforms or "cutmix" in self.transforms

    @property
    def random(self) -> bool:
        """Whether anything is drawn at all."""
        fixed = {"uint8", "resize", "center_crop", "to_tensor", "normalize"}
        return bool(set(self.transforms) - fixed)

    @property
    def hash(self) -> str:
        """Hash of the whole configuration."""
        return hash_data(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON-like data."""
        return to_dict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ViewConfig:
        """Build a configuration from plain data; keys are checked."""
        return from_dict(cls, data, "views")
