"""Rows of the plan of one run on a user's store: what would be stored and trained, at what cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from understudy.evaluate.plans import Plan, training_flop


def add_reinforcement(made: Plan, costs: Mapping[str, Any]) -> None:
    """Append what reinforcing would ask and store.

    Args:
        made: where to.
        costs: what `understudy.reinforce.plan.plan` returned.
    """
    made.add("rows to reinforce", costs["rows"], "rows")
    made.add("rows still open", costs["todo_rows"], "rows", formula="in the emptiest column")
    made.add("stored views per row", costs["views"], "")
    for teacher, calls in costs["teacher_calls"].items():
        for kind, count in calls.items():
            made.add(f"{kind} shown to {teacher}", count, "", formula="if nothing were there yet")
    made.add("bytes per row", costs["bytes_per_row"], "B")
    made.add("bytes stored", costs["bytes"], "B", formula="rows x bytes per row, uncompressed")


def add_training(
    made: Plan,
    *,
    model: str,
    parameters: int,
    macs: int,
    rows: int,
    steps: int,
    batch: int,
    students: Sequence[str],
) -> None:
    """Append what training students of one budget would cost.

    Args:
        made: where to.
        model: name of the student.
        parameters: of one student, in training form.
        macs: multiply-accumulates of one sample's forward pass, all towers.
        rows: rows to learn from.
        steps: of each student.
        batch: samples a step.
        students: their names.
    """
    seen = steps * batch
    made.add("students", len(students), "", formula=", ".join(students))
    made.add("parameters of a student", parameters, "", formula=model)
    made.add("rows to learn from", rows, "rows")
    made.add("samples seen by a student", seen, "samples", formula=f"{steps:,} steps of {batch:,}")
    made.add("passes over the rows", seen / max(rows, 1), "")
    made.add("forward pass of a sample", macs, "MAC")
    made.add(
        "training",
        len(students) * training_flop(macs, seen),
        "FLOP",
        formula="students x 6 x MAC x samples seen",
    )
