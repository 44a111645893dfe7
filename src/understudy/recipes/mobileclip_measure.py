"""What the claim of MobileCLIP measures: a student's scores, and what a step costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from understudy.evaluate.claims import Context
from understudy.recipes.mobileclip_arms import student


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
