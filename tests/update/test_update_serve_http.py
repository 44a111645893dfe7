"""The HTTP front, in this process: answers, refusals, tokens, limits, stopping."""

from __future__ import annotations

import base64
import http.client
import io
import json
import logging
import socket
import threading
import time

import numpy as np
import pytest
from PIL import Image

import serve_toys as toys
from serve_http_toys import TOKEN, ask, config_of, serving, wait_for
from understudy.core.errors import ConfigError
from understudy.update.gallery import Gallery
from understudy.update.queries import Limits
from understudy.update.search import search
from understudy.update.serve import Service
from understudy.update.serve_config import ServeConfig
from understudy.update.serve_encoders import Encoders
from understudy.update.serve_http import HttpServer
from understudy.update.serve_token import Token
from understudy.update.serve_versions import View

ROWS, ENCODED = 150, [0, 4, 9, 33, 100]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("serve") / "store"
    return toys.make_store(path, ROWS, encoded_rows=ENCODED)


@pytest.fixture(scope="module")
def server(store):
    limits = Limits(body_bytes=50_000, pixels=10_000, top_k=50)
    encoders = Encoders([toys.colour_embedder("image"), toys.colour_embedder("text")])
    with serving(Service(config_of(store, limits=limits), encoders)) as running:
        yield running


def test_hits_have_id_score_space_state_and_version(server, store):
    data, own, mapped = store
    query = own[4] + mapped[7]
    status, answer = ask(
        server,
        {"vector": query.tolist(), "space": toys.NEW.id, "top_k": 12, "with_vectors": True},
    )
    assert status == 200
    assert answer["version"] == data.version
    assert answer["space"] == toys.NEW.id
    stored = {i: own[i] if i in ENCODED else mapped[i] for i in range(ROWS)}
    rows, scores = toys.brute(query, stored, 12, "cosine")
    assert [hit["row"] for hit in answer["hits"]] == rows
    assert [hit["id"] for hit in answer["hits"]] == [f"item-{row}" for row in rows]
    np.testing.assert_allclose([hit["score"] for hit in answer["hits"]], scores, atol=1e-6)
    for hit in answer["hits"]:
        encoded = hit["row"] in ENCODED
        assert hit["state"] == ("encoded" if encoded else "mapped")
        assert hit["space"] == (toys.NEW.id if encoded else toys.MAPPED.id)
        assert np.array_equal(np.float32(hit["vector"]), stored[hit["row"]])
    assert {hit["state"] for hit in answer["hits"]} == {"encoded", "mapped"}


def test_text_and_image_raw_and_in_json(server, store):
    picture = io.BytesIO()
    Image.new("RGB", (9, 9), (10, 200, 90)).save(picture, "PNG")
    raw = ask(server, picture.getvalue(), path="/search?top_k=3", kind="image/png")
    coded = base64.b64encode(picture.getvalue()).decode()
    same = ask(server, {"image": coded, "top_k": 3})
    assert raw[0] == same[0] == 200
    assert raw[1]["hits"] == same[1]["hits"]
    assert len(raw[1]["hits"]) == 3
    status, answer = ask(
        server, b"abba", path="/search?top_k=2&filter=label%20%3D%203", kind="text/plain"
    )
    vector = toys.Colours("text").encode(["abba"])[0][0]
    gallery = Gallery.open(store[0], new=toys.NEW_COLUMN, mapped=toys.MAPPED_COLUMN)
    expected = search(gallery, vector, 2, space=toys.NEW, filter="label = 3")
    assert status == 200
    assert [hit["row"] for hit in answer["hits"]] == expected.rows[0].tolist()
    assert answer == ask(server, {"text": "abba", "top_k": 2, "filter": "label = 3"})[1] | {
        "took_ms": answer["took_ms"]
    }


def test_health_and_state(server, store):
    assert ask(server, path="/health", method="GET", token=None) == (200, {"status": "ok"})
    status, state = ask(server, path="/state", method="GET")
    assert status == 200
    assert (state["absent"], state["mapped"], state["encoded"]) == (0, ROWS - 5, 5)
    assert state["version"] == store[0].version
    assert state["spaces"] == {"mapped": toys.MAPPED.id, "encoded": toys.NEW.id}
    assert state["search"] == "memory"
    assert state["queries"] == ["vector", "image", "text"]


@pytest.mark.parametrize("token", [None, "", "x", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "é"])
def test_without_the_token_nothing_is_told(server, token):
    for path, method, body in (("/search", "POST", {"text": "a"}), ("/state", "GET", None)):
        shown = None if token is None else token.encode("latin-1").decode("latin-1")
        status, answer = ask(server, body, path=path, method=method, token=shown)
        assert status == 401
        assert list(answer) == ["error"]
        assert "Bearer TOKEN" in answer["error"]
        assert TOKEN not in json.dumps(answer)


def test_bad_input_is_one_sentence_of_json(server):
    vector = [0.5] * 16
    cases = [
        (400, {"vector": vector[:5], "space": toys.NEW.id}, "has 5 numbers, the gallery's"),
        (400, {"vector": vector}, "names the space it is in"),
        (409, {"vector": vector, "space": toys.OLD.id}, toys.OLD.id),
        (409, {"text": "a", "space": toys.OLD.id}, "leave it out"),
        (400, {"vector": vector, "space": toys.NEW.id, "top_k": 51}, "from 1 to 50"),
        (400, {"vector": vector, "space": toys.NEW.id, "filter": "nope = 1"}, "not understood"),
        (400, {"vector": vector, "space": toys.NEW.id, "filter": "label = '"}, "not understood"),
        (400, b"not json", "not JSON"),
        (400, {"image": "AAAA"}, "not a JPEG"),
        (413, b"{" + b" " * 60_000, "60,001 bytes, the most is 50,000"),
        (413, b"{" + b" " * 3_000_000, "the most is 50,000"),
    ]
    for expected, body, words in cases:
        try:
            status, answer = ask(server, body)
        except (BrokenPipeError, ConnectionResetError):
            # refused while most of it was still to be sent: the client need not see the answer
            assert len(body) > 1_000_000
            continue
        assert status == expected, answer
        assert words in answer["error"]
        assert "\n" not in answer["error"]
        assert server.service.config.store not in answer["error"]
    assert ask(server, path="/nowhere", method="GET")[0] == 404
    assert ask(server, {"text": "a"}, path="/state")[0] == 405
    assert ask(server, path="/search", method="DELETE")[0] == 405


