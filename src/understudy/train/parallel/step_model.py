"""How long a step of synchronous data parallelism takes, from what it computes and sends.

    T(n) = T_compute + 2 (n - 1) / n x bytes / bandwidth + 2 (n - 1) x latency

A ring all-reduce cuts the gradient into n pieces: n - 1 rounds add them up, n - 1 hand the sums
around, and every worker sends one piece a round.

References:
    P. Patarasuk and X. Yuan, Bandwidth optimal all-reduce algorithms for clusters of workstations,
    Journal of Parallel and Distributed Computing 69(2), 2009.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from understudy.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class StepModel:
    """A model and a network in four numbers.

    Attributes:
        compute_s: forward, backward and update of one worker's share, seconds.
        bytes: of all gradients.
        bandwidth: bytes a second that a worker sends.
        latency_s: seconds of a message beside its bytes.
    """

    compute_s: float
    bytes: float
    bandwidth: float
    latency_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("compute_s", "bandwidth"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ConfigError(f"StepModel.{name}: expected more than 0, got {value:g}.")
        for name in ("bytes", "latency_s"):
            value = getattr(self, name)
            if not (value >= 0 and math.isfinite(value)):
                raise ConfigError(f"StepModel.{name}: expected at least 0, got {value:g}.")

    def sent(self, n: int) -> float:
        """Return the bytes that each of n workers sends in a step."""
        return 2 * (_workers(n) - 1) / n * self.bytes

    def communicate_s(self, n: int) -> float:
        """Return the seconds of the all-reduce over n workers."""
        return self.sent(n) / self.bandwidth + 2 * (n - 1) * self.latency_s

    def seconds(self, n: int) -> float:
        """Return T(n), the seconds of a step; nothing overlaps."""
        return self.compute_s + self.communicate_s(n)

    def efficiency(self, n: int) -> float:
        """Return E(n) = throughput(n) / (n throughput(1)) for a fixed share of each worker."""
        return self.seconds(1) / self.seconds(n)

    def ratio(self, n: int) -> float:
        """Return computing over communicating; infinite for one worker."""
        spent = self.communicate_s(n)
        return self.compute_s / spent if spent else math.inf


def fit_link(n: int, small: tuple[float, float], large: tuple[float, float]) -> tuple[float, float]:
    """Return (bandwidth, latency) from two timed all-reduces over n workers.

    Args:
        n: workers, at least 2.
        small: (bytes, seconds) of a short message.
        large: the same of a long one.

    Raises:
        ConfigError: one worker, or the long message is not the longer one.
    """
    if _workers(n) < 2 or not large[0] > small[0]:
        raise ConfigError(
            f"fit_link: expected 2 workers or more and two sizes, got {n} and {small[0]:g}, "
            f"{large[0]:g} bytes."
        )
    share = 2 * (n - 1) / n
    gained = max(large[1] - small[1], 1e-12)
    bandwidth = share * (large[0] - small[0]) / gained
    latency = (small[1] - share * small[0] / bandwidth) / (2 * (n - 1))
    return bandwidth, max(latency, 0.0)


def _workers(n: int) -> int:
    if n < 1:
        raise ConfigError(f"workers: expected at least 1, got {n}.")
    return n
