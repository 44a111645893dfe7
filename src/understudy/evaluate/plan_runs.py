"""Rows of the plan of one run on a user's store: what would be stored and trained, at what cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.core.errors import DataError
from understudy.evaluate.plans import Plan, training_flop

if TYPE_CHECKING:
    from understudy.models.language.language_config import LanguageConfig


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


def add_language_training(
    made: Plan,
    *,
    config: LanguageConfig,
    context: int,
    tokens: int,
    tokens_per_step: int,
    arms: Sequence[str],
) -> None:
    """Append what training language models of one budget would cost.

    Args:
        made: where to.
        config: of each model.
        context: tokens of a sequence.
        tokens: of each model's training.
        tokens_per_step: of a batch.
        arms: names of the models.
    """
    import torch

    from understudy.models.build import build
    from understudy.models.language.cost import training_flop as flop_of

    with torch.device("meta"):
        count = sum(p.numel() for p in build(config).parameters())
    made.add("models", len(arms), "", formula=", ".join(arms))
    made.add("parameters of a model", count, "", formula=config.name)
    made.add("tokens seen by a model", tokens, "tokens", formula=f"{context:,} a sequence")
    made.add("steps of a model", tokens // tokens_per_step, "", formula=f"of {tokens_per_step:,}")
    made.add(
        "training", len(arms) * flop_of(config.decoder, context) * tokens, "FLOP",
        formula="models x (6 N + 6 L d s) x tokens; N without the embedding table",
    )  # fmt: skip


def add_inputs(made: Plan, label: str, path: str | Path) -> None:
    """Append the size of the files that a run reads.

    Args:
        made: where to.
        label: what they are.
        path: a file or a folder.

    Raises:
        DataError: nothing is there.
    """
    path = Path(path)
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
    if not files:
        raise DataError(f"{label}: {path} is no file and no folder with files.")
    made.add(label, sum(f.stat().st_size for f in files), "B", formula=f"{len(files):,} files")
