"""Text of web pages that do not say their encoding, or say a wrong one."""

from __future__ import annotations

from understudy.core.lazy import require
from understudy.curate.text.sources_html import LOOK, decode

_ESCAPE = b"\x1b"
_WRONG = 0.01
"""Share of characters that may be undecodable before another encoding is looked for."""


def decode_guessing(data: bytes, content_type: str = "") -> str:
    """Return the text of a page's bytes; where what it says does not fit, guess from the bytes.

    Bytes that are UTF-8 are taken for that, whatever they say (but ISO-2022 is ASCII with escapes).
    Else the encoding is that of `sources_html.decode`, unless nothing is said, or more than one
    character in a hundred does not fit: then the detector of resiliparse (uchardet) decides.

    Args:
        data: the page.
        content_type: value of its header.

    Raises:
        MissingExtraError: a guess is needed and resiliparse is not installed.
    """
    if _ESCAPE not in data:
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError:
            pass
    if b"charset" in content_type.lower().encode() or b"charset" in data[:LOOK].lower():
        text = decode(data, content_type)
        if text.count("\ufffd") <= _WRONG * len(text):
            return text
    module = require("resiliparse.parse.encoding", "curate", "guessing the encoding of a page")
    return module.bytes_to_str(data, module.detect_encoding(data), errors="replace")
