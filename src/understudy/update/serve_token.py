"""The token that a client must show: from the environment, a private file, or drawn and shown once.

Only a digest of it is kept, and two digests are compared in constant time, so that neither a dump
of this object nor the time of a refusal tells anything of the token.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

from understudy.core.errors import ConfigError

ENVIRONMENT = "UNDERSTUDY_SERVE_TOKEN"
LEAST_CHARS = 16


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


class Token:
    """What a client must show.

    Args:
        text: the token: at least 16 printable ASCII characters without spaces.
        source: where it comes from, for messages.

    Raises:
        ConfigError: it is short, or has other characters. The message does not repeat it.
    """

    def __init__(self, text: str, source: str) -> None:
        if len(text) < LEAST_CHARS or not all(33 <= ord(c) <= 126 for c in text):
            raise ConfigError(
                f"{source}: a token has at least {LEAST_CHARS} printable ASCII characters and no "
                f"spaces, this one has {len(text)} characters; make one with 'openssl rand -hex "
                "32', or give none to have one drawn."
            )
        self._digest = _digest(text)

    def allows(self, authorization: str | None) -> bool:
        """Say whether an `Authorization` header shows this token (`Bearer ...`)."""
        scheme, _, shown = (authorization or "").strip().partition(" ")
        right = hmac.compare_digest(_digest(shown.strip()), self._digest)
        return right and scheme.lower() == "bearer"


def _private_file(path: Path) -> str:
    try:
        facts = path.stat()
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError(f"token file {path}: cannot be read ({reason}).") from None
    mode = stat.S_IMODE(facts.st_mode)
    if mode & 0o077 or facts.st_uid != os.getuid():
        raise ConfigError(
            f"token file {path}: others may read or own it (mode {mode:o}); run 'chmod 600 {path}' "
            "as its owner, and draw a new token if it was exposed."
        )
    return text.strip()


def find_token(file: Path | None) -> tuple[Token, str]:
    """Return the token to ask for, and its text if it was drawn just now and must be shown.

    Args:
        file: a file of mode 600 that holds it; None looks into the environment variable
            `UNDERSTUDY_SERVE_TOKEN` (and takes it out, so that no child process inherits it), and
            draws one if there is none.

    Raises:
        ConfigError: both are given, others may read the file, or it is no good token.
    """
    given = os.environ.pop(ENVIRONMENT, None)
    if file is not None and given is not None:
        raise ConfigError(f"give the token by --token-file or by {ENVIRONMENT}, not by both.")
    if file is not None:
        return Token(_private_file(file), f"token file {file}"), ""
    if given is not None:
        return Token(given, ENVIRONMENT), ""
    drawn = secrets.token_urlsafe(32)
    return Token(drawn, "token"), drawn
