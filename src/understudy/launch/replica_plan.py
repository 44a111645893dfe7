"""From a job's record to what each of its replicas runs: environment, command, wiring."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from pathlib import Path
from typing import Any

from understudy.core.files import read_json, write_json
from understudy.launch import worker
from understudy.launch.home import Home
from understudy.launch.replica_files import PLAN
from understudy.launch.spec import PLACEHOLDER, JobSpec, looks_secret
from understudy.launch.state_metrics import VARIABLE as METRICS
from understudy.launch.state_rows import Job

TAKEN_OVER = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR",
    "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV", "CONDA_PREFIX", "XDG_CACHE_HOME",
    "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS",
    "HF_HOME", "HF_HUB_OFFLINE", "TORCH_HOME", "UNDERSTUDY_CACHE", "UNDERSTUDY_PROGRESS",
)  # fmt: skip
"""Variables that a job gets from where it is submitted; anything else is the spec's to give."""
WIRING = "wiring.json"
LAST_CALL_S = 5
"""How long an elastic start waits for more replicas after the minimum is there."""


def taken_over() -> dict[str, str]:
    """Return the variables of this process that a job submitted now gets.

    The folder of this Python comes first on PATH, so that `python` and `understudy` are the
    submitter's own.
    """
    found = {k: os.environ[k] for k in TAKEN_OVER if k in os.environ}
    found = {k: v for k, v in found.items() if not looks_secret(k, v)}
    own = os.path.dirname(sys.executable)
    path = found.get("PATH", os.defpath)
    if own not in path.split(os.pathsep):
        found["PATH"] = f"{own}{os.pathsep}{path}"
    return found


def variable(name: str) -> str:
    """Return a name as part of a variable: capitals, digits and underscores."""
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


def local_path(uri: str) -> str:
    """Return the path that a URI without a scheme, or with `file://`, stands for; else itself."""
    return uri.removeprefix("file://")


def wiring(home: Home, job: Job) -> dict[str, Any]:
    """Return host and port where the workers of an attempt on one machine meet; drawn once."""
    path = home.attempt(job.id, job.attempt) / WIRING
    if not path.exists():
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            write_json(path, {"host": "127.0.0.1", "port": probe.getsockname()[1]})
    return read_json(path)


def fill(word: str, spec: JobSpec, out: Path, checkpoints: Path) -> str:
    """Replace the placeholders of a word of the command."""
    paths = {
        ("inputs", i.name): local_path(i.uri) for i in spec.inputs
    } | {("outputs", o.name): str(out / o.path) for o in spec.outputs}  # fmt: skip

    def put(match: re.Match[str]) -> str:
        if match.group(1):
            return paths[match.group(1), match.group(2)]
        return str(out if match.group(3) == "out" else checkpoints)

    return PLACEHOLDER.sub(put, word)


def command(spec: JobSpec, rank: int) -> list[str]:
    """Return a replica's command before launcher and placeholders."""
    role = spec.ranks()[rank]
    if role.command or not spec.entrypoint:
        return list(role.command or spec.command)
    return ["python", "-m", "understudy.launch.call", spec.entrypoint, json.dumps(spec.args)]


def torchrun(spec: JobSpec, job: Job, rank: int, placed: int, meet: dict[str, Any]) -> list[str]:
    """Return the words that start a replica's agent, without the workers' command.

    Args:
        spec: the job's spec.
        job: its record.
        rank: of the replica.
        placed: replicas of this attempt.
        meet: host and port of the rendezvous; `hosts`, by rank, where they are several.
    """
    per_replica = max(1, spec.ranks()[rank].resources.gpu)
    words = ["python", "-m", "torch.distributed.run", f"--nproc-per-node={per_replica}"]
    hosts: dict[str, str] = meet.get("hosts", {})
    # whose endpoint it is, agents find out by name; on several machines names may mislead them
    own = f",is_host={int(rank == min(map(int, hosts)))}" if hosts else ""
    if spec.elastic is not None:
        words += [
            f"--nnodes={spec.elastic.min}:{spec.elastic.max}",
            f"--max-restarts={spec.elastic.max_restarts}",
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint={meet['host']}:{meet['port']}",
            f"--rdzv-id={job.id}-{job.attempt}",
            f"--rdzv-conf=last_call_timeout={LAST_CALL_S}{own}",
            f"--local-addr={hosts.get(str(rank), meet['host'])}",
        ]
    else:
        words += [
            f"--nnodes={placed}",
            f"--node-rank={rank}",
            "--max-restarts=0",
            f"--master-addr={meet['host']}",
            f"--master-port={meet['port']}",
        ]
    return [*words, "--no-python", "python", "-I", str(Path(worker.__file__).resolve())]


