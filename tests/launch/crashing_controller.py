"""A controller of the local engine that is killed (-9) at its n-th write: `... HOME N`.

Writes are the beginning and the end of each transaction, each file, each start of a process. With a
large N it ends by itself and prints how many writes there were.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager

from understudy.core import files
from understudy.launch.engines import local_controller, local_watch
from understudy.launch.state import JobStore

count, limit = 0, int(sys.argv[2])


def point() -> None:
    global count
    count += 1
    if count == limit:
        os.kill(os.getpid(), signal.SIGKILL)


real_transaction, real_write, real_popen = (
    JobStore.transaction, files.write_bytes, subprocess.Popen,
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


class Popen(real_popen):
    def __init__(self, *args, **kwargs):
        point()
        super().__init__(*args, **kwargs)
        point()


JobStore.transaction = transaction
files.write_bytes = write_bytes
local_watch.subprocess.Popen = Popen
local_controller.main(sys.argv[1])
print(count)
