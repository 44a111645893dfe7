"""What a client may ask: a vector, a text or an image, checked before anything is computed.

Bodies come from a network, so everything is bounded before it is opened: bytes, numbers, letters,
neighbours, and the pixels that an image's header announces. Only JPEG, PNG, WebP and GIF are
decoded; other formats bring decoders (and helpers, such as PostScript's) that no query needs.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from understudy.core.config import check_keys
from understudy.core.errors import ConfigError, DataError
from understudy.data.decode import image_size

KINDS = ("vector", "text", "image")
_FIELDS = (*KINDS, "top_k", "filter", "space", "with_vectors")
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")


class QueryError(DataError):
    """A query that cannot be answered, with the HTTP status that says so."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one query may cost.

    Attributes:
        body_bytes: of a request's body.
        pixels: of an image, by its header.
        text_chars: of a text.
        filter_chars: of a filter.
        top_k: neighbours.

    Raises:
        ConfigError: one is below 1.
    """

    body_bytes: int = 8 << 20
    pixels: int = 32_000_000
    text_chars: int = 10_000
    filter_chars: int = 2_000
    top_k: int = 1_000

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 1:
                raise ConfigError(f"Limits.{name}: expected at least 1, got {getattr(self, name)}.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """One checked question.

    Attributes:
        kind: vector, text or image.
        vector: float32 [D] of a vector query.
        text: of a text query.
        image: encoded file of an image query.
        top_k: neighbours wanted.
        filter: SQL condition that a neighbour must meet; empty for none.
        space: id of the space that a vector is in.
        with_vectors: whether the answer holds the neighbours' vectors.
    """

    kind: str
    vector: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    text: str = ""
    image: bytes = b""
    top_k: int = 10
    filter: str = ""
    space: str = ""
    with_vectors: bool = False


def parse_query(
    body: bytes, content_type: str, options: Mapping[str, str], limits: Limits
) -> Query:
    """Check a request and return what it asks.

    Args:
        body: JSON with one of `vector` (numbers), `text`, `image` (base64) and the options; or a
            raw image or text.
        content_type: `application/json`, `image/...` or `text/plain`.
        options: `top_k`, `filter`, `space`, `with_vectors` of a raw body.
        limits: what a query may cost.

    Raises:
        QueryError: it cannot be answered; the sentence says what was expected.
    """
    if len(body) > limits.body_bytes:
        raise QueryError(413, f"the body has more than {limits.body_bytes:,} bytes.")
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/json":
        data = _json(body)
    elif kind.startswith("image/"):
        data = {**options, "image": body}
    elif kind == "text/plain":
        data = {**options, "text": _utf8(body)}
    else:
        raise QueryError(
            415,
            f"content type '{kind[:80]}' is not understood; expected application/json, text/plain "
            "or an image's.",
        )
    try:
        check_keys(data, _FIELDS, "query")
    except ConfigError as error:
        raise QueryError(400, str(error)) from None
    given = [name for name in KINDS if name in data]
    if len(given) != 1:
        raise QueryError(
            400,
            f"a query has one of 'vector', 'text' and 'image', got {', '.join(given) or 'none'}.",
        )
    return Query(
        kind=given[0],
        **_payload(given[0], data[given[0]], limits),
        top_k=_top_k(data.get("top_k", 10), limits),
        filter=_string(data.get("filter", ""), "filter", limits.filter_chars),
        space=_string(data.get("space", ""), "space", 64),
        with_vectors=_flag(data.get("with_vectors", False)),
    )


def _utf8(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise QueryError(400, "the body is not UTF-8 text.") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _json(body: bytes) -> dict[str, Any]:
    try:
        data = json.loads(_utf8(body), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise QueryError(400, f"the body is not JSON ({str(error)[:120]}).") from None
    if not isinstance(data, dict):
        raise QueryError(400, f"the body must be a JSON object, got {type(data).__name__}.")
    return data


def _payload(kind: str, value: Any, limits: Limits) -> dict[str, Any]:
    if kind == "vector":
        return {"vector": _vector(value)}
    if kind == "text":
        text = _string(value, "text", limits.text_chars)
        if not text.strip():
            raise QueryError(400, "'text' is empty.")
        return {"text": text}
    if not isinstance(value, bytes):
        try:
            value = base64.b64decode(_string(value, "image", limits.body_bytes), validate=True)
        except (binascii.Error, ValueError):
            raise QueryError(400, "'image' is not base64 of an image file.") from None
    check_image(value, limits)
    return {"image": value}


def _vector(value: Any) -> np.ndarray:
    numbers = isinstance(value, list) and all(type(v) in (int, float) for v in value)
    if not numbers or not value:
        raise QueryError(400, "'vector' must be a list of numbers.")
    with np.errstate(over="ignore"):
        try:
            vector = np.array(value, np.float64).astype(np.float32)
        except OverflowError:
            vector = np.array([np.inf], np.float32)
    if not np.isfinite(vector).all():
        raise QueryError(400, "'vector' holds a number that float32 cannot hold.")
    return vector


def _string(value: Any, name: str, limit: int) -> str:
    if not isinstance(value, str):
        raise QueryError(400, f"'{name}' must be a string, got {type(value).__name__}.")
    if len(value) > limit:
        raise QueryError(413, f"'{name}' has {len(value):,} characters, the most is {limit:,}.")
    return value


def _top_k(value: Any, limits: Limits) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
        value = int(value)  # an option of a raw body
    if type(value) is not int or not 1 <= value <= limits.top_k:
        raise QueryError(
            400, f"'top_k' must be a whole number from 1 to {limits.top_k}, got {str(value)[:40]}."
        )
    return value


def _flag(value: Any) -> bool:
    found = {"true": True, "1": True, "false": False, "0": False}.get(str(value).lower())
    if found is None:
        raise QueryError(400, "'with_vectors' must be true or false.")
    return found


def check_image(data: bytes, limits: Limits) -> None:
    """Refuse what is no image of the common formats, or announces too many pixels.

    Raises:
        QueryError: so it is.
    """
    webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    if not webp and not data.startswith(_MAGIC):
        raise QueryError(400, "'image' is not a JPEG, PNG, WebP or GIF file.")
    try:
        height, width = image_size(data, "'image'")
    except DataError as error:
        if "too large" in str(error):
            raise QueryError(413, "'image' has too many pixels to be decoded safely.") from None
        raise QueryError(400, str(error)) from None
    if height * width > limits.pixels:
        raise QueryError(
            413, f"'image' has {width} x {height} pixels, the most is {limits.pixels:,} in all."
        )
