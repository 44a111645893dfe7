"""Kubernetes objects: golden files, schemas, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from kubernetes_fake import SCHEMAS, check

from understudy.core.errors import ConfigError
from understudy.launch import spec_text
from understudy.launch.export import export
from understudy.launch.kubernetes import kubernetes, manifests, object_name, warnings
from understudy.launch.spec import JobSpec
from understudy.launch.spec_parts import (
    Budget,
    Checkpoint,
    Elastic,
    Input,
    Output,
    PythonEnv,
    Rates,
    Resources,
    Retry,
    Role,
)

FOLDER = Path(__file__).parent / "kubernetes"
REWRITE = os.environ.get("UNDERSTUDY_REWRITE_GOLDEN")


def spec(**fields):
    return JobSpec(**{"name": "toy", "command": ("train",), "image": "site/toy:1", **fields})


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.spec.yaml")), ids=lambda p: p.stem)
def test_golden_files(path):
    text = export(spec_text.load(path), "kubernetes")
    golden = path.with_name(path.name.replace(".spec.yaml", ".objects.yaml"))
    if REWRITE:
        golden.write_text(text)
    assert text == golden.read_text()
    found = list(yaml.safe_load_all(text))
    assert [thing["kind"] for thing in found][-1] in ("Job", "TrainJob")
    for thing in found:
        check(thing)


def test_there_are_golden_files_of_every_kind():
    kinds = {t["kind"] for p in FOLDER.glob("*.objects.yaml")
             for t in yaml.safe_load_all(p.read_text())}  # fmt: skip
    assert kinds == {"Job", "Service", "TrainJob"}


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_the_schemas_are_schemas_and_refuse_what_is_unknown(name):
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])
    (thing,) = [t for t in manifests(_rich(name == "trainjob"), "toy") if t["kind"].lower() == name]
    check(thing)
    for path in (("spec", "nope"), ("metadata", "nope")):
        wrong = yaml.safe_load(yaml.safe_dump(thing))
        wrong[path[0]][path[1]] = 1
        with pytest.raises(jsonschema.ValidationError, match="nope"):
            check(wrong)


def _rich(trainjob=False):
    options = {"kind": "trainjob"} if trainjob else {}
    return spec(
        launcher="torchrun", roles=(Role(replicas=2),), engine_options={"kubernetes": options}
    )


@settings(max_examples=60, deadline=None)
@given(
    cpu=st.floats(0, 512),
    mem=st.integers(0, 10**7),
    gpu=st.integers(0, 8),
    replicas=st.integers(1, 9),
    timeout=st.one_of(st.none(), st.floats(0.1, 1e6)),
    words=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0{")), max_size=3),
    queue=st.sampled_from(["", "team-a"]),
    env=st.dictionaries(st.from_regex(r"[A-F_]{1,8}", fullmatch=True), st.sampled_from(
        ["yes", "no", "1e3", "0x10", "~", "null", "on", "1_000", "=", "a: b", "$(X)", " ", "", "é",
         "2026-01-01", "1:30", "!x", "- a", "#c", "'", '"', "\n", "\t"])),
)  # fmt: skip
def test_every_spec_gives_objects_that_fit_and_texts_that_stay_texts(
    cpu, mem, gpu, replicas, timeout, words, queue, env
):
    wanted = spec(
        command=("run", *words),
        roles=(Role(replicas=replicas, resources=Resources(cpu=cpu, mem_mb=mem, gpu=gpu)),),
        timeout_s=timeout,
        queue=queue,
        env=env,
    )
    found = list(yaml.safe_load_all(kubernetes(wanted)))
    assert found == manifests(wanted, "toy")
    for thing in found:
        check(thing)
    body = found[-1]["spec"]
    (box,) = body["template"]["spec"]["containers"]
    # the cluster replaces $(NAME) and turns $$( into $(
    assert [w.replace("$$(", "$(") for w in box["command"]] == ["run", *words]
    shown = {e["name"]: e.get("value", "").replace("$$(", "$(") for e in box["env"]}
    assert env.items() <= shown.items()
    assert body["completions"] == body["parallelism"] == replicas
    assert body.get("suspend", False) == bool(queue)
    asked = box.get("resources", {})
    if gpu:
        assert asked["limits"]["nvidia.com/gpu"] == asked["requests"]["nvidia.com/gpu"] == str(gpu)
    if cpu:
        assert cpu <= int(asked["requests"]["cpu"][:-1]) / 1000 < cpu + 0.001 + 1e-9


@given(st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,70}[A-Za-z0-9])?", fullmatch=True))
def test_names_fit_hosts(name):
    found = object_name(name)
    jsonschema.validate(found, SCHEMAS["job"]["properties"]["metadata"]["properties"]["name"])
    assert len(found) <= 54
    assert object_name(found) == found


def test_long_names_of_different_jobs_stay_different():
    long = "a" * 63
    assert object_name(f"{long}-12345678") != object_name(f"{long}-12345679")


def test_how_a_pod_is_asked_to_end():
    (job,) = manifests(spec(checkpoint=Checkpoint(dir="/state/toy", grace_s=40)), "toy")
    pod = job["spec"]["template"]["spec"]
    (box,) = pod["containers"]
    ask = box["lifecycle"]["preStop"]["exec"]["command"]
    assert ask == ["/bin/sh", "-c", "kill -USR1 1; sleep 40"]
    assert pod["terminationGracePeriodSeconds"] == 55
    assert {"name": "UNDERSTUDY_CKPT_DIR", "value": "/state/toy"} in box["env"]


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({"retry": Retry(max_failures=3)}, 3),
        ({"retry": Retry(max_failures=3, on=("preemption",))}, 0),
        ({"retry": Retry(max_failures=3), "roles": (Role(replicas=2),)}, 0),
        ({"retry": Retry(max_failures=3), "roles": (Role(replicas=2),), "gang": False}, 3),
    ],
)
def test_what_the_cluster_tries_again(fields, limit):
    wanted = spec(**fields)
    assert manifests(wanted, "toy")[-1]["spec"]["backoffLimit"] == limit
    gang = wanted.is_gang
    assert any("not tried again" in w for w in warnings(wanted)) == gang
    assert any("one by one" in w for w in warnings(wanted)) == gang


K8S = "engine_options"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image": ""}, "image is empty"),
        ({"workdir": "/x"}, "workdir: pods run an image; put the code into it"),
        ({"python": PythonEnv(lock="l")}, "python: pods run an image"),
        ({"inputs": (Input(name="a", uri="/a"),)}, "inputs: a pod does not see"),
        ({"outputs": (Output(name="a", path="a"),)}, "outputs: nobody collects them"),
        ({"launcher": "torchrun", "elastic": Elastic(min=1, max=2), "roles": (Role(replicas=2),)},
         "elastic: neither a Job nor a TrainJob changes its size"),
        ({"roles": (Role(name="a"), Role(name="b"))}, "one role there, the spec has a, b"),
        ({"launcher": "mpi"}, "launcher 'mpi' has no counterpart"),
        ({"priority": 5}, "priority is 5; priorities have names there"),
        ({"labels": {"a b": "c"}}, "labels: 'a b: c' cannot be a label"),
        ({"command": ("x", "{out}")}, r"the command has \{out\}"),
        ({"checkpoint": Checkpoint(dir="ckpt")}, "checkpoint.dir 'ckpt' is relative"),
        ({"roles": (Role(resources=Resources(custom={"fpga": 1})),)}, "resources.custom.fpga"),
        ({"roles": (Role(resources=Resources(custom={"a.b/fpga": 0.5})),)}, "a whole number"),
        ({"timeout_s": 9.0, "budget": Budget(max_cost=1, rate_table=Rates())}, "budget: nobody"),
        ({K8S: {"kubernetes": {"knd": "job"}}}, "engine_options.kubernetes.*knd.*kind"),
        ({K8S: {"kubernetes": {"kind": "pod"}}}, "engine_options.kubernetes.*kind.*pod"),
        ({K8S: {"kubernetes": {"namespace": "A_b"}}}, "namespace: 'A_b'"),
        ({K8S: {"kubernetes": {"volumes": [{"claim": "c", "path": "rel"}]}}}, "absolute path"),
        ({K8S: {"kubernetes": {"volumes": [{"claim": "C C", "path": "/x"}]}}}, "'C C' is no name"),
        ({K8S: {"kubernetes": {"kind": "trainjob"}}}, "needs launcher: torchrun"),
        ({"launcher": "torchrun", K8S: {"kubernetes": {
            "kind": "trainjob", "service_account": "x"}}}, "service_account of a TrainJob"),
        ({"launcher": "torchrun", K8S: {"kubernetes": {
            "kind": "trainjob", "priority_class": "x"}}}, "needs a queue"),
        ({"launcher": "torchrun", "roles": (Role(resources=Resources(gpu=1, gpu_type="H")),),
          K8S: {"kubernetes": {"kind": "trainjob"}}}, "gpu_type of a TrainJob"),
    ],
)  # fmt: skip
def test_what_objects_cannot_say_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        export(spec(**fields), "kubernetes")
