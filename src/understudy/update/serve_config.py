"""What a serving process is told, and which addresses it may listen on."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass, field

from understudy.core.config import check_choice
from understudy.core.errors import ConfigError
from understudy.update.queries import Limits
from understudy.update.search_scores import METRICS

SEARCHES = ("auto", "memory", "index", "stream")


def is_loopback(host: str) -> bool:
    """Say whether every address of a host is this machine's own.

    Raises:
        ConfigError: the host has no address.
    """
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        raise ConfigError(f"host '{host}': it has no address on this machine.") from None
    return all(ipaddress.ip_address(text.partition("%")[0]).is_loopback for text in found)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeConfig:
    """How a gallery is served.

    Attributes:
        store: path of the store.
        new: column of the new model's own vectors, or a mixed column.
        mapped: column of vectors mapped to that model; empty takes the one column
            `<new>.from.<old>` that there is, if any.
        metric: cosine, dot or l2; an index's own counts when search goes through it.
        search: `memory` keeps the vectors in memory, `index` asks Lance's indexes, `stream` reads
            the columns for each query, `auto` takes the first that can be.
        memory_bytes: the most that vectors in memory may take.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        allow_remote: listen on an address that other machines reach. There is no encryption: put
            a proxy that ends TLS in front.
        workers: searches at a time.
        connections: open connections at a time; more are turned away.
        poll_s: seconds between two looks for a new version of the store.
        timeout_s: seconds that a client may keep silent within a request.
        wait_s: seconds that a search may wait for its turn.
        grace_s: seconds that running requests are given when the server stops.
        limits: what one query may cost.

    Raises:
        ConfigError: a value out of range, or a host that others reach without `allow_remote`.
    """

    store: str
    new: str = ""
    mapped: str = ""
    metric: str = "cosine"
    search: str = "auto"
    memory_bytes: int = 4 << 30
    host: str = "127.0.0.1"
    port: int = 8741
    allow_remote: bool = False
    workers: int = 2
    connections: int = 64
    poll_s: float = 1.0
    timeout_s: float = 30.0
    wait_s: float = 10.0
    grace_s: float = 10.0
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        check_choice(self.metric, METRICS, "ServeConfig.metric")
        check_choice(self.search, SEARCHES, "ServeConfig.search")
        if not self.new and not self.mapped:
            raise ConfigError(
                "ServeConfig.new: name the column of the new model's vectors (--new embed.NAME), "
                "the column of mapped vectors (--mapped), or both."
            )
        for name, least in (("memory_bytes", 1), ("workers", 1), ("connections", 1)):
            if getattr(self, name) < least:
                raise ConfigError(
                    f"ServeConfig.{name}: expected at least {least}, got {getattr(self, name)}."
                )
        for name in ("poll_s", "timeout_s", "wait_s", "grace_s"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(
                    f"ServeConfig.{name}: expected seconds above 0, got {getattr(self, name)}."
                )
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"ServeConfig.port: expected 0 to 65535, got {self.port}.")
        if not self.allow_remote and not is_loopback(self.host):
            raise ConfigError(
                f"host '{self.host}' can be reached by other machines and nothing here encrypts: "
                "listen on 127.0.0.1 behind a proxy that ends TLS, or add --allow-remote."
            )
