"""`python ray_run.py FOLDER`: reinforce copies of a store on a tiny Ray, and say what came of it.

Prints a JSON object. Run in a process group of its own, which the caller ends.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import workers_toys as toys

from understudy.core.errors import DataError
from understudy.data.store import Store
from understudy.reinforce.config import ReinforceConfig
from understudy.reinforce.generate import reinforce
from understudy.reinforce.ray_workers import PoolConfig, RayWorkers


def kill_one(pids: Path, told: list[int]) -> None:
    """Kill the first worker that is at work."""
    while not any(pids.iterdir()):
        time.sleep(0.01)
    told.append(int(next(pids.iterdir()).name))
    os.kill(told[0], signal.SIGKILL)


def main(folder: Path) -> None:
    """Run; `folder` holds the store `fresh`."""
    import ray

    pids = folder / "pids"
    pids.mkdir()
    os.environ |= {"TOY_PIDS": str(pids), "TOY_PAUSE_S": "0.1", "TOY_DRIVER": str(os.getpid())}
    ray.init(
        num_cpus=2,
        address="local",
        include_dashboard=False,
        object_store_memory=100_000_000,
        log_to_driver=False,
        logging_level="error",
    )
    config = replace(ReinforceConfig.from_dict(toys.plain_config()), captioners=())
    # one phase: starting workers takes seconds
    teachers = tuple(replace(t, outputs=("image",)) for t in config.teachers[:2])
    images = replace(config, teachers=teachers, rows="id != 'broken'")
    found: dict[str, object] = {}

    def run(name: str, asked: ReinforceConfig, pool: PoolConfig):
        store = shutil.copytree(folder / "fresh", folder / name)
        with RayWorkers(None, pool) as filler:
            report = reinforce(Store.open(store), asked, filler=filler)
        opened = Store.open(store)
        found[name] = {
            "hash": opened.content_hash(),
            "problems": opened.verify(),
            "computed": report.computed,
            "versions": len(opened.versions()),
            "units_left": len(list(store.glob("_understudy/staging/*/*.unit"))),
            "seconds": report.seconds,
        }

    told: list[int] = []
    killer = threading.Thread(target=kill_one, args=(pids, told), daemon=True)
    killer.start()
    run("together", images, PoolConfig(least=2, most=2))
    killer.join()
    os.environ["TOY_PAUSE_S"] = "0"
    found["killed"] = told
    found["workers"] = len(list(pids.iterdir()))
    run("apart", images, PoolConfig(apart=True))
    try:
        run("broken", replace(images, rows="id = 'broken'"), PoolConfig())
    except DataError as error:
        found["error"] = str(error)
    found["still_there"] = ray.is_initialized()  # what the program started, it stops
    print(json.dumps(found), flush=True)
    ray.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
