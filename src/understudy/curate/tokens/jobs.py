"""How token work runs, and whether it was done before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.core.errors import ConfigError, DataError
from understudy.curate.engine.executors import cores
from understudy.curate.engine.workplace import Workplace
from understudy.data.tokens import TokenStore

MADE = "made"
"""Key of the store's `meta` under which stands how it was made."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenRun:
    """Where and with how many processes; nothing here changes a result.

    Attributes:
        on: `local`, `ray` (this machine) or `ray://host:port`.
        workers: processes, 0 for one a core.
        work: work folder; `STORE.work` if absent.
        keep_work: leave the work folder when the store is written.
        overwrite: replace a store that is there.
    """

    on: str = "local"
    workers: int = 0
    work: str | None = None
    keep_work: bool = False
    overwrite: bool = False

    def folder(self, store: str | Path) -> Path:
        """Return the work folder of a store.

        Raises:
            ConfigError: the store is not on a local disk, and no folder is named.
        """
        if self.work:
            return Path(self.work)
        if "://" in str(store):
            raise ConfigError(f"work: name a local folder; {store} has no place beside it.")
        return Path(store).with_name(f"{Path(store).name}.work")

    def check_units(self, units: int, what: str) -> None:
        """Refuse more processes than there is work for.

        Raises:
            ConfigError: more workers than units, with how many to take.
        """
        if self.workers > units:
            raise ConfigError(
                f"workers: {self.workers} for {units} {what}; use {min(units, cores())} or fewer, "
                "or cut the input into smaller units."
            )


def done_before(store: str | Path, identity: str, overwrite: bool) -> TokenStore | None:
    """Return the store that is there, if this very work wrote it.

    Raises:
        DataError: there is one of other work, and it must not be replaced.
    """
    path = Path(str(store))
    if "://" not in str(store) and not (path / "_versions").is_dir():
        return None
    try:
        there = TokenStore.open(store)
    except DataError:
        return None  # unfinished, or something that writing will refuse
    made = there.store.meta.get(MADE)
    if isinstance(made, Mapping) and made.get("identity") == identity:
        return there
    if overwrite:
        return None
    raise DataError(
        f"{store}: there is a token store already, of other inputs or options; --overwrite "
        "replaces it."
    )


def made_by(store: TokenStore) -> dict[str, Any]:
    """Return how a token store was made: identity, options, statistics."""
    return dict(store.store.meta.get(MADE) or {})


def tidy(work: Path, run: TokenRun) -> None:
    """Remove the work folder, if there is one and it is not to be kept."""
    if not run.keep_work and work.is_dir():
        with Workplace(work) as place:
            place.remove()
