"""The claim of MobileCLIP at small scale: scenes of two or three real handwritten digits.

Alt text of the students' 4,000 pairs is noisy (words dropped, swapped with another sample's, junk);
the synthetic caption is the clean sentence ("a large 3 left of a small 7"). Two teachers are
trained once on 20,000 clean pairs of scans that no student and no test sees. All arms share steps,
batch, optimiser, initial weights and tokenizer.
"""

from __future__ import annotations

from understudy.evaluate.claims import Arm, AtMost, Check, Claim, Context, Difference
from understudy.recipes.mobileclip_arms import ARMS, SETTINGS, prepare, setup, student
from understudy.recipes.mobileclip_measure import price, scores


def run_arm(arm: str, seed: int, context: Context) -> dict[str, float]:
    """Train one student on the seed's pairs and score it."""
    from understudy.data.store import Store
    from understudy.train.student import make_student, train_clip

    store = Store.open(context.prepared["store"])
    settings = context.settings
    # One tokenizer for all arms: of the captions that every arm's store holds.
    shared = make_student(store, student("full", seed, settings))
    result = train_clip(
        store,
        shared,
        student(arm, seed, settings),
        context.arm_dir,
        lambda model: scores(model, store, settings),
    )
    found = dict(result.weights["final"])
    return {**found, **price(store, seed, context)} if arm == "full" else found


def _order(better: str, worse: str, metric: str = "r1") -> Check:
    return Difference(
        name=f"order: {better} over {worse}",
        metric=metric,
        better=better,
        worse=worse,
        required=False,
    )


CHECKS: tuple[Check, ...] = (
    Difference(
        name="full recipe beats CLIP",
        metric="r1",
        better="full",
        worse="clip",
        margin=0.10,
        each_seed=True,
    ),
    Difference(
        name="both captions beat real ones", metric="sum", better="distil-both", worse="distil-real"
    ),
    Difference(
        name="both captions beat synthetic ones",
        metric="sum",
        better="distil-both",
        worse="distil-syn",
    ),
    AtMost(
        name="price of a step", metric="step_over_plain", arm="full", limit=1.3, reduce="median"
    ),
    AtMost(
        name="cheaper than online teachers",
        metric="step_over_online",
        arm="full",
        limit=0.7,
        reduce="median",
    ),
    Difference(name="replay matters", metric="sum", better="full", worse="broken"),
    _order("clip-syn", "clip"),
    _order("distil-real", "clip"),
    _order("distil-both", "clip-syn"),
    _order("strong", "distil-both", "sum"),
    _order("full", "strong", "sum"),
)

CLAIM = Claim(
    recipe="mobileclip",
    statement=(
        "At equal steps a student that learns from two teachers' stored embeddings of replayed "
        "views, real and synthetic captions beats plain CLIP training by at least ten points of "
        "R@1 in every seed; both captions beat either alone; a step costs at most 1.3 plain steps "
        "and less than 0.7 of one with the teachers online."
    ),
    arms=tuple(Arm(name=name, description=text) for name, text in ARMS.items()),
    seeds=(11, 12, 13, 14, 15),
    metrics=("r1", "zeroshot", "sum"),
    checks=CHECKS,
    budget=(
        "1,500 steps of 64 on 4,000 pairs for every student; two teachers of under 250 k "
        "parameters, trained once on 20,000 other pairs"
    ),
    failure=(
        "the 95% interval of full - CLIP touches 0, a seed gains less than ten points, one kind of "
        "caption alone is as good, a step costs too much, or broken replay is as good as exact"
    ),
    run_arm=run_arm,
    prepare=prepare,
    setup=setup,
    scales={"laptop": SETTINGS},
)
