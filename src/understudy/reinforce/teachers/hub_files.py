"""What Transformers checkpoints say about their input, without importing torchvision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from understudy.core.errors import ConfigError, DataError
from understudy.core.hashing import hash_bytes
from understudy.core.lazy import require
from understudy.models.preprocess import Preprocess

_RESAMPLE = {2: "bilinear", 3: "bicubic"}


def transformers(purpose: str) -> Any:
    """Import Transformers, or raise `MissingExtraError` saying what to install."""
    library = require("transformers", "text", purpose)
    # Its own bars would write over ours, also where progress is off.
    library.utils.logging.disable_progress_bar()
    return library


def load(function: Any, source: str, where: str, **options: Any) -> Any:
    """Call a `from_pretrained`.

    Raises:
        DataError: there is no such checkpoint, or it is not one.
    """
    try:
        return function(source, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"{where}: '{source}' does not load ({reason}).") from None


def source_of(path: str, model: str, where: str) -> str:
    """Return the folder or hub name to load from."""
    if not (path or model):
        raise ConfigError(f"{where}: give 'path', a local folder, or 'model', a hub name.")
    return path or model


def _side(size: Any) -> int | None:
    if isinstance(size, int):
        return size
    if isinstance(size, Mapping):
        for key in ("shortest_edge", "height"):
            if isinstance(size.get(key), int):
                return int(size[key])
    return None


def _triple(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(v) for v in values)
    return red, green, blue


def read_preprocess(source: str, where: str, overrides: Mapping[str, Any]) -> Preprocess:
    """Build the preprocessing that a checkpoint's `preprocessor_config.json` describes.

    Args:
        source: folder or hub name.
        where: for messages.
        overrides: `size`, `mean`, `std`, `interpolation`; values that are set win.

    Raises:
        DataError: no such file, or one without a size.
        ConfigError: pixels are scaled in another way than to [0, 1].
    """
    from transformers.image_processing_base import ImageProcessingMixin

    data, _ = load(
        lambda name, trust_remote_code: ImageProcessingMixin.get_image_processor_dict(name),
        source,
        where,
    )
    side = overrides.get("size") or _side(data.get("crop_size")) or _side(data.get("size"))
    if not side:
        raise DataError(f"{where}: '{source}' does not say how large images are; set options.size.")
    factor = data.get("rescale_factor", 1 / 255) if data.get("do_rescale", True) else 1.0
    if abs(factor * 255 - 1) > 1e-6 and not overrides.get("mean"):
        raise ConfigError(
            f"{where}: '{source}' scales levels by {factor}, not by 1/255; set options.mean and "
            "options.std for pixels in [0, 1]."
        )
    norm = data.get("do_normalize", True)
    crops = bool(data.get("do_center_crop", data.get("crop_size") is not None))
    mean = data.get("image_mean") if norm else None
    std = data.get("image_std") if norm else None
    return Preprocess(
        size=int(side),
        mean=_triple(overrides.get("mean") or mean or (0.0, 0.0, 0.0)),
        std=_triple(overrides.get("std") or std or (1.0, 1.0, 1.0)),
        interpolation=overrides.get("interpolation")
        or _RESAMPLE.get(data.get("resample", 3), "bicubic"),
        resize="shorter-side" if crops else "squash",
    )


def tokenizer_hash(tokenizer: Any) -> str:
    """Return a hash of what decides a Transformers tokenizer's ids."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = backend.to_str() if backend is not None else repr(sorted(tokenizer.get_vocab().items()))
    return hash_bytes(text.encode())
