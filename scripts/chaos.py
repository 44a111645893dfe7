"""Kill controllers, wrappers, commands and workers of jobs at random; nothing may change.

    python scripts/chaos.py [--kills 200] [--seed 0] [--jobs reinforce curate train]
                            [--folder F] [--dry-run]

Three jobs run side by side on the local engine: reinforce (scenes, a teacher that ships), curate
(pages, two worker processes) and train (two workers under torchrun, checkpoints). Each runs once in
peace; then again and again while their processes, and the controller, are killed with -9: at once,
or after some pieces of work. A killed controller is started again as a user does it, by submitting
the same spec, reconciling, or waiting.

After every kill the record is checked: events are numbered without gaps and their moves are in the
table, attempts follow each other, a gang holds all its places or none, no replica lives twice, what
has ended stays as it is. When a job ends its result must be that of the unbroken run: a store's
content hash, the pages that were dropped, the bytes of the weights.

With --folder a run that was stopped goes on with the kills that are left. Prints a table; exit
status 1, with what is wrong, if anything is.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

from chaos_jobs import KINDS
from chaos_processes import CONTROLLER, VICTIMS
from chaos_run import Chaos, WrongError, unbroken
from understudy.core.errors import UnderstudyError


def arguments(words: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", nargs="+", choices=sorted(KINDS), default=sorted(KINDS))
    parser.add_argument("--engine", choices=["local"], default="local")
    parser.add_argument("--folder", type=Path, help="kept, and gone on from; else a temporary one")
    parser.add_argument("--deadline-s", type=float, default=7200.0)
    parser.add_argument("--dry-run", action="store_true", help="make the inputs, show the jobs")
    given = parser.parse_args(words)
    if given.kills < 1:
        parser.error(f"--kills: expected 1 or more, got {given.kills}")
    return given


def table(chaos: Chaos) -> str:
    """Return kills by job and victim."""
    columns = (CONTROLLER, *VICTIMS)
    count = Counter((k.at, k.victim) for k in chaos.kills)
    lines = [f"{'':<12}" + "".join(f"{c:>12}" for c in columns) + f"{'jobs':>8}{'attempts':>10}"]
    for name in (*chaos.kinds, CONTROLLER):
        cells = "".join(f"{count[name, c] or '':>12}" for c in columns)
        own = [job for job in chaos.done if job.name == name]
        more = f"{len(own):>8}{sum(job.attempt for job in own):>10}" if own else ""
        lines.append(f"{name:<12}{cells}{more}")
    return "\n".join(lines)


def restarts(chaos: Chaos) -> int:
    """Return how often torchrun restarted workers inside an attempt."""
    store = chaos.engine.store
    return sum(e.kind == "restart" for job in chaos.done for e in store.events(job.id))


def play(given: argparse.Namespace, folder: Path) -> int:
    """Make the inputs, run in peace, kill, and tell; return the exit status."""
    begun = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {name: KINDS[name](folder / "inputs") for name in given.jobs}
    if given.dry_run:
        for name, kind in kinds.items():
            print(f"{name}: {kind.spec.replicas} x {shlex.join(kind.spec.command)}")
        print(f"{given.kills} kills, seed {given.seed}; everything goes to {folder}")
        return 0
    try:
        expected = unbroken(folder, kinds, given.deadline_s)
        for name, found in expected.items():
            print(f"unbroken {name}: {found}", flush=True)
        chaos = Chaos(
            folder, kinds, expected, wanted=given.kills, seed=given.seed,
            say=lambda line: print(line, flush=True),
        )  # fmt: skip
        chaos.run(given.deadline_s)
    except (WrongError, UnderstudyError) as error:
        print(f"WRONG: {error}\nsee {folder}")
        return 1
    ways = ", ".join(f"{n} by {way}" for way, n in sorted(chaos.revived.items()))
    print(table(chaos))
    print(
        f"{len(chaos.kills)} kills, {len(chaos.done)} jobs, all SUCCEEDED with the unbroken result"
        f"; {restarts(chaos)} restarts by torchrun; controllers started again: {ways or 'none'}; "
        f"{chaos.checker.looks} looks at the record; {time.monotonic() - begun:.0f} s"
    )
    return 0


def main(words: list[str]) -> int:
    """Do what the command line says."""
    given = arguments(words)
    if given.folder is not None:
        return play(given, given.folder.absolute())
    folder = Path(tempfile.mkdtemp(prefix="understudy-chaos-"))
    code = play(given, folder)
    if code == 0:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
