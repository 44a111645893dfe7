"""The claim of MobileCLIP2 at small scale: scales, ensembles, captioners, five stages.

Scenes of two or three real handwritten digits with noisy alt text, as in the claim of
arXiv 2311.17049. One standard error is that of the best arm's mean over seeds.
"""

from __future__ import annotations

import numpy as np

from understudy.evaluate.check_base import Check, Results, values_of
from understudy.evaluate.claims import Arm, AtLeast, Claim, Context, Difference, Predicate
from understudy.evaluate.stats import paired_bootstrap, standard_error
from understudy.recipes.mobileclip2_arms import (
    ARMS,
    SETTINGS,
    SIGMAS,
    latencies,
    prepare,
    scores,
    setup,
    student,
)

SWEEP = tuple(f"sigma-{sigma:g}" for sigma in SIGMAS)
MARGIN = 0.03
"""How far the best scale must be above both ends, in R@1."""


def run_arm(arm: str, seed: int, context: Context) -> dict[str, float]:
    """Train one student on the seed's pairs and score it."""
    from understudy.data.store import Store
    from understudy.train.student import make_student, train_clip

    store, settings = Store.open(context.prepared["store"]), context.settings
    scales = context.shared["scales"]
    # One tokenizer for all arms: of the real and the clean captions.
    shared = make_student(store, student("ensemble", seed, settings, scales))
    result = train_clip(
        store,
        shared,
        student(arm, seed, settings, scales),
        context.arm_dir,
        lambda model: scores(model, store, settings),
    )
    found = {"r1": result.weights["final"]["retrieval.mean_r1"]}
    if arm == "ensemble":
        found |= {f"scale_{name}": float(scale) for name, scale in scales.items()}
        found |= latencies(settings)
    return found


def _r1(results: Results, arm: str) -> np.ndarray:
    return values_of(results, arm, "r1")


def _sweep(results: Results) -> tuple[int, np.ndarray]:
    """Return which scale is best, and the means of all."""
    means = np.array([_r1(results, arm).mean() for arm in SWEEP])
    return int(np.argmax(means)), means


def _shown(means: np.ndarray) -> str:
    return ", ".join(f"{s:g}: {m:.3f}" for s, m in zip(SIGMAS, means, strict=True))


def interior(results: Results) -> tuple[bool, str]:
    """Say whether scales on both sides of the best are worse."""
    best, means = _sweep(results)
    return 0 < best < len(SWEEP) - 1, f"best {SIGMAS[best]:g} ({_shown(means)})"


def above_both_ends(results: Results) -> tuple[bool, str]:
    """Say whether the best beats the smallest and the largest scale by the margin, CI above 0."""
    best, _ = _sweep(results)
    passed, words = True, []
    for end in (SWEEP[0], SWEEP[-1]):
        found = paired_bootstrap(_r1(results, SWEEP[best]), _r1(results, end))
        passed = passed and found.mean >= MARGIN and found.low > 0
        words.append(f"over {end}: {found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]")
    return passed, "; ".join(words)


def flat_top(results: Results) -> tuple[bool, str]:
    """Say whether both neighbours of the best are within one standard error of it."""
    best, means = _sweep(results)
    error = standard_error(_r1(results, SWEEP[best]))
    beside = [i for i in (best - 1, best + 1) if 0 <= i < len(SWEEP)]
    losses = [float(means[best] - means[i]) for i in beside]
    words = ", ".join(f"{SIGMAS[i]:g}: -{loss:.3f}" for i, loss in zip(beside, losses, strict=True))
    return all(loss <= error for loss in losses), f"{words}; one standard error {error:.3f}"


def _singles(results: Results) -> dict[str, np.ndarray]:
    """Return the teachers alone, each at the scale that the search found for it."""
    scale = float(values_of(results, "ensemble", "scale_a")[0])
    return {"a": _r1(results, f"sigma-{scale:g}"), "b": _r1(results, "single-b")}


def as_good_as_the_best(results: Results) -> tuple[bool, str]:
    """Say whether the ensemble is at least the best single teacher less one standard error."""
    singles, both = _singles(results), float(_r1(results, "ensemble").mean())
    name = max(singles, key=lambda n: singles[n].mean())
    mean, error = float(singles[name].mean()), standard_error(singles[name])
    return both >= mean - error, f"{both:.3f}, best single {name} {mean:.3f} - {error:.3f}"


