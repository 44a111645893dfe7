"""Who may ask: a token once, a cookie from then on, and nothing that another page has begun.

| danger | what is done |
| --- | --- |
| another user of this machine | every page asks for the cookie, which only the token buys |
| a page elsewhere, under a name that it has pointed here | `Host` must be a name of this machine |
| a page elsewhere that sends forms | the cookie is `SameSite=Strict`; `Origin` must be ours |
| a page of another port here (the same site to browsers) | `Origin`, `Sec-Fetch-Site`, form token |
| a script in what a job prints | everything is escaped, and only our files may be scripts |

Secrets are compared by digest and in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie

HOSTS = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?", re.IGNORECASE)
"""What `Host` may be, with any port: a tunnel may end at another one than ours."""
OPEN = ("/login", "/health")
"""Paths (and those below `/static/`) that ask for no cookie; they tell nothing."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # not no-referrer: forms would then be sent with "Origin: null"
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Sent with every answer."""


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _same(shown: str, kept: bytes) -> bool:
    return hmac.compare_digest(_digest(shown), kept)


class Access:
    """What requests must show.

    Args:
        port: of the server; browsers send cookies to all ports, so that its name has it.

    Attributes:
        token: buys the cookie; in the address that is printed.
        form: hidden in every form.
        cookie: name of the cookie.
    """

    def __init__(self, port: int) -> None:
        self.token = secrets.token_urlsafe(32)
        self._session = secrets.token_urlsafe(32)
        self.form = hmac.new(self._session.encode(), b"form", "sha256").hexdigest()
        self.cookie = f"understudy_ui_{port}"
        self._kept = {n: _digest(v) for n, v in (("token", self.token), ("form", self.form),
                                                 ("session", self._session))}  # fmt: skip

    def sells(self, token: str) -> bool:
        """Say whether a token buys the cookie."""
        return _same(token, self._kept["token"])

    def header(self) -> str:
        """Return the `Set-Cookie` header."""
        return f"{self.cookie}={self._session}; Path=/; HttpOnly; SameSite=Strict"

    def form_is_ours(self, shown: str) -> bool:
        """Say whether a form was made by us."""
        return _same(shown, self._kept["form"])

    def _known(self, cookie: str) -> bool:
        try:
            found = SimpleCookie(cookie).get(self.cookie)
        except CookieError:
            return False
        return found is not None and _same(found.value, self._kept["session"])

    def refusal(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, str] | None:
        """Return the status and the sentence of a refusal; None if the request may go on.

        Args:
            method: of the request.
            path: of the request.
            headers: by name in lower case.
        """
        host = headers.get("host", "")
        if not HOSTS.fullmatch(host):
            return 421, "this server answers to 127.0.0.1 and localhost only."
        if not _begun_here(method, host, headers):
            return 403, "this was begun by a page of another site."
        if path in OPEN or path.startswith("/static/"):
            return None
        if not self._known(headers.get("cookie", "")):
            return (
                401,
                "open the address that 'understudy ui' has printed; it lets this browser in.",
            )
        return None


def _begun_here(method: str, host: str, headers: Mapping[str, str]) -> bool:
    """Say whether a request comes from our pages, from an address bar, or from no browser."""
    origin = headers.get("origin")
    if origin is not None and origin.lower() != f"http://{host.lower()}":
        return False
    site = headers.get("sec-fetch-site", "none")
    if site in ("same-origin", "none"):
        return True
    # A link may lead here; without our cookie, which is not sent then, it shows nothing.
    return method in ("GET", "HEAD") and headers.get("sec-fetch-mode") == "navigate"
