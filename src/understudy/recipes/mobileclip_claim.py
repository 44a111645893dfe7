"""The claim of MobileCLIP at small scale: scenes of two or three real handwritten digits.

Alt text of the students' 4,000 pairs is noisy (words dropped, swapped with another sample's, junk);
the synthetic caption is the clean sentence ("a large 3 left of a small 7"). Two teachers are
trained once on 20,000 clean pairs of scans that no student and no test sees. All arms share steps,
batch, optimiser, initial weights and tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from understudy.evaluate.checks import AtMost, Check, Difference
from understudy.evaluate.claims import Arm, Claim, Context

STUDENT = "mobileclip-nano"
TEACHERS: dict[str, dict[str, Any]] = {
    "a": {"model": "clip-teacher-a", "channels": [24, 48, 48, 96, 96]},
    "b": {"model": "clip-teacher-b", "channels": [32, 48, 64, 96]},
}
CONTEXT = 16
"""Tokens of a text: the longest clean caption has 14 words."""
NANO = {"image.layer_scale": 0.1, "text.layer_scale": 0.1, "text.context_length": CONTEXT}
"""Changes of the student: the published 1e-5 is meant for 200,000 steps, not for 1,500."""
PAPER = 230
"""Level of the light paper that scenes stand on: what lies outside of a shifted view."""
VIEWS: dict[str, dict[str, Any]] = {
    "weak": {"random_crop": {"padding": 4, "fill": PAPER}},
    "strong": {
        "random_resized_crop": {"scale": [0.8, 1.0], "interpolation": "bicubic"},
        "rand_augment": {"magnitude": 5, "fill": PAPER},
    },
}
"""Shifts, and the published kind of view, as mild as small digits and a short run ask for."""

SETTINGS: dict[str, Any] = {
    "pairs": 4_000,
    "teacher_pairs": 20_000,
    "test": 1_000,
    "retrieval": 200,
    "batch": 64,
    "steps": 1_500,
    "lr": 6e-3,
    "teacher_steps": 2_500,
    "teacher_lr": 2e-3,
    "views": 10,
    "sigma": 30.0,
    "vocab": 600,
    "timing_rounds": 20,
}

ARMS = {
    "clip": "CLIP loss, real captions, shifts",
    "clip-syn": "CLIP loss on the real and on the synthetic captions",
    "distil-real": "imitation of one teacher, real captions only",
    "distil-syn": "imitation of one teacher, synthetic captions only",
    "distil-both": "imitation of one teacher, two losses: real and synthetic captions",
    "strong": "distil-both on replayed strong views",
    "full": "strong with two teachers: the whole recipe",
    "broken": "full with fresh strong views but the stored embeddings (control)",
}


def _budget(settings: Mapping[str, Any], steps: int, lr: float) -> Any:
    from understudy.train.config import TrainConfig

    return TrainConfig(
        steps=steps,
        batch_size=settings["batch"],
        lr=lr,
        warmup_steps=steps // 15,
        weight_decay=0.1,
        clip_norm=1.0,
        device="cpu",
        log_every=50,
        checkpoint_every=max(steps // 3, 1),
        keep_checkpoints=1,
    )


def setup(context: Context) -> dict[str, Any]:
    """Train the two teachers on clean pairs."""
    from understudy.data import scenes
    from understudy.data.store import Store
    from understudy.models.runs import weights_path
    from understudy.train.student import train_clip
    from understudy.train.student_config import StudentConfig

    settings, path = context.settings, context.shared_dir / "pairs"
    made = {"train": 0, "teacher": settings["teacher_pairs"], "test": 0, "num_captions": 1}
    store = (
        Store.open(path)
        if path.exists()
        else scenes.to_store("pairs", path, seed=1, masks=False, **made)
    )
    found = {}
    for k, (name, teacher) in enumerate(TEACHERS.items()):
        config = StudentConfig(
            model=teacher["model"],
            changes={"image.channels": teacher["channels"], "text.context_length": CONTEXT},
            captions="real",
            lam=0.0,
            augment=VIEWS["weak"],
            vocab_size=settings["vocab"],
            rows="split = 'teacher'",
            train=_budget(settings, settings["teacher_steps"], settings["teacher_lr"]),
            seed=k,
            workers=0,
        )
        run = train_clip(store, None, config, context.shared_dir / f"teacher-{name}")
        found[name] = str(weights_path(run.path))
    return {"teachers": found}


def prepare(seed: int, context: Context) -> dict[str, Any]:
    """Make the seed's pairs and reinforce them: weak views by teacher a, strong ones by both."""
    from understudy.data import scenes
    from understudy.data.store import Store
    from understudy.data.view_config import ViewConfig
    from understudy.reinforce.config import ReinforceConfig, TeacherSpec
    from understudy.reinforce.generate import reinforce

    settings, path = context.settings, context.seed_dir / "store"
    made = {"train": settings["pairs"], "teacher": 0, "test": settings["test"], "num_captions": 1}
    store = (
        Store.open(path)
        if path.exists()
        else scenes.to_store("pairs", path, seed=seed, masks=False, **made)
    )
    specs = tuple(
        TeacherSpec(name=name, path=file, outputs=("image", "text"), logit_scale=settings["sigma"])
        for name, file in context.shared["teachers"].items()
    )
    seconds = 0.0
    for kind, teachers in (("weak", specs[:1]), ("strong", specs)):
        config = ReinforceConfig(
            view_set=kind,
            num_views=settings["views"],
            views=ViewConfig(size=48, transforms=VIEWS[kind]),
            teachers=teachers,
            rows="split = 'train'",
            seed=seed,
        )
        seconds += reinforce(store, config).wall_seconds
    return {"store": str(path), "reinforce_seconds": seconds}


