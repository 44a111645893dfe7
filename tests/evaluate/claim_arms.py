"""Arms that tests of claims train: arithmetic, importable by name in spawned processes."""

from __future__ import annotations

import os
from pathlib import Path

from understudy.core.errors import DataError


def run_arm(arm, seed, context):
    """Score by arm and seed; count calls in the arm's folder; read what was prepared."""
    calls = context.arm_dir / "calls"
    calls.write_text(calls.read_text() + "x" if calls.exists() else "x")
    gain = {"plain": 0.0, "strong": 0.1, "broken": -0.2}[arm]
    base = context.prepared.get("base", 0.5)
    seconds = {"plain": 2.0, "strong": 2.2, "broken": 2.0}[arm]
    return {
        "top1": base + gain + seed / 1000 + context.settings.get("shift", 0.0),
        "step_seconds": seconds,
        "pid": float(os.getpid()),
    }


def setup(context):
    """Write one shared file."""
    (context.shared_dir / "teacher").write_text("wise")
    return {"teacher": str(context.shared_dir / "teacher")}


def prepare(seed, context):
    """Draw a base score per seed; needs what setup made."""
    assert Path(context.shared["teacher"]).read_text() == "wise"
    (context.seed_dir / "data").write_text(str(seed))
    return {"base": 0.4 + 0.01 * seed}


def failing_arm(arm, seed, context):
    """Fail for one unit only, until a file says otherwise."""
    if arm == "strong" and seed == 1 and not Path(context.settings["switch"]).exists():
        raise DataError("no data today")
    return run_arm(arm, seed, context)


def dying_arm(arm, seed, context):
    """Kill the process like an out-of-memory killer would, once."""
    switch = Path(context.settings["switch"])
    if arm == "strong" and seed == 2 and not switch.exists():
        switch.write_text("killed")
        os._exit(9)
    return run_arm(arm, seed, context)


def empty_arm(arm, seed, context):
    """Report nothing."""
    return {}


def text_arm(arm, seed, context):
    """Report a text where a number belongs."""
    return {"top1": "good"}


def uneven_arm(arm, seed, context):
    """Report a metric for one seed only."""
    return {"top1": 1.0, "ece": 0.1} if seed == 0 else {"top1": 1.0}


def diverging_arm(arm, seed, context):
    """Report a score that is not a number for the better arm."""
    return {"top1": float("nan") if arm == "strong" else 0.5}
