"""A job as a run of MLflow, through its client and any of its backends; no server is needed."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from typing import Any

from understudy.core.errors import ConfigError
from understudy.core.lazy import require
from understudy.launch.metric_export import label
from understudy.launch.metric_query import Value
from understudy.launch.state_rows import Job
from understudy.launch.states import State

BATCH = 1000
"""Most values of one call."""
TAG = "understudy.job"
_STATUS = {
    State.SUCCEEDED: "FINISHED",
    State.FAILED: "FAILED",
    State.TIMED_OUT: "FAILED",
    State.CANCELLED: "KILLED",
}


def mlflow(job: Job, values: Sequence[Value], out: str) -> str:
    """Make a run in the experiment of the job's project.

    Args:
        job: its record.
        values: its numbers.
        out: tracking URI, such as `sqlite:////home/me/mlflow.db`.

    Raises:
        ConfigError: MLflow refuses it; the message is its own.
        MissingExtraError: MLflow is missing.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # an export tells nobody else
    client = require("mlflow.tracking", "mlflow", "An export to MLflow")
    errors = require("mlflow.exceptions", "mlflow", "An export to MLflow")
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        run = _write(client.MlflowClient(tracking_uri=out), job, values)
    except (errors.MlflowException, ImportError) as error:
        raise ConfigError(f"MLflow at {out}: {' '.join(str(error).split())[:500]}") from None
    return f"run {run} of experiment '{job.project}' at {out}"


def _write(client: Any, job: Job, values: Sequence[Value]) -> str:
    entities = require("mlflow.entities", "mlflow", "An export to MLflow")
    experiment = client.get_experiment_by_name(job.project)
    if experiment is None:
        number = client.create_experiment(job.project)
    else:
        number = experiment.experiment_id
    earlier = client.search_runs([number], f"tags.`{TAG}` = '{job.id}'")
    run = client.create_run(
        number,
        start_time=round(1e3 * (job.started or job.created)),
        tags={TAG: job.id, "understudy.spec": job.spec_hash, "understudy.engine": job.engine},
        run_name=job.id,
    ).info.run_id
    params = [entities.Param(key, text) for key, text in _params(job).items()]
    client.log_batch(run, params=params)
    metrics = [
        entities.Metric(
            label(v), float("nan") if v.value is None else v.value, round(1e3 * v.t), v.step
        )
        for v in values
    ]
    for start in range(0, len(metrics), BATCH):
        client.log_batch(run, metrics=metrics[start : start + BATCH])
    if job.final:
        end = None if job.ended is None else round(1e3 * job.ended)
        client.set_terminated(run, _STATUS[job.state], end)
    for other in earlier:  # the new one is whole
        client.delete_run(other.info.run_id)
    return run


def _params(job: Job) -> dict[str, str]:
    """Return what was run, in words of at most 500 characters."""
    spec = job.spec
    facts: dict[str, Any] = {
        "name": spec.name,
        "command": list(spec.command) or spec.entrypoint,
        "replicas": spec.replicas,
        "launcher": spec.launcher,
        "attempt": job.attempt,
        "state": str(job.state),
        **{f"args.{key}": value for key, value in list(spec.args.items())[:80]},
    }
    return {k: (v if isinstance(v, str) else json.dumps(v))[:500] for k, v in facts.items()}