def student(arm: str, seed: int, settings: Mapping[str, Any]) -> Any:
    """Return the configuration of an arm's student."""
    from understudy.train.student_config import StudentConfig

    config = StudentConfig(
        model=STUDENT,
        changes=dict(NANO),
        captions="both",
        pick="random",
        lam=1.0,
        view_set="weak",
        teachers=("a",),
        vocab_size=settings["vocab"],
        rows="split = 'train'",
        train=_budget(settings, settings["steps"], settings["lr"]),
        seed=seed,
        workers=0,
    )
    if arm.startswith("clip"):
        captions = "both" if arm == "clip-syn" else "real"
        return replace(config, lam=0.0, teachers=(), captions=captions)
    if arm in ("distil-real", "distil-syn"):
        return replace(config, captions=arm.removeprefix("distil-"))
    if arm == "distil-both":
        return config
    config = replace(config, view_set="strong")
    if arm == "strong":
        return config
    return replace(config, teachers=("a", "b"), replay="fresh" if arm == "broken" else "stored")


def scores(model: Any, store: Any, settings: Mapping[str, Any]) -> dict[str, float]:
    """Score retrieval over 200 test pairs, and zero-shot digit pairs over all that are pairs."""
    from understudy.evaluate.held_out import held_out_rows
    from understudy.evaluate.run import evaluate_model

    rows = held_out_rows(store)
    first = evaluate_model(model, store, rows=rows[: settings["retrieval"]], tasks=("retrieval",))
    pairs = rows[store.array("label", rows) >= 0]
    names = store.meta["classes"]
    prompts = {name: digit_pair_prompts(name) for name in names}
    second = evaluate_model(model, store, rows=pairs, tasks=("zeroshot",), prompts=prompts)
    found = {
        "r1": first["retrieval.mean_r1"],
        "zeroshot": second["zeroshot.top1"],
    }
    return {**found, "sum": found["r1"] + found["zeroshot"]}


def digit_pair_prompts(name: str) -> list[str]:
    """Return the sentences that a class's scenes may have: sizes, sides and orders."""
    first, second = name.split(" and ")
    prompts = []
    for left, right in {(first, second), (second, first)}:
        for relation in ("left of", "above"):
            for sizes in ("small small", "small large", "large small", "large large"):
                one, two = sizes.split()
                prompts.append(f"a {one} {left} {relation} a {two} {right}")
    return sorted(prompts)


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


def price(store: Any, seed: int, context: Context) -> dict[str, float]:
    """Time whole steps turn by turn: plain, reinforced, and with the teachers asked online."""
    from understudy import models
    from understudy.train.online import OnlineTeachers
    from understudy.train.step_timing import interleave, make_step, ratio
    from understudy.train.student import clip_loader, clip_step, make_student

    settings, rounds = context.settings, context.settings["timing_rounds"]
    teachers = [models.load(path) for path in context.shared["teachers"].values()]
    full = student("full", seed, settings)
    online = replace(full, lam=0.0, teachers=())
    steps, found = {}, {}
    for arm, config in {"clip": student("clip", seed, settings), "full": full}.items():
        model = make_student(store, full)
        batches = clip_loader(store, model, config)(0, rounds + 3)
        steps[arm] = make_step(model, clip_step(store, config), batches, config.train)
    model = make_student(store, full)
    asked = OnlineTeachers(
        store,
        clip_loader(store, model, online),
        teachers,
        model.preprocess,
        captioner="template",
    )
    objective = clip_step(store, full)
    steps["online"] = make_step(model, objective, asked(0, rounds + 3), full.train)
    seconds = interleave(steps, rounds)
    found["step_over_plain"] = ratio(seconds, "full", "clip")
    found["step_over_online"] = ratio(seconds, "full", "online")
    for name, teacher in zip(context.shared["teachers"], teachers, strict=True):
        found[f"teacher_{name}_r1"] = scores(teacher, store, settings)["r1"]
    return found


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
