"""What a job in Slurm runs on its nodes: `python -m understudy.launch.engines.slurm_node ...`.

task JOB BASE ATTEMPT RANK     one replica: its plan, completed with what only the node knows
signal ATTEMPT NAME TOKEN      hand a signal on to the wrappers of this node
wire ATTEMPT                   draw the port where the workers of this attempt meet

No database is opened here: nodes may be far from it, and a requeued job starts also when nobody
watches.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from understudy.core.files import read_json, write_json
from understudy.launch.replica import run_replica
from understudy.launch.replica_files import PLAN, ReplicaFiles
from understudy.launch.replica_plan import WIRING
from understudy.launch.state_metrics import VARIABLE as METRICS

SEEN_S = 30.0
"""How long a node may need to see what was written elsewhere."""
UNSEEN = 78
NODE = "slurm-node"
_DEVICES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES",
            "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK")  # fmt: skip


def completed(
    plan: dict[str, Any],
    folder: Path,
    attempt: int,
    meet: Mapping[str, Any] | None,
    node: Mapping[str, str],
) -> dict[str, Any]:
    """Return a replica's plan for an attempt on a node; done twice it changes nothing more.

    Args:
        plan: as it was written when the job was submitted.
        folder: of the replica, in this attempt.
        attempt: its number.
        meet: host and port of the workers' rendezvous; None without one.
        node: variables of the task.
    """
    env = dict(plan["env"])
    given = {k: v for k, v in node.items() if k.startswith(("SLURM_", "SLURMD_")) or k in _DEVICES}
    env = {**given, **env, "UNDERSTUDY_ATTEMPT": str(attempt)}
    env[METRICS] = str(folder / "metrics.jsonl")
    if attempt > plan["attempt"]:
        env["UNDERSTUDY_RESUME"] = "1"
    words = list(plan["command"])
    if meet is not None:
        where = {"MASTER_ADDR": str(meet["host"]), "MASTER_PORT": str(meet["port"])}
        env |= {**where, "UNDERSTUDY_ATTEMPT_DIR": str(folder.parent)}
        job = plan["job"]
        new = {
            "--master-addr=": meet["host"],
            "--master-port=": meet["port"],
            "--rdzv-endpoint=": f"{meet['host']}:{meet['port']}",
            "--rdzv-id=": f"{job}-{attempt}",
            "--local-addr=": meet["host"] if meet["host"] == "127.0.0.1" else socket.gethostname(),
        }
        end = words.index("--no-python") if "--no-python" in words else 0
        for i in range(end):
            for option, value in new.items():
                if words[i].startswith(option):
                    words[i] = f"{option}{value}"
    return {**plan, "attempt": attempt, "env": env, "command": words}


def task(job: Path, base: int, attempt: Path, rank: int) -> int:
    """Run one replica and return its exit code."""
    folder = attempt / f"rank-{rank}"
    source = job / f"attempt-{base}" / f"rank-{rank}" / PLAN
    end = time.monotonic() + SEEN_S
    while not source.exists():
        if time.monotonic() > end:
            print(
                f"rank {rank} on {socket.gethostname()} does not see {source}: the folder of jobs "
                "is not shared with the nodes.", file=sys.stderr,
            )  # fmt: skip
            return UNSEEN
        os.listdir(source.parent if source.parent.exists() else job)  # asks the server anew
        time.sleep(0.2)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / NODE).write_text(os.environ.get("SLURMD_NODENAME", ""))
    number = int(attempt.name.rpartition("-")[2])
    meet = read_json(attempt / WIRING) if (attempt / WIRING).exists() else None
    write_json(folder / PLAN, completed(read_json(source), folder, number, meet, os.environ))
    return run_replica(folder)


def send(attempt: Path, name: str, token: str) -> int:
    """Send a signal to the wrappers of this node; return how many.

    Args:
        attempt: folder of the attempt.
        name: of the signal, such as USR1.
        token: names this sending, so that each wrapper is told once however many ask.
    """
    here = os.environ.get("SLURMD_NODENAME", "")
    sent = 0
    for path in sorted(attempt.glob("rank-*")):
        node = path / NODE
        files = ReplicaFiles(path)
        if not node.exists() or node.read_text() != here or not files.begun():
            continue
        try:
            (path / f"told-{name}-{token}").touch(exist_ok=False)
        except FileExistsError:
            continue
        sent += files.send(getattr(signal, f"SIG{name}"))
    return sent


def wire(attempt: Path) -> None:
    """Draw where the workers of an attempt meet: a free port of the first node."""
    alone = os.environ.get("SLURM_JOB_NUM_NODES", "1") == "1" and "SLURM_HET_SIZE" not in os.environ
    with socket.socket() as probe:
        probe.bind(("127.0.0.1" if alone else "", 0))
        host = "127.0.0.1" if alone else socket.gethostname()
        write_json(attempt / WIRING, {"host": host, "port": probe.getsockname()[1]})


def main(words: list[str]) -> int:
    """Do what the words say; see the module."""
    kind, *rest = words
    if kind == "task":
        return task(Path(rest[0]), int(rest[1]), Path(rest[2]), int(rest[3]))
    if kind == "signal":
        send(Path(rest[0]), rest[1], rest[2])
    else:
        wire(Path(rest[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
