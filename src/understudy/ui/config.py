"""What the web page shows and where it listens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from understudy.core.errors import ConfigError
from understudy.launch.home import Home

HOST = "127.0.0.1"
"""There is no other: the page is for those who may also run commands here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UiConfig:
    """What the page shows.

    Attributes:
        home: of the jobs.
        stores: stores, folders with stores in them, or URLs of stores.
        claims: folder of verdicts, `<scale>/<recipe>.json`; None shows none.
        port: to listen on; 0 takes a free one.
        refresh_s: pause between looks at what may have changed.
    """

    home: Home
    stores: tuple[str, ...] = ()
    claims: Path | None = None
    port: int = 8742
    refresh_s: float = 2.0

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise ConfigError(f"port: expected 0 to 65535, got {self.port}.")
        if not self.refresh_s > 0:
            raise ConfigError(f"refresh_s: expected more than 0, got {self.refresh_s:g}.")
        for store in self.stores:
            if "://" not in store and not Path(store).is_dir():
                raise ConfigError(f"stores: there is no folder '{store}'.")
        if self.claims is not None and not self.claims.is_dir():
            raise ConfigError(f"claims: there is no folder '{self.claims}'.")
