"""Clocks of machines that differ are told of, and never trusted.

Order in the record and in logs is by number. What needs a time, such as a heartbeat's age, compares
clocks; a warning says when these are too far apart for it.
"""

from __future__ import annotations

from collections.abc import Mapping

from understudy.launch.replica_files import ReplicaFiles, clock_skew_s

MAX_SKEW_S = 5.0
NUMBERED = "events and lines are ordered by number, not by time."


def clock_warnings(replicas: Mapping[int, ReplicaFiles]) -> list[str]:
    """Return a sentence for each clock that is off by more than `MAX_SKEW_S`.

    A replica's clock is compared with that of the file system which keeps its `start.json`, and
    then with its peers': two may each be near the file system's and yet far from each other.

    Args:
        replicas: rank -> files, of replicas that have begun.
    """
    found = {rank: clock_skew_s(files) for rank, files in replicas.items()}
    texts = [
        f"the clock of {host} (rank {rank}) is {skew:+.1f} s off; {NUMBERED}"
        for rank, (skew, host) in sorted(found.items())
        if abs(skew) > MAX_SKEW_S
    ]
    if texts or len(found) < 2:
        return texts
    ahead = max(found, key=lambda rank: found[rank][0])
    behind = min(found, key=lambda rank: found[rank][0])
    apart = found[ahead][0] - found[behind][0]
    if apart > MAX_SKEW_S:
        texts.append(
            f"the clocks of {found[ahead][1]} (rank {ahead}) and {found[behind][1]} (rank "
            f"{behind}) are {apart:.1f} s apart; {NUMBERED}"
        )
    return texts
