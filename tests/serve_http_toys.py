"""A server in this process and a client of it, for the tests of serving."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time

import serve_toys as toys
from understudy.update.serve_config import ServeConfig
from understudy.update.serve_http import HttpServer
from understudy.update.serve_token import Token

TOKEN = "0123456789abcdef0123"


def config_of(store, **changes):
    return ServeConfig(store=store[0].path, new=toys.NEW_COLUMN, port=0, grace_s=2.0, **changes)


@contextlib.contextmanager
def serving(service, token=TOKEN):
    server = HttpServer(service, Token(token, "test"))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()


def ask(server, body=None, *, path="/search", method="POST", token=TOKEN, kind="application/json"):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    if body is not None:
        headers["Content-Type"] = kind
        body = body if isinstance(body, bytes) else json.dumps(body)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"{}")
    finally:
        connection.close()


def wait_for(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
