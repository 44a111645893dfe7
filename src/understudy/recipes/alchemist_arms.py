"""The arms of the alchemist claim: jobs that are killed, two workers and one, three engines."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from understudy.core.files import read_json, write_json
from understudy.core.hashing import hash_file
from understudy.evaluate.claims import Context
from understudy.launch.cost import overhead, useful_fraction
from understudy.launch.engines import open_engine
from understudy.launch.engines.base import Engine
from understudy.launch.spec_parts import Output
from understudy.recipes.alchemist_engines import run_engine
from understudy.recipes.alchemist_jobs import (
    SCRIPT,
    Killer,
    digits,
    finish,
    lines,
    named,
    training,
)

MAIN = "wall_s"
"""The one metric that all arms have: seconds from the first step to the last, or of the jobs."""
ARMS: dict[str, str] = {
    "unbroken": "A: two DDP workers train a small CNN on digits, nobody is killed",
    "killed": "A: the same job, a random worker killed (-9) every 20 s or so",
    "one": "B: one worker of one thread, 128 samples a step",
    "two": "B: two workers of one thread, 64 of the same 128 samples each",
    "half": "B: one worker, 64 samples a step: what each of two computes",
    "sync-slow": "B: two workers, the second 3 times slower, gradients averaged in every step",
    "async-slow": "B: the same workers and a parameter server that waits for nobody",
    "local": "C: five spec files on the local engine",
    "ray": "C: the same files on Ray",
    "slurm": "C: the same files on Slurm",
}
MODES: dict[str, dict[str, Any]] = {
    "one": {"workers": 1},
    "two": {"workers": 2},
    "half": {"workers": 1, "halved": True},
    "sync-slow": {"workers": 2, "slow": True},
    "async-slow": {"workers": 2, "slow": True, "mode": "async_ps"},
}


def setup(context: Context) -> dict[str, Any]:
    """Write the digits."""
    path = digits(context.shared_dir, context.settings["held_out"])
    return {"data": str(path)}


def run_arm(arm: str, seed: int, context: Context) -> dict[str, float]:
    """Run one arm in a home of jobs of its own."""
    if arm in ("local", "ray", "slurm"):
        return run_engine(arm, seed, context.arm_dir)
    engine = open_engine("local", context.arm_dir / "jobs")
    try:
        engine.set_capacity(2)  # two workers are started wherever this is run
        if arm in MODES:
            return run_mode(engine, arm, seed, context)
        return run_training(engine, arm, seed, context)
    finally:
        engine.close()


# -- A


def run_training(engine: Engine, arm: str, seed: int, context: Context) -> dict[str, float]:
    """Train the plain script, with kills or without, and say what was kept and what was lost."""
    settings, facts = context.settings, context.arm_dir / "facts"
    words = {
        "--facts": str(facts), "--out": "{outputs.model}", "--seed": str(seed),
        "--steps": str(settings["kill_steps"]), "--batch": str(settings["kill_batch"]),
        "--width": str(settings["kill_width"]), "--between-failures": str(settings["kill_every_s"]),
    }  # fmt: skip
    options = [word for pair in words.items() for word in pair]
    spec = training(
        f"digits-{arm}",
        2,
        ("python", SCRIPT.name, context.shared["data"], *options),
        settings["restarts"],
        workdir=str(SCRIPT.parent),
        include=(SCRIPT.name,),
        outputs=(Output(name="model", path="model.pt", kind="model"),),
    )
    killer = Killer(facts, settings["kill_every_s"], seed)
    if arm == "killed":
        killer.start()
    try:
        job = finish(engine, spec, settings["timeout_s"])
    finally:
        if arm == "killed":
            killer.stop()
    write_json(facts / "kills.json", killer.kills)
    model = engine.folder(job) / "out" / "model.pt"
    found = summary(facts, killer.kills, settings["kill_every_s"])
    return {**found, **named("weights", hash_file(model))}


def summary(facts: Path, kills: list[float], every_s: float) -> dict[str, float]:
    """Return what a training's files say.

    Useful time is that of the steps that the final weights saw, each as it was computed last.
    Young's prediction is 1 - (c / tau + tau / (2 M)) with the measured time of a checkpoint, the
    mean pause between them, and M seconds from kill to kill; it does not know of restarts.
    """
    ran = lines(facts / "steps.jsonl")
    saves = lines(facts / "saves.jsonl")
    seen = read_json(facts / "seen.json")
    last = {line["step"]: line for line in ran}
    useful = sum(line["ended"] - line["begun"] for line in last.values())
    wall = ran[-1]["ended"] - ran[0]["begun"]
    save_s = statistics.mean(line["seconds"] for line in saves) if saves else 0.0
    pauses = [line["interval"] for line in saves]
    pause = statistics.mean(pauses) if pauses else 0.0
    met = [t for t in kills if t < ran[-1]["ended"]]
    young = 1 - overhead(pause, save_s, every_s) if pause else 1.0
    lost = max(0.0, wall - useful - save_s * len(saves)) / len(met) if met else 0.0
    gaps = [min([line["begun"] for line in ran if line["begun"] > t], default=t) - t for t in met]
    order = seen["steps"]
    return {
        MAIN: wall,
        "kills": float(len(met)),
        "goodput": useful / wall,
        "young": young,
        "goodput_over_young": useful / wall / young,
        "save_s": save_s,
        "interval_s": pause,
        "restart_s": statistics.mean(gaps) if gaps else 0.0,
        "lost_per_kill_s": lost,
        "useful_fraction": useful_fraction(len(last), len(ran)),
        "trained_twice": float(len(order) - len(set(order))),
        "left_out": float(len(set(range(max(order) + 1)) - set(order))),
        "in_order": float(order == sorted(order)),
        **named("rows", seen["digest"]),
    }


# -- B


def run_mode(engine: Engine, arm: str, seed: int, context: Context) -> dict[str, float]:
    """Train by one of the modes and read off when the accuracy was there."""
    settings, mode, facts = context.settings, MODES[arm], context.arm_dir / "facts"
    slow = mode.get("slow", False)
    steps, batch = settings["slow_steps" if slow else "mode_steps"], settings["mode_batch"]
    if mode.get("halved"):
        steps, batch = settings["half_steps"], batch // 2
    words = {
        "--facts": str(facts), "--mode": mode.get("mode", "sync"), "--steps": str(steps),
        "--batch": str(batch), "--width": str(settings["mode_width"]), "--seed": str(seed),
        "--lr": str(settings["lr"]), "--momentum": str(settings["momentum"]),
        "--keep": str(settings["keep"]), "--slow": str(settings["slower"] if slow else 1.0),
    }  # fmt: skip
    options = [word for pair in words.items() for word in pair]
    command = ("python", "-m", "understudy.recipes.alchemist_modes", context.shared["data"])
    finish(
        engine,
        training(f"mode-{arm}", mode["workers"], (*command, *options), 0),
        settings["timeout_s"],
    )
    found = read_json(facts / "modes.json")
    return curve_facts(found, settings["target"], batch)


def curve_facts(found: Mapping[str, Any], target: float, batch: int) -> dict[str, float]:
    """Return when the target was reached first, the last accuracies, and how fast it went.

    A target that was never reached gives infinity.
    """
    reached = [i for i, value in enumerate(found["accuracy"]) if value >= target]
    at = reached[0] if reached else None
    end = found["accuracy"][-5:]
    return {
        MAIN: found["seconds"][-1],
        "seconds_to_target": float("inf") if at is None else found["seconds"][at],
        "samples_to_target": float("inf") if at is None else float(found["samples"][at]),
        "accuracy": statistics.mean(end),
        "samples_per_s": found["samples"][-1] / found["seconds"][-1],
        "step_s": found["step_s"],
        "step_samples_per_s": batch / found["step_s"],
        "communicate_s": found["communicate_s"],
        "bytes": float(found["bytes"]),
        "bandwidth": found["bandwidth"],
        "latency_s": found["latency_s"],
    }
