"""Specs: text and back, hashes, mistakes with line and column, packed code."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.core.config import to_dict
from understudy.core.errors import ConfigError
from understudy.launch import spec_yaml
from understudy.launch.code import matches, scan
from understudy.launch.spec import JobSpec, looks_secret
from understudy.launch.spec_parts import (
    Budget,
    Checkpoint,
    Elastic,
    Input,
    Output,
    Rates,
    Resources,
    Retry,
    Role,
)
from understudy.launch.spec_text import dumps, load, loads

NAMES = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
WORDS = st.one_of(
    st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0{}"), max_size=12),
    st.sampled_from(
        ["on", "yes", "1e5", "0x1f", "12:30", "~", "null", "1_000", "", " x", "- a", "#"]
    ),
)
FLOATS = st.floats(0.001, 1e9, allow_nan=False)
RESOURCES = st.builds(
    Resources,
    cpu=FLOATS,
    mem_mb=st.integers(0, 10**6),
    gpu=st.integers(1, 8),
    gpu_type=st.sampled_from(["", "A100", "H100"]),
    custom=st.dictionaries(NAMES.map(lambda n: "x" + n), FLOATS, max_size=2),
)
ROLES = st.lists(
    st.builds(
        Role,
        name=NAMES,
        replicas=st.integers(1, 5),
        resources=RESOURCES,
        env=st.dictionaries(NAMES.map(str.upper).map("V_".__add__), WORDS, max_size=2),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda role: role.name,
).map(tuple)
SPECS = st.builds(
    JobSpec,
    name=NAMES,
    project=NAMES,
    labels=st.dictionaries(WORDS, WORDS, max_size=3),
    command=st.lists(WORDS, min_size=1, max_size=4).map(tuple),
    roles=ROLES,
    gang=st.sampled_from([None, True, False]),
    retry=st.builds(Retry, max_failures=st.integers(0, 9), backoff_s=FLOATS),
    checkpoint=st.builds(Checkpoint, dir=st.sampled_from(["", "c"]), grace_s=st.floats(0, 9)),
    timeout_s=st.one_of(st.none(), st.floats(10, 1e6)),
    priority=st.integers(-9, 9),
    inputs=st.lists(st.builds(Input, name=NAMES, uri=NAMES), max_size=2,
                    unique_by=lambda i: i.name).map(tuple),
    outputs=st.lists(st.builds(Output, name=NAMES, path=NAMES), max_size=2,
                     unique_by=lambda o: o.name).map(tuple),
    engine_options=st.dictionaries(NAMES, st.dictionaries(NAMES, st.one_of(WORDS, FLOATS)),
                                   max_size=2),
    key=WORDS,
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(SPECS)
def test_text_and_back_is_the_same(spec):
    assert loads(dumps(spec)) == spec
    assert loads(json.dumps(to_dict(spec)), "s.json") == spec


def _shuffled(data, draw):
    if isinstance(data, dict):
        keys = draw(st.permutations(list(data)))
        return {k: _shuffled(data[k], draw) for k in keys}
    return [_shuffled(item, draw) for item in data] if isinstance(data, list) else data


@settings(max_examples=30, deadline=None)
@given(SPECS, st.data())
def test_the_hash_does_not_depend_on_the_order_of_keys(spec, data):
    again = loads(json.dumps(_shuffled(to_dict(spec), data.draw)), "s.json")
    assert again.digest("c") == spec.digest("c")
    assert spec.digest("c") != spec.digest("d")


def test_the_hash_is_of_what_runs():
    spec = JobSpec(name="a", command=("x",))
    same = JobSpec(name="a", command=("x",), key="other", workdir="/elsewhere")
    assert spec.digest("c") == same.digest("c")
    assert spec.digest() != JobSpec(name="a", command=("y",)).digest()


def test_words_are_what_they_look_like():
    text = "on: yes\nnum: 1e5\ntime: 12:30\nbig: 1_0\nhex: 0x10\nnone: ~\nbare:\nt: true\nneg: -1.5"
    assert spec_yaml.read(text, "x.yaml")[0] == {
        "on": "yes", "num": 100000.0, "time": "12:30", "big": "1_0", "hex": 16, "none": None,
        "bare": None, "t": True, "neg": -1.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "name: a\ncommand: [x]\nretry:\n  max_failure: 2\n",
            "s.yaml, line 4, column 3: unknown key 'max_failure'. Did you mean 'max_failures'?",
        ),
        (
            "name: a\nroles:\n  - name: w\n    resources: {cpu: 1, gpus: 2}\n",
            "s.yaml, line 4, column 25: unknown key 'gpus'. Did you mean 'gpu'?",
        ),
        ("name: a\nretry:\n\tmax_failures: 2\n", "s.yaml, line 3, column 1: a tab;"),
        (
            "name: a\ncommand: [x]\nname: b\n",
            "s.yaml, line 3, column 1: the key 'name' is there twice, first in line 1.",
        ),
        ("name: a\ncommand: [x\n", "s.yaml, line 3, column 1: not valid YAML"),
        (
            "name: a\ncommand: [x]\npriority: high\n",
            "s.yaml, line 3, column 1: priority: expected int, got 'high'.",
        ),
        (
            "name: a\ncommand: [x, 1]\n",
            "s.yaml, line 2, column 14: command[1]: expected str, got 1.",
        ),
        (
            "name: a\nlauncher: torchrum\n",
            "s.yaml, line 2, column 1: launcher: 'torchrum' is not one of none, torchrun",
        ),
        ("schema: 2\nname: a\n", "s.yaml, line 1, column 1: schema: expected 1"),
        ("command: [x]\n", "missing key 'name'"),
        ("- a\n", "s.yaml: expected a mapping"),
        ("", "s.yaml: expected a mapping"),
        ("a: &x {b: 1}\n<<: *x\n", "line 2, column 1: '<<' merges"),
        ("name: !!python/object:os.system x\n", "not valid YAML"),
    ],
)
def test_mistakes_have_line_and_column(text, message):
    with pytest.raises(ConfigError) as caught:
        loads(text, "s.yaml")
    assert message in str(caught.value)


def test_json_mistakes_have_line_and_column():
    with pytest.raises(ConfigError, match=r"s.json, line 2, column 6: not valid JSON"):
        loads('{"name":\n\t"a" "b"}', "s.json")
    with pytest.raises(ConfigError, match=r"s.json, line 2, column 2: unknown key 'nme'. Did you"):
        loads('{\n\t"nme": "a"}', "s.json")
    with pytest.raises(ConfigError, match=r"s.json, line 1, column 15: the key 'name' is there tw"):
        loads('{"name": "a", "name": "b"}', "s.json")
    assert loads('{\n\t"name": "a",\n\t"command": ["x\\ty"]\n}', "s.json").command == ("x\ty",)


def test_files_and_relative_paths(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "rates.yaml").write_text("cpu: 0.5\ngpu: {A100: 3}\n")
    path = tmp_path / "s.yaml"
    path.write_text(
        "name: a\ncommand: [x]\nworkdir: code\ntimeout_s: 9\n"
        "budget: {max_cost: 2, rate_table: rates.yaml}\n"
    )
    spec = load(path)
    assert spec.workdir == str((tmp_path / "code").resolve())
    assert spec.budget == Budget(max_cost=2.0, rate_table=Rates(cpu=0.5, gpu={"A100": 3.0}))
    (tmp_path / "rates.yaml").write_text("cpus: 0.5\n")
    with pytest.raises(ConfigError, match=r"rates.yaml, line 1, column 1: unknown key 'cpus'"):
        load(path)
    with pytest.raises(ConfigError, match="no such file"):
        load(tmp_path / "t.yaml")
    with pytest.raises(ConfigError, match=r"expected a .yaml, .yml or .json file"):
        load(tmp_path / "s.toml")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"roles": (Role(replicas=2, min_replicas=1),)},
            "min_replicas 1 of replicas 2 needs elast",
        ),
        ({"elastic": Elastic(min=1, max=1)}, "elastic is given and launcher is 'none'"),
        (
            {"elastic": Elastic(min=1, max=3), "launcher": "torchrun"},
            "elastic.max is 3 and role 'main' has replicas 1",
        ),
        (
            {"timeout_s": 20.0, "checkpoint": Checkpoint(dir="c", grace_s=30)},
            "timeout_s is 20 and checkpoint.grace_s 30",
        ),
        ({"env": {"HF_TOKEN": "abc"}}, "env: 'HF_TOKEN' looks like a secret"),
        ({"env": {"STORE": "s3://me:pw@host/x"}}, "env: 'STORE' looks like a secret"),
        ({"roles": (Role(env={"DB_PASSWORD": "x"}),)}, "role 'main': env: 'DB_PASSWORD' looks"),
        ({"secrets": ("abc def",)}, "expected names of variables, got 7 characters"),
        ({"budget": Budget(max_cost=1, rate_table=Rates())}, "budget is given without timeout_s"),
        ({"preemptible": True, "retry": Retry(on=("failure",))}, "retry.on has no 'preemption'"),
        ({"command": (), "entrypoint": "x"}, "expected 'package.module:function', got 'x'"),
        ({"entrypoint": "a:b"}, "command and entrypoint are both given"),
        ({"command": ()}, "role 'main' has no command"),
        ({"args": {"x": 1}}, "args belong to an entrypoint"),
        ({"command": ("x", "{inputs.a}")}, r"{inputs.a} is not one of its inputs \(none\)"),
        ({"roles": (Role(), Role())}, "roles: the name 'main' is there twice"),
        ({"roles": ()}, "roles: expected at least one"),
        ({"name": "a b"}, "name: expected 1 to 63 letters"),
        ({"schema": 2}, "schema: expected 1"),
        ({"timeout_s": 0.0}, "timeout_s: expected more than 0, got 0"),
        ({"gang": False, "launcher": "torchrun"}, "gang is false and launcher is 'torchrun'"),
    ],
)
def test_specs_that_make_no_sense(fields, message):
    with pytest.raises(ConfigError, match=message) as caught:
        JobSpec(**{"name": "a", "command": ("x",), **fields})
    assert "abc" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Role(replicas=2, min_replicas=3), "min_replicas is 3, more than replicas, 2"),
        (lambda: Elastic(min=3, max=2), "elastic.min is 3, more than elastic.max, 2"),
        (lambda: Resources(gpu_type="A100"), "gpu_type is 'A100' and resources.gpu is 0"),
        (lambda: Resources(cpu=float("nan")), "resources.cpu: expected at least 0, got nan"),
        (lambda: Resources(custom={"cpu": 1.0}), "use resources.cpu"),
        (lambda: Output(name="a", path="/etc/x"), "is not inside the job's out folder"),
        (lambda: Output(name="a", path="x/../../y"), "is not inside the job's out folder"),
        (lambda: Input(name="a", uri="x", sha256="12"), "expected 64 hexadecimal digits"),
        (lambda: Checkpoint(every_s=0.0), "checkpoint.every_s: expected more than 0"),
        (lambda: Retry(on=("failure", "failure")), "retry.on: the name 'failure' is there twice"),
    ],
)
def test_parts_that_make_no_sense(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_secrets_are_known_by_their_names():
    assert looks_secret("AWS_SECRET_ACCESS_KEY")
    assert looks_secret("api_key")
    assert not any(map(looks_secret, ["TOKENIZERS_PARALLELISM", "MAX_TOKENS", "KEYS", "SECRETARY"]))


def test_warnings():
    assert JobSpec(name="a", command=("x",)).warnings() == []
    (text,) = JobSpec(name="a", command=("x",), preemptible=True).warnings()
    assert text.endswith("each retry starts from step 0.")
    assert JobSpec(
        name="a", command=("x",), preemptible=True, checkpoint=Checkpoint(dir="c")
    ).warnings() == []  # fmt: skip


# -- code


@pytest.mark.parametrize(
    ("glob", "yes", "no"),
    [
        ("*.py", ["a.py", "x/y/a.py"], ["a.pyc", "a.py.txt"]),
        ("src/**", ["src/a", "src/b/c"], ["lib/src/a", "srca"]),
        ("src/*.py", ["src/a.py"], ["src/b/a.py"]),
        ("a/**/z", ["a/z", "a/b/c/z"], ["a/bz", "z"]),
        ("data/", ["data/x", "y/data/x"], ["dataset/x"]),
        ("?.txt", ["a.txt"], ["ab.txt", "/.txt"]),
        ("**", ["a", "a/b"], []),
    ],
)
def test_globs(glob, yes, no):
    assert [p for p in yes if not matches(p, [glob])] == []
    assert [p for p in no if matches(p, [glob])] == []


def test_code_is_named_by_its_content(tmp_path):
    root = tmp_path / "code"
    for name in ("train.py", "lib/util.py", "data/big.bin", ".git/config", "lib/__pycache__/x.pyc"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    code = scan(root, exclude=("data",))
    assert code.files == ("lib/util.py", "train.py")
    moved = tmp_path / "moved"
    code.unpack(moved)
    assert sorted(p.name for p in moved.rglob("*.py")) == ["train.py", "util.py"]
    assert scan(moved).digest == code.digest
    (moved / "train.py").chmod(0o755)
    assert scan(moved).digest != code.digest
    (moved / "train.py").chmod(0o644)
    (moved / "train.py").write_text("x")
    assert scan(moved).digest != code.digest
    assert scan(root, include=("*.bin",)).files == ("data/big.bin",)
    with pytest.raises(ConfigError, match="is not a folder"):
        scan(tmp_path / "none")


def test_more_than_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("understudy.launch.code.MAX_BYTES", 10)
    (tmp_path / "weights.pt").write_bytes(b"x" * 11)
    with pytest.raises(ConfigError, match=r"largest: weights.pt .*leave data out with exclude"):
        scan(tmp_path)


def test_our_yaml_is_also_other_peoples_yaml():
    spec = JobSpec(name="a", command=("x",), env={"A": "b"}, priority=3)
    assert yaml.safe_load(dumps(spec)) == json.loads(json.dumps(to_dict(spec)))
