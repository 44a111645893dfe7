"""The arms of the fct claim: what queries by the new model find in a gallery of old vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from understudy.core.seeds import rng
from understudy.evaluate.claims import Context

if TYPE_CHECKING:
    from understudy.update.sample import Sample

ARMS: dict[str, str] = {
    "old": "old queries, old gallery: no update",
    "new": "new queries, gallery encoded again: a full backfill",
    "linear": "new queries, gallery mapped by least squares",
    "rotation": "new queries, gallery mapped by orthogonal Procrustes",
    "bct": "a new model of the old width, trained to fit the old classifier; gallery untouched",
    "plain": "new queries, gallery mapped by h from old vectors alone, given twice",
    "side": "new queries, gallery mapped by h from old vectors and side information (SimCLR)",
    "reconstruct": "the same with an auto-encoder as side information",
    "shuffled": "control: side information of other items",
    "noise": "control: noise of the size of the side information",
}
LINEAR = {"linear": "least-squares", "rotation": "orthogonal"}


def prepare(seed: int, context: Context) -> dict[str, Any]:
    """Train the seed's old model, new model and side information; write their vectors."""
    from understudy.update.small_update import SmallUpdate

    update = SmallUpdate(context.seed_dir, seed, context.settings)
    return update.write(update.train())


def run_arm(arm: str, seed: int, context: Context) -> dict[str, float]:
    """Map the gallery as the arm does and search it."""
    from understudy.update.sample import cross_metrics
    from understudy.update.small_update import read_samples

    train, test = read_samples(context.prepared)
    if arm == "old":
        return cross_metrics(test.old, test.old, test.labels)
    if arm == "new":
        return cross_metrics(test.new, test.new, test.labels)
    if arm == "bct":
        return _compatible(test, seed, context)
    if arm == "reconstruct":
        train, test = _rebuilt(train, test, seed, context)
    elif arm in ("shuffled", "noise"):
        train, test = _control(train, arm, "train", seed), _control(test, arm, "test", seed)
    mapped, facts = _mapped(train, test, arm, seed, context)
    return {**cross_metrics(test.new, mapped, test.labels), **facts}


def _mapped(
    train: Sample, test: Sample, arm: str, seed: int, context: Context
) -> tuple[np.ndarray, dict[str, float]]:
    """Learn the arm's map on the training items; return the mapped test items."""
    from understudy.update.fit import fit_map
    from understudy.update.fit_config import FitConfig
    from understudy.update.small_update import map_config

    config = map_config(context.settings, seed)
    if arm in LINEAR:
        config = FitConfig(kind=LINEAR[arm], held_out=0.0)  # type: ignore[arg-type]
    uses_side = arm not in (*LINEAR, "plain")
    made = fit_map(train.pairs(side=uses_side), config, context.arm_dir / "map").map
    assert made is not None
    mapped, _ = made.transform(test.old, test.side if uses_side else None)
    error = float(((mapped - test.new) ** 2).mean())
    return mapped, {"mse": error, "parameters": float(made.num_parameters)}


def _control(sample: Sample, arm: str, split: str, seed: int) -> Sample:
    """Return a sample whose side information says nothing of its items."""
    side = sample.side
    assert side is not None
    draw = rng("fct control", arm, split, seed)
    if arm == "shuffled":
        return sample.with_side(side[draw.permutation(len(side))], "shuffled")
    noise = draw.standard_normal(side.shape) * side.std(0) + side.mean(0)
    return sample.with_side(noise.astype(np.float32), "noise")


def _rebuilt(train: Sample, test: Sample, seed: int, context: Context) -> tuple[Sample, Sample]:
    """Return the samples with an auto-encoder's side information."""
    from understudy.update.small_update import SmallUpdate
    from understudy.update.trained import embed

    update = SmallUpdate(context.seed_dir, seed, context.settings)
    model = update.side("reconstruct", context.arm_dir / "side")

    def other(sample: Sample, split: str) -> Sample:
        rows = update.store.where(f"split = '{split}'")
        return sample.with_side(embed(model, update.store, rows), "reconstruct")

    return other(train, "train"), other(test, "test")


def _compatible(test: Sample, seed: int, context: Context) -> dict[str, float]:
    """Search the old gallery, and its own, with a backward-compatible model."""
    from understudy.update.sample import cross_metrics
    from understudy.update.small_update import SmallUpdate
    from understudy.update.trained import embed, space_of_model

    update = SmallUpdate(context.seed_dir, seed, context.settings)
    model = update.compatible(context.arm_dir / "model")
    own = embed(model, update.store, update.store.where("split = 'test'"))
    sample = replace(
        test, vectors={"old": test.old, "new": own},
        spaces={"old": test.spaces["old"], "new": space_of_model(model)},
    )  # fmt: skip
    alone = cross_metrics(sample.new, sample.new, sample.labels)
    found = cross_metrics(sample.new, sample.old, sample.labels)
    return {**found, "own_map": alone["map"], "own_cmc_1": alone["cmc_1"]}


def share_closed(results: Mapping[str, Mapping[str, np.ndarray]], arm: str) -> np.ndarray:
    """Return the share of the gain of a full backfill that an arm has, by seed."""
    old, new, got = (np.asarray(results[a]["map"], np.float64) for a in ("old", "new", arm))
    return (got - old) / (new - old)
