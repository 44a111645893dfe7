"""Gangs over two Ray nodes, and accelerators as Ray counts them (it believes what it is told)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from contract import job, lines, moves, until
from ray_cluster import MARK, ray_program, start_head, start_node
from test_launch_ray import SETTINGS, kill_controller

from understudy.core.errors import ConfigError
from understudy.core.lazy import installed
from understudy.launch.engines.ray import open_ray
from understudy.launch.replica_files import _read
from understudy.launch.spec_parts import Elastic, Resources, Role
from understudy.launch.states import State

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (installed("ray") and installed("aiohttp") and ray_program().exists()),
        reason='RAY IS NOT INSTALLED, THE RAY ENGINE IS NOT TESTED: pip install "understudy[ray]"',
    ),
    pytest.mark.cluster,
]


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    head = start_head(cpus=1)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in head.environment.items():
            if name != MARK:
                patch.setenv(name, value)
        patch.setenv("RAY_ADDRESS", head.address)
        found = open_ray(str(tmp_path_factory.mktemp("home")), SETTINGS)
        try:
            start_node(head, cpus=2, gpus=2)
            until(lambda: len(found.cluster(head.address).nodes) == 2, "two nodes", 120)
            yield found
            kill_controller(found)
        finally:
            head.stop()
    found.close()


def test_a_gang_over_nodes_meets_at_its_first_replica(engine):
    text = (
        "import torch, torch.distributed as d; d.init_process_group('gloo'); "
        "x = torch.tensor(float(d.get_rank() + 1)); d.all_reduce(x); print(int(x))"
    )
    spec = job("over", "true", roles=(Role(replicas=3),))
    found = engine.submit(replace(spec, command=("python", "-c", text), launcher="torchrun"))
    status = engine.wait(found, 180)
    assert status.state is State.SUCCEEDED, lines(engine, found)
    assert [line for line in lines(engine, found) if line.isdigit()] == ["6", "6", "6"]
    gang = _read(engine.folder(found) / "attempt-1" / "gang.json")
    assert gang["bundles"] == [{"CPU": 1.0}] * 3
    assert set(_read(engine.folder(found) / "attempt-1" / "wiring.json")["hosts"]) == set("012")


def test_an_elastic_gang_restarts_all_its_workers(engine):
    text = (
        "import os, sys; import torch.distributed as d; d.init_process_group('gloo'); "
        "again = os.environ['UNDERSTUDY_RESUME'] == '1'; d.barrier(); "
        "again or d.get_rank() or sys.exit(3); d.barrier(); print('again', again)"
    )
    spec = job("elastic", "true", launcher="torchrun", roles=(Role(replicas=2),),
               elastic=Elastic(min=2, max=2, max_restarts=2))  # fmt: skip
    found = engine.submit(replace(spec, command=("python", "-c", text)))
    status = engine.wait(found, 180)
    assert (status.state, status.attempt) == (State.SUCCEEDED, 1), lines(engine, found)
    assert [line for line in lines(engine, found) if "again" in line[:5]] == ["again True"] * 2
    assert moves(engine, found)[-4:] == ["RUNNING", "RESTARTING", "RUNNING", "SUCCEEDED"]


def test_nobody_shares_an_accelerator(engine):
    text = "echo gpu $CUDA_VISIBLE_DEVICES; sleep 1"
    role = Role(name="t", replicas=2, resources=Resources(cpu=1, gpu=1))
    found = engine.submit(job("pair", text, roles=(role,)))
    assert engine.wait(found, 120).state is State.SUCCEEDED
    assert sorted(lines(engine, found)) == ["gpu 0", "gpu 1"]
    one = Role(name="t", resources=Resources(cpu=1, gpu=2))
    found = engine.submit(job("both", text, roles=(one,)))
    assert engine.wait(found, 120).state is State.SUCCEEDED
    assert lines(engine, found) in (["gpu 0,1"], ["gpu 1,0"])
    none = engine.submit(job("none", "echo [$CUDA_VISIBLE_DEVICES]"))
    engine.wait(none, 60)
    assert lines(engine, none) == ["[]"]


def test_what_only_all_nodes_together_have_is_refused(engine):
    with pytest.raises(ConfigError, match=r"asks cpu=3 for a replica; no node of engine 'ray' has"):
        engine.plan(job("wide", "true", roles=(Role(resources=Resources(cpu=3)),)))
    role = Role(replicas=2, resources=Resources(cpu=1.5))
    with pytest.raises(ConfigError, match=r"gang of 2 replicas of cpu=1.5; .* hold 1 at once"):
        engine.plan(job("halves", "true", roles=(role,)))