def raw(server, data, wait=True):
    """Send bytes as they are and return what comes back."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=5) as connection:
        connection.sendall(data)
        found = b""
        while wait and (part := connection.recv(65536)):
            found += part
        return found


def test_malformed_requests(server):
    auth = f"Authorization: Bearer {TOKEN}\r\n".encode()
    head = b"POST /search HTTP/1.1\r\nHost: x\r\n" + auth
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    twice = head + b"Content-Length: 2\r\nContent-Length: 5\r\n\r\n{}"
    cases = {
        b" 411 ": [head + b"\r\n", chunked],
        b" 400 ": [head + b"Content-Length: -5\r\n\r\n", twice, b"GET\r\n\r\n", b"a b c d\r\n\r\n"],
        b" 414 ": [b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n"],
        b" 415 ": [head + b"Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx"],
        b" 505 ": [b"GET / HTTP/9.9\r\n\r\n"],
    }
    for status, requests in cases.items():
        for request in requests:
            answer = raw(server, request)
            assert status in answer.split(b"\r\n")[0] + b" ", (request[:60], answer)
            assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["error"]
    expecting = head + b"Expect: 100-continue\r\nContent-Length: 90000\r\n\r\n"
    assert b" 413 " in raw(server, expecting).split(b"\r\n")[0]
    assert ask(server, path="/health", method="GET")[0] == 200


def test_a_connection_is_kept_and_answers_in_one_packet(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        connection.request("POST", "/search", json.dumps({"text": "ab"}), headers)
        assert len(json.loads(connection.getresponse().read())["hits"]) == 10
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.03  # waiting for delayed acknowledgements takes 40 ms each time
    connection.close()


def test_the_log_has_no_bodies_queries_or_tokens(server, caplog):
    with caplog.at_level(logging.DEBUG, logger="understudy.update.serve"):
        ask(server, {"text": "secret words"})
        ask(server, b"abba", path="/search?filter=label%20%3D%203", kind="text/plain")
        ask(server, path="/private/secret", method="GET")
        ask(server, {"text": "a"}, token="wrong-token-wrong")
        # the last one of ours: a client of the test before may still be answered
        wait_for(lambda: "401" in caplog.text and "404" in caplog.text)
    text = caplog.text
    assert "POST /search 200" in text
    assert "GET (unknown path) 404" in text
    assert "POST /search 401" in text
    for hidden in ("secret", "label", TOKEN, "wrong-token"):
        assert hidden not in text


def test_too_many_connections_and_searches_are_turned_away(store, monkeypatch):
    service = Service(config_of(store, connections=2, workers=1, wait_s=0.1))
    free, inside = threading.Event(), threading.Event()
    found = View.search

    def slow(self, *args):
        inside.set()
        free.wait(10)
        return found(self, *args)

    monkeypatch.setattr(View, "search", slow)
    query = {"vector": [1.0] * 16, "space": toys.NEW.id}
    with serving(service) as running:
        first = threading.Thread(target=ask, args=(running, query))
        first.start()
        inside.wait(10)
        status, answer = ask(running, query)  # one searches, one waits for its turn in vain
        assert status == 503
        assert "too many searches" in answer["error"]
        wait_for(lambda: len(running._connections) == 1)
        holding = socket.create_connection(("127.0.0.1", running.server_port))
        wait_for(lambda: len(running._connections) == 2)
        status, answer = ask(running, path="/health", method="GET")
        assert status == 503
        assert "too many open connections" in answer["error"]
        free.set()
        first.join()
        holding.close()
        wait_for(lambda: not running._connections)
        assert ask(running, query)[0] == 200


def test_stopping_answers_what_runs_and_closes_what_waits(store, monkeypatch):
    service = Service(config_of(store))
    found, asked = service.answer, threading.Event()

    def slow(query):
        asked.set()
        time.sleep(0.4)
        return found(query)

    monkeypatch.setattr(service, "answer", slow)
    server = HttpServer(service, Token(TOKEN, "test"))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    idle = socket.create_connection(("127.0.0.1", server.server_port))
    answers = []
    query = {"vector": [1.0] * 16, "space": toys.NEW.id}
    running = threading.Thread(target=lambda: answers.append(ask(server, query)))
    running.start()
    wait_for(asked.is_set)
    start = time.perf_counter()
    assert server.stop()
    assert time.perf_counter() - start < 1.5
    running.join()
    thread.join()
    assert answers[0][0] == 200
    assert len(answers[0][1]["hits"]) == 10
    assert idle.recv(10) == b""
    idle.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", server.server_port), timeout=1)


def test_a_taken_port_is_named(store, server):
    service = Service(ServeConfig(store=store[0].path, new="embed.v2", port=server.server_port))
    with pytest.raises(ConfigError, match=f"port {server.server_port}.*--port"):
        HttpServer(service, Token(TOKEN, "test"))
