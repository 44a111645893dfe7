"""Five stages against four at equal parameters: latency by resolution, folded, one thread.

`mci3` (125 M, arXiv 2508.20691) against MCi2 with widths and blocks scaled to its parameters within
2 %, as that paper compares them, and the nano pair `mci-nano5` / `mci-nano4`. Towers take turns
(`understudy.compress.race`); the ratio of a resolution is the median over rounds. Published for the
large pair on a phone: 1.9 at 256 and 7.1 at 1,024 pixels.

    .venv/bin/python benchmarks/towers.py [--quick]
"""

from __future__ import annotations

import itertools
import statistics
import sys
from dataclasses import replace
from typing import Any

from common import write_result

LARGE, NANO = (256, 384, 512, 768), (128, 256, 512, 768)
GOAL, AT = 1.5, 512


def tower(config: Any) -> Any:
    """Return the folded tower of an MCi configuration."""
    from understudy.models.fold import fold_module
    from understudy.models.multimodal.vision_tower import VisionTower

    made = VisionTower(512, replace(config, image_size=512)).eval()
    return fold_module(made, "branches")


def scaled_mci2() -> Any:
    """Return MCi2's four stages widened to the parameters of MCi3."""
    from understudy.models.image.mci_sizes import MCI2

    return replace(MCI2, channels=(152, 304, 608, 1216))


def pair(name: str, towers: dict[str, Any], sides: tuple[int, ...], quick: bool) -> dict[str, Any]:
    """Time two towers; print and return milliseconds and ratios by resolution."""
    from understudy.compress.race import check_equal_size, factor, race
    from understudy.compress.timing import LatencyConfig

    counts = check_equal_size(towers)
    config = LatencyConfig(rounds=2 if quick else 7, inferences=6, discard=1, trim=1)
    times = race(towers, sides, config)
    ratios = {side: round(factor(times, "four", "five", side), 3) for side in sides}
    for side in sides:
        five, four = (statistics.median(times[t][side]) for t in ("five", "four"))
        print(f"{name} at {side}: five stages {five:.1f} ms, four {four:.1f} ms, ratio "
              f"{ratios[side]:.2f}")  # fmt: skip
    return {
        "parameters": counts,
        "ratio": ratios,
        "median_ms": {
            t: {side: round(statistics.median(times[t][side]), 2) for side in sides} for t in towers
        },
    }


def main() -> None:
    import torch

    from understudy.models.image.mci_sizes import MCI3, MCI_NANO4, MCI_NANO5

    torch.set_num_threads(1)
    torch.manual_seed(0)
    quick = "--quick" in sys.argv
    nano = {"five": tower(MCI_NANO5), "four": tower(MCI_NANO4)}
    found = {"nano": pair("nano", nano, NANO, quick)}
    large = {"five": tower(MCI3), "four": tower(scaled_mci2())}
    found["mci3"] = pair("mci3", large, LARGE, quick)
    ratios = found["mci3"]["ratio"]
    grows = all(ratios[a] <= ratios[b] for a, b in itertools.pairwise(LARGE))
    met = ratios[AT] >= GOAL and ratios[LARGE[-1]] > ratios[LARGE[0]]
    write_result("towers", {**found, "goal": {str(AT): GOAL}, "grows_at_each_step": grows})
    print(f"goal (ratio >= {GOAL} at {AT}, larger at {LARGE[-1]}): {'met' if met else 'missed'}")
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main()
