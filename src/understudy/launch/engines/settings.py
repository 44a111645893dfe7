"""Times and sizes that every controlled engine has."""

from __future__ import annotations

from dataclasses import dataclass

from understudy.launch.replica_logs import SEGMENT_BYTES, SEGMENTS
from understudy.launch.spec_parts import check_range


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Times and sizes.

    Attributes:
        grace_s: from TERM to KILL when a job is stopped.
        heartbeat_s: between signs of life of a replica.
        start_deadline_s: all replicas of a gang have started by then, or all start again.
        idle_exit_s: the controller ends after so long without jobs.
        poll_s: how often the controller looks by itself; replicas wake it.
        segment_bytes: size of a log file.
        segments: log files kept for each replica.
    """

    grace_s: float = 15.0
    heartbeat_s: float = 5.0
    start_deadline_s: float = 600.0
    idle_exit_s: float = 30.0
    poll_s: float = 0.25
    segment_bytes: int = SEGMENT_BYTES
    segments: int = SEGMENTS

    def __post_init__(self) -> None:
        for name in ("grace_s", "idle_exit_s"):
            check_range(getattr(self, name), 0, f"settings.{name}")
        for name in ("heartbeat_s", "start_deadline_s", "poll_s", "segment_bytes"):
            check_range(getattr(self, name), 0, f"settings.{name}", above=True)
        check_range(self.segments, 1, "settings.segments")
