"""A Slurm of one machine for tests: own key, sockets, ports and folder, gone at the end.

No systemd, no control groups, no database. Two partitions: jobs of `urgent` preempt those of
`calm`, which get USR1, then after `GRACE_S` TERM, and are queued again.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from understudy.launch.engines.slurm_settings import SlurmSettings

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "sinfo",
            "srun")  # fmt: skip
SETTINGS = SlurmSettings(
    grace_s=1, heartbeat_s=0.2, idle_exit_s=60, poll_s=0.1, squeue_s=0.3, exit_grace_s=0.5,
    segment_bytes=2000, segments=100,
)  # fmt: skip
GRACE_S = 3
UP_S = 40.0
NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=2000 "
    "TmpDisk=0 State=UNKNOWN"
)
CONF = """
ClusterName=understudy
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket
CredType=cred/munge
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool-%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={root}/done.txt
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
SlurmctldParameters=preempt_send_user_signal
SchedulerParameters=bf_interval=1,sched_interval=2,batch_sched_delay=0,sched_min_interval=0,bf_hetjob_immediate
KillWait=2
MinJobAge={min_job_age_s}
DefMemPerCPU=200
MaxMemPerNode=UNLIMITED
{nodes}
PartitionName=calm Nodes={names} Default=YES PriorityTier=1 GraceTime={grace_s} MaxTime=60 State=UP
PartitionName=urgent Nodes={names} PriorityTier=10 MaxTime=30 State=UP
"""


def missing() -> str:
    """Return why no cluster can be started here; empty if one can."""
    paths = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    gone = [name for name in PROGRAMS if shutil.which(name, path=paths) is None]
    if not gone:
        return ""
    return (
        f"SLURM IS NOT INSTALLED ({', '.join(gone)} not found): the Slurm engine is NOT tested. "
        "Debian: apt-get install slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge"
    )


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    found = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return found


def kill_controller(engine) -> None:
    """Kill (-9) an engine's controller, and one that was waiting to take its place."""
    end = time.monotonic() + 10
    while (pid := engine.controller_pid()) is not None or engine.controller_alive():
        assert time.monotonic() < end, "the controller does not die"
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def closed(engine) -> None:
    """Kill an engine's controller, which must not have stumbled."""
    kill_controller(engine)
    log = engine.log.read_text() if engine.log.exists() else ""
    engine.close()
    assert "Traceback" not in log, log


@dataclass
class SlurmCluster:
    """munged, slurmctld and slurmd of one machine; use it as a context."""

    nodes: int = 1
    min_job_age_s: int = 300
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __enter__(self) -> SlurmCluster:
        # short, because paths of sockets may not be long
        self.root = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
        try:
            self._configure()
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._end_steps()
        shutil.rmtree(self.root, ignore_errors=True)

    @contextlib.contextmanager
    def here(self) -> Iterator[SlurmCluster]:
        """Run the cluster, and make it the one that this process talks to."""
        with pytest.MonkeyPatch.context() as patch, self:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            yield self

    @property
    def names(self) -> list[str]:
        """Names of the nodes."""
        return [f"node{i + 1}" for i in range(self.nodes)]

    @property
    def environment(self) -> dict[str, str]:
        """Variables that make Slurm's programs talk to this cluster."""
        paths = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
        return {"SLURM_CONF": str(self.root / "slurm.conf"), "PATH": paths}

    def call(self, *words: str) -> str:
        """Run one of Slurm's programs and return what it prints."""
        done = subprocess.run(
            words, env={**os.environ, **self.environment}, capture_output=True, text=True
        )
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    def shown(self, job: str) -> dict[str, str]:
        """Return what Slurm says of a job."""
        words = self.call("scontrol", "show", "job", "-o", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def _configure(self) -> None:
        (self.root / "state").mkdir()
        key = self.root / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        ports = free_ports(1 + self.nodes)
        host = socket.gethostname()
        lines = [
            NODE.format(name=name, host=host, port=port)
            for name, port in zip(self.names, ports[1:], strict=True)
        ]
        text = CONF.format(
            host=host, ports=ports, user=getpass.getuser(), root=self.root, grace_s=GRACE_S,
            min_job_age_s=self.min_job_age_s, nodes="\n".join(lines), names=",".join(self.names),
        )  # fmt: skip
        (self.root / "slurm.conf").write_text(text)

    def _start(self) -> None:
        root = self.root
        self._spawn(
            "munged", "--foreground", "--force", f"--key-file={root}/munge.key",
            f"--socket={root}/munge.socket", f"--pid-file={root}/munge.pid",
            f"--log-file={root}/munge.log", f"--seed-file={root}/munge.seed", "--num-threads=1",
        )  # fmt: skip
        self._until(lambda: (root / "munge.socket").exists(), "munged")
        self._spawn("slurmctld", "-D", "-f", f"{root}/slurm.conf")
        for name in self.names:
            self._spawn("slurmd", "-D", "-f", f"{root}/slurm.conf", "-N", name)
        self._until(self._idle, "slurmctld and slurmd")

    def _idle(self) -> bool:
        done = subprocess.run(
            ["sinfo", "-h", "-N", "-p", "calm", "-o", "%T"], env={**os.environ, **self.environment},
            capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout.split() == ["idle"] * self.nodes

    def _spawn(self, name: str, *words: str) -> None:
        paths = self.environment["PATH"]
        program = shutil.which(name, path=paths)
        assert program is not None
        with open(self.root / f"{name}.out", "ab") as log:
            process = subprocess.Popen(
                [program, *words], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **self.environment}, start_new_session=True,
            )  # fmt: skip
        self.processes.append(process)

    def _until(self, check, what: str) -> None:
        end = time.monotonic() + UP_S
        while not check():
            dead = [p.args[0] for p in self.processes if p.poll() is not None]
            if dead or time.monotonic() > end:
                raise AssertionError(f"{what} does not come up: {self._told()}")
            time.sleep(0.05)

    def _told(self) -> str:
        parts = []
        for path in sorted([*self.root.glob("*.log"), *self.root.glob("*.out")]):
            parts.append(f"{path.name}: {path.read_text(errors='replace')[-800:]}")
        return "\n".join(parts)

    def _end_steps(self) -> None:
        """Kill what slurmd has started: steps are sessions of their own."""
        mark = f"SLURM_CONF={self.root}/slurm.conf".encode()
        for path in Path("/proc").glob("[0-9]*/environ"):
            number = int(path.parent.name)
            if number == os.getpid():
                continue
            with contextlib.suppress(OSError):
                if mark in path.read_bytes().split(b"\0"):
                    os.kill(number, signal.SIGKILL)
