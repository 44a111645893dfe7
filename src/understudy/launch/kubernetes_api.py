"""The calls to an API server that jobs need, with nothing but the standard library."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

from understudy.core.errors import UnderstudyError
from understudy.launch.kubernetes_config import Access

TIMEOUT_S = 30.0
JOB, TRAINJOB, SERVICE = "Job", "TrainJob", "Service"
_PLACES = {
    JOB: ("apis/batch/v1", "jobs"),
    TRAINJOB: ("apis/trainer.kubeflow.org/v1alpha1", "trainjobs"),
    SERVICE: ("api/v1", "services"),
}
Thing = dict[str, Any]


class KubernetesError(UnderstudyError):
    """The API server refused, or cannot be reached.

    Args:
        text: what happened.
        code: of HTTP; 0 if it was not reached.
    """

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """An API server does not redirect; a token goes nowhere else."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class Api:
    """An API server.

    Args:
        access: where it is and how to show who asks.
    """

    def __init__(self, access: Access) -> None:
        self.access = access
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
        if access.tls is not None:
            handlers.append(urllib.request.HTTPSHandler(context=access.tls))
        self._opener = urllib.request.build_opener(*handlers)

    def _open(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Accept": "application/json"}
        if self.access.token:
            headers["Authorization"] = f"Bearer {self.access.token}"
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(
            f"{self.access.server}/{path}", data, headers, method=method
        )
        try:
            return self._opener.open(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            raise KubernetesError(
                f"kubernetes: {method} /{path.partition('?')[0]}: {_told(error)}", error.code
            ) from None
        except (urllib.error.URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise KubernetesError(
                f"kubernetes: the API server {self.access.server} cannot be reached ({reason})."
            ) from None

    def _json(self, method: str, path: str, body: Any = None) -> Thing:
        with self._open(method, path, body) as answer:
            return json.loads(answer.read())

    def create(self, thing: Thing) -> bool:
        """Create an object; False if one of this name is there.

        Raises:
            KubernetesError: the server refuses it.
        """
        group, plural = _PLACES[thing["kind"]]
        try:
            self._json("POST", f"{group}/namespaces/{thing['metadata']['namespace']}/{plural}",
                       thing)  # fmt: skip
        except KubernetesError as error:
            if error.code == 409:
                return False
            raise
        return True

    def read(self, kind: str, namespace: str, name: str) -> Thing | None:
        """Return an object; None if there is none."""
        group, plural = _PLACES[kind]
        try:
            return self._json("GET", f"{group}/namespaces/{namespace}/{plural}/{quote(name)}")
        except KubernetesError as error:
            if error.code == 404:
                return None
            raise

    def delete(self, kind: str, namespace: str, name: str) -> None:
        """Begin to delete an object and what belongs to it; one that is gone is no error."""
        group, plural = _PLACES[kind]
        how = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Foreground"}
        try:
            self._json("DELETE", f"{group}/namespaces/{namespace}/{plural}/{quote(name)}", how)
        except KubernetesError as error:
            if error.code != 404:
                raise

    def pods(self, namespace: str, selector: str) -> list[Thing]:
        """Return the pods that have labels."""
        query = urlencode({"labelSelector": selector})
        return self._json("GET", f"api/v1/namespaces/{namespace}/pods?{query}")["items"]

    def log(self, namespace: str, pod: str, container: str, since: str = "") -> Iterator[str]:
        """Yield the lines of a container that are there, each begun by its time.

        Args:
            namespace: of the pod.
            pod: its name.
            container: its name.
            since: only from this time (RFC 3339, whole seconds) on.
        """
        query = {"container": container, "timestamps": "true"}
        if since:
            query["sinceTime"] = since
        path = f"api/v1/namespaces/{namespace}/pods/{quote(pod)}/log?{urlencode(query)}"
        try:
            answer = self._open("GET", path)
        except KubernetesError as error:
            if error.code in (400, 404):  # the container has not begun, or its pod is gone
                return
            raise
        with answer:
            for line in answer:
                yield line.decode("utf-8", "replace").rstrip("\r\n")


def _told(error: urllib.error.HTTPError) -> str:
    """Return what a refusal says, in a line."""
    try:
        text = str(json.loads(error.read(1 << 20))["message"])
    except (ValueError, KeyError, TypeError):
        text = error.reason
    return f"{error.code} {' '.join(text.split())[:500]}"
