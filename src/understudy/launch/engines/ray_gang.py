"""What Ray starts for a gang: `python -m ... ray_gang FOLDER`, the attempt's folder.

Reserves all replicas in one placement group, runs a keeper (see `ray_node`) in each bundle, and
notes which of them ended. All get their place or none does: a gang that waits holds nothing.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

from understudy.core.files import read_json, write_json
from understudy.core.lazy import require
from understudy.launch.engines.ray_node import SHARED_S, tell
from understudy.launch.replica_files import EXIT, NEVER, PLAN
from understudy.launch.replica_plan import WIRING

GANG = "gang.json"
"""What this program reads: ranks, bundles, strategy, python, torchrun, gpus, labels."""
ENDED = "ended"
"""In a replica's folder: its keeper has ended, whatever it could write before."""
POLL_S = 0.2
WAIT_S = 1
STOPPED = 143


def _keep(words: list[str], attempt: str, plan: str, never: str, shared_s: float) -> int:
    """Run a keeper on this node, when its plan is there; return its exit code.

    Ray carries this function to the nodes as it is, so it imports for itself.
    """
    import os
    import socket
    import subprocess
    import time

    end = time.monotonic() + shared_s
    while not os.path.isdir(attempt):
        if time.monotonic() > end:
            host = socket.gethostname()
            raise FileNotFoundError(
                f"Error: {host} does not see '{attempt}': the home of jobs must lie on a path that "
                "all nodes share."
            )
        time.sleep(0.1)
    while not os.path.exists(plan):
        if os.path.exists(never):
            return 0
        time.sleep(0.05)
    words = [*words, "--parent", str(os.getpid())]
    return subprocess.run(words, stdin=subprocess.DEVNULL).returncode


def _free_port() -> int:
    """Return a port that is free on this node."""
    import socket

    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


class Gang:
    """One attempt of a gang.

    Args:
        folder: the attempt's.
        ray: the module, connected.
    """

    def __init__(self, folder: Path, ray: Any) -> None:
        self.folder, self.ray = folder, ray
        self.facts: dict[str, Any] = read_json(folder / GANG)
        self.told: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: self.told.append(number))

    def run(self) -> int:
        """Wait for the room, run all replicas, return 0 if all ended well."""
        group = self._reserve()
        if group is None:
            return STOPPED
        if self.facts["torchrun"]:
            self._meet(group)
        refs = {}
        for index, rank in enumerate(self.facts["ranks"]):
            folder = self.folder / f"rank-{rank}"
            words = [self.facts["python"], "-m", "understudy.launch.engines.ray_node", str(folder)]
            words += ["--gpus"] if self.facts["gpus"][index] else []
            paths = (str(self.folder), str(folder / PLAN), str(folder / NEVER))
            refs[self._on(group, index, _keep).remote(words, *paths, SHARED_S)] = rank
        codes = []
        while refs:
            done, _ = self.ray.wait(list(refs), num_returns=1, timeout=POLL_S)
            for ref in done:
                rank = refs.pop(ref)
                codes.append(self._result(ref))
                (self.folder / f"rank-{rank}" / ENDED).touch()
            self._hand_on(list(refs.values()))
        return 0 if not any(codes) else 1

    def _reserve(self) -> Any:
        """Return the placement group once it has its room; None when told to end before."""
        bundles = self.facts["bundles"]
        strategy = self.facts["strategy"]
        if strategy == "auto":
            totals = [n["Resources"] for n in self.ray.nodes() if n["Alive"]]
            strategy = "STRICT_PACK" if one_node(bundles, totals) else "SPREAD"
        more: dict[str, Any] = {}
        if self.facts["labels"]:
            more["bundle_label_selector"] = [self.facts["labels"]] * len(bundles)
        group = self.ray.util.placement_group(bundles, strategy=strategy, **more)
        while not group.wait(WAIT_S):
            if self.told:
                self.ray.util.remove_placement_group(group)
                return None
        return group

    def _on(self, group: Any, index: int, function: Any) -> Any:
        """Return a function as a task that has all of a bundle."""
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        needs = dict(self.facts["bundles"][index])
        return self.ray.remote(function).options(
            num_cpus=needs.pop("CPU", 0),
            num_gpus=needs.pop("GPU", 0),
            memory=needs.pop("memory", None),
            resources=needs or None,
            max_retries=0,
            scheduling_strategy=PlacementGroupSchedulingStrategy(
                placement_group=group, placement_group_bundle_index=index
            ),
        )

    def _meet(self, group: Any) -> None:
        """Write where the workers meet: on the first replica's node; the plans need it."""
        table = self.ray.util.placement_group_table(group)["bundles_to_node_id"]
        addresses = {n["NodeID"]: n["NodeManagerAddress"] for n in self.ray.nodes()}
        hosts = {
            str(rank): addresses[table[index]] for index, rank in enumerate(self.facts["ranks"])
        }
        port = self.ray.get(self._on(group, 0, _free_port).remote())
        first = hosts[str(self.facts["ranks"][0])]
        write_json(self.folder / WIRING, {"host": first, "port": port, "hosts": hosts})

    def _result(self, ref: Any) -> int:
        try:
            return self.ray.get(ref)
        except self.ray.exceptions.RayError as error:
            print(error, flush=True)  # its node is gone, or Ray killed it
            return 1

    def _hand_on(self, ranks: list[int]) -> None:
        """Tell replicas to end when Ray was asked, not we, to stop the job."""
        while self.told:
            number = self.told.pop()
            for rank in ranks:
                folder = self.folder / f"rank-{rank}"
                if not (folder / EXIT).exists():
                    tell(folder, number)


def one_node(bundles: list[dict[str, float]], nodes: list[dict[str, float]]) -> bool:
    """Say whether one node, when empty, has room for all bundles."""
    total: dict[str, float] = {}
    for needs in bundles:
        for name, amount in needs.items():
            total[name] = total.get(name, 0.0) + amount
    return any(all(node.get(n, 0.0) + 1e-9 >= a for n, a in total.items()) for node in nodes)


def main(folder: str) -> int:
    """Run a gang; see the module."""
    ray = require("ray", "ray", "engine 'ray'")
    ray.init(log_to_driver=False, logging_level="warning")
    return Gang(Path(folder), ray).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
