"""A controller of the local engine that is killed (-9) at its n-th write: `... HOME N`.

Writes are the beginning and the end of each transaction, each file, each start of a process. With a
large N it ends by itself and prints how many writes there were.
"""

from __future__ import annotations

import subprocess
import sys

from crash_points import Points

from understudy.launch.engines import local_controller, local_watch

points = Points(int(sys.argv[2]))
start = subprocess.Popen


class Popen(start):
    __init__ = points.around(start.__init__)


local_watch.subprocess.Popen = Popen
local_controller.main(sys.argv[1])
print(points.count)
