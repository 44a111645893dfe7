"""The claim of fastfill at small scale: in which order a gallery of digits is encoded again.

The set-up of fct without side information: old model 64-32-8 on the digits 0 to 4, new model
64-128-32 on all ten, h of inner width 256 and 80 epochs, 719 test scans as queries and gallery. A
curve has 11 points; its mean is the area (AUC).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from understudy.evaluate.claims import Arm, Check, Claim, Difference, Predicate, Results
from understudy.recipes.fastfill_arms import ARMS, prepare, run_arm
from understudy.update.small_update import SETTINGS

AUC = "auc_map"


def in_order(results: Results) -> tuple[bool, str]:
    """Say whether reversed < random < uncertainty <= oracle + 0.005 holds in the mean."""
    names = ("reversed", "random", "uncertainty", "oracle")
    means = [float(np.mean(results[name][AUC])) for name in names]
    passed = means[0] < means[1] < means[2] <= means[3] + 0.005
    shown = ", ".join(f"{name} {mean:.4f}" for name, mean in zip(names, means, strict=True))
    return bool(passed), shown


def ends_agree(results: Results) -> tuple[bool, str]:
    """Say whether orders of one map share the ends of their curves."""
    orders = ("random", "uncertainty", "reversed", "oracle", "index", "wrong-labels")
    spread = max(
        float(np.ptp([results[name][end] for name in orders], axis=0).max())
        for end in ("at_0", "at_1")
    )
    # not exactly 0: the random arm's ends are means of three equal numbers, which round
    return spread <= 1e-12, f"largest difference {spread:.3g}"


def _beats(name: str, better: str, worse: str, margin: float, **more: Any) -> Difference:
    more = {"metric": AUC, **more}
    return Difference(name=name, better=better, worse=worse, margin=margin, **more)


CHECKS: tuple[Check, ...] = (
    _beats("uncertain items first", "uncertainty", "random", 0.01, each_seed=True),
    Predicate(
        name="orders stand as they should",
        statement=f"{AUC}, means: reversed < random < uncertainty <= oracle + 0.005",
        fn=in_order,
        reads=("reversed", "random", "uncertainty", "oracle"),
    ),
    _beats("uncertainty of wrong labels does worse", "uncertainty", "wrong-labels", 0.005),
    _beats("item numbers do worse", "uncertainty", "index", 0.005),
    Predicate(
        name="the ends of a curve do not depend on the order",
        statement="map at 0 and at 1 is the same (1e-12) for all orders of one map, in every seed",
        fn=ends_agree,
        reads=("random", "uncertainty", "reversed", "oracle", "index", "wrong-labels"),
    ),
    _beats(
        "a digit that the old model hardly saw is repaired sooner",
        "fair-uncertainty", "fair-random", 0.002, metric="gap_fall", ci_above=None, required=False,
    ),
    _beats("all of it against FCT in random order", "uncertainty", "fct", 0.0, required=False),
    _beats("against hot refresh", "uncertainty", "hot-refresh", 0.0, required=False),
)  # fmt: skip

CLAIM = Claim(
    recipe="fastfill",
    statement=(
        "Encoding a gallery again in descending order of the map's own uncertainty gives at least "
        "0.01 more area under the curve of mAP than random orders (mean of three), in every seed; "
        "ascending order is worse than random, true errors are a bound up to 0.005, and neither "
        "uncertainty learned from wrong labels nor item numbers do as well."
    ),
    arms=tuple(Arm(name=name, description=text) for name, text in ARMS.items()),
    seeds=(221, 222, 223, 224, 225),
    metrics=(AUC, "auc_cmc_1", "auc_cmc_5", "gap_fall"),
    checks=CHECKS,
    budget=(
        "maps: 80 epochs of Adam 5e-4 on 1,078 pairs in batches of 64, inner width 256; one map "
        "for all orders"
    ),
    failure=(
        "a seed gains less than 0.01 over random, or the mean gain is below 0.005, or uncertainty "
        "of wrong labels or item numbers do within 0.005 as well"
    ),
    run_arm=run_arm,
    prepare=prepare,
    scales={"laptop": SETTINGS},
)
