"""A small API server: keeps objects that fit their schemas, walks them through states on demand.

It stands for a cluster in tests only: nothing is scheduled, and no container runs.
"""

from __future__ import annotations

import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jsonschema

TOKEN = "a-token-of-the-cluster"
SCHEMAS = {
    name: json.loads((Path(__file__).parent / "kubernetes" / f"{name}.schema.json").read_text())
    for name in ("job", "service", "trainjob")
}
_PATH = re.compile(
    r"/(?:api/v1|apis/batch/v1|apis/trainer\.kubeflow\.org/v1alpha1)/namespaces/([^/]+)/"
    r"(jobs|services|trainjobs|pods)(?:/([^/]+))?(/log)?"
)


def check(thing: dict[str, Any]) -> None:
    """Raise unless an object fits the schema of its kind."""
    jsonschema.validate(thing, SCHEMAS[thing["kind"].lower()])


class Cluster:
    """What the server knows.

    Attributes:
        things: by (kind in plural, namespace, name).
        pods: their objects, by name.
        logs: lines of each pod, (stamp, text).
        asked: (method, path) of every request.
        lingering: objects that are deleted stay until `finish`.
        broken: answer everything with this status.
    """

    def __init__(self) -> None:
        self.things: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.pods: dict[str, dict[str, Any]] = {}
        self.logs: dict[str, list[tuple[str, str]]] = {}
        self.asked: list[tuple[str, str]] = []
        self.lingering = False
        self.broken = 0

    def thing(self, name: str, plural: str = "jobs") -> dict[str, Any]:
        return next(t for (p, _, n), t in self.things.items() if (p, n) == (plural, name))

    def say(self, name: str, plural: str = "jobs", **status: Any) -> None:
        """Set the status of an object; `suspend` is of its spec."""
        thing = self.thing(name, plural)
        if "suspend" in status:
            thing["spec"]["suspend"] = status.pop("suspend")
        thing["status"] = status

    def end(self, name: str, kind: str, plural: str = "jobs", **facts: str) -> None:
        condition = {"type": kind, "status": "True", **facts}
        earlier = {"type": "Suspended", "status": "False"}
        self.say(name, plural, conditions=[earlier, condition])

    def pod(self, job: str, rank: int, labels: dict[str, str] | None = None, **status: Any) -> str:
        """Add a pod of a job."""
        name = f"{job}-{rank}-abcde"
        labels = labels or {"batch.kubernetes.io/job-name": job}
        found = self.pods.setdefault(name, {})
        found |= {
            "metadata": {
                "name": name,
                "labels": {**labels, "batch.kubernetes.io/job-completion-index": str(rank)},
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {"containers": [{"name": "main"}]},
            "status": status,
        }
        self.logs.setdefault(name, [])
        return name

    def finish(self, name: str) -> None:
        """Let go of a deleted object."""
        self.things = {k: t for k, t in self.things.items() if k[2] != name}


class _Handler(BaseHTTPRequestHandler):
    @property
    def cluster(self) -> Cluster:
        return self.server.cluster  # type: ignore[attr-defined]

    def log_message(self, *args: Any) -> None:
        pass

    def _send(self, code: int, body: Any) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _refuse(self, code: int, text: str) -> None:
        self._send(code, {"kind": "Status", "status": "Failure", "message": text, "code": code})

    def _serve(self) -> None:
        address = urlsplit(self.path)
        self.cluster.asked.append((self.command, address.path))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.cluster.broken:
            return self._refuse(self.cluster.broken, "the server is unwell")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._refuse(401, "Unauthorized")
        match = _PATH.fullmatch(address.path)
        if match is None:
            return self._refuse(404, f"the server could not find {address.path}")
        namespace, plural, name, log = match.groups()
        query = {k: v[0] for k, v in parse_qs(address.query).items()}
        if plural == "pods":
            return self._log(name, query) if log else self._pods(query)
        if self.command == "POST":
            return self._create(namespace, plural, json.loads(body))
        thing = self.cluster.things.get((plural, namespace, name))
        if thing is None:
            return self._refuse(404, f'{plural} "{name}" not found')
        if self.command == "DELETE":
            assert json.loads(body)["propagationPolicy"] == "Foreground"
            thing["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            if not self.cluster.lingering:
                del self.cluster.things[plural, namespace, name]
        return self._send(200, thing)

    do_GET = do_POST = do_DELETE = _serve

    def _create(self, namespace: str, plural: str, thing: dict[str, Any]) -> None:
        try:
            check(thing)
        except jsonschema.ValidationError as error:
            return self._refuse(422, error.message)
        key = (plural, namespace, thing["metadata"]["name"])
        if key in self.cluster.things:
            return self._refuse(409, f'{plural} "{key[2]}" already exists')
        self.cluster.things[key] = thing
        return self._send(201, thing)

    def _pods(self, query: dict[str, str]) -> None:
        wanted = dict(part.split("=") for part in query["labelSelector"].split(","))
        found = [
            p
            for p in self.cluster.pods.values()
            if wanted.items() <= p["metadata"]["labels"].items()
        ]
        self._send(200, {"items": found})

    def _log(self, name: str, query: dict[str, str]) -> None:
        if name not in self.cluster.logs:
            return self._refuse(404, f'pods "{name}" not found')
        since = query.get("sinceTime", "")
        assert query["timestamps"] == "true"
        assert re.fullmatch(r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", since)
        lines = [f"{t} {text}\n" for t, text in self.cluster.logs[name] if t[:19] >= since[:19]]
        return self._send(200, "".join(lines).encode())


@contextmanager
def fake_cluster():
    """Give (what the server knows, its address)."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.cluster = Cluster()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.cluster, f"http://127.0.0.1:{server.server_port}"  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
