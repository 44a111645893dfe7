"""Graphs of jobs, what is refused before queueing, and other launchers' formats."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
import yaml
from contract import until

from understudy.core.errors import ConfigError
from understudy.launch import preflight, spec_text
from understudy.launch.code import scan
from understudy.launch.engines.local import open_local
from understudy.launch.engines.local_settings import LocalSettings
from understudy.launch.export import export
from understudy.launch.pipeline import Runner, load
from understudy.launch.spec import JobSpec
from understudy.launch.spec_parts import (
    Budget,
    Elastic,
    Input,
    PythonEnv,
    Rates,
    Resources,
    Retry,
    Role,
)
from understudy.launch.state_slots import Capacity
from understudy.launch.states import State

NODES = """
name: sums
nodes:
  - name: total
    command: [sh, -c, "cat {inputs.a} {inputs.b} > {outputs.total}; sh count.sh"]
    workdir: code
    inputs: [{name: a, uri: "artefact:left"}, {name: b, uri: "artefact:right"}]
    outputs: [{name: total, path: total.txt}]
  - name: one
    command: [sh, -c, "echo 1 > {outputs.left}; sh count.sh"]
    workdir: code
    outputs: [{name: left, path: left.txt}]
  - name: two
    command: [sh, -c, "cat {inputs.seed} > {outputs.right}; sh count.sh"]
    workdir: code
    inputs: [{name: seed, uri: SEED}]
    outputs: [{name: right, path: right.txt}]
