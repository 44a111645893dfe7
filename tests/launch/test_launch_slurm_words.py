"""What Slurm says and what follows from it, without a Slurm: names, lists, nodes, rules."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.core.errors import ConfigError
from understudy.launch.engines import open_engine
from understudy.launch.engines.slurm_client import (
    SlurmClient,
    SlurmError,
    SlurmJob,
    parse_name,
    parse_queue,
    parse_seconds,
    parse_shown,
    unit_name,
)
from understudy.launch.engines.slurm_site import Site, parse_gres, parse_nodes, total
from understudy.launch.spec import JobSpec
from understudy.launch.spec_parts import Resources, Role

NAME = "digits-3f9a2c1b"
NODES = """\
n1|long*|up|idle|1-00:00:00|8|16000|0|gpu:a100:2(S:0-1),shm:4
n1|quick|up|idle|30:00|8|16000|0|gpu:a100:2(S:0-1),shm:4
n2|long*|up|down*|1-00:00:00|4|8000|500|(null)
"""


def spec(**fields):
    return JobSpec(**{"name": "digits", "command": ("true",), **fields})


# -- names and lists


@given(base=st.integers(1, 10**6), rank=st.none() | st.integers(0, 10**5))
def test_names_go_there_and_back(base, rank):
    assert parse_name(unit_name(NAME, base, rank)) == (NAME, base, rank)


@pytest.mark.parametrize("name", ["bash", "digits.1", f"{NAME}", f"{NAME}.x", f"{NAME}.1.q2"])
def test_names_of_others(name):
    assert parse_name(name) is None


def test_the_queue_is_read():
    text = (
        f"12|RUNNING|None|{NAME}.1\n13|PENDING|Resources|bash\n\n"
        f"14+0|PENDING|Priority|{NAME}.2\n14+1|PENDING|Priority|{NAME}.2\n"
        f"16|CANCELLED|launch failed|{NAME}.3.r5\nslurm_load_jobs error\n"
    )
    assert parse_queue(text) == [
        SlurmJob(id="12", name=f"{NAME}.1", state="RUNNING", reason="None"),
        SlurmJob(id="14", name=f"{NAME}.2", state="PENDING", reason="Priority"),
        SlurmJob(id="16", name=f"{NAME}.3.r5", state="CANCELLED", reason="launch failed"),
    ]


@pytest.mark.parametrize("turned", [False, True])
def test_a_part_that_waits_for_its_time_keeps_the_whole_waiting(turned):
    rows = [f"14+0|PENDING|Resources|{NAME}.2", f"14+1|PENDING|BeginTime|{NAME}.2"]
    (found,) = parse_queue("\n".join(rows[::-1] if turned else rows))
    assert (found.id, found.reason) == ("14", "BeginTime")


def test_what_scontrol_shows():
    text = "JobId=5 JobName=a b JobState=PENDING Restarts=2 Comment=x=y\nJobId=6 JobState=R\n"
    shown = parse_shown(text)
    assert (shown["JobState"], shown["Restarts"], shown["Comment"]) == ("PENDING", "2", "x=y")
    assert parse_shown("") == {}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("infinite", None), ("UNLIMITED", None), ("30", 1800), ("30:00", 1800), ("1:00:00", 3600),
        ("1-00:00:00", 86400), ("2-12", 216000), ("", None), ("0:20", 20),
    ],
)  # fmt: skip
def test_time_limits(text, seconds):
    assert parse_seconds(text) == seconds


def test_nodes_and_accelerators():
    assert parse_gres("gpu:a100:2(S:0-1),gpu:4,shm:10G") == (
        {"gpu": 6.0, "shm": 10.0}, ("a100", "a100", "", "", "", ""),
    )  # fmt: skip
    assert parse_gres("(null)") == ({}, ())
    nodes = parse_nodes(NODES)
    assert [(n.name, n.partition, n.default, n.up, n.longest_s) for n in nodes] == [
        ("n1", "long", True, True, 86400.0),
        ("n1", "quick", False, True, 1800.0),
        ("n2", "long", True, False, 86400.0),
    ]
    all_ = total(nodes)
    assert (all_.amounts["cpu"], all_.amounts["gpu"], all_.amounts["shm"]) == (12.0, 2.0, 4.0)
    assert all_.amounts["mem_mb"] == 16777.0 + 8388.0  # MiB there, MB here
    assert all_.gpu_types == ("a100", "a100")


# -- a site's rules


def site(**config):
    rules = {"quick": {"AllowQos": "fast,normal", "AllowAccounts": "ALL"}}
    return Site(nodes=tuple(parse_nodes(NODES)), config=config, rules=rules)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"queue": "quik"}, r"queue: 'quik' is no partition .*Did you mean quick\?"),
        ({"queue": "zzz"}, r"'zzz' is no partition of this cluster \(there are long, quick\)"),
        ({"queue": "quick", "timeout_s": 1801.0}, "partition 'quick' allows 1800 s"),
        (
            {"queue": "quick", "engine_options": {"slurm": {"sbatch": {"qos": "fats"}}}},
            r"sbatch.qos: 'fats' may not use partition 'quick'. Did you mean fast\?",
        ),
        (
            {"roles": (Role(resources=Resources(cpu=9)),)},
            r"role 'main' asks more than any node of partition 'long' has: cpu=9 \(has 8\)",
        ),
    ],
)
def test_what_a_site_refuses(fields, message):
    with pytest.raises(ConfigError, match=message):
        site().check(spec(**fields))


def test_what_a_site_warns_of(monkeypatch):
    monkeypatch.setattr(os, "getuid", lambda: 1234)
    found = site(AccountingStorageType="accounting_storage/none", PreemptMode="OFF").check(
        spec(priority=3, preemptible=True)
    )
    assert [text.split(":")[0] for text in found] == [
        "this Slurm keeps no accounting", "priority 3",
        "preemptible is true, and this Slurm preempts no jobs.",
    ]  # fmt: skip
    fine = site(AccountingStorageType="accounting_storage/slurmdbd", PreemptMode="REQUEUE")
    assert fine.check(spec(preemptible=True, timeout_s=5.0)) == []
    assert fine.longest_s(spec()) == 86400.0
    assert fine.longest_s(spec(queue="quick,long")) == 86400.0


def test_without_slurm_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    engine = open_engine("slurm", tmp_path)
    with pytest.raises(ConfigError, match="there is no program 'sinfo' on PATH"):
        engine.submit(spec())
    assert engine.list() == []


def test_calls_take_no_options_from_the_environment(tmp_path, monkeypatch):
    (tmp_path / "sbatch").write_text('#!/bin/sh\nenv | grep -c SBATCH_ ; echo "9;east"')
    (tmp_path / "sbatch").chmod(0o755)
    client = SlurmClient({"PATH": f"{tmp_path}:{os.environ['PATH']}", "SBATCH_ACCOUNT": "x",
                          "SLURM_CONF": "/c"})  # fmt: skip
    assert client.submit(tmp_path / "s.sh", {"PATH": os.environ["PATH"]}) == "9"
    assert "SBATCH_ACCOUNT" not in client.environment


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("sbatch: error: Unable to contact slurm controller (connect failure)", True),
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
         True),
        ("sbatch: error: Batch job submission failed: Invalid qos specification", False),
    ],
)  # fmt: skip
def test_what_is_asked_again(tmp_path, text, passes):
    (tmp_path / "sbatch").write_text(f'#!/bin/sh\necho "{text}" >&2; exit 1')
    (tmp_path / "sbatch").chmod(0o755)
    with pytest.raises(SlurmError) as caught:
        SlurmClient({"PATH": str(tmp_path)}).submit(tmp_path / "s", {"PATH": "/bin"})
    assert caught.value.passes is passes
    assert str(caught.value) == f"sbatch: {text.removeprefix('sbatch: error: ')}"
