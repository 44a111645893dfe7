"""The server from start to stop."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator

import uvicorn

from understudy.core.errors import ConfigError
from understudy.ui.access import Access
from understudy.ui.app import make_app
from understudy.ui.config import HOST, UiConfig
from understudy.ui.site import Site

GRACE_S = 3


class UiServer(uvicorn.Server):
    """Serves the pages on this machine.

    Args:
        config: what is shown.

    Attributes:
        site: the pages' common ground.
        url: where it listens.

    Raises:
        ConfigError: the port is taken.
    """

    def __init__(self, config: UiConfig) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((HOST, config.port))
        except OSError as error:
            self._socket.close()
            raise ConfigError(
                f"cannot listen on port {config.port} ({error.strerror}); choose another --port, "
                "or 0 for a free one."
            ) from None
        port = self._socket.getsockname()[1]
        self.url = f"http://{HOST}:{port}"
        self.site = Site(config, Access(port))
        super().__init__(
            uvicorn.Config(
                make_app(self.site),
                loop="asyncio",
                http="h11",
                ws="none",
                lifespan="off",
                log_level="warning",
                access_log=False,  # the first address has the token
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=GRACE_S,
            )
        )

    @property
    def login(self) -> str:
        """The address that lets a browser in."""
        return f"{self.url}/login?token={self.site.access.token}"

    def stop(self) -> None:
        """End soon: streams first, then the server."""
        self.site.stopping.set()
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on Ctrl-C and SIGTERM, without ending the process by them afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        names = (signal.SIGINT, signal.SIGTERM)
        before = {name: signal.signal(name, lambda *_: self.stop()) for name in names}
        try:
            yield
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)

    def serve_pages(self, ready: Callable[[UiServer], None]) -> None:
        """Serve until a signal comes.

        Args:
            ready: called once connections are taken.
        """
        self._socket.listen(128)
        ready(self)
        self.run(sockets=[self._socket])