def environment(
    home: Home, job: Job, rank: int, placed: int, gpus: tuple[int, ...] | None, resume: bool
) -> dict[str, str]:
    """Return the variables of a replica's command, secrets aside.

    Args:
        home: of all jobs.
        job: its record.
        rank: of the replica.
        placed: replicas of this attempt.
        gpus: indices of its accelerators on this machine, others are hidden from it; None leaves
            that to the engine.
        resume: whether there is state to go on from.
    """
    spec = job.spec
    role = spec.ranks()[rank]
    folder = home.job(job.id)
    env = dict(json.loads(job.environment))
    own = {
        "UNDERSTUDY_JOB_ID": job.id,
        "UNDERSTUDY_ATTEMPT": str(job.attempt),
        "UNDERSTUDY_ROLE": role.name,
        "UNDERSTUDY_REPLICA": str(rank),
        "UNDERSTUDY_REPLICAS": str(placed),
        "UNDERSTUDY_CKPT_DIR": job.checkpoints,
        "UNDERSTUDY_CKPT_KEEP": str(spec.checkpoint.keep),
        "UNDERSTUDY_OUT_DIR": str(folder / "out"),
        "UNDERSTUDY_RESUME": str(int(resume)),
        METRICS: str(home.rank(job.id, job.attempt, rank) / "metrics.jsonl"),
        "PYTHONUNBUFFERED": "1",
    }
    if spec.checkpoint.every_s is not None:
        own["UNDERSTUDY_CKPT_EVERY_S"] = f"{spec.checkpoint.every_s:g}"
    own |= {f"UNDERSTUDY_INPUT_{variable(i.name)}": local_path(i.uri) for i in spec.inputs}
    own |= {
        f"UNDERSTUDY_OUTPUT_{variable(o.name)}": str(folder / "out" / o.path) for o in spec.outputs
    }
    if gpus is not None:
        own["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, gpus))
    if spec.launcher == "torchrun":
        meet = wiring(home, job)
        per_replica = max(1, role.resources.gpu)
        own |= {
            "MASTER_ADDR": meet["host"],
            "MASTER_PORT": str(meet["port"]),
            "RANK": str(rank * per_replica),
            "LOCAL_RANK": "0",
            "WORLD_SIZE": str(placed * per_replica),
            "OMP_NUM_THREADS": env.get("OMP_NUM_THREADS")
            or str(max(1, int(role.resources.cpu) // per_replica)),
            "UNDERSTUDY_ATTEMPT_DIR": str(home.attempt(job.id, job.attempt)),
        }
        if spec.elastic is not None:
            # Else workers of all rounds share one store, and after a restart they find the
            # addresses of those that died: agents count restarts each for itself.
            own["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    return {**env, **own, **spec.env, **role.env}


def write_plan(
    home: Home,
    job: Job,
    rank: int,
    *,
    placed: int,
    gpus: tuple[int, ...] | None = None,
    grace_s: float,
    heartbeat_s: float,
    segment_bytes: int,
    segments: int,
    wake: str = "",
    tee: bool = False,
) -> Path:
    """Write what the wrapper of a replica needs, and return the replica's folder.

    Args:
        home: of all jobs.
        job: its record.
        rank: of the replica.
        placed: replicas of this attempt.
        gpus: indices of its accelerators, as for `environment`.
        grace_s: from TERM to KILL.
        heartbeat_s: between signs of life.
        segment_bytes: of a log file.
        segments: log files kept.
        wake: a pipe to write to when it starts and ends.
        tee: whether it also prints the output, for engines with logs of their own.
    """
    spec = job.spec
    folder = home.rank(job.id, job.attempt, rank)
    folder.mkdir(parents=True, exist_ok=True)
    out, checkpoints = home.job(job.id) / "out", Path(job.checkpoints)
    for path in (out, checkpoints, *((out / o.path).parent for o in spec.outputs)):
        path.mkdir(parents=True, exist_ok=True)
    words = [fill(word, spec, out, checkpoints) for word in command(spec, rank)]
    if spec.launcher == "torchrun":
        words = [*torchrun(spec, job, rank, placed, wiring(home, job)), *words]
    resume = job.attempt > 1 or any(checkpoints.glob("step-*"))
    python = spec.python
    facts = {
        "job": job.id,
        "attempt": job.attempt,
        "rank": rank,
        "role": spec.ranks()[rank].name,
        "gang": placed if spec.is_gang else 1,
        "command": words,
        "cwd": str(home.job(job.id) / "work"),
        "env": environment(home, job, rank, placed, gpus, resume),
        "secrets": list(spec.secrets),
        "secrets_folder": str(home.secrets),
        "python": python
        and {
            "lock": python.lock,
            "wheelhouse": python.wheelhouse,
            "root": str(home.root / "envs"),
        },
        "gpus": list(gpus or ()),
        "grace_s": grace_s,
        "heartbeat_s": heartbeat_s,
        "segment_bytes": segment_bytes,
        "segments": segments,
        "wake": wake,
        "tee": tee,
    }
    if not (folder / PLAN).exists():
        write_json(folder / PLAN, facts)
    return folder
