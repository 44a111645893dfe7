"""What racing processes do; imports little, because each of them starts from nothing."""

from __future__ import annotations

from understudy.launch.spec import JobSpec
from understudy.launch.state import JobStore
from understudy.launch.state_slots import Capacity, place


def submit(path, barrier, out):
    barrier.wait()
    with JobStore(path) as store:
        job, new = store.submit(JobSpec(name="a", command=("x",), key="k"), engine="local")
        out.put((job.id, new))


def place_one(path, job, barrier, out):
    with JobStore(path) as store:
        barrier.wait()
        out.put((job, place(store, job, Capacity(amounts={"cpu": 1.0}))))
