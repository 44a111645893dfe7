"""Do all replicas of a gang see the same folder of jobs? A token of each says so at the start.

Paths may be the same on every machine and folders not: a local disk that hides the mount, a home
that is exported to some nodes only. Then checkpoints and outputs of different replicas never meet,
and training goes wrong without a word. So each wrapper writes a token beside its peers' before it
starts its command, and reads that of the lowest rank.

On one machine this costs a file a replica; the first token is there within milliseconds.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from understudy.core.errors import DataError
from understudy.core.files import read_json, write_json

FOLDER = "tokens"
"""Of an attempt; `rank-N.json` is the token of a rank."""
WAIT_S = 60.0
"""How long a file system may take to show what another machine wrote."""
_POLL_S = (0.005, 0.25)


def token(attempt: Path, rank: int) -> Path:
    """Return the path of a rank's token."""
    return attempt / FOLDER / f"rank-{rank}.json"


def leave_token(attempt: Path, job: str, rank: int) -> None:
    """Write a rank's token.

    Args:
        attempt: folder of the attempt.
        job: its id, so that a folder of something else is not taken for this one.
        rank: of the replica.
    """
    write_json(token(attempt, rank), {"job": job, "rank": rank, "host": socket.gethostname()})


def sees(attempt: Path, job: str, rank: int) -> bool:
    """Say whether a rank's token can be read here.

    The folder is listed, not the file asked for: network file systems remember for many seconds
    that a file was not there.
    """
    path = token(attempt, rank)
    try:
        if path.name not in os.listdir(path.parent):
            return False
        found = read_json(path)
    except (OSError, DataError):
        return False
    return isinstance(found, dict) and (found.get("job"), found.get("rank")) == (job, rank)


def meet(
    attempt: Path,
    job: str,
    rank: int,
    *,
    first: int = 0,
    wait_s: float | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Leave this rank's token and wait until that of the lowest rank is seen.

    Args:
        attempt: folder of the attempt, as this machine sees it.
        job: its id.
        rank: of this replica.
        first: the lowest rank of the attempt.
        wait_s: seconds until the folder is taken for one that is not shared; `WAIT_S` by default.
        stopped: asked at every look; true ends the waiting without a verdict.

    Raises:
        DataError: the token did not come; folder, rank and host are named.
    """
    wait_s = WAIT_S if wait_s is None else wait_s
    leave_token(attempt, job, rank)
    if rank == first:
        return
    end, pause = time.monotonic() + wait_s, _POLL_S[0]
    while not stopped() and not sees(attempt, job, first):
        if time.monotonic() >= end:
            raise DataError(
                f"rank {rank} on {socket.gethostname()} does not see the file that rank {first} "
                f"wrote into {attempt / FOLDER} (waited {wait_s:g} s): the folder of jobs is not "
                "shared. Put it, with --home or UNDERSTUDY_JOBS, on a file system that all nodes "
                "mount at this path."
            )
        time.sleep(pause)
        pause = min(2 * pause, _POLL_S[1])
