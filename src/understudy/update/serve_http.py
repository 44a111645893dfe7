"""A service behind HTTP, with nothing but the standard library.

| request | answer |
| --- | --- |
| `GET /health` | `{"status": "ok"}`; asks for no token and tells nothing |
| `GET /state` | version, rows by state, spaces |
| `POST /search` | neighbours; JSON with `vector`, `text` or `image`, or a raw image or text |

Every answer is JSON; an error's is `{"error": "one sentence"}`. A body is read only after its
token and length were checked. The log has method, path, status and milliseconds, never a body, a
query string or a header.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import parse_qsl

from understudy.core.errors import ConfigError, DataError
from understudy.data.spaces import SpaceError
from understudy.update.queries import QueryError, parse_query
from understudy.update.serve import Service
from understudy.update.serve_token import Token

_LOG = logging.getLogger("understudy.update.serve")
_ROUTES = {"/health": "GET", "/state": "GET", "/search": "POST"}
_DRAIN_BYTES = 1 << 20  # of a refused body, so that the refusal can be read before the reset


class Handler(BaseHTTPRequestHandler):
    """One connection; a thread of its own."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "understudy", ""
    disable_nagle_algorithm = True

    @property
    def _http(self) -> HttpServer:
        return cast(HttpServer, self.server)

    def setup(self) -> None:
        """Set the time that a client may keep silent."""
        super().setup()
        self._unread = 0  # bytes of the body that are still to come; -1 if nobody knows
        self.connection.settimeout(self._http.service.config.timeout_s)

    def do_GET(self) -> None:
        """Answer `/health` and `/state`."""
        self._serve("GET")

    def do_POST(self) -> None:
        """Answer `/search`."""
        self._serve("POST")

    def _refuse_method(self) -> None:
        self._serve(self.command)

    do_HEAD = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _refuse_method

    def _serve(self, method: str) -> None:
        start = time.perf_counter()
        path, _, query = self.path.partition("?")
        status, extra = 200, {}
        self._unread = _length(self.headers.get("Content-Length")) or 0
        if "Transfer-Encoding" in self.headers:
            self._unread = -1
        try:
            body = self._answer(method, path, query)
        except QueryError as error:
            status, body = error.status, {"error": str(error)}
            extra = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "1"}}.get(status, {})
        except (DataError, ConfigError) as error:
            status = 409 if isinstance(error, SpaceError) else 400
            body = {"error": str(error)}
        except (ConnectionError, TimeoutError):
            self.close_connection = True
            return
        except Exception as error:
            _LOG.exception("while answering %s", path if path in _ROUTES else "an unknown path")
            status, body = 500, {"error": f"internal error ({type(error).__name__}); see the log."}
        if "error" in body:  # where the store lies is nobody's business
            body["error"] = body["error"].replace(self._http.service.config.store, "the store")
        self._send(status, body, extra)
        shown = path if path in _ROUTES else "(unknown path)"
        milliseconds = 1e3 * (time.perf_counter() - start)
        _LOG.info("%s %s %d %.1f ms", method, shown, status, milliseconds)

    def _answer(self, method: str, path: str, query: str) -> dict[str, Any]:
        if path not in _ROUTES:
            raise QueryError(404, f"there is no such path; there are {', '.join(_ROUTES)}.")
        if method != _ROUTES[path]:
            raise QueryError(405, f"{path} is asked by {_ROUTES[path]}.")
        if path == "/health":
            return {"status": "ok"}
        if not self._http.token.allows(self.headers.get("Authorization")):
            raise QueryError(401, "show the server's token: 'Authorization: Bearer TOKEN'.")
        if path == "/state":
            return self._http.service.state()
        body = self._body()
        limits = self._http.service.config.limits
        try:
            options = dict(parse_qsl(query, keep_blank_values=True, max_num_fields=8))
        except ValueError:
            raise QueryError(400, "the query string has too many fields.") from None
        kind = self.headers.get("Content-Type", "")
        return self._http.service.answer(parse_query(body, kind, options, limits))

    def _check_length(self) -> int:
        """Return how many bytes the body has.

        Raises:
            QueryError: unknown, or too many.
        """
        limit = self._http.service.config.limits.body_bytes
        unread, self._unread = self._unread, -1  # until its length is known to be good
        if "Transfer-Encoding" in self.headers or "Content-Length" not in self.headers:
            raise QueryError(411, "a body needs a Content-Length.")
        if self.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise QueryError(415, "compressed bodies are not read; send it as it is.")
        lengths = self.headers.get_all("Content-Length", [])
        length = _length(lengths[0]) if len(lengths) == 1 else None
        if length is None:
            raise QueryError(400, "Content-Length is not a number of bytes.")
        if length > limit:
            raise QueryError(413, f"the body has {length:,} bytes, the most is {limit:,}.")
        self._unread = unread
        return length

    def _body(self) -> bytes:
        length = self._check_length()
        body = self.rfile.read(length)
        self._unread -= len(body)
        if len(body) < length:
            raise ConnectionError
        return body

    def handle_expect_100(self) -> bool:
        """Ask for a body only if its token and length are good; else the answer comes at once."""
        path = self.path.partition("?")[0]
        allowed = self._http.token.allows(self.headers.get("Authorization"))
        try:
            self._check_length()
        except QueryError:
            allowed = False
        if not allowed or _ROUTES.get(path) != self.command:
            return True  # `_serve` refuses it; the client sends no body
        return super().handle_expect_100()

    def _send(self, status: int, body: Mapping[str, Any], extra: Mapping[str, str]) -> None:
        data = json.dumps(body, allow_nan=False).encode() + b"\n"
        if self._unread or self._http.stopping:
            self.close_connection = True
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            "Cache-Control": "no-store",
            **extra,
            **({"Connection": "close"} if self.close_connection else {}),
        }
        lines = [f"HTTP/1.1 {status} {self.responses.get(status, ('',))[0]}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join([*lines, "", ""]).encode()
        try:
            # one packet: a second small one would wait for the first one's acknowledgement
            self.wfile.write(head if self.command == "HEAD" else head + data)
            if self._unread:
                self._drain()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _drain(self) -> None:
        """Read some of a refused body: closing on unread bytes would reset the answer away."""
        self.connection.shutdown(socket.SHUT_WR)
        self.connection.settimeout(0.2)
        left = _DRAIN_BYTES
        with contextlib.suppress(OSError):
            while left > 0 and (read := len(self.connection.recv(min(left, 1 << 16)))):
                left -= read

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what the library refuses (malformed or over-long lines) in JSON as well."""
        del explain
        self._unread, self.close_connection = -1, True
        self.command = getattr(self, "command", None) or "GET"
        self._send(code, {"error": f"the request was not understood ({message or code})."}, {})
        _LOG.info("malformed request %d", code)

    def log_message(self, format: str, *args: Any) -> None:
        """Stay silent: `_serve` writes the log, without query strings."""


def _length(text: str | None) -> int | None:
    """Return a length header as a number; None if it is none."""
    if text is None or not (text.isascii() and text.isdigit()) or len(text) > 15:
        return None
    return int(text)


class HttpServer(ThreadingHTTPServer):
    """Listens, and gives each connection a thread.

    Args:
        service: who answers.
        token: what a client must show.

    Attributes:
        stopping: no further request is taken on a connection.

    Raises:
        ConfigError: the port is taken, or the address cannot be listened on.
    """

    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = True

    def __init__(self, service: Service, token: Token) -> None:
        config = service.config
        self.service, self.token, self.stopping = service, token, False
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.address_family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        try:
            super().__init__((config.host, config.port), Handler)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {config.host} port {config.port} ({error.strerror}); choose "
                "another --port, or 0 for a free one."
            ) from None

    def server_bind(self) -> None:
        """Bind without asking the name service for this machine's name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    @property
    def url(self) -> str:
        """Where it listens."""
        host = self.service.config.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection a thread, or turn it away when there are too many."""
        with self._lock:
            full = len(self._connections) >= self.service.config.connections
            if not full:
                self._connections.add(request)
        if not full:
            super().process_request(request, client_address)
            return
        data = b'{"error": "too many open connections; ask again in a moment."}\n'
        head = f"HTTP/1.1 503 Service Unavailable\r\nContent-Length: {len(data)}\r\n"
        head += "Content-Type: application/json\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
        with contextlib.suppress(OSError):
            request.settimeout(0.2)
            request.sendall(head.encode() + data)
        self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection and forget it."""
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what went wrong on a connection, without its content."""
        del request, client_address
        _LOG.debug("a connection broke", exc_info=True)

    def stop(self) -> bool:
        """Take no more requests and wait for those that are running.

        Returns:
            Whether all were answered within the grace time. To be called from another thread than
            `serve_forever`.
        """
        self.stopping = True
        self.shutdown()
        with self._lock:
            waiting = list(self._connections)
        for connection in waiting:  # those that wait for a request read the end of the stream
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RD)
        end = time.monotonic() + self.service.config.grace_s
        while self._connections and time.monotonic() < end:
            time.sleep(0.02)
        self.server_close()
        return not self._connections
