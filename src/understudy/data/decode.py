"""Encoded image bytes to 8-bit RGB arrays.

JPEG files go through libjpeg-turbo (`simplejpeg`), everything else through Pillow. The policy is
fixed, because the same bytes must give the same pixels when views are replayed: grayscale is
repeated over the channels; CMYK is converted by Pillow without a colour profile; transparency is
composited on white; 16-bit grayscale keeps its upper 8 bits; an animation's first frame
counts; embedded colour profiles and the EXIF orientation are ignored (pixels as stored).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from understudy.core.errors import DataError
from understudy.core.provenance import versions

DECODER = "simplejpeg+pillow"


def decoder_versions() -> dict[str, str]:
    """Return the decoder's name and the versions of its libraries."""
    found = versions()
    return {
        "decoder": DECODER,
        "simplejpeg": found.get("simplejpeg", "unknown"),
        "pillow": found.get("pillow", "unknown"),
    }


def _is_jpeg(data: bytes | None) -> bool:
    return data is not None and data[:3] == b"\xff\xd8\xff"


def _open(data: bytes, name: str) -> Image.Image:
    if not data:
        raise DataError(f"{name}: not an image, it is empty; restore it or leave the row out.")
    try:
        return Image.open(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise DataError(f"{name}: too large to be decoded safely ({error})") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        reason = f"{len(data)} bytes, starting {bytes(data[:8])!r}"
        raise DataError(f"{name}: not an image that can be decoded ({reason}).") from error


def image_size(data: bytes, name: str = "image") -> tuple[int, int]:
    """Return (height, width) in pixels from the header alone.

    Raises:
        DataError: the bytes are not an image; the message names it.
    """
    if _is_jpeg(data):
        try:
            height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        except ValueError as error:
            raise DataError(f"{name}: not a JPEG file that can be decoded ({error}).") from error
        return height, width
    width, height = _open(data, name).size
    return height, width


def to_rgb(image: Image.Image) -> np.ndarray:
    """Return a Pillow image of any mode as `uint8 [h, w, 3]` by the module's policy."""
    if image.mode.startswith("I;16"):
        gray = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    if image.mode == "I":
        gray = np.clip(np.asarray(image) >> 8, 0, 255).astype(np.uint8)
        return np.repeat(gray[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba)
    return np.asarray(image.convert("RGB"))


def decode(
    data: bytes,
    *,
    name: str = "image",
    min_height: int = 0,
    min_width: int = 0,
) -> np.ndarray:
    """Decode an image file's bytes to `uint8 [h, w, 3]`.

    Args:
        data: the file's bytes.
        name: what to call the image in errors.
        min_height: with `min_width`, allows a JPEG to be decoded at the smallest scale m/8 that is
            still at least this large; 0 decodes at full scale. Other formats ignore it.
        min_width: see `min_height`.

    Raises:
        DataError: the bytes do not decode; the message names the image.
    """
    if _is_jpeg(data):
        try:
            _, _, colour, _ = simplejpeg.decode_jpeg_header(data)
            if colour not in ("CMYK", "YCCK"):
                return simplejpeg.decode_jpeg(
                    data, "RGB", min_height=min_height, min_width=min_width
                )
        except ValueError as error:
            raise DataError(f"{name}: not a JPEG file that can be decoded ({error}).") from error
    image = _open(data, name)
    try:
        return to_rgb(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{name}: the image is damaged ({error}).") from error


def decode_many(
    items: Sequence[bytes], threads: int = 1, *, names: Sequence[str] | None = None
) -> list[np.ndarray]:
    """Decode many images, over `threads` threads (the decoders release the interpreter lock)."""
    labels = names if names is not None else [f"image {i}" for i in range(len(items))]
    if threads <= 1 or len(items) < 2:
        return [decode(d, name=n) for d, n in zip(items, labels, strict=True)]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(lambda d, n: decode(d, name=n), items, labels))
