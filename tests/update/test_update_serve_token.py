"""The token: where it may come from, what is refused, and that it is never repeated."""

from __future__ import annotations

import os

import pytest

from serve_http_toys import TOKEN
from understudy.core.errors import ConfigError
from understudy.update.serve_token import ENVIRONMENT, Token, find_token


def test_tokens_from_a_file_the_environment_or_drawn(tmp_path, monkeypatch):
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    path.chmod(0o600)
    token, drawn = find_token(path)
    assert token.allows(f"Bearer {TOKEN}")
    assert token.allows(f"bearer  {TOKEN}")
    assert not drawn
    for shown in (
        None,
        "",
        TOKEN,
        f"Basic {TOKEN}",
        "Bearer",
        f"Bearer {TOKEN} x",
        "Bearer \udcff",
    ):
        assert not token.allows(shown)
    assert TOKEN not in repr(vars(token))
    for mode in (0o644, 0o640, 0o602):
        path.chmod(mode)
        with pytest.raises(ConfigError, match=rf"mode {mode:o}\); run 'chmod 600") as caught:
            find_token(path)
        assert TOKEN not in str(caught.value)
    monkeypatch.setenv(ENVIRONMENT, TOKEN)
    with pytest.raises(ConfigError, match="not by both"):
        find_token(path)
    monkeypatch.setenv(ENVIRONMENT, TOKEN)
    assert find_token(None)[0].allows(f"Bearer {TOKEN}")
    assert ENVIRONMENT not in os.environ  # no child process inherits it
    first, second = find_token(None)[1], find_token(None)[1]
    assert first != second
    assert len(first) >= 32


def test_bad_tokens_are_not_repeated(tmp_path, monkeypatch):
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    for text in ("short", "with a space in it", "zeichen-mit-ümlaut"):
        with pytest.raises(ConfigError, match="at least 16 printable") as caught:
            Token(text, "token file t")
        assert text not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        find_token(tmp_path / "none")
