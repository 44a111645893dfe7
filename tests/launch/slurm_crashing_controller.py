"""A controller of the Slurm engine that is killed (-9) at a chosen place: `... HOME PLACE [N]`.

Places: `write` N (the N-th beginning or end of a transaction, a file, a submission), `unrecorded`
(Slurm has the job, and nobody has written that down).
"""

from __future__ import annotations

import sys

from crash_points import Points, die

from understudy.launch.engines import slurm_controller
from understudy.launch.engines.slurm_client import SlurmClient
from understudy.launch.engines.slurm_units import Unit

place = sys.argv[2]
points = Points(int(sys.argv[3]) if place == "write" else 0)
SlurmClient.submit = points.around(SlurmClient.submit)
if place == "unrecorded":
    Unit.keep = lambda *_: die()
slurm_controller.main(sys.argv[1])
print(points.count)
