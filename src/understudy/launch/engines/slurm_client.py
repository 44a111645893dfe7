"""Slurm's programs, called with options that old versions know too, and what they print.

Nothing here decides anything; see `slurm_watch`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from understudy.core.errors import ConfigError, UnderstudyError

CALL_S = 60.0
FINAL = frozenset(
    {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
     "PREEMPTED", "REVOKED", "TIMEOUT"}
)  # fmt: skip
"""States that Slurm leaves only by requeueing."""
BEGIN_TIME = "BeginTime"
"""Why a job waits that may not start yet."""
QUEUE_FORMAT = "%i|%T|%r|%j"
_NAME = re.compile(r"(?P<job>.+-[0-9a-f]{8})\.(?P<base>\d+)(?:\.r(?P<rank>\d+))?")
_UNKNOWN = "Invalid job id"
_BUSY = ("Unable to contact", "Socket timed out", "Connection refused", "temporarily", "try again",
         "Zero Bytes", "Resource temporarily", "Communication connection failure",
         "violates accounting/QOS policy", "Job/step limit")  # fmt: skip


class SlurmError(UnderstudyError):
    """A program of Slurm has failed."""

    @property
    def passes(self) -> bool:
        """Whether asking again later may help."""
        return any(text.lower() in str(self).lower() for text in _BUSY)


@dataclass(frozen=True, kw_only=True, slots=True)
class SlurmJob:
    """A job as `squeue` shows it.

    Attributes:
        id: Slurm's number.
        name: the name that we gave it, see `unit_name`.
        state: Slurm's state, in capitals.
        reason: why it waits.
    """

    id: str
    name: str
    state: str
    reason: str = ""

    @property
    def final(self) -> bool:
        """Whether it has ended."""
        return self.state in FINAL


def unit_name(job: str, base: int, rank: int | None) -> str:
    """Return the name of a job in Slurm: by it a submission is found again that nobody recorded.

    Args:
        job: our id.
        base: the attempt that it was submitted for; a requeue is the next attempt.
        rank: of the replica, if the job's replicas are separate jobs in Slurm.
    """
    return f"{job}.{base}" if rank is None else f"{job}.{base}.r{rank}"


def parse_name(name: str) -> tuple[str, int, int | None] | None:
    """Return (our id, attempt, rank) from a name in Slurm; None if it is none of ours."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    rank = match["rank"]
    return match["job"], int(match["base"]), None if rank is None else int(rank)


def parse_queue(text: str) -> list[SlurmJob]:
    """Return the jobs of `squeue -h -o "%i|%T|%r|%j"` that have names of ours.

    Of heterogeneous jobs (`12+0`, `12+1`) the first part stands for all; one whose part waits for
    its time waits for it as a whole.
    """
    found: dict[str, SlurmJob] = {}
    for line in text.splitlines():
        parts = line.strip().split("|", 3)
        if len(parts) != 4 or parse_name(parts[3]) is None:
            continue
        number, _, part = parts[0].partition("+")
        job = SlurmJob(id=number, state=parts[1].upper(), reason=parts[2], name=parts[3])
        if part in ("", "0"):
            late = number in found and found[number].reason == BEGIN_TIME
            found[number] = replace(job, reason=BEGIN_TIME) if late else job
        elif job.reason == BEGIN_TIME:
            found[number] = replace(found.get(number, job), reason=BEGIN_TIME)
    return list(found.values())


def parse_shown(text: str) -> dict[str, str]:
    """Return the facts of the first line of `scontrol show job -o`."""
    first = text.splitlines()[0] if text.strip() else ""
    return dict(word.split("=", 1) for word in first.split() if "=" in word)


def parse_seconds(text: str) -> float | None:
    """Return the seconds of a time limit (`[days-]hours:minutes:seconds`); None: no limit."""
    text = text.strip()
    if not text or not text[0].isdigit():
        return None
    days, _, rest = text.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    if days:
        parts += [0] * (3 - len(parts))  # days-hours[:minutes[:seconds]]
    elif len(parts) == 1:
        parts = [0, parts[0], 0]  # minutes
    hours, minutes, seconds = [0] * (3 - len(parts)) + parts
    return int(days or 0) * 86400.0 + hours * 3600.0 + minutes * 60.0 + seconds


