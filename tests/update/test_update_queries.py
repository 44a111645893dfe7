"""Queries from a network: what is refused, with which status, in which words."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from understudy.core.errors import ConfigError
from understudy.update.queries import KINDS, Limits, QueryError, parse_query

LIMITS = Limits(body_bytes=100_000, pixels=10_000, text_chars=50, filter_chars=40, top_k=20)
JSON = "application/json"


def png(width, height):
    out = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 40)).save(out, "PNG")
    return out.getvalue()


def bomb(width, height):
    """A PNG of a few bytes that announces `width` x `height` pixels."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + rows + chunk(b"IEND", b"")


def ask(data, content_type=JSON, options=None):
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    return parse_query(body, content_type, options or {}, LIMITS)


def refused(status, data, content_type=JSON, options=None):
    with pytest.raises(QueryError) as caught:
        ask(data, content_type, options)
    assert caught.value.status == status
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message
    return message


def test_the_three_kinds():
    query = ask({"vector": [1, 2.5, -3], "top_k": 4, "space": "0" * 12, "filter": "label = 3"})
    assert (query.kind, query.top_k, query.filter) == ("vector", 4, "label = 3")
    assert query.vector.dtype == np.float32
    assert query.vector.tolist() == [1, 2.5, -3]
    assert ask({"text": "a red cat"}).text == "a red cat"
    data = png(8, 9)
    assert ask({"image": base64.b64encode(data).decode(), "with_vectors": True}).image == data
    raw = ask(data, "image/png", {"top_k": "7", "filter": "label = 1"})
    assert (raw.kind, raw.image, raw.top_k, raw.filter) == ("image", data, 7, "label = 1")
    assert ask("grüß".encode(), "text/plain; charset=utf-8").text == "grüß"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "not JSON"),
        (b"[1]", "must be a JSON object, got list"),
        (b"\xff", "not UTF-8"),
        (b'{"vector": [NaN]}', "NaN is not a number"),
        (b'{"vector": [1e999]}', "float32 cannot hold"),
        (b'{"vector": [1' + b"0" * 400 + b"]}", "float32 cannot hold"),
        (b'{"vector": [1e39]}', "float32 cannot hold"),
        (b'{"vector": [true]}', "list of numbers"),
        (b'{"vector": "1,2"}', "list of numbers"),
        (b'{"vector": []}', "list of numbers"),
        (b'{"text": "a", "vector": [1]}', "one of 'vector', 'text' and 'image', got vector, text"),
        (b"{}", "got none"),
        (b'{"text": " "}', "'text' is empty"),
        (b'{"text": 3}', "'text' must be a string, got int"),
        (b'{"text": "a", "topk": 3}', "top_k"),
        (b'{"text": "a", "top_k": 0}', "from 1 to 20, got 0"),
        (b'{"text": "a", "top_k": 21}', "from 1 to 20, got 21"),
        (b'{"text": "a", "top_k": true}', "from 1 to 20, got True"),
        (b'{"text": "a", "top_k": 2.5}', "got 2.5"),
        (b'{"text": "a", "with_vectors": 2}', "true or false"),
        (b'{"image": "%%%"}', "not base64"),
        (b'{"image": "aGVsbG8gd29ybGQ="}', "not a JPEG, PNG, WebP or GIF"),
        (b"[" * 50_000, "not JSON"),
    ],
)
def test_bad_json(body, words):
    assert words in refused(400, body)


def test_limits():
    assert "more than 100,000 bytes" in refused(413, b" " * 100_001)
    assert "51 characters, the most is 50" in refused(413, {"text": "x" * 51})
    assert "'filter' has 41" in refused(413, {"text": "x", "filter": "y" * 41})
    assert "content type 'application/xml'" in refused(415, b"<a/>", "application/xml")
    assert "200 x 100 pixels" in refused(413, png(200, 100), "image/png")
    with pytest.raises(ConfigError, match=r"Limits.top_k: expected at least 1, got 0"):
        Limits(top_k=0)


def test_decode_bombs_are_refused_by_their_header():
    assert "too many pixels" in refused(413, bomb(60_000, 60_000), "image/png")
    assert "2000 x 2000 pixels" in refused(413, bomb(2_000, 2_000), "image/png")


def test_formats_with_dangerous_decoders_are_not_opened():
    for data in (b"%!PS-Adobe-3.0 EPSF-3.0\n", b"8BPS\x00\x01", b"P6 9 9 255\n", b"BM" + b"0" * 60):
        assert "not a JPEG, PNG, WebP or GIF" in refused(400, data, "image/eps")
    refused(400, b"\xff\xd8\xff" + b"0" * 50, "image/jpeg")


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([JSON, "text/plain", "image/png", "image/jpeg"]))
def test_no_body_brings_anything_but_a_query_or_a_refusal(body, kind):
    try:
        status = 200 if parse_query(body, kind, {}, LIMITS).kind in KINDS else 0
    except QueryError as error:
        status = error.status
    assert status == 200 or 400 <= status < 500