def better_than_the_worst(results: Results) -> tuple[bool, str]:
    """Say whether the ensemble's mean is above the worst single teacher's."""
    singles, both = _singles(results), float(_r1(results, "ensemble").mean())
    name = min(singles, key=lambda n: singles[n].mean())
    return both > singles[name].mean(), f"{both:.3f}, worst {name} {singles[name].mean():.3f}"


def ratio_grows(results: Results) -> tuple[bool, str]:
    """Say whether five stages gain more over four at 512 pixels than at 128."""
    ratios = {
        side: float(np.median(values_of(results, "ensemble", f"latency_ratio_{side}")))
        for side in (128, 512)
    }
    shown = ", ".join(f"{side} px: {ratio:.2f}" for side, ratio in ratios.items())
    return ratios[512] > ratios[128], shown


CHECKS: tuple[Check, ...] = (
    Difference(
        name="own scales beat a wrong shared one",
        metric="r1",
        better="ensemble",
        worse="ensemble-wrong",
        margin=0.01,
    ),
    Predicate(
        name="temperature: interior maximum",
        statement="r1: the best scale of teacher a is neither the smallest nor the largest",
        fn=interior,
        reads=SWEEP,
    ),
    Predicate(
        name="temperature: best beats both ends",
        statement=f"r1: mean of best - either end >= {MARGIN}, 95% interval above 0",
        fn=above_both_ends,
        reads=SWEEP,
    ),
    Predicate(
        name="temperature: flat top",
        statement="r1: both neighbours of the best are within one standard error of it",
        fn=flat_top,
        reads=SWEEP,
    ),
    Predicate(
        name="ensemble: as good as the best single",
        statement="r1: ensemble >= best single teacher - 1 standard error",
        fn=as_good_as_the_best,
        reads=(*SWEEP, "single-b", "ensemble"),
    ),
    Predicate(
        name="ensemble: better than the worst single",
        statement="r1: ensemble > worst single teacher",
        fn=better_than_the_worst,
        reads=(*SWEEP, "single-b", "ensemble"),
    ),
    Difference(
        name="captioner: weak beats real only", metric="r1", better="weak", worse="real-only"
    ),
    Difference(name="captioner: aligned beats weak", metric="r1", better="aligned", worse="weak"),
    Predicate(
        name="towers: ratio grows with resolution",
        statement="median latency of four stages over five: larger at 512 px than at 128 px",
        fn=ratio_grows,
        reads=("ensemble",),
    ),
    AtLeast(
        name="towers: five stages 1.5x faster at 512 px",
        metric="latency_ratio_512",
        arm="ensemble",
        limit=1.5,
        reduce="median",
    ),
)

CLAIM = Claim(
    recipe="mobileclip2",
    statement=(
        "The logit scale at which a teacher is distilled matters: R@1 has an interior, flat "
        "maximum at least three points above both ends. An ensemble at its members' own scales is "
        "as good as the best of them, and loses a point or more at a shared scale ten times too "
        "large. Captions of a captioner help, and more so after fine-tuning it on a few good ones. "
        "A tower of five stages is faster than one of four with as many parameters, the more so "
        "the higher the resolution, by half at 512 pixels."
    ),
    arms=tuple(Arm(name=name, description=text) for name, text in ARMS.items()),
    seeds=(21, 22, 23, 24, 25),
    metrics=("r1",),
    checks=CHECKS,
    budget=(
        "1,500 steps of 64 on 4,000 pairs for every student; scales searched once on other pairs "
        "with 14 such students; one captioner of 2,400 steps on 20,000 noisy pairs and 600 steps "
        "of fine-tuning; the two teachers that ship with the package"
    ),
    failure=(
        "R@1 is monotone to an end of the scales, or all scales are within noise; the ensemble is "
        "below the best single teacher by more than a standard error or a wrong scale costs less "
        "than a point; a captioner does not help, or fine-tuning it does not; the latency ratio "
        "does not grow with the resolution or is below 1.5 at 512 pixels"
    ),
    run_arm=run_arm,
    prepare=prepare,
    setup=setup,
    scales={"laptop": SETTINGS},
)