class SlurmClient:
    """Calls Slurm's programs.

    Args:
        environment: variables of the calls; those of this process by default.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        found = dict(os.environ if environment is None else environment)
        # options come from scripts alone: what a submitter happens to have exported is not hidden
        # in them
        self.environment = {
            k: v for k, v in found.items() if not k.startswith(("SBATCH_", "SQUEUE_", "SINFO_"))
        }

    def call(
        self, *words: str, stdin: str = "", environment: Mapping[str, str] | None = None,
        hold: Sequence[int] = (),
    ) -> str:  # fmt: skip
        """Run a program and return what it prints.

        Args:
            words: program and arguments.
            stdin: what it reads.
            environment: its variables, instead of the client's.
            hold: open files that it inherits.

        Raises:
            ConfigError: Slurm is not installed here.
            SlurmError: it fails, with what it says.
        """
        # looked up on our own PATH: the call may have the job's
        program = shutil.which(words[0], path=self.environment.get("PATH"))
        if program is None:
            raise ConfigError(
                f"engine 'slurm': there is no program '{words[0]}' on PATH; run on a machine that "
                "submits to Slurm."
            )
        try:
            done = subprocess.run(
                [program, *words[1:]], input=stdin, capture_output=True, text=True,
                errors="replace", timeout=CALL_S, pass_fds=tuple(hold),
                env=self.environment if environment is None else dict(environment),
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise SlurmError(f"{words[0]}: Socket timed out after {CALL_S:g} s.") from None
        if done.returncode != 0:
            raise SlurmError(_said(words[0], done.stderr or done.stdout))
        return done.stdout

    def queue(self) -> list[SlurmJob]:
        """Return this user's jobs of ours, also those that ended a little while ago."""
        words = ("squeue", "-h", "-t", "all", "-u", str(os.getuid()), "-o", QUEUE_FORMAT)
        return parse_queue(self.call(*words))

    def show(self, job: str) -> dict[str, str] | None:
        """Return what Slurm knows about a job; None if it has forgotten it."""
        try:
            return parse_shown(self.call("scontrol", "show", "job", "-o", job))
        except SlurmError as error:
            if _UNKNOWN in str(error):
                return None
            raise

    def history(self, job: str) -> str | None:
        """Return a job's last state from accounting; None if there is none of it.

        Raises:
            SlurmError: this Slurm keeps no accounting.
        """
        text = self.call("sacct", "-n", "-P", "-X", "-j", job, "-o", "State")
        states = [line.split()[0].upper() for line in text.splitlines() if line.strip()]
        return states[-1] if states else None

    def submit(
        self, script: Path, environment: Mapping[str, str], hold: Sequence[int] = ()
    ) -> str:  # fmt: skip
        """Submit a script and return the job's number."""
        words = ("sbatch", "--parsable", str(script))
        said = self.call(*words, environment=self._with(environment), hold=hold)
        return said.strip().splitlines()[-1].split(";")[0]

    def test(self, script: str, environment: Mapping[str, str]) -> None:
        """Have Slurm check a script without submitting it."""
        self.call("sbatch", "--test-only", stdin=script, environment=self._with(environment))

    def cancel(self, job: str) -> None:
        """End a job by Slurm's own means: TERM, later KILL; one that is gone is fine."""
        self._told("scancel", job)

    def signal(self, job: str, name: str) -> bool:
        """Send a signal to a job's script, and only there; False if it does not run."""
        return self._told("scancel", "--batch", f"--signal={name}", job)

    def eligible_now(self, job: str) -> bool:
        """Ask that a waiting job may start now."""
        return self._told("scontrol", "update", f"JobId={job}", "StartTime=now")

    def _told(self, *words: str) -> bool:
        try:
            self.call(*words)
        except SlurmError:
            return False
        return True

    def _with(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return a job's variables with what makes Slurm's programs find their cluster."""
        ours = {k: v for k, v in self.environment.items() if k.startswith("SLURM_CONF")}
        return {**environment, **ours}


def _said(program: str, text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    cleaned = [re.sub(r"^(?:\w+: )?(?:error|fatal): ", "", line) for line in lines]
    cleaned = [line for line in cleaned if "allocation failure" not in line] or cleaned
    return f"{program}: {'; '.join(dict.fromkeys(cleaned)) or 'failed'}"
