"""`understudy update serve` as people run it: a process, clients, a backfill meanwhile."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import serve_toys as toys
from understudy import cli
from understudy.data.spaces import Space
from understudy.data.store import Store
from understudy.update.backfill import BackfillConfig, backfill
from understudy.update.backfill_encoder import open_encoder
from understudy.update.embedders import open_embedder
from understudy.update.plan import PlanConfig, make_plan
from understudy.update.serve_load import LoadConfig, check_answers, latency_summary, run_load

TOKEN = "a-token-of-the-tests-0123"
MODEL = "serve_toys:mean_colours"
ROWS = 240


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Pictures with an old model's vectors mapped to the new one; nothing is encoded yet."""
    path = tmp_path_factory.mktemp("serve") / "pictures.lance"
    batch = {**toys.batch(0, ROWS), "image": toys.pictures(ROWS)}
    store = Store.create(path, [batch], rows_per_fragment=100)
    space = open_embedder(MODEL, "image").space
    old = Space(model="old", fingerprint="old", dim=16)
    own = np.stack([toys.mean_colours([toys_picture(f)])[0] for f in batch["image"]])
    noise = np.random.default_rng(2).standard_normal(own.shape).astype(np.float32)
    toys.fill(store, "embed.new.from.old", old.mapped("map", space), own + 20 * noise)
    return store, own, space


def toys_picture(data):
    from understudy.data.decode import decode

    return decode(data)