"""


@pytest.fixture
def world(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "count.sh").write_text(f"echo $UNDERSTUDY_JOB_ID >> {tmp_path}/ran\n")
    (tmp_path / "seed").write_text("2\n")
    (tmp_path / "p.yaml").write_text(NODES.replace("SEED", str(tmp_path / "seed")))
    engine = open_local(tmp_path / "home", LocalSettings(idle_exit_s=0.3, poll_s=0.05))
    engine.set_capacity(2)
    yield tmp_path, engine
    until(lambda: not engine.controller_alive(), "the controller ends")
    engine.close()


def test_what_is_done_is_not_done_again(world):
    root, engine = world

    def run():
        before = len((root / "ran").read_text().split()) if (root / "ran").exists() else 0
        results = Runner(engine, load(root / "p.yaml")).run()
        return results, len((root / "ran").read_text().split()) - before

    results, ran = run()
    assert [(r.state, r.skipped) for r in results] == [(State.SUCCEEDED, False)] * 3
    assert ran == 3
    total = {r.name: r.job for r in results}["total"]
    (artefact,) = engine.store.artefacts(total)
    assert Path(artefact.uri).read_text() == "1\n2\n"
    sources = {s for s, _ in engine.store.lineage(total)}
    assert sources == {a.sha256 for r in results[:2] for a in engine.store.artefacts(r.job)}

    results, ran = run()
    assert [r.skipped for r in results] == [True] * 3
    assert ran == 0
    # an input with another content: what comes after it runs again, the rest does not
    (root / "seed").write_text("3\n")
    results, ran = run()
    assert {r.name: r.skipped for r in results} == {"one": True, "two": False, "total": False}
    assert ran == 2
    # back: both contents are known
    (root / "seed").write_text("2\n")
    assert run()[1] == 0
    # an output that was lost or changed is made again, and what follows needs no second run
    Path(engine.store.artefacts({r.name: r.job for r in results}["one"])[0].uri).write_text("9\n")
    results, ran = run()
    assert {r.name: r.skipped for r in results} == {"one": False, "two": True, "total": True}
    # other code
    (root / "code" / "count.sh").write_text((root / "code" / "count.sh").read_text() + "# x\n")
    assert run()[1] == 3


def test_what_needs_a_failed_node_is_not_begun(world):
    root, engine = world
    text = (root / "p.yaml").read_text().replace("echo 1 > {outputs.left}", "false && ")
    (root / "p.yaml").write_text(
        text.replace(
            'sh count.sh"]\n    workdir: code\n    outputs: [{name: left',
            'exit 1"]\n    retry: {max_failures: 0}\n    workdir: code\n    outputs: [{name: left',
        )
    )
    results = {r.name: r for r in Runner(engine, load(root / "p.yaml")).run()}
    assert results["one"].state is State.FAILED
    assert results["two"].state is State.SUCCEEDED
    assert (results["total"].state, results["total"].job) == (None, "")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("artefact:left", "artefact:lft"),
            "no node leaves the artefact 'lft' .there are left, rig",
        ),
        (("name: two", "name: one"), "nodes: the name 'one' is there twice"),
        (("right", "left"), "outputs of all nodes: the name 'left' is there twice"),
        (("SEED", '"artefact:total"'), "nodes wait for each other: total, two"),
        (("workdir: code", "workdr: code"), r"p.yaml, line 6, column 5: unknown key 'workdr'"),
        (("name: sums", "nme: sums"), "p.yaml, line 2, column 1: unknown key 'nme'"),
        (("nodes:", "schema: 3\nnodes:"), "schema: expected 1, got 3"),
    ],
)
def test_graphs_that_make_no_sense(tmp_path, change, message):
    (tmp_path / "p.yaml").write_text(NODES.replace(*change).replace("SEED", "/seed"))
    with pytest.raises(ConfigError, match=message):
        load(tmp_path / "p.yaml")


# -- before queueing

ROOM = Capacity(amounts={"cpu": 4.0, "mem_mb": 8000.0, "gpu": 1.0}, gpu_types=("T4",))


def check(tmp_path, capacity=ROOM, able=("launcher:torchrun",), **fields):
    spec = JobSpec(**{"name": "a", "command": ("true",), **fields})
    code = scan(spec.workdir, spec.include, spec.exclude) if spec.workdir else None
    return preflight.check(
        spec,
        engine="local",
        capacity=capacity,
        capabilities=frozenset(able),
        code=code,
        environment={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
        secrets=tmp_path / "secrets",
    )


def test_scripts_are_looked_for(tmp_path):
    code = tmp_path / "x"
    (code / "sub").mkdir(parents=True)
    for name in ("trian.py", "sub/train_all.py", "notes.txt"):
        (code / name).touch()
    with pytest.raises(ConfigError) as caught:
        check(tmp_path, command=("python", "-u", "train.py"), workdir=str(code))
    assert str(caught.value) == (
        f"command file 'train.py' not found in workdir '{code}' (2 similar: trian.py, "
        "sub/train_all.py)."
    )
    ok = {"workdir": str(code)}
    check(tmp_path, command=("python", "trian.py"), **ok)
    check(tmp_path, command=("python", "-m", "train"), **ok)
    check(tmp_path, command=("python", "-X", "dev", "sub/train_all.py"), **ok)
    check(tmp_path, command=("bash", "-c", "train.py"), **ok)
    check(tmp_path, command=("python", "/any/where.py"), **ok)
    with pytest.raises(ConfigError, match=r"'notes.txt' is in workdir .* include/exclude leave it"):
        check(tmp_path, command=("sh", "notes.txt"), exclude=("*.txt",), **ok)
    with pytest.raises(ConfigError, match="the spec has no workdir"):
        check(tmp_path, command=("./run.sh",))
    with pytest.raises(ConfigError, match="workdir '/no/where' is not a folder"):
        check(tmp_path, workdir="/no/where")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"roles": (Role(name="t", resources=Resources(gpu=2)),)},
            "role 't' asks gpu=2; engine 'local' has gpu=1 in total",
        ),
        (
            {"roles": (Role(resources=Resources(gpu=1, gpu_type="A100")),)},
            r"asks 1 gpu of type 'A100'; engine 'local' has 0 \(T4\)",
        ),
        (
            {"roles": (Role(resources=Resources(custom={"tpu": 1.0})),)},
            "asks tpu=1; engine 'local' has tpu=0",
        ),
        (
            {"roles": (Role(replicas=3, resources=Resources(cpu=2, mem_mb=4000)),)},
            "a gang of 3 .* cpu needs 6, has 4, mem_mb needs 12000, has 8000",
        ),
        ({"launcher": "mpi"}, "launcher 'mpi' is not one of engine 'local' .it has none, torchrun"),
        ({"image": "x:1"}, "image is 'x:1', and engine 'local' starts no containers"),
        ({"secrets": ("KEY",)}, "secret 'KEY' has no file"),
        ({"inputs": (Input(name="i", uri="/no/file"),)}, "input 'i': no such file or folder"),
        ({"inputs": (Input(name="i", uri="x/y"),)}, "input 'i': 'x/y' is relative"),
        ({"inputs": (Input(name="i", uri="artefact:x"),)}, "only a pipeline can resolve"),
        ({"python": PythonEnv(lock="/no/lock")}, "python.lock: no such file"),
        (
            {
                "timeout_s": 3600.0,
                "budget": Budget(max_cost=1.5, rate_table=Rates(cpu=1.0)),
                "retry": Retry(max_failures=1),
            },
            r"may cost 2.00 \(2 attempts of 3600 s\), more than budget.max_cost, 1.50",
        ),
    ],
)
def test_refused_before_queueing(tmp_path, fields, message):
    with pytest.raises(ConfigError, match=message):
        check(tmp_path, **fields)


def test_more_refusals_and_what_is_only_odd(tmp_path):
    (tmp_path / "f").write_text("x")
    source = Input(name="i", uri=str(tmp_path / "f"), sha256="0" * 64)
    with pytest.raises(
        ConfigError, match="has sha256 2d711642b726b04401627ca9fbac32f5c8530fb1903c"
    ):
        check(tmp_path, inputs=(source,))
    check(tmp_path, inputs=(Input(name="i", uri="s3://bucket/x"),))
    # an elastic gang may start with fewer
    roles = (Role(replicas=9),)
    check(tmp_path, roles=roles, launcher="torchrun", elastic=Elastic(min=4, max=9))
    assert check(tmp_path, queue="long") == ["queue 'long' means nothing to engine 'local'."]
    assert check(tmp_path, queue="long", able=("queue",)) == []
    assert check(tmp_path, engine_options={"slurm": {"qos": "x"}}) == []
    assert "has no options" in check(tmp_path, engine_options={"local": {"x": 1}})[0]


# -- other launchers

SPEC = spec_text.loads("""
name: digits
project: vision
command: [python, train.py, --note, "it's $5"]
env: {COLOUR: blue}
secrets: []
preemptible: true
retry: {max_failures: 2}
checkpoint: {dir: /shared/ckpt}
roles:
  - name: trainer
    replicas: 2
    resources: {cpu: 4, mem_mb: 8000, gpu: 1, gpu_type: A100}
