"""A load test of a server: clients ask at a fixed rate, every answer is checked afterwards.

Requests are due at times that do not depend on earlier answers, and latency counts from when a
request was due: a server that stalls is charged for everything that had to wait.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np

from understudy.core.errors import ConfigError, DataError
from understudy.data.store import Store
from understudy.update.gallery import ABSENT, ENCODED
from understudy.update.serve_versions import open_newest


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadConfig:
    """How hard a server is asked.

    Attributes:
        clients: connections, each with one request at a time.
        rate: requests a second, all clients together.
        seconds: how long.
        top_k: neighbours of each request.
        vectors_every: each so-many-th request asks for the neighbours' vectors too; 0 none.

    Raises:
        ConfigError: a value that is not positive.
    """

    clients: int = 2
    rate: float = 20.0
    seconds: float = 20.0
    top_k: int = 10
    vectors_every: int = 10

    def __post_init__(self) -> None:
        for name in ("clients", "rate", "seconds", "top_k"):
            if not getattr(self, name) > 0:
                raise ConfigError(
                    f"LoadConfig.{name}: expected above 0, got {getattr(self, name)}."
                )


@dataclass(frozen=True, slots=True)
class Answer:
    """One request and what came back.

    Attributes:
        query: number of the query vector.
        due: seconds from the start at which it was to be sent.
        latency: seconds from then until the answer was read.
        took: seconds of it that the server says it took.
        status: HTTP status.
        version: version of the store that it was answered from; -1 for an error.
        rows: row numbers of the hits.
        scores: their scores.
        encoded: whether each is the new model's own vector.
        vectors: their vectors, if they were asked for.
        error: the server's sentence, if it refused.
    """

    query: int
    due: float
    latency: float
    took: float
    status: int
    version: int = -1
    rows: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()
    encoded: tuple[bool, ...] = ()
    vectors: np.ndarray | None = None
    error: str = ""


def run_load(
    url: str,
    token: str,
    queries: np.ndarray,
    space: str,
    config: LoadConfig,
    stop: threading.Event | None = None,
) -> list[Answer]:
    """Ask a server for a while and return all answers, in the order in which they were due.

    Args:
        url: where it listens.
        token: what it asks for.
        queries: float32 [M, D], asked in turn.
        space: id of the space that they are in.
        config: how hard it is asked.
        stop: ends the test early when it is set.
    """
    stop = stop or threading.Event()
    bodies = [
        [
            json.dumps({"vector": q, "space": space, "top_k": config.top_k, "with_vectors": full})
            for full in (False, True)
        ]
        for q in np.asarray(queries, np.float64).tolist()
    ]
    answers: list[Answer] = []
    start = time.perf_counter() + 0.2

    def client(number: int) -> None:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        step = number
        while not stop.is_set() and (due := step / config.rate) < config.seconds:
            wait = start + due - time.perf_counter()
            if wait > 0:
                time.sleep(wait)
            full = bool(config.vectors_every) and step % config.vectors_every == 0
            query = step % len(bodies)
            answers.append(_ask(connection, token, bodies[query][full], query, start, due))
            step += config.clients
        connection.close()

    threads = [threading.Thread(target=client, args=(i,)) for i in range(config.clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(answers, key=lambda answer: answer.due)


def _ask(
    connection: http.client.HTTPConnection,
    token: str,
    body: str,
    query: int,
    start: float,
    due: float,
) -> Answer:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    try:
        connection.request("POST", "/search", body, headers)
        answer = connection.getresponse()
        data = answer.read()
    except OSError as error:
        connection.close()
        latency = time.perf_counter() - start - due
        return Answer(query, due, latency, 0.0, 0, error=f"{type(error).__name__}: {error}")
    latency = time.perf_counter() - start - due
    found = json.loads(data)
    if answer.status != 200:
        return Answer(query, due, latency, 0.0, answer.status, error=str(found.get("error")))
    hits = found["hits"]
    vectors = None
    if hits and "vector" in hits[0]:
        vectors = np.array([hit["vector"] for hit in hits], np.float32)
    return Answer(
        query,
        due,
        latency,
        found["took_ms"] / 1e3,
        200,
        found["version"],
        tuple(hit["row"] for hit in hits),
        tuple(hit["score"] for hit in hits),
        tuple(hit["state"] == "encoded" for hit in hits),
        vectors,
    )


def latency_summary(answers: Sequence[Answer]) -> dict[str, float]:
    """Return count, errors, requests a second, and p50, p95, p99 and largest latency in ms.

    `server_p99_ms` is that of the server's own time, without connection and client.

    Raises:
        DataError: there are no answers.
    """
    if not answers:
        raise DataError("load test: no request was sent; give it more seconds or a higher rate.")
    milliseconds = 1e3 * np.array([answer.latency for answer in answers])
    ends = [answer.due + answer.latency for answer in answers]
    p50, p95, p99 = np.percentile(milliseconds, [50, 95, 99])
    return {
        "requests": len(answers),
        "errors": sum(answer.status != 200 for answer in answers),
        "requests_per_s": round(len(answers) / max(max(ends) - answers[0].due, 1e-9), 2),
        "p50_ms": round(float(p50), 2),
        "p95_ms": round(float(p95), 2),
        "p99_ms": round(float(p99), 2),
        "max_ms": round(float(milliseconds.max()), 2),
        "server_p99_ms": round(1e3 * float(np.percentile([a.took for a in answers], 99)), 2),
    }


def check_answers(
    store: str,
    new: str,
    queries: np.ndarray,
    answers: Sequence[Answer],
    *,
    mapped: str = "",
    top_k: int = 10,
    tolerance: float = 1e-5,
) -> list[str]:
    """Check that each answer is the right one for exactly the version that it names.

    Scores (cosine) are computed anew in float64 from what that version holds; every hit must have
    its score, state and vector, and no other row may be nearer than the last hit.

    Args:
        store: path of the store, whose versions are all there.
        new: column of the new model's own vectors.
        queries: float32 [M, D] of the test.
        answers: what came back.
        mapped: column of mapped vectors; empty takes `<new>.from.<old>`.
        top_k: neighbours that were asked for.
        tolerance: of scores.

    Returns:
        One sentence for each answer that is wrong.
    """
    wrong = [
        f"request due at {a.due:.2f} s: status {a.status}, {a.error}"
        for a in answers
        if a.status != 200
    ]
    good = [answer for answer in answers if answer.status == 200]
    wide = np.asarray(queries, np.float64)
    wide = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    for version in sorted({answer.version for answer in good}):
        gallery = open_newest(Store.open(store, version), new, mapped)
        states = gallery.states()
        vectors = np.zeros((gallery.num_rows, gallery.dim), np.float32)
        for part in gallery.stream():
            vectors[part.rows] = part.vectors
        lengths = np.maximum(np.linalg.norm(vectors.astype(np.float64), axis=1), 1e-300)
        for answer in (a for a in good if a.version == version):
            scores = (vectors @ wide[answer.query]) / lengths
            scores[states == ABSENT] = -np.inf
            fault = _fault(answer, scores, states, vectors, top_k, tolerance)
            if fault:
                wrong.append(f"request due at {answer.due:.2f} s, version {version}: {fault}")
    return wrong


def _fault(
    answer: Answer,
    scores: np.ndarray,
    states: np.ndarray,
    vectors: np.ndarray,
    top_k: int,
    tolerance: float,
) -> str:
    rows = np.array(answer.rows, np.int64)
    wanted = min(top_k, int(np.isfinite(scores).sum()))
    if len(rows) != wanted or len(np.unique(rows)) != wanted:
        return f"{len(np.unique(rows))} different hits instead of {wanted}."
    if not np.array_equal(states[rows] == ENCODED, np.array(answer.encoded)):
        return "a hit's state is not that of the version."
    if np.abs(scores[rows] - np.array(answer.scores)).max() > tolerance:
        return "a hit's score is not that of the version's vector."
    if (np.diff(answer.scores) > 0).any():
        return "hits are not in the order of their scores."
    others = scores.copy()
    others[rows] = -np.inf
    if len(rows) and others.max() > scores[rows].min() + tolerance:
        return f"row {int(others.argmax())} is nearer than the last hit."
    if answer.vectors is not None and not np.array_equal(answer.vectors, vectors[rows]):
        return "a returned vector is not the version's."
    return ""
