"""Ask a running web page by plain HTTP, as a browser would or as one should not."""

from __future__ import annotations

import http.client
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit

from understudy.ui.config import UiConfig
from understudy.ui.run import UiServer


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    text: str


@dataclass
class Client:
    """Keeps the cookie that it is given."""

    server: UiServer
    cookie: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def ask(self, path: str, form: dict[str, str] | None = None, **headers: str) -> Answer:
        """Ask for a path; POST if there is a form. Words of headers are joined by '_'."""
        address = urlsplit(self.server.url)
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=20)
        sent = {"Cookie": self.cookie} if self.cookie else {}
        body = None
        if form is not None:
            body = urlencode(form)
            sent |= {"Content-Type": "application/x-www-form-urlencoded", "Origin": self.server.url}
        sent |= self.headers | {k.replace("_", "-"): v for k, v in headers.items()}
        method = "GET" if form is None else "POST"
        connection.putrequest(method, path, skip_host="Host" in sent)
        if body is not None:
            sent["Content-Length"] = str(len(body))
        for name, value in sent.items():
            connection.putheader(name, value)
        connection.endheaders(None if body is None else body.encode())
        found = connection.getresponse()
        answer = Answer(
            found.status, {k.lower(): v for k, v in found.getheaders()}, found.read().decode()
        )
        connection.close()
        return answer

    def sign_in(self) -> Client:
        answer = self.ask(self.server.login.removeprefix(self.server.url))
        assert answer.status == 200
        self.cookie = answer.headers["set-cookie"].partition(";")[0]
        return self

    def form(self, path: str) -> str:
        """Return the hidden token of a page's form."""
        return re.search(r'name="form" value="([0-9a-f]{64})"', self.ask(path).text)[1]


@contextmanager
def serving(config: UiConfig):
    server = UiServer(config)
    ready = threading.Event()
    thread = threading.Thread(target=server.serve_pages, args=(lambda _: ready.set(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield server
    finally:
        server.stop()
        thread.join(15)
        assert not thread.is_alive()


def events(text: str) -> list[tuple[str, str, str]]:
    """Return (event, id, data) of each event of a stream."""
    found = []
    for block in filter(None, text.split("\n\n")):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line[0] != ":")
        if fields:
            found.append((fields.get("event", ""), fields.get("id", ""), fields.get("data", "")))
    return found
