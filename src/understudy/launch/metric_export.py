"""A job's numbers in the words of other tools: TensorBoard event files, MLflow runs, CSV.

An export holds every step once, as it was computed last; made again, it takes the place of the one
before.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

from understudy.core.errors import ConfigError
from understudy.core.files import write_text
from understudy.core.lazy import LazyTable, require
from understudy.launch.metric_query import Value, last_values
from understudy.launch.state import JobStore
from understudy.launch.state_rows import Job

EXPORTERS = LazyTable(
    "format of numbers",
    {
        "tensorboard": "understudy.launch.metric_export:tensorboard",
        "mlflow": "understudy.launch.metric_mlflow:mlflow",
        "csv": "understudy.launch.metric_export:to_csv",
    },
)
SUFFIX = ".understudy"


def export_metrics(store: JobStore, job: Job, to: str, out: str) -> str:
    """Write a job's numbers for another tool and say where they are.

    Args:
        store: the jobs.
        job: its record.
        to: a name in `EXPORTERS`.
        out: a folder (TensorBoard), a tracking URI (MLflow) or a file (CSV).

    Raises:
        ConfigError: the job has no numbers, or there is no such format.
        MissingExtraError: the tool's package is missing.
    """
    write: Callable[[Job, Sequence[Value], str], str] = EXPORTERS.load(to)
    found = last_values(store, job.id)
    if not found:
        raise ConfigError(f"job {job.id} has no numbers; it logs none, or has only begun.")
    return write(job, found, out)


def label(value: Value) -> str:
    """Return a name that tells the replicas apart; the first one's is the metric's own."""
    return value.name if value.rank == 0 else f"rank-{value.rank}/{value.name}"


def to_csv(job: Job, values: Sequence[Value], out: str) -> str:
    """Write one row for each value."""
    del job
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("name", "rank", "step", "time", "value"))
    for v in values:
        rows.writerow((v.name, v.rank, v.step, repr(v.t), "nan" if v.value is None else v.value))
    return str(write_text(out, text.getvalue()))


def tensorboard(job: Job, values: Sequence[Value], out: str) -> str:
    """Write an event file into `<out>/<job>/` that `tensorboard --logdir <out>` shows as a run."""
    purpose = "An export to TensorBoard"
    writers = require("tensorboard.summary.writer.event_file_writer", "logs", purpose)
    events = require("tensorboard.compat.proto.event_pb2", "logs", purpose)
    summaries = require("tensorboard.compat.proto.summary_pb2", "logs", purpose)
    folder = Path(out) / job.id
    folder.mkdir(parents=True, exist_ok=True)
    earlier = list(folder.glob(f"events.out.tfevents.*{SUFFIX}"))
    writer = writers.EventFileWriter(str(folder), filename_suffix=SUFFIX)
    for v in values:
        number = float("nan") if v.value is None else v.value
        point = summaries.Summary.Value(tag=label(v), simple_value=number)
        summary = summaries.Summary(value=[point])
        writer.add_event(events.Event(step=v.step, wall_time=v.t, summary=summary))
    writer.close()
    for path in earlier:
        path.unlink()
    return str(folder)
