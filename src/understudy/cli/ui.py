"""`understudy ui`: jobs, stores, claims and recipes in a browser."""

from __future__ import annotations

import json as as_json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from understudy.cli.common import note, parse
from understudy.core.lazy import require

if TYPE_CHECKING:
    from understudy.ui.run import UiServer

CLAIMS = Path("docs/claims")


def ui(argv: Sequence[str], prog: str) -> None:
    """Parse and run `ui`."""

    def command(
        home: Path | None = None,
        stores: tuple[str, ...] = (),
        claims: Path | None = None,
        port: int = 8742,
        json: bool = False,
    ) -> None:
        """Show jobs, stores, claims and recipes in a browser of this machine.

        The address that is printed lets a browser in; others of this machine see nothing. For a
        machine elsewhere, tunnel the port: ssh -L 8742:127.0.0.1:8742 HOST.

        Args:
            home: folder of the jobs; $UNDERSTUDY_JOBS by default.
            stores: stores, or folders with stores in them.
            claims: folder of verdicts; docs/claims where it is there.
            port: to listen on; 0 takes a free one.
            json: print where it listens as one line of JSON.
        """
        for module in ("starlette", "uvicorn", "jinja2"):
            require(module, "ui", "The web page")
        from understudy.launch.home import Home
        from understudy.ui.config import UiConfig
        from understudy.ui.run import UiServer

        found = claims if claims is not None or not CLAIMS.is_dir() else CLAIMS
        config = UiConfig(home=Home.open(home), stores=stores, claims=found, port=port)
        UiServer(config).serve_pages(lambda server: _say(server, json))
        note("stopped")

    def _say(server: UiServer, json: bool) -> None:
        if json:
            facts = {"url": server.url, "login": server.login}
            print(as_json.dumps(facts), flush=True)
        else:
            print(f"open {server.login}\n(the token is shown this once; Ctrl-C stops)", flush=True)

    parse(command, argv, prog)
