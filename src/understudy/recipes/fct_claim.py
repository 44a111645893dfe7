"""The claim of fct at small scale: digits, five classes before the update and ten after it.

The old model (64-32-8) and the side information (SimCLR, 64-128-16) saw the digits 0 to 4, the new
model (64-128-32) all ten. h (inner width 256, 80 epochs) is learned on the training scans; the 719
test scans are queries and gallery, each left out of its own ranking.
"""

from __future__ import annotations

from understudy.evaluate.check_contrast import Contrast
from understudy.evaluate.claims import Arm, Check, Claim, Difference, Predicate, Results
from understudy.recipes.fct_arms import ARMS, prepare, run_arm, share_closed
from understudy.update.small_update import SETTINGS

MAP = "map"
LEAST_SHARE = 0.85


def closes_the_gap(results: Results) -> tuple[bool, str]:
    """Say what share of a full backfill's gain a map with side information has."""
    shares = share_closed(results, "side")
    shown = ", ".join(f"{share:.3f}" for share in shares)
    return bool((shares >= LEAST_SHARE).all()), f"share of the gain, by seed: {shown}"


def _beats(name: str, better: str, worse: str, margin: float, **more) -> Difference:
    return Difference(name=name, metric=MAP, better=better, worse=worse, margin=margin, **more)


CHECKS: tuple[Check, ...] = (
    _beats("side information helps", "side", "plain", 0.04, each_seed=True),
    _beats("a map without it beats no update", "plain", "old", 0.1, each_seed=True),
    _beats("a map with it beats no update", "side", "old", 0.1, each_seed=True),
    Predicate(
        name="most of a full backfill's gain is had without it",
        statement=f"(side - old) / (new - old) of map >= {LEAST_SHARE} in every seed",
        fn=closes_the_gap,
        reads=("old", "new", "side"),
    ),
    _beats("side information of other items does worse", "side", "shuffled", 0.02),
    Contrast(
        name="side information of other items gives none of the gain",
        metric=MAP,
        weights=(("plain", 1.0), ("shuffled", -1.0)),
        margin=-0.01,
        ci_above=None,
    ),
    _beats("noise of that size does worse", "side", "noise", 0.02),
    _beats("the network beats least squares", "plain", "linear", 0.0, required=False),
    _beats("and a rotation", "plain", "rotation", 0.0, required=False),
    Difference(
        name="a map beats backward-compatible training",
        metric="cmc_1",
        better="side",
        worse="bct",
        margin=0.05,
        required=False,
    ),
    _beats("SimCLR beats an auto-encoder", "side", "reconstruct", 0.0, required=False),
)

CLAIM = Claim(
    recipe="fct",
    statement=(
        "On digits, of which the old model saw five classes and the new one ten, a gallery of old "
        "vectors mapped with side information that was learned without labels is searched by the "
        "new model at least 0.04 of mAP better than one mapped without it, in every seed; both "
        "beat no update by 0.1, and the first has at least 85 % of a full backfill's gain."
    ),
    arms=tuple(Arm(name=name, description=text) for name, text in ARMS.items()),
    seeds=(201, 202, 203, 204, 205),
    metrics=(MAP, "cmc_1", "cmc_5"),
    checks=CHECKS,
    budget=(
        "every map: 80 epochs of Adam 5e-4 on 1,078 pairs in batches of 64, inner width 256; "
        "models of 20, 40 and 60 epochs shared by all arms of a seed"
    ),
    failure=(
        "side information gains less than 0.04 in a seed, or shuffled side information keeps the "
        "gain, or noise of the same size does as well"
    ),
    run_arm=run_arm,
    prepare=prepare,
    scales={"laptop": SETTINGS},
)
