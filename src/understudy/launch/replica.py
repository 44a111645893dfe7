"""The wrapper inside a job: starts one replica's command, watches it, and tells the truth about it.

Engines disagree and forget; what this process writes (see `replica_files`) does not. It has one
thread: a selector over the command's output and a pipe of signals.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from understudy.core.errors import UnderstudyError
from understudy.core.files import read_json, write_json
from understudy.core.hashing import hash_data
from understudy.launch import gpu
from understudy.launch.replica_files import (
    HEARTBEAT,
    LOCK,
    MARKS,
    NEVER,
    PLAN,
    START,
    catches,
    marked,
    sweep,
    take_lock,
    write_exit,
)
from understudy.launch.replica_logs import LogWriter
from understudy.launch.secrets import read_secret
from understudy.launch.shared_folder import meet

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
STOPPING = (signal.SIGTERM, signal.SIGINT)
DRAIN_S = 1.0
STOP_FILE = "stop.json"
_PR_SET_PDEATHSIG = 1
_prctl = getattr(ctypes.CDLL(None), "prctl", None)


def _die_with(parent: int) -> None:
    """Ask Linux to kill the command when the wrapper is killed; end now if it has been already."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


class Wrapper:
    """One replica's wrapper.

    Args:
        folder: the replica's folder, with `replica.json`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plan: dict[str, Any] = read_json(folder / PLAN)
        self.log = LogWriter(
            folder,
            segment_bytes=self.plan["segment_bytes"],
            keep=self.plan["segments"],
            tee=1 if self.plan["tee"] else None,
        )
        self.child: subprocess.Popen[bytes] | None = None
        self.stopped_by = ""
        self.killed = False
        self.kill_at: float | None = None
        self.peak_gpu_mb: float | None = None
        self._beat_at = 0.0
        self._selector = selectors.DefaultSelector()
        self._signals, self._wake = os.pipe()

    # -- signals

    def _catch(self) -> None:
        os.set_blocking(self._signals, False)
        os.set_blocking(self._wake, False)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for number in (*FORWARDED, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._selector.register(self._signals, selectors.EVENT_READ, "signals")

    def _read_signals(self) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in os.read(self._signals, 4096):
                if number in FORWARDED:
                    self._forward(signal.Signals(number))

    def _forward(self, number: signal.Signals) -> None:
        if number in STOPPING:
            if self.stopped_by:
                return  # asked already; the timer runs
            self.stopped_by = number.name.removeprefix("SIG")
            self.kill_at = time.monotonic() + self._grace_s()
            self._signal_group(number)
        elif Path("/proc/self/status").exists():
            # USR1 ends whoever does not expect it: shells, torchrun's agents, loaders' workers
            for process in marked(self._marks()):
                if catches(process, number):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(process, number)
        else:
            self._signal_group(number)

    def _marks(self) -> dict[str, str]:
        return {name: self.plan["env"][name] for name in MARKS}

    def _grace_s(self) -> float:
        with contextlib.suppress(UnderstudyError):
            told = read_json(self.folder.parent / STOP_FILE)
            return float(told["grace_s"])
        return float(self.plan["grace_s"])

    def _signal_group(self, number: int) -> None:
        if self.child is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.child.pid, number)

    # -- the command

    def run(self) -> int:
        """Run the command to its end; return its exit code, 128 + n for signal n."""
        begun = time.time()
        self._catch()
        facts = {
            "pid": os.getpid(),
            "child": None,
            "host": socket.gethostname(),
            "time": begun,
            "env_hash": hash_data(self.plan["env"]),
            **{k: self.plan[k] for k in ("job", "attempt", "rank", "role")},
        }
        write_json(self.folder / START, facts)
        self._poke()
        reason = self._start()
        if self.child is not None:
            # the file's own time is compared with the one in it
            write_json(self.folder / START, {**facts, "child": self.child.pid, "time": time.time()})
            self._watch(self.child)
            self._finish(self.child)
        code, number = self._code(reason)
        self.log.close()
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        end = {
            "code": code,
            "signal": number,
            "reason": reason or self._why(code, number),
            "stopped_by": self.stopped_by,
            "killed": self.killed,
            "start": begun,
            "end": time.time(),
            "max_rss_mb": round(usage.ru_maxrss / (1e3 if sys.platform != "darwin" else 1e6), 1),
            "cpu_s": round(usage.ru_utime + usage.ru_stime, 3),
            "gpu_peak_mb": self.peak_gpu_mb,
            "lines": self.log.lines,
            "dropped_lines": self.log.dropped,
        }
        write_exit(self.folder, end)
        self._poke()
        return code

    def _start(self) -> str:
        """Start the command; return why it cannot, or nothing."""
        env = dict(self.plan["env"])
        try:
            self._meet()
            folder = Path(self.plan["secrets_folder"])
            secrets = {name: read_secret(folder, name) for name in self.plan["secrets"]}
            self.log.hide(secrets.values())
            env |= secrets
            if self.plan["python"]:
                from understudy.launch.python_env import prepare

                python = self.plan["python"]
                made = prepare(
                    python["lock"], python["wheelhouse"], Path(python["root"]), self.log.say
                )
                env["VIRTUAL_ENV"] = str(made)
                env["PATH"] = f"{made / 'bin'}{os.pathsep}{env.get('PATH', os.defpath)}"
            self._read_signals()
            if (self.folder.parent / STOP_FILE).exists():
                self._forward(signal.SIGTERM)  # the attempt was stopped before we could hear of it
            if self.stopped_by:
                return f"stopped by {self.stopped_by} before its command began"
            self.child = subprocess.Popen(
                self._resolved(env),
                cwd=self.plan["cwd"],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                process_group=0,
                preexec_fn=partial(_die_with, os.getpid()),
                bufsize=0,
            )
        except (OSError, UnderstudyError) as error:
            self.log.say(f"understudy: the command cannot start: {error}")
            return f"the command cannot start: {error}"
        for name, pipe in (("o", self.child.stdout), ("e", self.child.stderr)):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
            self._selector.register(pipe, selectors.EVENT_READ, name)
        return ""

    def _meet(self) -> None:
        """See that the replicas of a gang have one folder of jobs."""
        if self.plan.get("gang", 1) == 1:
            return

        def stopped() -> bool:
            self._beat()
            self._read_signals()
            return bool(self.stopped_by) or (self.folder.parent / STOP_FILE).exists()

        meet(self.folder.parent, self.plan["job"], self.plan["rank"], stopped=stopped)

    def _resolved(self, env: dict[str, str]) -> list[str]:
        """Return the command with its program looked up on the job's own PATH."""
        import shutil

        program, *rest = self.plan["command"]
        if os.sep not in program:
            program = shutil.which(program, path=env.get("PATH")) or program
        return [program, *rest]

    def _watch(self, child: subprocess.Popen[bytes]) -> None:
        while True:
            self._beat()
            if child.poll() is not None:
                return
            wait = self._beat_at - time.monotonic()
            if self.kill_at is not None:
                wait = min(wait, self.kill_at - time.monotonic())
            self._pump(max(wait, 0.0))
            if self.kill_at is not None and time.monotonic() >= self.kill_at:
                self.killed, self.kill_at = True, None
                self._signal_group(signal.SIGKILL)

    def _pump(self, wait: float) -> None:
        for key, _ in self._selector.select(wait):
            if key.data == "signals":
                self._read_signals()
                continue
            try:
                data = os.read(key.fd, 1 << 16)
            except BlockingIOError:
                continue
            if data:
                self.log.feed(key.data, data)
            else:
                self._selector.unregister(key.fileobj)

    def _finish(self, child: subprocess.Popen[bytes]) -> None:
        """Kill what the command left behind, then read its output to the end."""
        self._signal_group(signal.SIGKILL)
        sweep(self._marks())
        end = time.monotonic() + DRAIN_S
        while len(self._selector.get_map()) > 1 and time.monotonic() < end:
            self._pump(0.05)
        child.wait()

    # -- facts

    def _beat(self) -> None:
        if time.monotonic() < self._beat_at:
            return
        with contextlib.suppress(OSError):
            (self.folder / HEARTBEAT).touch()
        if self.plan["gpus"]:
            used = gpu.used_mb(self.plan["gpus"])
            if used is not None:
                self.peak_gpu_mb = max(used, self.peak_gpu_mb or 0.0)
        self._beat_at = time.monotonic() + float(self.plan["heartbeat_s"])

    def _code(self, reason: str) -> tuple[int, str]:
        if self.child is None:
            return (143 if self.stopped_by else 127), ""
        code = self.child.returncode
        if code >= 0:
            return code, ""
        return 128 - code, signal.Signals(-code).name.removeprefix("SIG")

    def _why(self, code: int, number: str) -> str:
        if self.killed:
            return f"killed {self._grace_s():g} s after {self.stopped_by}"
        if number == "KILL":
            return "killed from outside, perhaps for want of memory"
        if number:
            return f"ended by signal {number}"
        return f"exit code {code}" if code else "done"

    def _poke(self) -> None:
        """Tell the controller to look now; it looks now and then by itself."""
        if self.plan["wake"]:
            with contextlib.suppress(OSError):
                handle = os.open(self.plan["wake"], os.O_WRONLY | os.O_NONBLOCK)
                try:
                    os.write(handle, b"r")
                finally:
                    os.close(handle)


def run_replica(folder: Path, env: Mapping[str, str] | None = None) -> int:
    """Run the replica of a folder unless it runs or ran already; return its exit code.

    Args:
        folder: the replica's.
        env: variables that only its node knows, such as the accelerators it was given; they count
            more than the plan's.
    """
    lock = take_lock(folder / LOCK)
    if lock is None or (folder / START).exists() or (folder / NEVER).exists():
        return 0
    wrapper = Wrapper(folder)
    wrapper.plan["env"].update(env or {})
    return wrapper.run()