@pytest.fixture(scope="module")
def server(made, tmp_path_factory):
    """A server in a process of its own: (what it printed, its log, the process)."""
    log = tmp_path_factory.mktemp("log") / "log"
    tests = Path(toys.__file__).parent
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "UNDERSTUDY_SERVE_TOKEN": TOKEN}
    environment["PYTHONPATH"] = os.pathsep.join([str(tests), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "understudy.cli", "update", "serve", made[0].path]
    command += ["--new", "embed.new", "--model", MODEL, "--port", "0", "--json", "--poll", "0.05"]
    command += ["--max-body-mb", "0.1", "--max-pixels", "10000", "--max-top-k", "300"]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        line = process.stdout.readline()
        assert line, log.read_text()
        yield json.loads(line), log, process
        if process.poll() is None:
            process.kill()
        process.stdout.close()
        process.wait(10)


def ask(server, body=None, *, path="/search", method="POST", token=TOKEN, kind="application/json"):
    netloc = server[0]["url"].removeprefix("http://")
    connection = http.client.HTTPConnection(netloc, timeout=20)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if body is not None:
        headers["Content-Type"] = kind
        body = body if isinstance(body, bytes) else json.dumps(body)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


def test_it_says_what_it_serves(server, made):
    facts = server[0]
    assert facts["url"].startswith("http://127.0.0.1:")
    assert (facts["rows"], facts["mapped"], facts["encoded"]) == (ROWS, ROWS, 0)
    assert facts["space"] == made[2].id
    assert facts["queries"] == ["vector", "image"]
    assert ask(server, path="/health", method="GET", token=None) == (200, {"status": "ok"})
    assert ask(server, path="/state", method="GET")[1]["version"] == facts["version"]


def test_a_picture_finds_itself(server, made):
    data = toys.pictures(ROWS)[7]
    status, answer = ask(server, data, path="/search?top_k=5", kind="image/png")
    assert status == 200
    assert "item-7" in [hit["id"] for hit in answer["hits"]]
    assert {hit["state"] for hit in answer["hits"]} == {"mapped"}


def test_refusals(server, made):
    vector = made[1][0].tolist()
    good = {"vector": vector, "space": made[2].id}
    for token in (None, TOKEN[:-1], "x" * 25):
        assert ask(server, good, token=token)[0] == 401
    old = Space(model="old", fingerprint="old", dim=16).id
    cases = [
        (409, {"vector": vector, "space": old}, f"{old}, but the gallery is searched from"),
        (400, {"vector": vector[:9], "space": made[2].id}, "has 9 numbers, the gallery's"),
        (400, {"text": "a cat"}, "encodes no texts; ask by image"),
        (400, {**good, "top_k": 301}, "from 1 to 300"),
        (400, {**good, "filter": "colour = 'red'"}, "not understood"),
        (413, b" " * 200_000, "the most is 100,000"),
        (400, {"image": "AAAA"}, "not a JPEG"),
    ]
    for status, body, words in cases:
        found = ask(server, body)
        assert found[0] == status, found
        assert words in found[1]["error"]
        assert made[0].path not in found[1]["error"]


def test_queries_during_a_backfill_are_each_of_one_version(server, made):
    """A real backfill commits a dozen times; every answer is the exact one of its version"""
    store = Store.open(made[0].path)
    plan = make_plan(store, PlanConfig(new="embed.new", policy="random", seed=1))
    encoder = open_encoder(store, plan, MODEL, column="image")
    over, failed = threading.Event(), []

    def write():
        try:
            for limit in range(12):
                config = BackfillConfig(limit=ROWS // 12, input="image", check_items=limit and 4)
                backfill(store, plan, encoder, config)
                over.wait(0.1)
            over.wait(0.5)
        except Exception as error:
            failed.append(error)
        over.set()

    queries = np.random.default_rng(3).uniform(0, 255, (20, 16)).astype(np.float32)
    writer = threading.Thread(target=write)
    writer.start()
    config = LoadConfig(clients=3, rate=120, seconds=60, top_k=30, vectors_every=3)
    answers = run_load(server[0]["url"], TOKEN, queries, made[2].id, config, over)
    writer.join()
    assert not failed
    assert check_answers(made[0].path, "embed.new", queries, answers, top_k=30) == []
    versions = [answer.version for answer in answers]
    assert len(set(versions)) >= 4
    facts = latency_summary(answers)
    assert facts["errors"] == 0
    assert facts["p50_ms"] <= facts["p95_ms"] <= facts["p99_ms"] <= facts["max_ms"]
    state = ask(server, path="/state", method="GET")[1]
    assert (state["mapped"], state["encoded"]) == (0, ROWS)
    hits = ask(server, {"vector": made[1][9].tolist(), "space": made[2].id})[1]["hits"]
    assert hits[0]["state"] == "encoded"
    assert hits[0]["space"] == made[2].id


def test_the_check_of_answers_finds_what_is_wrong(made, server):
    """The check that the test above relies on: each kind of fault is found"""
    from dataclasses import replace

    queries = np.random.default_rng(3).uniform(0, 255, (2, 16)).astype(np.float32)
    config = LoadConfig(clients=1, rate=50, seconds=0.1, top_k=5, vectors_every=1)
    answer = run_load(server[0]["url"], TOKEN, queries, made[2].id, config)[0]
    first = made[0].versions()[1]["version"]  # before anything was encoded
    flipped = (not answer.encoded[0], *answer.encoded[1:])
    faults = {
        "state": replace(answer, encoded=flipped),
        "score": replace(answer, scores=(answer.scores[0] + 0.1, *answer.scores[1:])),
        "different hits": replace(answer, rows=(*answer.rows[:4], answer.rows[0])),
        "vector": replace(answer, vectors=answer.vectors + 1e-3),
        "status 503": replace(answer, status=503),
        "is not that of the version": replace(answer, version=first),
    }
    for words, bad in faults.items():
        (sentence,) = check_answers(made[0].path, "embed.new", queries, [bad], top_k=5)
        assert words in sentence
    assert check_answers(made[0].path, "embed.new", queries, [answer], top_k=5) == []


def test_sigterm_ends_it_well_and_the_log_keeps_secrets(server):
    facts, log, process = server
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    text = log.read_text()
    assert text.rstrip().endswith("stopped")
    assert "POST /search 200" in text
    assert "taken over" in text
    assert TOKEN not in text
    assert "label" not in text
    assert facts["url"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--new", "embed.other"], "has no column 'embed.other' to serve"),
        ([], "name the column of the new model's vectors"),
        (["--new", "embed.new", "--host", "0.0.0.0"], "--allow-remote"),
        (["--new", "embed.new", "--token-file", "none"], "token file none: cannot be read"),
        (["--new", "embed.new", "--search", "index"], "no index to search"),
        (["--new", "embed.new", "--memory-mb", "0"], "memory_bytes: expected at least 1"),
        (
            ["--new", "embed.new", "--search", "memory", "--memory-mb", "1"],
            "MB in memory, the limit is 1 MB",
        ),
    ],
)
def test_bad_options_are_one_line_and_status_2(made, options, words, capsys, monkeypatch):
    monkeypatch.delenv("UNDERSTUDY_SERVE_TOKEN", raising=False)
    assert cli.main(["update", "serve", made[0].path, "--port", "0", *options]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
