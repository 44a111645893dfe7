"""Encodings that are said, said wrongly, or not said."""

from __future__ import annotations

import pytest

from understudy.curate.text.charset import decode_guessing

RUSSIAN = "<p>Это обычная страница на русском языке, которая не говорит о своей кодировке.</p>" * 3
JAPANESE = "<p>日本語のページです。文字コードは何ですか。</p>" * 3


def test_utf8_wins():
    assert decode_guessing(RUSSIAN.encode(), "text/html; charset=iso-8859-1") == RUSSIAN
    assert decode_guessing(b"\xef\xbb\xbfx") == "x"
    assert decode_guessing(b"") == ""


@pytest.mark.parametrize(
    ("text", "encoding"),
    [(RUSSIAN, "windows-1251"), (JAPANESE, "iso-2022-jp"), ("caf\xe9", "iso-8859-1")],
)
def test_what_is_said(text, encoding):
    assert decode_guessing(text.encode(encoding), f"text/html; charset={encoding}") == text
    meta = f'<meta charset="{encoding}">{text}'
    assert decode_guessing(meta.encode(encoding)) == meta


@pytest.mark.parametrize("said", ["", "text/html; charset=utf-8"])
@pytest.mark.parametrize(
    ("text", "encoding"), [(RUSSIAN, "windows-1251"), (RUSSIAN, "koi8-r"), (JAPANESE, "shift_jis")]
)
def test_guesses(text, encoding, said):
    pytest.importorskip("resiliparse")
    assert decode_guessing(text.encode(encoding), said) == text
