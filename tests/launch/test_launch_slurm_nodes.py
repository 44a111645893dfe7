"""The Slurm engine on a cluster of two nodes (on one machine): gangs over nodes, mixed roles."""

from __future__ import annotations

import pytest
import slurm_cluster
from contract import RESUMES, job, lines, moves, script, until
from slurm_cluster import SETTINGS, SlurmCluster, closed

from understudy.core.errors import ConfigError
from understudy.launch.engines.slurm import open_slurm
from understudy.launch.spec_parts import Checkpoint, Resources, Role
from understudy.launch.states import State

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(bool(slurm_cluster.missing()), reason=slurm_cluster.missing()),
]
WHOLE = Role(replicas=2, resources=Resources(cpu=2))


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    with SlurmCluster(nodes=2).here():
        found = open_slurm(str(tmp_path_factory.mktemp("home")), SETTINGS)
        yield found
        closed(found)


def test_a_replica_must_fit_a_node(engine):
    assert engine.capacity().amounts["cpu"] == 4
    with pytest.raises(ConfigError, match=r"more than any node of partition 'calm' has: cpu=3"):
        engine.submit(job("wide", "true", roles=(Role(resources=Resources(cpu=3)),)))


def test_roles_with_other_resources_start_as_one_gang(engine):
    say = "echo $UNDERSTUDY_ROLE $UNDERSTUDY_REPLICA/$UNDERSTUDY_REPLICAS $SLURMD_NODENAME"
    roles = (
        Role(name="lead", resources=Resources(cpu=1, mem_mb=300), command=("sh", "-c", say)),
        Role(name="hand", resources=Resources(cpu=2), command=("sh", "-c", say)),
    )
    found = engine.submit(job("mixed", "true", roles=roles))
    status = engine.wait(found, 60)
    assert status.state is State.SUCCEEDED, (status, lines(engine, found))
    told = sorted(line.split() for line in lines(engine, found))
    assert [words[:2] for words in told] == [["hand", "1/2"], ["lead", "0/2"]]
    assert {words[2] for words in told} == {"node1", "node2"}


def test_a_gang_over_nodes_is_preempted_whole(engine):
    # the roles count memory in two ways, one by the site's default
    roles = (
        Role(name="lead", resources=Resources(cpu=2)),
        Role(name="hand", resources=Resources(cpu=2, mem_mb=300)),
    )
    text = RESUMES.replace('(folder / "saved")', '(folder / os.environ["UNDERSTUDY_REPLICA"])')
    low = engine.submit(
        script("low", text, preemptible=True, checkpoint=Checkpoint(dir="c"), roles=roles)
    )
    until(lambda: lines(engine, low).count("ready") == 2, "both are ready")
    number = engine.status(low).engine_ref
    high = engine.submit(job("high", "true", queue="urgent", roles=(WHOLE,)))
    assert engine.wait(high, 60).state is State.SUCCEEDED
    status = engine.wait(low, 60)
    assert status.state is State.SUCCEEDED, (status, lines(engine, low))
    assert (status.attempt, status.engine_ref) == (2, number)
    assert moves(engine, low)[3:6] == ["RUNNING", "PREEMPTED", "QUEUED"]
    for rank in (0, 1):
        told = ["resume 0 attempt 1", "ready", "saved", "resume 1 attempt 2"]
        assert lines(engine, low, replica=rank) == told
    nodes = [(engine.folder(low) / "attempt-2" / f"rank-{r}" / "slurm-node").read_text()
             for r in (0, 1)]  # fmt: skip
    assert sorted(nodes) == ["node1", "node2"]


def test_torchrun_meets_across_nodes(engine):
    text = "echo $RANK/$WORLD_SIZE $SLURMD_NODENAME"
    found = engine.submit(job("ddp", text, launcher="torchrun", roles=(WHOLE,)))
    status = engine.wait(found, 90)
    assert status.state is State.SUCCEEDED, (status, lines(engine, found))
    told = sorted(line.split() for line in lines(engine, found, stream="stdout"))
    assert [words[0] for words in told] == ["0/2", "1/2"]
    assert {words[1] for words in told} == {"node1", "node2"}
