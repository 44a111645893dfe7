"""What a run gave, and its record on disk: a run with a record is done."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.core.config import to_dict
from understudy.core.files import read_json, write_json
from understudy.core.provenance import machine, versions
from understudy.train import checkpoint

RECORD = "record.json"


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run gave.

    Attributes:
        path: the run's folder.
        steps: optimiser steps done.
        metrics: the last evaluation, and the last training means with the prefix `train/`.
        seconds: wall seconds by part: `data` (waiting for batches), `step`, `evaluate`,
            `checkpoint`. On an accelerator `step` is what the host waited.
        finished: False if the time limit ended it; call again to go on.
    """

    path: Path
    steps: int
    metrics: dict[str, float]
    seconds: dict[str, float]
    finished: bool = True


def read_result(out: Path, identity: Mapping[str, Any]) -> RunResult | None:
    """Return what the finished run in a folder gave; None if there is none.

    Args:
        out: the folder.
        identity: what must be equal for it to be this run.

    Raises:
        ConfigError: it is another run; the message names the first difference.
    """
    if not (out / RECORD).exists() or not (out / "model.safetensors").exists():
        return None
    found = read_json(out / RECORD)
    checkpoint.same_run(found["run"], identity, out)
    return RunResult(
        path=out, steps=found["steps"], metrics=found["metrics"], seconds=found["seconds"]
    )


def write_record(
    result: RunResult, identity: Mapping[str, Any], facts: Mapping[str, Any], context: Any
) -> None:
    """Write `record.json`, after everything else of the run."""
    record = {
        "steps": result.steps,
        **facts,
        "metrics": result.metrics,
        "seconds": result.seconds,
        "run": identity,
        "context": context,
        "versions": versions(),
        "machine": machine(),
    }
    write_json(result.path / RECORD, plain(record))


def plain(data: Any) -> Any:
    """Return what JSON gives back: tuples become lists, keys strings."""
    return json.loads(json.dumps(to_dict(data), default=str))
