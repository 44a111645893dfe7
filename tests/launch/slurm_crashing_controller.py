"""A controller of the Slurm engine that is killed (-9) at a chosen place: `... HOME PLACE [N]`.

Places: `write` N (the N-th beginning or end of a transaction, a file, a submission), `unrecorded`
(Slurm has the job, and nobody has written that down).
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager

from understudy.core import files
from understudy.launch.engines import slurm_controller
from understudy.launch.engines.slurm_client import SlurmClient
from understudy.launch.engines.slurm_units import Unit
from understudy.launch.state import JobStore

place, limit = sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 0
count = 0


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def point() -> None:
    global count
    count += 1
    if place == "write" and count == limit:
        die()


real_transaction, real_write, real_submit = (
    JobStore.transaction, files.write_bytes, SlurmClient.submit,
)  # fmt: skip


@contextmanager
def transaction(self):
    point()
    with real_transaction(self) as db:
        yield db
        point()
    point()


def write_bytes(path, data):
    point()
    found = real_write(path, data)
    point()
    return found


def submit(self, *args, **kwargs):
    point()
    found = real_submit(self, *args, **kwargs)
    point()
    return found


JobStore.transaction = transaction
files.write_bytes = write_bytes
SlurmClient.submit = submit
if place == "unrecorded":
    Unit.keep = lambda *_: die()
slurm_controller.main(sys.argv[1])
print(count)