launcher: torchrun
""")


def test_export_to_torchx():
    text = export(SPEC, "torchx")
    tree = ast.parse(text)
    roles = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "ROLES"
    )
    (role,) = roles
    assert role["name"] == "trainer"
    assert role["num_replicas"] == 2
    assert role["max_retries"] == 2
    assert role["resource"] == {
        "cpu": 4, "gpu": 1, "memMB": 8000, "capabilities": {"gpu_type": "A100"},
    }  # fmt: skip
    assert role["entrypoint"] == "bash"
    assert role["args"][0] == "-c"
    assert role["args"][1] == (
        "torchrun --nnodes=2 --node-rank=${replica_id} "
        "--master-addr=$${${rank0_env}:=localhost} --master-port=29500 --nproc-per-node=1 "
        "--no-python python train.py --note 'it'\"'\"'s $$5'"
    )
    with pytest.raises(ConfigError, match="export to torchx: timeout_s has no counterpart"):
        export(JobSpec(name="a", command=("x",), timeout_s=1.0), "torchx")


def test_the_component_runs_where_torchx_is_imagined(monkeypatch):
    import types

    class Record:
        def __init__(self, **fields):
            self.__dict__.update(fields)

    specs = types.SimpleNamespace(
        Role=Record, Resource=Record, AppDef=Record,
        RetryPolicy=types.SimpleNamespace(APPLICATION="application"),
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "torchx", types.SimpleNamespace(specs=specs))
    names: dict = {}
    exec(export(JobSpec(name="a", command=("echo", "$x")), "torchx"), names)
    app = names["job"]()
    assert (app.name, app.metadata) == ("a", {"project": "default"})
    assert (app.roles[0].entrypoint, app.roles[0].args) == ("echo", ["$$x"])
    assert app.roles[0].resource.cpu == 1
    assert app.roles[0].retry_policy == "application"


def test_export_to_skypilot():
    task = yaml.safe_load(export(SPEC, "skypilot"))
    assert task == {
        "name": "digits",
        "num_nodes": 2,
        "resources": {
            "cpus": "4+",
            "memory": "8+",
            "accelerators": "A100:1",
            "use_spot": True,
            "job_recovery": {"max_restarts_on_errors": 2},
        },
        "envs": {"COLOUR": "blue"},
        "run": "torchrun --nnodes=2 --node-rank=$SKYPILOT_NODE_RANK "
        '--master-addr=$(echo "$SKYPILOT_NODE_IPS" | head -n1) --master-port=29500 '
        "--nproc-per-node=1 --no-python python train.py --note 'it'\"'\"'s $5'",
    }
    several = JobSpec(name="a", command=("x",), roles=(Role(name="a"), Role(name="b")))
    with pytest.raises(ConfigError, match="a task has one role, the spec has a, b"):
        export(several, "skypilot")
    with pytest.raises(ConfigError, match="of any type; accelerators have names there"):
        export(
            JobSpec(name="a", command=("x",), roles=(Role(resources=Resources(gpu=1)),)), "skypilot"
        )
    with pytest.raises(ConfigError, match=r"the command has \{out\}"):
        export(JobSpec(name="a", command=("x", "{out}")), "skypilot")
    with pytest.raises(
        ConfigError, match="no format to export to 'skypilt'. Did you mean skypilot"
    ):
        export(SPEC, "skypilt")
