"""Where the API server is and how to show who asks: a kubeconfig, or the account of a pod."""

from __future__ import annotations

import base64
import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from understudy.core.config import load_yaml
from understudy.core.errors import ConfigError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach an API server.

    Attributes:
        server: its address.
        token: shown with every request; empty: a certificate does.
        tls: how to check the server, and the certificate to show; None for plain HTTP.
    """

    server: str
    token: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = None


def find_access() -> Access:
    """Return access by `$KUBECONFIG`, `~/.kube/config`, or the service account of this pod.

    Raises:
        ConfigError: there is none, or it is of a kind that is not read.
    """
    named = os.environ.get("KUBECONFIG", "").split(os.pathsep)[0]
    path = Path(named or "~/.kube/config").expanduser()
    if path.is_file():
        return _from_file(path)
    host = os.environ.get("KUBERNETES_SERVICE_HOST")
    if host and not named:
        port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        host = f"[{host}]" if ":" in host else host
        token = (ACCOUNT / "token").read_text().strip()
        tls = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
        return Access(f"https://{host}:{port}", token, tls)
    raise ConfigError(
        f"kubernetes: there is no kubeconfig at {path} and this is no pod; set KUBECONFIG."
    )


def _named(data: dict[str, Any], kind: str, name: str, path: Path) -> dict[str, Any]:
    for entry in data.get(f"{kind}s") or ():
        if entry.get("name") == name:
            return entry.get(kind) or {}
    raise ConfigError(f"{path}: there is no {kind} '{name}'.")


def _file(facts: dict[str, Any], key: str, path: Path) -> str:
    """Return the text that a field, or the file that it names, holds."""
    if facts.get(f"{key}-data"):
        return base64.b64decode(facts[f"{key}-data"]).decode()
    if facts.get(key):
        return (path.parent / facts[key]).read_text()
    return ""


def _from_file(path: Path) -> Access:
    data = load_yaml(path)
    context = _named(data, "context", data.get("current-context", ""), path)
    cluster = _named(data, "cluster", context.get("cluster", ""), path)
    user = _named(data, "user", context.get("user", ""), path)
    server = str(cluster.get("server", "")).rstrip("/")
    if not server.startswith(("http://", "https://")):
        raise ConfigError(f"{path}: the cluster's server is '{server}', no address.")
    for kind in ("exec", "auth-provider", "username"):
        if kind in user:
            raise ConfigError(
                f"{path}: user '{context['user']}' signs in by {kind}, which is not read; use one "
                "with a token (kubectl create token NAME) or a client certificate."
            )
    token = str(user.get("token") or "")
    if user.get("tokenFile"):
        token = (path.parent / user["tokenFile"]).read_text().strip()
    return Access(server, token, _tls(server, cluster, user, path))


def _tls(
    server: str, cluster: dict[str, Any], user: dict[str, Any], path: Path
) -> ssl.SSLContext | None:
    if server.startswith("http://"):
        return None
    if cluster.get("insecure-skip-tls-verify"):
        raise ConfigError(
            f"{path}: insecure-skip-tls-verify lets anybody be the server; give its "
            "certificate-authority."
        )
    tls = ssl.create_default_context(cadata=_file(cluster, "certificate-authority", path) or None)
    certificate = user.get("client-certificate"), user.get("client-key")
    if all(certificate):
        tls.load_cert_chain(*(str(path.parent / str(name)) for name in certificate))
    elif user.get("client-certificate-data"):
        raise ConfigError(
            f"{path}: a client certificate is read from files; name it by client-certificate and "
            "client-key."
        )
    return tls
